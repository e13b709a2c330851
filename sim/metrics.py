"""What one run under one preset amounts to: the measures a comparison reports."""

import numpy as np
from numpy.typing import NDArray

from shared.decisions import Gate
from shared.layout import SlotLayout
from shared.units import MS_PER_HOUR
from sim.engine.outcome import Decisions
from sim.stream import Ints, OfferStream

METRICS = {
    "offers": "offers decided",
    "accepted": "offers accepted",
    "acceptance_rate": "accepted / offers",
    "jobs_completed": "jobs that ended in time",
    "jobs_failed": "jobs that ended late or lost their GPU",
    "success_rate": "completed / jobs with a result",
    "reservations_lapsed": "accepted offers whose start did not come in time",
    "slot_utilisation": "share of slot time held",
    "gpu_hours": "GPU hours held",
}
"""Every measure, in the order in which it is shown, with what it means."""


def measured(
    stream: OfferStream, decisions: Decisions, layout: SlotLayout, window_ms: tuple[int, int]
) -> dict[str, float]:
    """The measures of one run over a window [begin, end) of epoch milliseconds.

    Offers count where they arrive in the window, jobs where their result comes in it, and held
    time by the part of it inside. A rate of nothing is NaN.
    """
    begin, end = window_ms
    asked = _inside(stream.at_ms, window_ms) & ~decisions.repeat
    accepted = asked & decisions.took_slot
    ended = decisions.took_slot & ~decisions.lapsed & _inside(decisions.end_ms, window_ms)
    late = stream.train_ms > np.rint(stream.hours * MS_PER_HOUR)
    failed = ended & (decisions.gpu_failed | late)
    completed = int(ended.sum() - failed.sum())
    held = decisions.took_slot
    held_ms = np.clip(decisions.end_ms[held], begin, end) - np.clip(stream.at_ms[held], begin, end)
    held_hours = float(held_ms.sum()) / MS_PER_HOUR
    slot_hours = len(layout.gpus) * (end - begin) / MS_PER_HOUR
    return {
        "offers": float(asked.sum()),
        "accepted": float(accepted.sum()),
        "acceptance_rate": _rate(accepted.sum(), asked.sum()),
        "jobs_completed": float(completed),
        "jobs_failed": float(failed.sum()),
        "success_rate": _rate(completed, ended.sum()),
        "reservations_lapsed": float((accepted & decisions.lapsed).sum()),
        "slot_utilisation": held_hours / slot_hours,
        "gpu_hours": held_hours * layout.gpus_per_slot,
    }


def gate_counts(
    stream: OfferStream, decisions: Decisions, window_ms: tuple[int, int]
) -> dict[str, int]:
    """How often each gate decided an offer of the window; repeats are no decisions."""
    return _counts(decisions.gate[_inside(stream.at_ms, window_ms) & ~decisions.repeat])


def gate_totals(decisions: Decisions) -> dict[str, int]:
    """How often each gate answered an offer, repeats included: one count an offers file's line."""
    return _counts(decisions.gate)


def _counts(gates: NDArray[np.uint8]) -> dict[str, int]:
    counts = np.bincount(gates, minlength=len(Gate)).tolist()
    return {gate.label: counts[gate] for gate in Gate}


def _inside(at_ms: Ints, window_ms: tuple[int, int]) -> NDArray[np.bool_]:
    return np.asarray((at_ms >= window_ms[0]) & (at_ms < window_ms[1]), dtype=np.bool_)


def _rate(part: float, whole: float) -> float:
    return float(part) / float(whole) if whole else float("nan")
