"""Plots of one run over time: who held which slot, and how many slots were held."""

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from shared.units import MS_PER_DAY
from sim.report.drawing import (
    BLUE,
    INK,
    ORANGE,
    PAPER,
    PURPLE,
    SKY,
    VERMILLION,
    YELLOW,
    Plot,
    canvas,
    label_of,
    titled,
)
from sim.report.findings import Findings
from sim.report.occupancy import (
    Fate,
    Holds,
    Span,
    closures,
    holds_of,
    inside,
    mean_held,
    slot_outages,
)
from sim.report.words import counted, listed
from sim.stream import Floats, Ints

GANTT_DAYS = 7
FATES = {
    Fate.IN_TIME: (BLUE, "job that ended in time"),
    Fate.LATE: (ORANGE, "job that ended late"),
    Fate.GPU_LOST: (VERMILLION, "job that lost its GPU"),
    Fate.LAPSED: (PURPLE, "reservation that lapsed"),
}
CLOSED = {
    "draining": (SKY, "draining: nothing accepted"),
    "storage": (YELLOW, "storage full: nothing accepted"),
}
OUT = "slot out of service"
_OUT_ALPHA, _CLOSED_ALPHA = 0.5, 0.4
_BAR = 0.41
"""Half the height of a bar, in slots."""
_BINS = 480

Key = dict[str, Patch]
"""Legend entries met so far, by their label."""


def gantt_plot(findings: Findings) -> Plot:
    """Every slot of one run over its first counted days."""
    window = _gantt_window(findings)
    slots = [findings.policies[name].preset.cap for name in findings.drawn]
    figure, panels = canvas(
        len(slots),
        1.0 + sum(0.4 + 0.13 * max(each, 5) for each in slots),
        sharex=True,
        heights=[max(each, 5) for each in slots],
    )
    key: Key = {}
    for axes, name in zip(panels, findings.drawn, strict=True):
        _gantt(axes, findings, name, window, key)
    panels[-1].set_xlabel(_time_label(findings))
    _keyed(figure, key)
    return Plot(
        "occupancy",
        "Who held which slot",
        f"Replication {findings.first.number}, {_length(window)} from the first counted hour. "
        "One line is a slot, one bar reaches from an acceptance until the slot is free again."
        + _which(findings),
        _gantt_told(findings, window),
        figure,
    )


def _gantt_window(findings: Findings) -> Span:
    begin, end = findings.comparison.world.window_ms
    return begin, min(end, begin + GANTT_DAYS * MS_PER_DAY)


def _gantt(axes: Axes, findings: Findings, name: str, window: Span, key: Key) -> None:
    first, layout = findings.first, findings.policies[name].preset.layout
    _closed_bands(axes, findings, window, key)
    holds = inside(holds_of(first.workload.stream, first.decisions[name]), window)
    for fate, (colour, label) in FATES.items():
        here = holds.fate == fate
        if here.any():
            begin, end = _days(findings, holds.begin_ms[here]), _days(findings, holds.end_ms[here])
            _boxes(axes, holds.slot[here], begin, end, colour)
            key[label] = Patch(facecolor=colour, label=label)
    _outages(axes, findings, slot_outages(first.workload.timeline, layout), window, key)
    titled(axes, f"{label_of(name)}: {counted(len(layout.gpus), 'slot')}")
    axes.set_ylim(len(layout.gpus) - 0.4, -0.6)
    axes.set_xlim(*_days(findings, np.array(window)))
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=6, min_n_ticks=1))
    axes.set_ylabel("slot", fontsize=9)
    axes.grid(axis="x", color=INK, alpha=0.15)


def _outages(
    axes: Axes, findings: Findings, out: list[tuple[int, Span]], window: Span, key: Key
) -> None:
    """Draw over a slot's line when one of its GPUs was out."""
    seen = [(slot, span) for slot, span in out if span[1] > window[0] and span[0] < window[1]]
    if not seen:
        return
    spans = _days(findings, np.clip(np.array([span for _, span in seen]), *window))
    _boxes(axes, np.array([slot for slot, _ in seen]), spans[:, 0], spans[:, 1], INK, _OUT_ALPHA)
    key[OUT] = Patch(facecolor=INK, alpha=_OUT_ALPHA, label=OUT)


def _boxes(
    axes: Axes, slot: Ints, begin: Floats, end: Floats, colour: str, alpha: float = 1.0
) -> None:
    """One bar a hold, all in one collection; its edge parts jobs that follow at once."""
    low, high = slot - _BAR, slot + _BAR
    corners = np.stack([begin, low, end, low, end, high, begin, high], axis=1).reshape(-1, 4, 2)
    edge = PAPER if alpha == 1.0 else "none"
    axes.add_collection(
        PolyCollection(
            list(corners), facecolors=colour, edgecolors=edge, linewidths=0.5, alpha=alpha
        )
    )


