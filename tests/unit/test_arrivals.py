"""The generator keeps the market's rules.

Statistical checks use fixed seeds and bounds of four standard errors of the sample at hand (one
chance in 16,000 each that a right generator is called wrong, settled by the fixed seed).
"""

from collections import Counter
from itertools import pairwise
from time import process_time

import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError
from scipy import stats

from shared.errors import InputError
from shared.families import family_of
from sim.arrivals import (
    NEVER,
    ArrivalConfig,
    FileArrivals,
    NetworkArrivals,
    PoissonArrivals,
    generate,
)
from sim.arrivals.processes import organic_times, poisson_times
from sim.catalogue import CATALOGUE, ORDINARY_LIMIT
from sim.streams import uniforms

START = 1_735_689_600_000  # 2025-01-01 00:00 UTC
MINUTE, HOUR, DAY = 60_000, 3_600_000, 86_400_000
ANY = TypeAdapter(ArrivalConfig)
TYPE_SHARES = {
    "InstructTextTask": 0.125,
    "ChatTask": 0.125,
    "DpoTask": 0.10,
    "GrpoTask": 0.30,
    "ImageTask": 0.35,
}


def network(**parts):
    return ANY.validate_python({"kind": "network", **parts})


def made(config, days, seed=1, replication=0):
    return generate(config, start_ms=START, days=days, seed=seed, replication=replication)


@pytest.fixture(scope="module")
def year():
    return made(NetworkArrivals(), 365)


def column(labels):
    return np.array(labels.names)[labels.codes]


def assert_share(hits, share):
    n = len(hits)
    assert n > 100
    assert abs(np.mean(hits) - share) <= 4 * np.sqrt(share * (1 - share) / n)


# --- the mix


@pytest.mark.parametrize("origin", ["synthetic", "organic"])
@pytest.mark.parametrize(("task_type", "share"), TYPE_SHARES.items())
def test_task_types_come_in_their_shares(year, origin, task_type, share):
    rows = year.network.is_organic == (origin == "organic")
    assert_share(column(year.network.task_type)[rows] == task_type, share)


def test_one_text_model_in_twenty_is_big(year):
    is_text = column(year.network.task_type) != "ImageTask"
    assert_share(year.network.params[is_text] > ORDINARY_LIMIT, 0.05)


def test_models_come_by_weight_and_with_their_count(year):
    names = column(year.network.model)
    is_text = column(year.network.task_type) != "ImageTask"
    ordinary = is_text & (year.network.params <= ORDINARY_LIMIT)
    total = sum(m.weight for m in CATALOGUE if m.kind == "text" and not m.is_big)
    for model in CATALOGUE:
        assert np.all(year.network.params[names == model.id] == model.params)
        assert np.all(is_text[names == model.id] == (model.kind == "text"))
        if model.kind == "text" and not model.is_big:
            assert_share(names[ordinary] == model.id, model.weight / total)


def test_the_catalogue_spans_what_the_rules_say():
    text = [model for model in CATALOGUE if model.kind == "text"]
    assert len(text) >= 30
    assert len({model.id for model in CATALOGUE}) == len(CATALOGUE)
    assert all(0.1e9 <= model.params <= 71e9 for model in text)
    assert {model.is_big for model in text} == {True, False}
    assert sum(model.kind == "image" for model in CATALOGUE) >= 3
    assert len({family_of(model.id) for model in text}) >= 15


# --- sizes and hours


def test_sizes_tell_the_text_constant_or_10_to_50_pairs(year):
    is_image = column(year.network.task_type) == "ImageTask"
    assert np.all(year.network.ds_size[~is_image] == 100_000)
    pairs = year.network.ds_size[is_image]
    counts = np.bincount(pairs, minlength=51)[10:]
    assert len(counts) == 41
    assert stats.chisquare(counts).pvalue > 1e-4


