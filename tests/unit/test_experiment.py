from dataclasses import replace

import numpy as np
import pytest

from shared.errors import InputError
from sim.comparison import compared, revenue_difference, silent_gates
from sim.experiment import (
    ADVANTAGES,
    Replication,
    World,
    replicate,
    replications,
    workload_of,
)
from sim.measures import METRICS, SHARES
from sim.scenario import parse_scenario

BASE = {"name": "x", "days": 4.0, "arrivals": {"kind": "poisson", "offers_per_hour": 3.0}}


def world(**changes: object) -> World:
    return World(parse_scenario({**BASE, **changes}, "f"))


def test_serial_and_parallel_give_the_same_replications() -> None:
    serial = sorted(replications(world(), 5, 1), key=lambda each: each.number)
    parallel = sorted(replications(world(), 5, 2), key=lambda each: each.number)
    assert str(serial) == str(parallel)  # as text: a rate of nothing is NaN and equals nothing
    assert [each.number for each in serial] == list(range(5))
    assert len({str(each.measures) for each in serial}) == 5


def test_the_same_seed_gives_the_same_and_another_does_not() -> None:
    assert str(replicate(world(), 3)) == str(replicate(world(), 3))
    assert str(replicate(world(), 3)) != str(replicate(world(seed=2), 3))


def test_a_preset_s_results_do_not_depend_on_which_others_are_compared() -> None:
    """Common random numbers: nothing that one preset accepts changes another's luck."""
    alone = replicate(world(presets=["throughput_24"]), 1)
    beside = replicate(world(presets=["accuracy_4", "maximum_2", "throughput_24"]), 1)
    assert list(alone.measures) == ["claims", "physical", "neutral"]
    for model in alone.measures:
        ours, theirs = (each.measures[model]["throughput_24"] for each in (alone, beside))
        assert str(ours) == str(theirs)
    assert alone.gates["throughput_24"] == beside.gates["throughput_24"]


def test_each_offer_s_luck_is_drawn_by_its_index() -> None:
    short, long = workload_of(world(), 0), workload_of(world(days=6.0), 0)
    n = len(short.stream)
    assert n < len(long.stream)
    assert np.array_equal(short.stream.train_ms, long.stream.train_ms[:n])
    assert short.start_lag_ms is not None
    assert long.start_lag_ms is not None
    assert np.array_equal(short.start_lag_ms, long.start_lag_ms[:n])


def test_a_share_of_starts_never_comes() -> None:
    starts = workload_of(world(days=40.0, start={"never_share": 0.25}), 0).starts
    assert starts is not None
    n = len(starts)
    assert (~starts).mean() == pytest.approx(0.25, abs=4 * (0.25 * 0.75 / n) ** 0.5)
    assert workload_of(world(), 0).starts is None


def test_attempts_without_takers_never_start() -> None:
    arrivals = {"kind": "network", "too_few_takers": 0.3}
    starts = workload_of(world(arrivals=arrivals), 0).starts
    assert starts is not None
    assert 0 < (~starts).sum() < len(starts)


def test_no_lag_at_all() -> None:
    assert workload_of(world(start={"lag_minutes": 0}), 0).start_lag_ms is None


def recorded() -> World:
    made = workload_of(world(), 0).stream
    scenario = parse_scenario({"name": "x", "warm_up_days": 1.0, "arrivals": {"kind": "file"}}, "f")
    return World(scenario, offers=made)


def test_an_offers_file_is_replayed_whole_with_its_own_times() -> None:
    found = recorded()
    workload = workload_of(found, 0)
    assert found.offers is not None
    assert np.array_equal(workload.stream.train_ms, found.offers.train_ms)
    assert found.span_ms == (found.offers.at_ms[0], found.offers.at_ms[-1] + 1)
    assert replicate(found, 0).measures["physical"]["accuracy_4"]["offers"] < len(found.offers)


def test_a_file_scenario_without_a_file_is_an_error() -> None:
    scenario = parse_scenario({"name": "x", "arrivals": {"kind": "file"}}, "f")
    with pytest.raises(InputError, match="--offers"):
        World(scenario)


def test_a_warm_up_longer_than_the_file_is_an_error() -> None:
    scenario = parse_scenario(
        {"name": "x", "days": 30.0, "warm_up_days": 20.0, "arrivals": {"kind": "file"}}, "f"
    )
    with pytest.raises(InputError, match="warm_up_days: found 20, allowed is less than the offers"):
        World(scenario, offers=recorded().offers)


def values_of(share: float) -> dict[str, float]:
    return {name: share if name in SHARES else 10 * share for name in METRICS}


