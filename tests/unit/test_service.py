"""How long a slot is busy: each model, its bounds, and the offer's own luck."""

import numpy as np
import pyarrow as pa
import pytest
from pydantic import TypeAdapter, ValidationError

from sim.service import (
    MOST_MS,
    DeadlineService,
    ExponentialService,
    FractionService,
    GivenService,
    LognormalService,
    ServiceConfig,
    train_ms,
    with_service,
)
from sim.stream import Labels, OfferStream
from sim.streams import uniforms

HOUR = 3_600_000
ANY = TypeAdapter(ServiceConfig)
KINDS = ["deadline", "fraction", "lognormal", "exponential", "given"]


def stream_of(hours):
    n = len(hours)
    codes = np.zeros(n, dtype=np.int32)
    return OfferStream(
        at_ms=np.arange(n) * HOUR,
        task_id=pa.array([f"t{i}" for i in range(n)], pa.string()),
        model=Labels(codes, ("org/m-1b",)),
        task_type=Labels(codes, ("ChatTask",)),
        hours=np.asarray(hours, dtype=np.float64),
        ds_size=np.full(n, -1),
        params=np.full(n, -1),
        train_ms=np.full(n, 123, dtype=np.int64),
    )


def test_deadline_takes_the_whole_time():
    got = train_ms(DeadlineService(), np.array([1.0, 72.0, 0.5]), np.zeros(3))
    assert got.tolist() == [HOUR, 72 * HOUR, HOUR // 2]
    assert got.dtype == np.int64


def test_fraction_runs_from_low_to_high():
    config = FractionService(low=0.5, high=1.5)
    got = train_ms(config, np.full(3, 2.0), np.array([0.0, 0.5, 0.75]))
    assert got.tolist() == [HOUR, 2 * HOUR, int(2.5 * HOUR)]
    assert ANY.validate_python({"kind": "fraction"}) == FractionService(low=0.9, high=1.0)


def test_halves_round_to_even():
    ms = 1 / HOUR
    got = train_ms(DeadlineService(), np.array([0.5, 1.5, 2.5, 3.5]) * ms, np.zeros(4))
    assert got.tolist() == [0, 2, 2, 4]


@pytest.mark.parametrize("config", [LognormalService(mean=4.0), ExponentialService(mean=4.0)])
def test_the_mean_is_what_was_asked_for_and_hours_do_not_matter(config):
    n = 200_000
    u = (np.arange(n) + 0.5) / n  # every quantile once, so no sampling error
    got = train_ms(config, np.full(n, 9.0), u)
    assert got.mean() / HOUR == pytest.approx(4.0, rel=1e-3)
    assert np.all(np.diff(got) >= 0)
    assert np.array_equal(got, train_ms(config, np.full(n, 1.0), u))


def test_quantiles():
    u = np.array([0.0, 0.5])
    exponential = train_ms(ExponentialService(mean=2.0), np.ones(2), u)
    assert exponential.tolist() == [0, round(2 * np.log(2) * HOUR)]
    lognormal = train_ms(LognormalService(mean=2.0, sigma=1.0), np.ones(2), u)
    assert lognormal[1] == round(2 * np.exp(-0.5) * HOUR)
    assert 0 < lognormal[0] < HOUR / 1000  # the lowest draw stays finite
    certain = train_ms(LognormalService(mean=2.0, sigma=0.0), np.ones(2), u)
    assert certain.tolist() == [2 * HOUR, 2 * HOUR]


def test_a_far_tail_stays_in_range():
    u = np.array([1 - 2.0**-53])
    got = train_ms(LognormalService(mean=10_000, sigma=3), np.ones(1), u)
    assert got.tolist() == [MOST_MS]


def test_given_takes_the_file_or_else_the_deadline():
    given = np.array([7], dtype=np.int64)
    assert train_ms(GivenService(), np.ones(1), np.zeros(1), given).tolist() == [7]
    assert train_ms(GivenService(), np.ones(1), np.zeros(1)).tolist() == [HOUR]
    assert train_ms(DeadlineService(), np.ones(1), np.zeros(1), given).tolist() == [HOUR]


@pytest.mark.parametrize("kind", KINDS)
def test_the_luck_of_an_offer_is_its_own(kind):
    config = ANY.validate_python({"kind": kind})
    long = with_service(stream_of(np.full(50, 6.0)), config, seed=3, replication=1)
    short = with_service(stream_of(np.full(20, 6.0)), config, seed=3, replication=1)
    assert np.array_equal(long.train_ms[:20], short.train_ms)
    assert np.array_equal(long.hours, stream_of(np.full(50, 6.0)).hours)


def test_with_service_draws_from_the_named_stream():
    hours = np.linspace(1, 9, 30)
    got = with_service(stream_of(hours), FractionService(), seed=3, replication=1)
    u = uniforms(3, 1, "service", 30)
    assert got.train_ms.tolist() == [
        round(h * (0.9 + x * (1.0 - 0.9)) * HOUR) for h, x in zip(hours, u, strict=True)
    ]
    given = with_service(stream_of(hours), GivenService(), seed=3)
    assert given.train_ms.tolist() == [123] * 30


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"kind": "fraction", "low": 1.0, "high": 0.5}, "high must be at least low"),
        ({"kind": "fraction", "low": -0.1}, "greater than or equal to 0"),
        ({"kind": "lognormal", "mean": 0}, "greater than 0"),
        ({"kind": "lognormal", "sigma": float("nan")}, "finite number"),
        ({"kind": "exponential", "mean": "5"}, "valid number"),
        ({"kind": "deadline", "low": 1}, "Extra inputs"),
        ({"kind": "guess"}, "does not match any of the expected tags"),
    ],
)
def test_a_wrong_config_is_explained(config, message):
    with pytest.raises(ValidationError, match=message):
        ANY.validate_python(config)


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_has_a_default_and_most_a_unit(kind):
    fields = type(ANY.validate_python({"kind": kind})).model_fields
    for name, field in fields.items():
        assert not field.is_required(), name
        assert name == "kind" or (field.description and "." in field.description), name