def text_hours(bins):
    """Chance of each number of hours, by hand from the published table of rows and hours."""
    table = [(1, 10, 1, 3), (10, 25, 3, 6), (25, 50, 4, 8), (50, 100, 5, 9), (100, 500, 7, 10)]
    chance = Counter()
    for low, high in bins:
        for first, below, fewest, most in table:
            part = max(0, min(high, below) - max(low, first)) / (high - low) / len(bins)
            for hours in range(fewest, most + 1):
                chance[hours] += part / (most - fewest + 1)
    assert sum(chance.values()) == pytest.approx(1)
    return chance


@pytest.mark.parametrize(
    ("organic", "bins"),
    [
        (False, [(20, 50), (50, 100), (100, 500)]),
        (True, [(1, 10), (10, 25), (25, 50), (50, 100), (100, 500)]),
    ],
)
def test_hours_follow_the_dataset_rows(year, organic, bins):
    rows = (column(year.network.task_type) != "ImageTask") & (year.network.is_organic == organic)
    chance = text_hours(bins)
    for hours in range(1, 12):
        if chance[hours]:
            assert_share(year.network.hours[rows] == hours, chance[hours])
        else:
            assert not np.any(year.network.hours[rows] == hours)


def test_image_tasks_allow_one_or_two_hours(year):
    hours = year.network.hours[column(year.network.task_type) == "ImageTask"]
    assert set(hours) == {1.0, 2.0}
    assert_share(hours == 1.0, 0.5)


# --- the closed loop, checked against the definition at every tick


def active_at(tasks, times):
    """How many started tasks have not reached their deadline, at each time (its ends are over)."""
    started = tasks.started_ms != NEVER
    begin = tasks.started_ms[started]
    end = begin + np.rint(tasks.hours[started] * HOUR).astype(np.int64)
    return (begin <= times[:, None]).sum(1) - (end <= times[:, None]).sum(1)


def check_closed_loop(arrivals, days, delayed_at):
    """A synthetic task is made at a tick exactly when fewer than 25 are active and none waits."""
    tasks = arrivals.network
    ticks = START + 5 * MINUTE * np.arange(days * 288)
    made_at = tasks.created_ms[~tasks.is_organic]
    has_made = np.isin(ticks, made_at)
    assert has_made.sum() == len(made_at)  # never between ticks, never two at one
    just_started = np.isin(ticks, tasks.started_ms[~tasks.is_organic])
    before = active_at(tasks, ticks) - just_started
    expected = (before < 25) & ~np.array([delayed_at(tick) for tick in ticks])
    assert np.array_equal(has_made, expected)
    return has_made


def test_synthetic_tasks_fill_the_network_to_25():
    arrivals = made(network(warm_up_hours=0), days=6)
    has_made = check_closed_loop(arrivals, 6, lambda tick: False)
    assert has_made[:25].all()  # it starts empty
    assert not has_made.all()
    synthetic = arrivals.network.taken(np.flatnonzero(~arrivals.network.is_organic))
    alone = active_at(synthetic, np.sort(synthetic.created_ms))
    assert alone.max() <= 25


def attempts_by_task(arrivals):
    seen = {}
    columns = (arrivals.task, arrivals.stream.at_ms, arrivals.finds_takers, arrivals.is_organic)
    for task, at_ms, takers, organic in zip(*(c.tolist() for c in columns), strict=True):
        seen.setdefault(task, []).append((at_ms, takers, organic))
    return seen


def test_while_an_organic_task_is_delayed_no_synthetic_one_is_made():
    config = network(
        warm_up_hours=0, too_few_takers=0.5, offered_share=1, organic={"per_day": 24.0}
    )
    arrivals = made(config, days=6)
    waits = []
    for tries in attempts_by_task(arrivals).values():
        times = [at_ms for at_ms, _, _ in tries]
        waits += pairwise(times)
        last_failed = tries[-1][2] and not tries[-1][1] and len(tries) <= 6
        if last_failed:  # its retry lies beyond the stream's end
            waits.append((times[-1], times[-1] + 15 * MINUTE))

    def is_delayed(tick):
        return any(failed <= tick < retried for failed, retried in waits)

    assert len(waits) > 50
    check_closed_loop(arrivals, 6, is_delayed)


