"""Pictures of the tornado and of the curve over caps, in the report's style."""

from collections.abc import Mapping, Sequence
from math import ceil, log10
from statistics import median

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MultipleLocator

from sim.measures import SHARES
from sim.output_analysis import Estimate, estimate
from sim.report.drawing import (
    BLUE,
    GREEN,
    INK,
    ORANGE,
    PURPLE,
    VERMILLION,
    Plot,
    canvas,
    keyed,
    label_of,
    named,
    titled,
)
from sim.report.words import number
from sim.sensitivity.cap_curve import CapCurve
from sim.sensitivity.one_at_a_time import FLIPS, Bar
from sim.sensitivity.study import CAP_METRICS, Question

MOST_BARS = 20
"""Bars drawn; the table and the document have the rest."""

_TOO_LONG = 25
"""Times the middle swing that the longest may be on a scale that is the same all over."""

_LINES = (("o", BLUE), ("s", VERMILLION), ("^", GREEN), ("D", PURPLE))
_TITLES = {
    "revenue_per_day": "Revenue a day",
    "first_place_rate": "First places / jobs with a result",
}


def tornado_plot(question: Question, bars: Sequence[Bar]) -> Plot:
    """Each parameter's result at its low and its high, the widest swing on top."""
    drawn = bars[:MOST_BARS]
    figure, (axes,) = canvas(1, 1.6 + 0.34 * len(drawn))
    base = estimate(bars[0].base)
    origin = base.mean if base else 0.0
    for place, bar in enumerate(drawn):
        _ends(axes, place, bar, origin)
    axes.axvline(0, color=INK, linewidth=1.2)
    axes.axvline(origin, color=INK, linewidth=1, linestyle=":", label="as the scenario says")
    axes.set_yticks(range(len(drawn)), [_named(bar) for bar in drawn])
    named(axes.get_yticklabels())
    axes.set_ylim(len(drawn) - 0.4, -0.6)
    axes.grid(axis="x", color=INK, alpha=0.15)
    scale = _scaled(axes, question.metric, drawn)
    a, b = map(label_of, question.names)
    axes.set_xlabel(f"{question.metric}: {a}\nless {b} (over 0: the first has more){scale}")
    axes.xaxis.label.set_parse_math(False)
    titled(axes, f"What the difference depends on, under {question.model}")
    keyed(figure, axes)
    return Plot("tornado", "What the difference depends on", _CAPTION, _told(bars), figure)


_CAPTION = (
    "Each bar goes from the scenario's result to the result at one end of the parameter's range; "
    "thin lines are 95% intervals. A star marks a parameter that turns the answer round."
)


def _ends(axes: Axes, place: int, bar: Bar, origin: float) -> None:
    ends = ((bar.at_low, BLUE, -0.19, "low end"), (bar.at_high, ORANGE, 0.19, "high end"))
    for found, colour, aside, label in ends:
        if found is None:
            continue
        axes.barh(
            place + aside, found.mean - origin, 0.36, left=origin, color=colour,
            label=label if place == 0 else None,
        )  # fmt: skip
        if found.lo is not None and found.hi is not None:
            axes.hlines(place + aside, found.lo, found.hi, color=INK, linewidth=1)


def _named(bar: Bar) -> str:
    each = bar.parameter
    star = "* " if bar.answer == FLIPS else ""
    return f"{star}{each.label}  ({each.shown(each.low)} to {each.shown(each.high)})"


def _scaled(axes: Axes, metric: str, bars: Sequence[Bar]) -> str:
    """The numbers of the axis; returns what must be said of its scale.

    Logarithmic away from 0 where one bar is so long that the middle one would not be seen.
    """

    def told(value: float, _: int) -> str:
        return f"{100 * value:g} pp" if metric in SHARES else f"{value:,.6g}"

    swings = [bar.swing for bar in bars]
    middle, said = median(swings), ""
    if 0 < middle < swings[0] / _TOO_LONG:
        linear = 10.0 ** ceil(log10(middle))
        axes.set_xscale("symlog", linthresh=linear, linscale=1.5)
        said = f"\nscale: linear to {told(linear, 0)} either side of 0, logarithmic beyond"
    axes.xaxis.set_major_formatter(FuncFormatter(told))
    return said


def _told(bars: Sequence[Bar]) -> str:
    return " ".join(
        f"{bar.parameter.label}: {_mean(bar.at_low)} to {_mean(bar.at_high)}." for bar in bars
    )


def _mean(found: Estimate | None) -> str:
    return "unknown" if found is None else f"{found.mean:.4g}"


def caps_plot(curves: Mapping[str, CapCurve]) -> Plot:
    """Revenue and first places over caps, a panel for each quality model and measure."""
    shown = [(model, metric) for metric in CAP_METRICS for model in curves]
    figure, panels = canvas(len(shown), 1.9 * len(shown) + 0.6, sharex=True)
    styles = dict(zip(curves, _LINES, strict=False))
    for axes, (model, metric) in zip(panels, shown, strict=True):
        _line(axes, curves[model], metric, (model, *styles[model]))
        titled(axes, f"{_TITLES[metric]}, under {model}")
        axes.grid(color=INK, alpha=0.15)
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(
            FuncFormatter(lambda value, _, metric=metric: number(value, metric))
        )
    panels[-1].set_xlabel("cap: slots on the box")
    panels[-1].xaxis.set_major_locator(MultipleLocator(2))
    panels[-1].set_xlim(0.5, 24.5)
    caption = (
        "Means with 95% intervals; the ring is the highest mean. Each panel has a scale of its own."
    )
    alt = " ".join(
        f"{model}, {metric}: highest at cap {best.cap}."
        for model, curve in curves.items()
        for metric, best in curve.best.items()
    )
    return Plot("caps", "Revenue and first places over caps", caption, alt, figure)


def _line(axes: Axes, curve: CapCurve, metric: str, style: tuple[str, str, str]) -> None:
    label, marker, colour = style
    found = [
        (point.cap, each) for point in curve.points if (each := point.measures[metric]) is not None
    ]
    caps, means = [cap for cap, _ in found], [each.mean for _, each in found]
    lows = [each.mean if each.lo is None else each.lo for _, each in found]
    highs = [each.mean if each.hi is None else each.hi for _, each in found]
    axes.fill_between(caps, lows, highs, color=colour, alpha=0.2, linewidth=0)
    axes.plot(caps, means, marker=marker, color=colour, markersize=4, label=label)
    best = curve.best.get(metric)
    for cap, each in found:
        if best is not None and cap == best.cap:
            axes.plot(
                [cap], [each.mean], "o", markersize=12, markerfacecolor="none",
                markeredgecolor=colour, markeredgewidth=1.6,
            )  # fmt: skip
