"""Plots of one run over time: who held which slot, and how many slots were held."""

from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

import numpy as np

from shared.units import MS_PER_DAY
from sim.report.drawing import (
    BLUE,
    INK,
    ORANGE,
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
    Span,
    closures,
    holds_of,
    inside,
    mean_held,
    slot_outages,
)
from sim.report.words import counted, listed

GANTT_DAYS = 7
FATES = {
    Fate.IN_TIME: (BLUE, "job that ended in time"),
    Fate.LATE: (ORANGE, "job that ended late"),
    Fate.GPU_LOST: (VERMILLION, "job that lost its GPU"),
    Fate.LAPSED: (YELLOW, "reservation that lapsed"),
}
_CLOSED = {
    "draining": (SKY, "draining: nothing accepted"),
    "storage": (PURPLE, "storage full: nothing accepted"),
}
_OUT = "slot out of service"
_BAR = 0.82
_BINS = 480


def gantt_plot(findings: Findings) -> Plot:
    """Every slot of one run over its first days."""
    window = _gantt_window(findings)
    heights = [len(findings.policies[name].preset.layout.gpus) for name in findings.drawn]
    figure, panels = canvas(
        len(heights),
        0.9 + sum(max(0.13 * slots, 0.45) + 0.35 for slots in heights),
        sharex=True,
        gridspec_kw={"height_ratios": [max(slots, 4) for slots in heights]},
    )
    met: dict[str, str] = {}
    for axes, name in zip(panels, findings.drawn, strict=True):
        met |= _gantt(axes, findings, name, window)
    panels[-1].set_xlabel(_axis_label(findings))
    handles = [Patch(facecolor=colour, label=label, alpha=_alpha(label)) for label, colour in met.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=9,
                  labelcolor=INK)  # fmt: skip
    return Plot(
        "occupancy",
        "Who held which slot",
        f"Replication {findings.first.number}, {_days(window)} of it from the first counted hour: "
        "one line a slot, one bar from an acceptance until the slot is free again. "
        f"{_which(findings)}",
        _gantt_told(findings, window),
        figure,
    )


def _gantt_window(findings: Findings) -> Span:
    begin, end = findings.comparison.world.window_ms
    return begin, min(end, begin + GANTT_DAYS * MS_PER_DAY)


def _gantt(axes: Axes, findings: Findings, name: str, window: Span) -> dict[str, str]:
    """Draw one preset's slots; returns what was met, label to colour, for the legend."""
    first, layout = findings.first, findings.policies[name].preset.layout
    met = _closed_bands(axes, findings, window)
    holds = inside(holds_of(first.workload.stream, first.decisions[name]), window)
    begin, end = _day(findings, holds.begin_ms), _day(findings, holds.end_ms)
    for fate, (colour, label) in FATES.items():
        here = holds.fate == fate
        if here.any():
            _boxes(axes, holds.slot[here], begin[here], end[here], colour)
            met[label] = colour
    out = [(slot, span) for slot, span in slot_outages(first.workload.timeline, layout)
           if span[1] > window[0] and span[0] < window[1]]  # fmt: skip
    if out:
        spans = _day(findings, np.clip([span for _, span in out], *window))
        _boxes(axes, np.array([slot for slot, _ in out]), spans[:, 0], spans[:, 1], INK, _alpha(_OUT))
        met[_OUT] = INK
    _slot_axis(axes, name, len(layout.gpus), _day(findings, np.array(window)))
    return met


def _slot_axis(axes: Axes, name: str, slots: int, limits: np.ndarray) -> None:  # type: ignore[type-arg]
    titled(axes, f"{label_of(name)}: {counted(slots, 'slot')}")
    axes.set_ylim(slots - 0.4, -0.6)
    axes.set_xlim(*limits)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=min(slots, 6), min_n_ticks=1))
    axes.set_ylabel("slot", fontsize=9)
    axes.grid(axis="x", color=INK, alpha=0.15)


def _boxes(axes, slot, begin, end, colour, alpha=1.0) -> None:  # type: ignore[no-untyped-def]
    """One bar a hold, drawn as one collection; its edge parts jobs that follow at once."""
    low, high = slot - _BAR / 2, slot + _BAR / 2
    corners = np.stack([begin, low, end, low, end, high, begin, high], axis=1).reshape(-1, 4, 2)
    edge = "white" if alpha == 1.0 else "none"
    axes.add_collection(PolyCollection(list(corners), facecolors=colour, edgecolors=edge,
                                       linewidths=0.4, alpha=alpha))  # fmt: skip