def test_retries_come_after_15_minutes_and_at_most_6_times():
    config = network(too_few_takers=0.5, offered_share=1, organic={"per_day": 48.0})
    arrivals = made(config, days=60)
    tries = attempts_by_task(arrivals)
    organic = [t for t in tries.values() if t[0][2] and t[0][0] < START + 59 * DAY]
    for attempts in organic:
        assert np.all(np.diff([at_ms for at_ms, _, _ in attempts]) == 15 * MINUTE)
        assert not any(takers for _, takers, _ in attempts[:-1])
    lengths = np.array([len(attempts) for attempts in organic])
    assert lengths.max() == 7
    for n in range(1, 7):
        assert_share(lengths == n, 0.5**n)
    dropped = [attempts for attempts in organic if not attempts[-1][1]]
    assert {len(attempts) for attempts in dropped} == {7}
    assert all(len(t) == 1 for t in tries.values() if not t[0][2])  # synthetic: dropped at once
    started = arrivals.network.started_ms[arrivals.task] != NEVER
    assert np.all(started[arrivals.finds_takers])


def test_a_failed_attempt_has_asked_everybody():
    config = network(too_few_takers=0.3, offered_share=0.1, organic={"per_day": 0.0})
    arrivals = made(config, days=60)
    never = arrivals.network.started_ms == NEVER
    seen = np.isin(np.arange(len(never)), arrivals.task)
    assert seen[never].all()
    assert_share(seen[~never], 0.1)


def test_at_most_60_tasks_and_paid_ones_wait_their_turn():
    arrivals = made(network(organic={"per_day": 400.0}, warm_up_hours=0), days=5)
    tasks = arrivals.network
    started = np.unique(tasks.started_ms[tasks.started_ms != NEVER])
    assert active_at(tasks, started).max() == 60
    served = tasks.taken(np.flatnonzero(tasks.is_organic & (tasks.started_ms != NEVER)))
    waited = served.started_ms - served.created_ms
    assert waited.min() == 0
    assert waited.max() > 0
    assert np.all(np.diff(served.started_ms) >= 0)  # first come, first served


def test_a_limit_below_25_holds_for_synthetic_tasks_too():
    arrivals = made(network(max_active=10, warm_up_hours=0), days=3)
    started = np.unique(arrivals.network.started_ms[arrivals.network.started_ms != NEVER])
    assert active_at(arrivals.network, started).max() == 10


# --- organic tasks


def test_organic_tasks_come_at_their_rate(year):
    n, mean = year.network.is_organic.sum(), 12.0 * 365
    assert abs(n - mean) <= 4 * np.sqrt(mean)


