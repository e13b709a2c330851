"""What one run under one preset does with the box: acceptance, utilisation, gates."""

import numpy as np
from numpy.typing import NDArray

from shared.decisions import Gate
from shared.layout import SlotLayout
from shared.units import MS_PER_HOUR
from sim.engine.outcome import Decisions
from sim.stream import Floats, Ints, OfferStream

BOX_METRICS = {
    "offers": "offers decided",
    "accepted": "offers accepted",
    "acceptance_rate": "accepted / offers",
    "reservations_lapsed": "accepted offers whose start did not come in time",
    "slot_utilisation": "share of slot time held",
    "gpu_hours": "GPU hours held",
}
"""What needs no market to be known, in the order in which it is shown, with what it means."""


def measured(
    stream: OfferStream, decisions: Decisions, layout: SlotLayout, window_ms: tuple[int, int]
) -> dict[str, float]:
    """The box's measures of one run over a window [begin, end) of epoch milliseconds.

    Offers count where they arrive in the window, held time by the part of it inside. A rate of
    nothing is NaN.
    """
    begin, end = window_ms
    asked = _inside(stream.at_ms, window_ms) & ~decisions.repeat
    accepted = asked & decisions.took_slot
    held = decisions.took_slot
    held_ms = np.clip(decisions.end_ms[held], begin, end) - np.clip(stream.at_ms[held], begin, end)
    held_hours = float(held_ms.sum()) / MS_PER_HOUR
    slot_hours = len(layout.gpus) * (end - begin) / MS_PER_HOUR
    return {
        "offers": float(asked.sum()),
        "accepted": float(accepted.sum()),
        "acceptance_rate": _rate(accepted.sum(), asked.sum()),
        "reservations_lapsed": float((accepted & decisions.lapsed).sum()),
        "slot_utilisation": held_hours / slot_hours,
        "gpu_hours": held_hours * layout.gpus_per_slot,
    }


def hourly_slots(
    stream: OfferStream, decisions: Decisions, span_ms: tuple[int, int], hours: int
) -> Floats:
    """Mean slots held in each of the first ``hours`` hours of a run, float64 (hours,)."""
    held = np.flatnonzero(decisions.took_slot)
    edges = span_ms[0] + MS_PER_HOUR * np.arange(hours + 1)
    begins, ends = np.sort(stream.at_ms[held]), np.sort(decisions.end_ms[held])
    held_ms = np.diff(_elapsed(begins, edges) - _elapsed(ends, edges))
    return np.asarray(held_ms / MS_PER_HOUR, dtype=np.float64)


def _elapsed(times_ms: Ints, edges_ms: Ints) -> Ints:
    """Sum of the milliseconds from each time to each edge, over the times before that edge."""
    before = np.searchsorted(times_ms, edges_ms)
    total = np.concatenate([[0], np.cumsum(times_ms - edges_ms[0])])
    return np.asarray(before * (edges_ms - edges_ms[0]) - total[before], dtype=np.int64)


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
