"""Whatever the parameters: the network's rules hold, and the same arguments give the same bytes."""

from dataclasses import fields

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from sim.arrivals import NEVER, ArrivalConfig, generate
from sim.service import ServiceConfig, train_ms
from sim.stream import Labels
from sim.streams import KEY_LIMIT

MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
ARRIVALS = TypeAdapter(ArrivalConfig)
SERVICE = TypeAdapter(ServiceConfig)
STARTS = st.integers(0, 4_000_000_000_000)
DAYS = st.sampled_from([0.01, 0.5, 1.0, 2.3])
SEEDS = st.integers(0, KEY_LIMIT - 1)


def floats(low, high):
    return st.floats(low, high, allow_nan=False)


NETWORKS = st.fixed_dictionaries(
    {
        "kind": st.just("network"),
        "max_active": st.integers(1, 40),
        "too_few_takers": floats(0, 0.9),
        "offered_share": floats(0.05, 1),
        "warm_up_hours": floats(0, 30),
        "synthetic": st.fixed_dictionaries(
            {"every_minutes": floats(1, 60), "below_active": st.integers(0, 40)}
        ),
        "organic": st.fixed_dictionaries(
            {
                "per_day": floats(0, 200),
                "amplitude": floats(0, 1),
                "peak_hour": floats(0, 23.9),
                "retry_minutes": floats(2, 60),
                "max_retries": st.integers(0, 8),
            }
        ),
    }
).map(ARRIVALS.validate_python)
OPEN_HOURS = st.one_of(
    st.just({"kind": "market"}),
    st.fixed_dictionaries({"kind": st.just("exponential"), "mean": floats(1e-4, 1e4)}),
    st.fixed_dictionaries(
        {"kind": st.just("lognormal"), "mean": floats(1e-4, 1e4), "sigma": floats(0, 3)}
    ),
)
POISSONS = st.fixed_dictionaries(
    {"kind": st.just("poisson"), "offers_per_hour": floats(0.01, 500), "hours": OPEN_HOURS}
).map(ARRIVALS.validate_python)
ANY = NETWORKS | POISSONS


def as_bytes(record):
    """Every column of a record, and of the records in it, as bytes."""
    for part in fields(record):
        value = getattr(record, part.name)
        if isinstance(value, np.ndarray):
            yield value.tobytes()
        elif isinstance(value, pa.Array):
            yield "".join(value.to_pylist()).encode()
        elif isinstance(value, Labels):
            yield from (value.codes.tobytes(), repr(value.names).encode())
        else:
            yield from as_bytes(value)


@settings(max_examples=40, deadline=None)
@given(ANY, STARTS, DAYS, SEEDS, SEEDS)
def test_same_arguments_same_bytes(config, start_ms, days, seed, replication):
    def once():
        made = generate(config, start_ms=start_ms, days=days, seed=seed, replication=replication)
        return list(as_bytes(made))

    assert once() == once()


@settings(max_examples=60, deadline=None)
@given(ANY, STARTS, DAYS, SEEDS)
def test_more_days_only_add_offers_at_the_end(config, start_ms, days, seed):
    long = generate(config, start_ms=start_ms, days=3.0, seed=seed)
    short = generate(config, start_ms=start_ms, days=days, seed=seed)
    n = len(short.stream)
    for part in ("at_ms", "hours", "ds_size", "params", "train_ms"):
        assert np.array_equal(getattr(long.stream, part)[:n], getattr(short.stream, part))
    assert long.stream.task_id[:n].equals(short.stream.task_id)
    assert np.array_equal(long.stream.model.codes[:n], short.stream.model.codes)
    assert np.array_equal(long.is_organic[:n], short.is_organic)
    assert np.array_equal(long.finds_takers[:n], short.finds_takers)
    assert n == len(long.stream) or long.stream.at_ms[n] >= start_ms + round(days * DAY)