@pytest.mark.parametrize(("amplitude", "peak"), [(0.5, 15.0), (1.0, 0.0), (0.0, 6.5)])
def test_organic_tasks_follow_the_hour_of_the_day(amplitude, peak):
    organic = network(organic={"per_day": 60.0, "amplitude": amplitude, "peak_hour": peak}).organic

    def draw(purpose, n):
        return uniforms(5, 0, purpose, n)

    # an odd start, so that the hour is the day's and not the stream's
    first = START + 7 * HOUR + 123
    at_ms = organic_times(organic, first, first + 400 * DAY, draw)
    mean = 60.0 * 400
    assert abs(len(at_ms) - mean) <= 4 * np.sqrt(mean)
    counts = np.bincount((at_ms % DAY // HOUR).astype(int), minlength=24)
    edge = (np.arange(25) - peak) * 2 * np.pi / 24
    share = 1 / 24 + amplitude * np.diff(np.sin(edge)) / (2 * np.pi)
    assert stats.chisquare(counts, share * len(at_ms)).pvalue > 1e-4


def test_without_organic_tasks_the_loop_runs_alone():
    arrivals = made(network(organic={"per_day": 0.0}), days=3)
    assert not arrivals.network.is_organic.any()
    assert len(arrivals.stream) > 100


@pytest.mark.parametrize("per_ms", [6e-300, 1e-308, 5e-324])
def test_a_rate_near_zero_brings_nobody(per_ms):
    at = poisson_times(per_ms, 0, 400 * DAY, lambda _, n: np.full(n, 1 - 2**-53), "gap")
    assert at.tolist() == []


# --- what reaches this miner


@pytest.mark.parametrize("share", [0.1, 0.5, 1.0])
def test_the_offered_share_of_attempts_reaches_this_miner(share):
    arrivals = made(network(offered_share=share), days=60)
    seen = np.isin(np.arange(len(arrivals.network)), arrivals.task)
    assert_share(seen, share)
    assert arrivals.finds_takers.all()


def test_offers_point_at_their_task(year):
    stream, tasks = year.stream, year.network
    assert stream.task_id.equals(tasks.task_id.take(year.task))
    assert np.array_equal(year.is_organic, tasks.is_organic[year.task])
    assert np.array_equal(stream.at_ms, tasks.created_ms[year.task])
    assert np.array_equal(stream.hours, tasks.hours[year.task])
    assert np.array_equal(stream.train_ms, np.rint(stream.hours * HOUR))
    assert np.all(np.diff(tasks.created_ms) >= 0)
    assert tasks.created_ms[0] >= START
    assert tasks.created_ms[-1] < START + 365 * DAY


def test_after_the_warm_up_the_network_is_busy():
    first = made(network(), days=30).network
    cold = made(network(warm_up_hours=0), days=30).network
    assert np.sum(cold.created_ms < START + 2 * HOUR) >= 24
    # 107 synthetic and 12 organic tasks a day make 10 in two hours; 24 would be the empty start
    assert np.sum(first.created_ms < START + 2 * HOUR) < 20


def test_offers_come_up_to_the_end_and_not_beyond():
    # paid tasks alone and many of them, so that the last tick is not the last event
    config = network(
        synthetic={"below_active": 0}, organic={"per_day": 5_000.0}, max_active=100_000
    )
    for days in (0.25, 0.5):
        arrivals = made(config, days=days)
        end = START + round(days * DAY)
        created = arrivals.network.created_ms
        assert end - 5 * MINUTE < arrivals.stream.at_ms[-1] < end
        assert np.all(arrivals.network.started_ms == created)
        assert created[-1] < end


def test_no_attempt_is_made_after_the_end():
    config = network(too_few_takers=0.9, offered_share=1, organic={"per_day": 500.0})
    arrivals = made(config, days=0.5)
    assert arrivals.stream.at_ms[-1] < START + DAY // 2
    assert arrivals.network.started_ms.max() < START + DAY // 2


# --- the open stream


def test_a_stream_denser_than_expected_is_drawn_to_its_end():
    asked = []

    def draw(purpose, n):
        asked.append(n)
        return np.full(n, 0.001)  # gaps a thousandth of the mean: far more arrivals than expected

    at_ms = poisson_times(1 / MINUTE, START, START + HOUR, draw, "gap")
    assert len(asked) > 1
    gap = -np.log1p(-0.001) * MINUTE
    assert len(at_ms) == int(HOUR // gap)
    assert START + HOUR - 2 * gap < at_ms[-1] < START + HOUR


def test_poisson_offers_come_at_their_rate_without_memory():
    config = PoissonArrivals(offers_per_hour=20.0)
    at_ms = made(config, days=200).stream.at_ms
    mean = 20.0 * 24 * 200
    assert abs(len(at_ms) - mean) <= 4 * np.sqrt(mean)
    gaps = np.diff(at_ms) / HOUR
    assert stats.kstest(gaps, "expon", args=(0, 1 / 20)).pvalue > 1e-3
    hourly = np.bincount((at_ms - START) // HOUR, minlength=24 * 200)
    dispersion = hourly.var() / hourly.mean()
    assert abs(dispersion - 1) <= 4 * np.sqrt(2 / len(hourly))


@pytest.mark.parametrize(
    ("hours", "law"),
    [
        ({"kind": "uniform", "low": 2.0, "high": 5.0}, stats.uniform(2, 3)),
        ({"kind": "exponential", "mean": 4.0}, stats.expon(scale=4)),
        (
            {"kind": "lognormal", "mean": 4.0, "sigma": 0.6},
            stats.lognorm(0.6, scale=4 * np.exp(-0.18)),
        ),
    ],
)
def test_poisson_offers_have_the_hours_asked_for(hours, law):
    config = ANY.validate_python({"kind": "poisson", "offers_per_hour": 50.0, "hours": hours})
    assert stats.kstest(made(config, days=20).stream.hours, law.cdf).pvalue > 1e-3


def test_poisson_hours_constant_market_and_cut():
    config = ANY.validate_python({"kind": "poisson", "hours": {"kind": "constant", "hours": 7}})
    assert set(made(config, days=3).stream.hours) == {7.0}
    assert set(made(PoissonArrivals(), days=30).stream.hours) <= set(range(1, 11))
    far = {"kind": "lognormal", "mean": 9_000.0, "sigma": 3.0}
    config = ANY.validate_python({"kind": "poisson", "offers_per_hour": 50.0, "hours": far})
    assert made(config, days=20).stream.hours.max() == 10_000.0


def test_poisson_offers_are_all_offered_once_and_none_is_organic():
    arrivals = made(PoissonArrivals(offers_per_hour=5_000.0), days=1)
    assert np.array_equal(np.sort(arrivals.task), np.arange(len(arrivals.network)))
    assert not arrivals.is_organic.any()
    assert arrivals.stream.previous is None
    ties = np.diff(arrivals.stream.at_ms) == 0  # at this rate some share a millisecond
    ids = arrivals.stream.task_id.to_pylist()
    assert ties.any()
    assert all(ids[i] < ids[i + 1] for i in np.flatnonzero(ties))


# --- the same again


def test_golden_offers():
    stream = made(NetworkArrivals(), days=2, seed=7).stream
    first = stream.offer(0)
    assert int(stream.at_ms[0]) == 1_735_690_200_000
    assert first.task_id == "1cb4c701-c5bd-46a1-8e36-6075efe3c328"
    assert (first.model, first.task_type, first.hours_to_complete) == (
        "unsloth/Llama-3.2-3B-Instruct",
        "GrpoTask",
        8.0,
    )
    assert int(stream.at_ms[3]) == 1_735_693_811_534  # an organic one, through log and cosine


def test_seed_and_replication_change_the_stream():
    base = made(NetworkArrivals(), days=2).stream
    for other in ({"seed": 2}, {"replication": 1}):
        ids = made(NetworkArrivals(), days=2, **other).stream.task_id.to_pylist()
        assert not set(ids) & set(base.task_id.to_pylist())


def test_a_year_takes_under_0_6_s():
    started = process_time()
    made(NetworkArrivals(), days=365, seed=9)
    assert process_time() - started < 0.6


# --- what is refused


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"mix": {"image": 0.5}}, "must add up to 1, not 1.15"),
        ({"mix": {"instruct": "0.1"}}, "valid number"),
        ({"mix": {"pairs_low": 60}}, "pairs_high must be at least pairs_low"),
        ({"mix": {"models": [{"id": "a/b", "params": 10}]}}, "at least one big model"),
        ({"mix": {"models": []}}, "at least one ordinary model"),
        ({"mix": {"models": [{"id": "a/b", "params": -1}]}}, "greater than or equal to 0"),
        ({"hours": {"by_rows": []}}, "at least 1 item"),
        ({"hours": {"image_low": 3}}, "image_high must be at least image_low"),
        (
            {"hours": {"row_ranges": [{"rows_from": 10, "rows_below": 2_000}]}},
            "row_ranges must lie inside by_rows, 1000 to 500000 rows",
        ),
        (
            {"organic": {"row_ranges": [{"rows_from": 1_000, "rows_below": 900_000}]}},
            "row_ranges must lie inside by_rows",
        ),
        ({"hours": {"row_ranges": [{"rows_from": 10, "rows_below": 10}]}}, "must be above"),
        (
            {
                "hours": {
                    "by_rows": [
                        {"rows_from": 1, "rows_below": 10, "low": 1, "high": 2},
                        {"rows_from": 11, "rows_below": 20, "low": 1, "high": 2},
                    ]
                }
            },
            "must join up: a line must begin at 10",
        ),
        (
            {"hours": {"by_rows": [{"rows_from": 1, "rows_below": 9, "low": 3, "high": 2}]}},
            "high must be at least low",
        ),
        ({"offered_share": 0.0}, "greater than 0"),
        ({"offered_share": float("nan")}, "finite number"),
        ({"too_few_takers": 1.0}, "less than 1"),
        ({"organic": {"peak_hour": 24.0}}, "less than 24"),
        ({"organic": {"amplitude": 1.5}}, "less than or equal to 1"),
        ({"organic": {"retry_minutes": 1.0}}, "greater than or equal to 2"),
        ({"synthetic": {"every": 5}}, "Extra inputs"),
        ({"max_active": 0}, "greater than or equal to 1"),
        ({"max_active": True}, "valid integer"),
    ],
)
def test_a_wrong_network_is_explained(config, message):
    with pytest.raises(ValidationError, match=message):
        network(**config)


