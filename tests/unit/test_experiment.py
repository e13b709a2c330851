import numpy as np
import pytest

from shared.errors import InputError
from sim.comparison import compared, silent_gates
from sim.experiment import Replication, World, replicate, replications, workload_of
from sim.metrics import METRICS
from sim.scenario import parse_scenario

BASE = {"name": "x", "days": 4.0, "arrivals": {"kind": "poisson", "offers_per_hour": 3.0}}


def world(**changes: object) -> World:
    return World(parse_scenario({**BASE, **changes}, "f"))


def test_serial_and_parallel_give_the_same_replications() -> None:
    serial = sorted(replications(world(), 5, 1), key=lambda each: each.number)
    parallel = sorted(replications(world(), 5, 2), key=lambda each: each.number)
    assert serial == parallel
    assert [each.number for each in serial] == list(range(5))
    assert len({str(each.measures) for each in serial}) == 5


def test_the_same_seed_gives_the_same_and_another_does_not() -> None:
    assert replicate(world(), 3) == replicate(world(), 3)
    assert replicate(world(), 3) != replicate(world(seed=2), 3)


def test_a_preset_s_results_do_not_depend_on_which_others_are_compared() -> None:
    """Common random numbers: nothing that one preset accepts changes another's luck."""
    alone = replicate(world(presets=["throughput_24"]), 1)
    beside = replicate(world(presets=["accuracy_4", "maximum_2", "throughput_24"]), 1)
    assert alone.measures["throughput_24"] == beside.measures["throughput_24"]
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
    assert replicate(found, 0).measures["accuracy_4"]["offers"] < len(found.offers)


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


def two() -> tuple[Replication, Replication]:
    gates = {"accepted": 1, "capacity": 0, "time": 0, "unsupported": 0, "priority": 0}
    values = [
        {"accuracy_4": dict.fromkeys(METRICS, 1.0), "throughput_24": dict.fromkeys(METRICS, 4.0)},
        {"accuracy_4": dict.fromkeys(METRICS, 3.0), "throughput_24": dict.fromkeys(METRICS, 5.0)},
    ]
    found = [
        Replication(i, each, dict.fromkeys(("accuracy_4", "throughput_24"), gates))
        for i, each in enumerate(values)
    ]
    return found[1], found[0]


def test_a_comparison_sums_up_by_replication_number() -> None:
    document = compared(world(), 2, two()).document()
    t = 12.706204736  # the 97.5% point of Student's t with one degree of freedom
    accepted = document["presets"]["accuracy_4"]["accepted"]
    assert accepted == {
        "mean": 2.0,
        "lo": pytest.approx(2 - t * 2**0.5 / 2**0.5),
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
