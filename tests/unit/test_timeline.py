from itertools import pairwise

import pytest

from shared.inputs import GpuChanged, OperatorAsked, StorageChanged, order_key
from shared.units import MS_PER_HOUR
from sim.scenario import parse_scenario
from sim.timeline import merged, timeline_of

START, END = 10 * MS_PER_HOUR, 1000 * MS_PER_HOUR


@pytest.mark.parametrize(
    ("spans", "joined"),
    [
        ([], []),
        ([(5, 7), (1, 2)], [(1, 2), (5, 7)]),
        ([(1, 3), (2, 5)], [(1, 5)]),
        ([(1, 3), (3, 5)], [(1, 5)]),
        ([(1, 9), (2, 5)], [(1, 9)]),
        ([(1, 2), (99, 100), (100, 101)], [(1, 2), (99, 100)]),
    ],
)
def test_spans_are_merged_and_those_after_the_end_left_out(spans, joined) -> None:
    assert merged(spans, end_ms=100) == joined


def test_told_periods_come_in_handling_order() -> None:
    scenario = parse_scenario(
        {
            "name": "x",
            "gpus_out": [{"gpu": 3, "from_hours": 1, "hours": 2}],
            "drains": [{"from_hours": 1, "hours": 1}],
            "storage_full": [{"from_hours": 2, "hours": 0.5}],
        },
        "f",
    )
    hour = MS_PER_HOUR
    assert timeline_of(scenario, START, END, 0) == [
        (START + hour, GpuChanged(3, healthy=False)),
        (START + hour, OperatorAsked("drain")),
        (START + 2 * hour, OperatorAsked("resume")),
        (START + 2 * hour, StorageChanged(available=False)),
        (START + 2.5 * hour, StorageChanged(available=True)),
        (START + 3 * hour, GpuChanged(3, healthy=True)),
    ]


FAILING = {"mean_hours_between": 30.0, "mean_repair_hours": 5.0}


def test_failures_alternate_per_gpu_and_overlap_told_outages_without_a_double_failure() -> None:
    told = [{"gpu": 0, "from_hours": 0, "hours": 500}]
    scenario = parse_scenario({"name": "x", "gpu_failures": FAILING, "gpus_out": told}, "f")
    timeline = timeline_of(scenario, START, END, 0)
    assert timeline == sorted(timeline, key=lambda entry: order_key(*entry))
    for gpu in range(8):
        states = [e.healthy for _, e in timeline if isinstance(e, GpuChanged) and e.gpu == gpu]
        assert len(states) > 4
        assert states[0] is False
        assert all(now != then for now, then in pairwise(states))


def test_failures_depend_on_seed_replication_and_gpu_alone() -> None:
    scenario = parse_scenario({"name": "x", "gpu_failures": FAILING}, "f")
    assert timeline_of(scenario, START, END, 1) == timeline_of(scenario, START, END, 1)
    assert timeline_of(scenario, START, END, 1) != timeline_of(scenario, START, END, 2)
    longer = timeline_of(scenario, START, 2 * END, 1)
    assert longer[:40] == timeline_of(scenario, START, END, 1)[:40]
    firsts = {e.gpu: at for at, e in reversed(longer)}
    assert len(set(firsts.values())) == 8


def test_failure_times_have_the_means_asked_for() -> None:
    scenario = parse_scenario({"name": "x", "gpu_failures": FAILING}, "f")
    hours = 200_000
    timeline = timeline_of(scenario, 0, hours * MS_PER_HOUR, 0)
    down = sum(at if e.healthy else -at for at, e in timeline) / MS_PER_HOUR / (8 * hours)
    # unavailable share 5/35; its standard error over n cycles of a GPU is under 0.2/sqrt(n)
    cycles = len(timeline) / 2
    assert down == pytest.approx(5 / 35, abs=4 * 0.2 / cycles**0.5)