def test_wrong_kinds_and_hours_are_explained():
    with pytest.raises(ValidationError, match="'network', 'poisson', 'file'"):
        ANY.validate_python({"kind": "closed"})
    with pytest.raises(ValidationError, match="high must be at least low"):
        ANY.validate_python({"kind": "poisson", "hours": {"kind": "uniform", "low": 12}})
    with pytest.raises(ValidationError, match="less than or equal to 10000"):
        ANY.validate_python({"kind": "poisson", "hours": {"kind": "constant", "hours": 10_001}})


def test_models_of_a_scenario_take_the_catalogues_place():
    models = [
        {"id": "own/small-1b", "params": 10**9},
        {"id": "own/rare-2b", "params": 2 * 10**9, "weight": 0.25},
        {"id": "own/picture", "params": 3 * 10**9, "kind": "image"},
    ]
    arrivals = made(network(mix={"models": models, "big_model": 0.0}), days=60)
    names = column(arrivals.network.model)
    assert set(names) == {"own/small-1b", "own/rare-2b", "own/picture"}
    text = names[names != "own/picture"]
    assert_share(text == "own/rare-2b", 0.2)


@pytest.mark.parametrize("type_share", [{"image": 1.0}, {"image": 0.0, "grpo": 1.0}])
def test_a_mix_of_one_kind_needs_no_other_models(type_share):
    nothing = dict.fromkeys(("instruct", "chat", "dpo", "grpo", "image"), 0.0)
    kind = "image" if type_share["image"] else "text"
    models = [{"id": "own/one", "params": 10**9, "kind": kind}]
    mix = {**nothing, **type_share, "models": models, "big_model": 0.0}
    arrivals = made(network(mix=mix), days=2)
    assert set(column(arrivals.network.model)) == {"own/one"}


