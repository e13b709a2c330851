import math

import numpy as np
import pyarrow as pa
import pytest

from shared.layout import slot_layout
from shared.units import MS_PER_HOUR
from sim.engine.outcome import Decisions
from sim.metrics import BOX_METRICS, gate_counts, gate_totals, hourly_slots, measured
from sim.stream import Labels, OfferStream

H = MS_PER_HOUR


def stream(at_h: list[float], hours: list[float], train_h: list[float]) -> OfferStream:
    n = len(at_h)
    zeros = np.zeros(n, dtype=np.int32)
    return OfferStream(
        at_ms=(np.array(at_h) * H).astype(np.int64),
        task_id=pa.array([f"t{i}" for i in range(n)]),
        model=Labels(zeros, ("m",)),
        task_type=Labels(zeros, ("DpoTask",)),
        hours=np.array(hours),
        ds_size=np.full(n, -1),
        params=np.full(n, -1),
        train_ms=(np.array(train_h) * H).astype(np.int64),
    )


def decisions(gate: list[int], end_h: list[float | None], **flags: list[bool]) -> Decisions:
    n = len(gate)
    no = [False] * n
    return Decisions(
        gate=np.array(gate, dtype=np.uint8),
        slot=np.where(np.array(gate) == 0, 0, -1).astype(np.int8),
        priority=np.ones(n),
        repeat=np.array(flags.get("repeat", no)),
        end_ms=np.array([-1 if end is None else round(end * H) for end in end_h]),
        gpu_failed=np.array(flags.get("gpu_failed", no)),
        lapsed=np.array(flags.get("lapsed", no)),
    )


def test_a_run_worked_by_hand() -> None:
    """Window 10 h to 20 h of a box of 4 slots on GPU pairs."""
    offers = stream(
        # before the window; in time; late; GPU lost; lapsed; refused; repeat; ends after it
        at_h=[8, 10, 11, 12, 13, 14, 15, 19],
        hours=[4, 3, 3, 5, 5, 5, 3, 9],
        train_h=[4, 3, 4, 5, 5, 5, 3, 6],
    )
    found = decisions(
        gate=[0, 0, 0, 0, 0, 3, 0, 0],
        end_h=[12, 13, 15, 13, 13.5, None, None, 25],
        gpu_failed=[False] * 3 + [True] + [False] * 4,
        lapsed=[False] * 4 + [True] + [False] * 3,
        repeat=[False] * 6 + [True, False],
    )
    values = measured(offers, found, slot_layout(4), (10 * H, 20 * H))
    held_hours = 2 + 3 + 4 + 1 + 0.5 + 1
    assert values == {
        "offers": 6,  # the first came before the window, the repeat decides nothing
        "accepted": 5,
        "acceptance_rate": 5 / 6,
        "reservations_lapsed": 1,
        "slot_utilisation": pytest.approx(held_hours / 40),
        "gpu_hours": pytest.approx(2 * held_hours),
    }
    assert list(values) == list(BOX_METRICS)
    counts = gate_counts(offers, found, (10 * H, 20 * H))
    assert (counts["accepted"], counts["capacity"], sum(counts.values())) == (5, 1, 6)
    assert sum(gate_totals(found).values()) == 8
    assert gate_totals(found)["accepted"] == 7


def test_a_rate_of_nothing_is_unknown() -> None:
    offers = stream([0.0], [3.0], [3.0])
    values = measured(offers, decisions([3], [None]), slot_layout(24), (5 * H, 10 * H))
    assert math.isnan(values["acceptance_rate"])
    assert values["slot_utilisation"] == 0


def test_a_shared_gpu_counts_by_its_share() -> None:
    offers = stream([0.0], [3.0], [3.0])
    values = measured(offers, decisions([0], [3.0]), slot_layout(24), (0, 10 * H))
    assert values["gpu_hours"] == pytest.approx(1.0)


def test_slots_held_hour_by_hour_worked_by_hand() -> None:
    offers = stream([0, 0.5, 1, 2.25, 3], [9] * 5, [1] * 5)
    found = decisions([0, 0, 3, 0, 0], [1.0, 3.5, None, 2.5, 9.0])
    held = hourly_slots(offers, found, (0, 9 * H), 5)
    assert held.tolist() == [1.5, 1.0, 1.25, 1.5, 1.0]


def test_a_job_that_held_no_slot_counts_in_no_hour() -> None:
    offers = stream([0.0], [3.0], [3.0])
    assert not hourly_slots(offers, decisions([3], [None]), (0, 4 * H), 4).any()