def two() -> tuple[Replication, Replication]:
    gates = {"accepted": 1, "capacity": 0, "time": 0, "unsupported": 0, "priority": 0}
    values = [
        {"accuracy_4": values_of(0.1), "throughput_24": values_of(0.4)},
        {"accuracy_4": values_of(0.3), "throughput_24": values_of(0.5)},
    ]
    found = [
        Replication(
            i,
            dict.fromkeys(("physical", "claims", "neutral"), each),
            dict.fromkeys(("accuracy_4", "throughput_24"), gates),
            tuple(1.0 + 8 * share for share in ADVANTAGES),
            dict.fromkeys(("accuracy_4", "throughput_24"), (2.0,) * 72),
        )
        for i, each in enumerate(values)
    ]
    return found[1], found[0]


def test_a_comparison_sums_up_by_replication_number() -> None:
    document = compared(world(), 2, two()).document()
    t = 12.706204736  # the 97.5% point of Student's t with one degree of freedom
    accepted = document["presets"]["accuracy_4"]["accepted"]
    assert accepted == {
        "mean": 2.0,
        "lo": 0.0,  # 2 - t, but nobody accepts fewer than none
        "hi": pytest.approx(2 + t),
    }
    gap = next(each for each in document["paired"] if each["metric"] == "accepted")
    assert (gap["a"], gap["b"], gap["mean"]) == ("accuracy_4", "throughput_24", -2.5)
    assert gap["lo"] == pytest.approx(-2.5 - t * 0.5)
    assert document["gates"]["accuracy_4"]["accepted"] == 1
    assert document["replications"] == 2


def test_gates_that_never_decided_are_named() -> None:
    warnings = compared(world(), 2, two()).warnings
    assert any(
        "the time gate never decided an offer under accuracy_4, throughput_24" in w
        for w in warnings
    )
    assert not any("unsupported" in warning for warning in warnings)
    policy = world(presets=["universal_24"]).scenario.policies()["universal_24"]
    assert silent_gates({"capacity": 0, "time": 1, "priority": 0}, policy) == ["capacity"]


def test_one_replication_gives_no_interval_and_says_so() -> None:
    found = compared(world(), 1, two()[:1])
    assert found.document()["presets"]["accuracy_4"]["accepted"] == {
        "mean": 3.0, "lo": None, "hi": None,
    }  # fmt: skip
    assert any("no intervals" in warning for warning in found.warnings)


def test_nothing_finished_is_an_error() -> None:
    with pytest.raises(ValueError, match="no replication"):
        compared(world(), 3, [])


def test_intervals_keep_the_bounds_of_their_measures() -> None:
    document = compared(world(), 2, two()).document()
    measures = document["presets"]["accuracy_4"]
    assert (measures["penalty_rate"]["lo"], measures["penalty_rate"]["hi"]) == (0.0, 1.0)
    assert measures["revenue_per_day"]["lo"] == 0.0
    assert measures["revenue_per_day"]["hi"] > 1.0
    assert measures["mean_score"]["lo"] < 0


def test_the_document_has_every_model_the_claims_and_the_break_even() -> None:
    document = compared(world(), 2, two()).document()
    assert document["quality_model"] == "physical"
    assert list(document["by_quality_model"]) == ["physical", "claims", "neutral"]
    assert document["by_quality_model"]["physical"]["presets"] == document["presets"]
    assert {row["quality_model"] for row in document["claims"]} == {"physical", "claims", "neutral"}
    assert len(document["contradictions"]) == 3
    even = document["break_even"][0]
    # our revenue is 1 + 8 x the share, theirs 4 and 5: even at 3/8 and 4/8, in the mean at 7/16
    assert (even["a"], even["b"]) == ("accuracy_4", "throughput_24")
    assert even["loss_lower_by"]["mean"] == pytest.approx(7 / 16)


def test_the_chance_that_one_beats_the_other() -> None:
    gap = compared(world(), 2, two()).difference("throughput_24", "revenue_per_day")
    assert gap.a_over_b is not None
    assert gap.a_over_b.mean == 0.0
    # the gaps are -3 and -2: t = -5 with one degree of freedom
    assert gap.p_adjusted == pytest.approx(0.1256659, rel=1e-5)


def test_a_sequential_run_watches_the_revenue_in_the_order_of_the_numbers() -> None:
    assert revenue_difference(two(), world()) == [-3.0, -2.0]
    assert revenue_difference(two(), world(presets=["throughput_24"])) == [4.0, 5.0]


def test_a_warm_up_that_is_too_short_is_told() -> None:
    filling = tuple(min(4.0, hour / 20) for hour in range(400))
    late = [replace(each, slots=dict.fromkeys(each.slots or (), filling)) for each in two()]
    told = compared(world(warm_up_days=1.0), 2, late).warm_up_warnings
    assert any(
        "accuracy_4: the slots in use settle after 80 hours (MSER-5)" in each for each in told
    )
    assert not compared(world(warm_up_days=3.9), 2, late).warm_up_warnings
    endless = tuple(float(hour) for hour in range(400))
    late = [replace(each, slots=dict.fromkeys(each.slots or (), endless)) for each in two()]
    assert "do not settle" in compared(world(), 2, late).warm_up_warnings[0]
