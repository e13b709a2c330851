"""The break-even: how revenue changes as the first preset's losses are lowered."""

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from sim.loss_advantage import LossAdvantage
from sim.report.answer import unit
from sim.report.dependence import asked, break_even_told
from sim.report.drawing import BLUE, INK, VERMILLION, Plot, canvas, keyed, label_of, percent, titled
from sim.report.findings import Findings
from sim.report.markup import Cell, Html, bullets, folded, joined, paragraph, row, table
from sim.report.standing import REVENUE
from sim.report.tables import mean_cell
from sim.report.words import (
    gap_interval_of,
    gap_of,
    mean_of,
    share_of,
    shares_between,
    shortened,
)

_NEAR = 2
"""Steps drawn on either side of the crossing in the enlarged panel."""
_MOST_DRAWN = 2


def drawn(findings: Findings) -> list[LossAdvantage]:
    """The break-evens that are drawn: all, or of many the one that the answer is about."""
    found = findings.comparison.advantages
    if len(found) <= _MOST_DRAWN:
        return found
    about = asked(findings.comparison)
    return [about or found[-1]]


def advantage(findings: Findings) -> Html:
    """What is asked, the answer for each other preset, and the points of the curve."""
    comparison = findings.comparison
    first = findings.names[0]
    told = [break_even_told(comparison, each) for each in drawn(findings)]
    return joined(
        [
            paragraph(
                f"Under the neutral model a slot's size changes no loss. Here the losses of "
                f"{first} alone are lowered by a share, everything else being the same, and its "
                "revenue is set against the others'. Where the difference crosses 0, a larger "
                "slot has made up for its fewer jobs, or a smaller one for its weaker runs."
            ),
            bullets(told),
            _crossings(findings) if len(comparison.advantages) > _MOST_DRAWN else Html(""),
            folded("The points of the curves", _points(findings)),
        ]
    )


def _crossings(findings: Findings) -> Html:
    found = findings.comparison.advantages
    rows = [row(each.b, [_crossing(each), Cell(_why_none(each), kind="prose")]) for each in found]
    caption = f"Break-even of {findings.names[0]} against each other preset"
    columns = ["against", "losses lower by", "why none"]
    return folded(caption, table(caption, columns, rows, ("why none",)))


def _crossing(each: LossAdvantage) -> Cell:
    value = each.break_even.value
    return Cell("none") if value is None else Cell(shares_between(value, 2), key=value.mean)


def _why_none(each: LossAdvantage) -> str:
    return each.break_even.why if each.break_even.value is None else ""


def _points(findings: Findings) -> Html:
    found = drawn(findings)
    rows = [
        row(
            share_of(lower, 0),
            [
                mean_cell(found[0].a_earns[place], REVENUE),
                *(_gap(each, place) for each in found),
            ],
        )
        for place, lower in enumerate(found[0].lower)
    ]
    columns = ["losses lower by", f"{found[0].a} earns", *(f"less {each.b}" for each in found)]
    return table("Revenue a day over the loss advantage", columns, rows)


def _gap(each: LossAdvantage, place: int) -> Cell:
    gap = each.gap[place]
    key = None if gap is None else gap.mean
    return Cell(gap_of(gap, REVENUE), gap_interval_of(gap, REVENUE), key)


def advantage_plot(findings: Findings) -> Plot:
    """The revenue gap over the loss advantage, whole and near the crossing."""
    found = drawn(findings)
    near = [each for each in found if each.break_even.value is not None]
    panels_of = [(each, False) for each in found] + [(each, True) for each in near]
    figure, panels = canvas(len(panels_of), 0.9 + 2.1 * len(panels_of))
    for axes, (each, close) in zip(panels, panels_of, strict=True):
        _curve(axes, each, close=close)
        what = "near the crossing" if close else "all shares tried"
        titled(axes, f"{label_of(each.a)} less {label_of(each.b)}: {what}")
        axes.set_ylabel(f"{unit(findings.comparison)} a day", fontsize=9)
    panels[-1].set_xlabel(f"losses of {label_of(found[0].a)} lower by").set_parse_math(False)
    keyed(figure, panels[-1] if near else panels[0])
    return Plot(
        "break_even",
        "Revenue difference over the loss advantage",
        "The dots are the shares tried; between them the line is straight. The band is the 95% "
        "interval of the paired difference.",
        " ".join(_told(each) for each in found),
        figure,
    )


def _curve(axes: Axes, each: LossAdvantage, *, close: bool) -> None:
    at, mean, low, high = _arrays(each)
    value = each.break_even.value
    shown = np.ones(len(at), dtype=np.bool_)
    if close and value is not None:
        right = int(np.searchsorted(at, value.mean))
        shown[:] = False
        shown[max(0, right - _NEAR) : right + _NEAR] = True
    at, mean, low, high = at[shown], mean[shown], low[shown], high[shown]
    axes.fill_between(at, low, high, color=BLUE, alpha=0.3, linewidth=0, label="95% interval")
    axes.plot(at, mean, "o-", color=BLUE, markersize=4, label="revenue difference")
    axes.axhline(0, color=INK, linewidth=1, linestyle=(0, (4, 3)))
    if value is not None:
        axes.plot(
            [value.mean], [0], "D", color=VERMILLION, markersize=7, zorder=5, label="break-even"
        )
        if close:
            axes.annotate(
                share_of(value.mean, 2), (value.mean, 0), xytext=(6, 8),
                textcoords="offset points", fontsize=9, color=INK,
            )  # fmt: skip
    axes.grid(color=INK, alpha=0.15)
    axes.xaxis.set_major_formatter(percent)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
    axes.yaxis.set_major_formatter("{x:,.4g}")


def _arrays(each: LossAdvantage) -> tuple[np.ndarray, ...]:
    points = [
        (
            lower,
            gap.mean,
            gap.mean if gap.lo is None else gap.lo,
            gap.mean if gap.hi is None else gap.hi,
        )
        for lower, gap in zip(each.lower, each.gap, strict=True)
        if gap is not None
    ]
    return tuple(np.array(points, dtype=np.float64).reshape(-1, 4).T)


def _told(each: LossAdvantage) -> str:
    points = [
        f"{share_of(lower, 0)}: {mean_of(gap, REVENUE)}"
        for lower, gap in zip(each.lower, each.gap, strict=True)
    ]
    return f"{each.a} less {each.b}, at losses lower by {shortened(points, 12)}."