@settings(max_examples=80, deadline=None)
@given(ANY, STARTS, DAYS, SEEDS)
def test_the_stream_is_a_valid_one(config, start_ms, days, seed):
    arrivals = generate(config, start_ms=start_ms, days=days, seed=seed)
    stream, tasks = arrivals.stream, arrivals.network
    order = list(zip(stream.at_ms.tolist(), stream.task_id.to_pylist(), strict=True))
    assert order == sorted(order)
    assert all(start_ms <= at_ms < start_ms + days * DAY for at_ms, _ in order)
    assert np.all((stream.hours > 0) & (stream.hours <= 10_000))
    assert np.array_equal(stream.train_ms, [round(h * HOUR) for h in stream.hours.tolist()])
    assert stream.task_id.equals(tasks.task_id.take(pa.array(arrivals.task)))
    assert len(set(tasks.task_id.to_pylist())) == len(tasks)
    if stream.previous is not None:  # a repeat within 60 s would be no valid offers file
        again = stream.previous >= 0
        gaps = stream.at_ms[again] - stream.at_ms[stream.previous[again]]
        assert np.all(gaps > MINUTE)
        assert np.all(arrivals.is_organic[again])


@settings(max_examples=80, deadline=None)
@given(NETWORKS, STARTS, SEEDS)
def test_the_networks_limits_hold(config, start_ms, seed):
    cold = config.model_copy(update={"warm_up_hours": 0.0})
    tasks = generate(cold, start_ms=start_ms, days=1.5, seed=seed).network
    begin = tasks.started_ms[tasks.started_ms != NEVER]
    end = begin + np.rint(tasks.hours[tasks.started_ms != NEVER] * HOUR).astype(np.int64)
    times = np.unique(begin)
    active = (begin <= times[:, None]).sum(1) - (end <= times[:, None]).sum(1)
    assert active.max(initial=0) <= config.max_active
    own = ~tasks.is_organic
    assert np.all(active[np.isin(times, tasks.started_ms[own])] <= config.synthetic.below_active)
    step = round(config.synthetic.every_minutes * MINUTE)
    assert np.all((tasks.created_ms[own] - start_ms) % step == 0)
    started = tasks.started_ms != NEVER
    assert np.all(tasks.started_ms[started] >= tasks.created_ms[started])
    assert np.all(tasks.started_ms[started & own] == tasks.created_ms[started & own])


@settings(max_examples=40, deadline=None)
@given(NETWORKS, SEEDS, floats(0.05, 1))
def test_who_is_asked_does_not_change_the_network(config, seed, share):
    other = config.model_copy(update={"offered_share": share})
    one = generate(config, start_ms=0, days=1.0, seed=seed)
    two = generate(other, start_ms=0, days=1.0, seed=seed)
    assert list(as_bytes(one.network)) == list(as_bytes(two.network))
    fewer, more = sorted((one, two), key=lambda made: len(made.stream))
    assert set(fewer.stream.task_id.to_pylist()) <= set(more.stream.task_id.to_pylist())


SERVICES = st.one_of(
    st.just({"kind": "deadline"}),
    st.just({"kind": "given"}),
    st.tuples(floats(0, 10), floats(0, 10)).map(
        lambda pair: {"kind": "fraction", "low": min(pair), "high": max(pair)}
    ),
    st.fixed_dictionaries(
        {"kind": st.just("lognormal"), "mean": floats(1e-6, 1e4), "sigma": floats(0, 3)}
    ),
    st.fixed_dictionaries({"kind": st.just("exponential"), "mean": floats(1e-6, 1e4)}),
).map(SERVICE.validate_python)


@given(SERVICES, floats(1e-6, 1e4), st.lists(floats(0, 1 - 2**-53), max_size=20))
def test_training_times_are_whole_and_rise_with_the_luck(config, hours, u):
    luck = np.sort(np.array(u, dtype=np.float64))
    got = train_ms(config, np.full(len(luck), hours), luck)
    assert got.dtype == np.int64
    assert got.min(initial=0) >= 0
    assert np.all(np.diff(got) >= 0)