def _closed_bands(axes: Axes, findings: Findings, window: Span, key: Key) -> None:
    """When the whole box accepted nothing."""
    for kind, spans in closures(findings.first.workload.timeline).items():
        colour, label = CLOSED[kind]
        for begin, end in spans:
            if end > window[0] and begin < window[1]:
                cut = _days(findings, np.clip(np.array([begin, end]), *window))
                axes.axvspan(*cut, color=colour, alpha=_CLOSED_ALPHA, linewidth=0)
                key[label] = Patch(facecolor=colour, alpha=_CLOSED_ALPHA, label=label)


def slots_plot(findings: Findings) -> Plot:
    """How many slots were held over the whole counted time, under each preset drawn."""
    window = findings.comparison.world.window_ms
    edges = np.linspace(*window, min(_BINS, max(1, window[1] - window[0])) + 1).astype(np.int64)
    names = findings.drawn
    figure, panels = canvas(len(names), 0.9 + 1.35 * len(names), sharex=True)
    key: Key = {}
    for axes, name in zip(panels, names, strict=True):
        _slots_held(axes, findings, name, edges, key)
    panels[-1].set_xlabel(_time_label(findings))
    _keyed(figure, key)
    hours = (window[1] - window[0]) / _BINS / MS_PER_DAY * 24
    return Plot(
        "slots_in_use",
        "Slots in use over time",
        f"Replication {findings.first.number}, all {_length(window)} that count, averaged over "
        f"steps of {hours:.2g} hours. The line above is the cap, less the slots out of service."
        + _which(findings),
        _slots_told(findings, edges),
        figure,
    )


def _slots_held(axes: Axes, findings: Findings, name: str, edges: Ints, key: Key) -> None:
    first, layout = findings.first, findings.policies[name].preset.layout
    cap, at = len(layout.gpus), _days(findings, edges)
    out = slot_outages(first.workload.timeline, layout)
    gone = mean_held(*_columns(span for _, span in out), edges)
    _closed_bands(axes, findings, (int(edges[0]), int(edges[-1])), key)
    axes.stairs(_held(findings, name, edges), at, fill=True, color=BLUE, linewidth=0)
    axes.stairs(cap - gone, at, color=VERMILLION, linewidth=1.4, baseline=None)
    key["slots in use"] = Patch(facecolor=BLUE, label="slots in use")
    key["slots in service"] = Patch(facecolor=VERMILLION, label="slots in service")
    titled(axes, f"{label_of(name)}: {counted(cap, 'slot')}")
    axes.set_ylim(0, cap * 1.08)
    axes.set_xlim(at[0], at[-1])
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=4))
    axes.grid(color=INK, alpha=0.15)


def _held(findings: Findings, name: str, edges: Ints) -> Floats:
    holds: Holds = holds_of(findings.first.workload.stream, findings.first.decisions[name])
    return mean_held(holds.begin_ms, holds.end_ms, edges)


def _columns(spans: Iterable[Span]) -> tuple[Ints, Ints]:
    both = np.array(list(spans), dtype=np.int64).reshape(-1, 2)
    return both[:, 0], both[:, 1]


def _days(findings: Findings, at_ms: Ints) -> Floats:
    """Days since the run began."""
    begin = findings.comparison.world.span_ms[0]
    return np.asarray((at_ms - begin) / MS_PER_DAY, dtype=np.float64)


def _time_label(findings: Findings) -> str:
    begin = datetime.fromtimestamp(findings.comparison.world.span_ms[0] / 1000, UTC)
    return f"days since the run began ({begin:%Y-%m-%d %H:%M} UTC)"


def _length(window: Span) -> str:
    days = (window[1] - window[0]) / MS_PER_DAY
    return f"{days:.3g} days" if days != 1 else "1 day"


def _which(findings: Findings) -> str:
    if len(findings.drawn) == len(findings.names):
        return ""
    return f" {len(findings.drawn)} of the {len(findings.names)} presets are drawn."


def _keyed(figure: Figure, key: Key) -> None:
    figure.legend(
        handles=list(key.values()), loc="outside lower center", ncols=3, frameon=False,
        fontsize=9, labelcolor=INK,
    )  # fmt: skip


def _gantt_told(findings: Findings, window: Span) -> str:
    return " ".join(_jobs_told(findings, name, window) for name in findings.drawn)


def _jobs_told(findings: Findings, name: str, window: Span) -> str:
    first = findings.first
    holds = inside(holds_of(first.workload.stream, first.decisions[name]), window)
    told: Sequence[str] = [
        f"{int((holds.fate == fate).sum())} x {label}"
        for fate, (_, label) in FATES.items()
        if (holds.fate == fate).any()
    ]
    return f"{name}: {listed(list(told)) or 'no slot was held'}."


def _slots_told(findings: Findings, edges: Ints) -> str:
    told = []
    for name in findings.drawn:
        held, cap = _held(findings, name, edges), findings.policies[name].preset.cap
        told.append(
            f"{name}: {held.min():.1f} to {held.max():.1f} of {cap} slots, {held.mean():.1f} on "
            "average."
        )
    return " ".join(told)