@pytest.mark.parametrize("days", [0.0, -1.0, float("nan")])
def test_days_must_be_above_0(days):
    with pytest.raises(InputError, match=r"days: found .*, allowed is a number above 0"):
        made(NetworkArrivals(), days=days)


def test_a_stream_too_long_for_memory_is_refused():
    with pytest.raises(InputError, match="allowed is at most 20,000,000 tasks"):
        made(PoissonArrivals(offers_per_hour=1e6), days=10)
    with pytest.raises(InputError, match="allowed is at most 20,000,000 tasks"):
        made(NetworkArrivals(), days=100_000)


def test_times_outside_the_calendar_are_refused():
    with pytest.raises(InputError, match="times from 1970 to the year 9999"):
        generate(NetworkArrivals(), start_ms=-1, days=1, seed=1)
    with pytest.raises(InputError, match="times from 1970 to the year 9999"):
        generate(NetworkArrivals(), start_ms=253_402_300_700_000, days=2, seed=1)


def test_a_file_is_not_generated():
    with pytest.raises(InputError, match="found file, allowed is network or poisson"):
        made(FileArrivals(path="offers.jsonl"), days=1)


def test_every_key_of_the_schema_is_described_and_has_a_default():
    entries = {"RowRange", "RowHours", "Model"}  # members of lists: their keys are required
    for part in ANY.json_schema()["$defs"].values():
        for name, field in part.get("properties", {}).items():
            assert part["title"] in entries or "default" in field, (part["title"], name)
            assert name == "kind" or field.get("description"), (part["title"], name)
