"""Who held which slot when, in one run: what the plots over time are drawn from."""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from shared.inputs import GpuChanged, OperatorAsked, StorageChanged
from shared.layout import SlotLayout
from shared.units import MS_PER_HOUR
from sim.engine.outcome import Decisions
from sim.engine.workload import Timeline
from sim.stream import Floats, Ints, OfferStream

Span = tuple[int, int]
"""Begin and end, epoch milliseconds."""


class Fate(IntEnum):
    """Why a slot came free again."""

    IN_TIME = 0
    LATE = 1
    GPU_LOST = 2
    LAPSED = 3


@dataclass(frozen=True)
class Holds:
    """One value for each time that a slot was held: int64, (n,), times in epoch milliseconds."""

    slot: Ints
    begin_ms: Ints
    end_ms: Ints
    fate: NDArray[np.uint8]


def holds_of(stream: OfferStream, decisions: Decisions) -> Holds:
    """Every hold of a slot, from the acceptance until the slot is free."""
    took = decisions.took_slot
    fate = np.full(len(stream), Fate.IN_TIME, dtype=np.uint8)
    fate[stream.train_ms > np.rint(stream.hours * MS_PER_HOUR)] = Fate.LATE
    fate[decisions.gpu_failed] = Fate.GPU_LOST
    fate[decisions.lapsed] = Fate.LAPSED
    slot = decisions.slot[took].astype(np.int64)
    return Holds(slot, stream.at_ms[took], decisions.end_ms[took], fate[took])


def inside(holds: Holds, window: Span) -> Holds:
    """The holds that touch a window, cut to it."""
    begin, end = window
    here = (holds.end_ms > begin) & (holds.begin_ms < end)
    return Holds(
        holds.slot[here],
        np.maximum(holds.begin_ms[here], begin),
        np.minimum(holds.end_ms[here], end),
        holds.fate[here],
    )


def gpu_outages(timeline: Timeline) -> dict[int, list[Span]]:
    """When each GPU was out of service."""
    spans: dict[int, list[Span]] = {}
    since: dict[int, int] = {}
    for at_ms, entry in timeline:
        if isinstance(entry, GpuChanged) and not entry.healthy:
            since.setdefault(entry.gpu, at_ms)
        elif isinstance(entry, GpuChanged) and entry.gpu in since:
            spans.setdefault(entry.gpu, []).append((since.pop(entry.gpu), at_ms))
    return spans


def slot_outages(timeline: Timeline, layout: SlotLayout) -> list[tuple[int, Span]]:
    """When each slot was out of service, because one of its GPUs was: (slot, span)."""
    by_gpu = gpu_outages(timeline)
    return [
        (slot, span)
        for slot, gpus in enumerate(layout.gpus)
        for span in united([span for gpu in gpus for span in by_gpu.get(gpu, [])])
    ]


def united(spans: list[Span]) -> list[Span]:
    """The same time covered once."""
    found: list[Span] = []
    for begin, end in sorted(spans):
        if found and begin <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((begin, end))
    return found


def closures(timeline: Timeline) -> dict[str, list[Span]]:
    """When the whole box took nothing: drains and full storage."""
    found: dict[str, list[Span]] = {"draining": [], "storage": []}
    since: dict[str, int] = {}
    for at_ms, entry in timeline:
        if isinstance(entry, OperatorAsked):
            kind, closed = "draining", entry.action == "drain"
        elif isinstance(entry, StorageChanged):
            kind, closed = "storage", not entry.available
        else:
            continue
        if closed:
            since.setdefault(kind, at_ms)
        elif kind in since:
            found[kind].append((since.pop(kind), at_ms))
    return found


def mean_held(begin_ms: Ints, end_ms: Ints, edges_ms: Ints) -> Floats:
    """How many of these spans cover each bin on average, weighted by time: float64, one a bin.

    edges_ms: int64, ascending, one more than there are bins.
    """
    covered = _time_since(begin_ms, edges_ms) - _time_since(end_ms, edges_ms)
    return np.asarray(np.diff(covered) / np.diff(edges_ms), dtype=np.float64)


def _time_since(at_ms: Ints, edges_ms: Ints) -> Floats:
    """The sum over all times of how long each lies before an edge, one value an edge."""
    ordered = np.sort(at_ms)
    base = int(edges_ms[0])
    before = np.searchsorted(ordered, edges_ms)
    # relative to the first edge: sums of epoch milliseconds would lose digits
    sums = np.concatenate([[0.0], np.cumsum((ordered - base).astype(np.float64))])
    return np.asarray(before * (edges_ms - base).astype(np.float64) - sums[before])
