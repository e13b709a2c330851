"""Plots of income and rank: every replication under every quality model."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from sim.comparison import Comparison
from sim.measures import SHARES
from sim.output_analysis import Estimate
from sim.report.answer import unit
from sim.report.drawing import (
    BLUE,
    GREEN,
    INK,
    PURPLE,
    VERMILLION,
    WIDTH,
    Plot,
    label_of,
    named,
    percent,
    spaced,
    styled,
    titled,
)
from sim.report.findings import Findings
from sim.report.standing import FIRST_PLACE, PERCENTILE, REVENUE
from sim.report.words import gap_interval_of, gap_of, interval_of, listed, mean_of

COLOURS = (BLUE, VERMILLION, GREEN, PURPLE)
_SPREAD = 0.26
"""Dots are laid out over so much of a preset's line, so that they do not cover each other."""
_FAINT = 0.7
_MEAN = "mean, 95% interval"


def income_plot(findings: Findings) -> Plot:
    """Revenue a day in each replication, and the difference from the first preset."""
    views, names = findings.comparison.by_model, findings.drawn
    others = [name for name in names if name != findings.names[0]]
    figure, panels = _grid(len(views), 2 if others else 1, len(names))
    for (model, view), line in zip(views.items(), panels, strict=True):
        _distributions(line[0], view, names, REVENUE)
        titled(line[0], f"{model}: {unit(view)} a day")
        if others:
            _differences(line[1], view, others, names)
            titled(line[1], f"{model}: {label_of(findings.names[0])} less it")
    _explained(figure)
    return Plot(
        "income",
        "Revenue a day, replication by replication",
        _dots_told(findings)
        + (" On the right the paired differences; left of the line the first preset earns less."
           if others else "")
        + " Each model has its own scale.",
        " ".join(_income_told(view, names, others) for view in views.values()),
        figure,
    )  # fmt: skip


def ranks_plot(findings: Findings) -> Plot:
    """First places and mean rank percentile in each replication."""
    views, names = findings.comparison.by_model, findings.drawn
    figure, panels = _grid(len(views), 2, len(names))
    for (model, view), (first, mean) in zip(views.items(), panels, strict=True):
        _distributions(first, view, names, FIRST_PLACE)
        titled(first, f"{model}: first place, share of jobs")
        _distributions(mean, view, names, PERCENTILE)
        titled(mean, f"{model}: mean rank percentile")
        mean.set_yticklabels([])
    _explained(figure)
    return Plot(
        "ranks",
        "First places and mean rank, replication by replication",
        _dots_told(findings) + " A rank percentile of 100% is first of a task, 0% last. "
        "Each panel has its own scale.",
        " ".join(
            _told(view, names, metric)
            for view in views.values()
            for metric in (FIRST_PLACE, PERCENTILE)
        ),
        figure,
    )


def _grid(rows: int, columns: int, lines: int) -> tuple[Figure, list[list[Axes]]]:
    """Panels side by side, a row a model."""
    height = 0.6 + rows * (0.75 + 0.3 * lines)
    figure = Figure(figsize=(WIDTH, height), layout="constrained")
    spaced(figure)
    grid = figure.subplots(rows, columns, squeeze=False)
    return figure, [[styled(axes) for axes in line] for line in grid]


def _distributions(axes: Axes, view: Comparison, names: Sequence[str], metric: str) -> None:
    """A line a preset: every replication as a dot, the mean and its interval over them."""
    for place, name in enumerate(names):
        _line(axes, place, view.values(name, metric), view.presets[name][metric], name, names)
    _lines_of(axes, names)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
    if metric in SHARES:
        axes.xaxis.set_major_formatter(percent)
    else:
        axes.xaxis.set_major_formatter("{x:,.4g}")


def _differences(axes: Axes, view: Comparison, others: Sequence[str], names: Sequence[str]) -> None:
    first = view.names[0]
    for name in others:
        gaps = np.subtract(view.values(first, REVENUE), view.values(name, REVENUE)).tolist()
        found = view.difference(name, REVENUE).estimate
        _line(axes, list(names).index(name), gaps, found, name, names)
    axes.axvline(0, color=INK, linewidth=1, linestyle=(0, (4, 3)))
    _lines_of(axes, names)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.xaxis.set_major_formatter("{x:,.4g}")
    axes.set_yticklabels([])


def _line(
    axes: Axes,
    place: int,
    values: Sequence[float],
    found: Estimate | None,
    name: str,
    names: Sequence[str],
) -> None:
    colour = COLOURS[list(names).index(name) % len(COLOURS)]
    known = np.asarray(values, dtype=np.float64)
    at = place + _SPREAD * np.linspace(-1, 1, len(known)) if len(known) > 1 else np.array([place])
    axes.plot(known, at, "o", color=colour, alpha=_FAINT, markersize=4, markeredgewidth=0)
    if found is None:
        return
    if found.lo is not None and found.hi is not None:
        axes.hlines(place, found.lo, found.hi, color=INK, linewidth=2.4, zorder=4)
    axes.plot([found.mean], [place], "D", color=INK, markersize=5, zorder=5)


def _lines_of(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), [label_of(name) for name in names])
    named(axes.get_yticklabels())
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(axis="x", color=INK, alpha=0.15)


def _explained(figure: Figure) -> None:
    dot = Line2D([], [], color=INK, marker="o", linestyle="", alpha=_FAINT, markersize=4,
                 label="one replication")  # fmt: skip
    mean = Line2D([], [], color=INK, marker="D", linewidth=2.4, markersize=5, label=_MEAN)
    figure.legend(
        handles=[dot, mean], loc="outside lower center", ncols=2, frameon=False, fontsize=9,
        labelcolor=INK,
    )  # fmt: skip


def _dots_told(findings: Findings) -> str:
    told = "A dot is a replication, the same replications for every preset."
    if len(findings.drawn) == len(findings.names):
        return told
    return f"{told} {len(findings.drawn)} of the {len(findings.names)} presets are drawn."


def _income_told(view: Comparison, names: Sequence[str], others: Sequence[str]) -> str:
    told = _told(view, names, REVENUE)
    gaps = [view.difference(name, REVENUE).estimate for name in others]
    if not gaps:
        return told
    less = [
        f"{name} {gap_of(gap, REVENUE)} ({gap_interval_of(gap, REVENUE) or 'no interval'})"
        for name, gap in zip(others, gaps, strict=True)
    ]
    return f"{told} {view.names[0]} less {listed(less)}."


def _told(view: Comparison, names: Sequence[str], metric: str) -> str:
    found = [(name, view.presets[name][metric]) for name in names]
    means = [
        f"{name} {mean_of(each, metric)} ({interval_of(each, metric) or 'no interval'})"
        for name, each in found
    ]
    return f"{metric} under {view.model}: {listed(means)}."
