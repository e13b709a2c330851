"""A sweep over caps: revenue and first places cap by cap, the best cap and its rivals."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sim.comparison import Comparison
from sim.measures import SHARES
from sim.report.answer import unit
from sim.report.drawing import (
    BLUE,
    INK,
    PAPER,
    VERMILLION,
    WIDTH,
    Plot,
    keyed,
    percent,
    spaced,
    styled,
    titled,
)
from sim.report.findings import Findings
from sim.report.markup import Cell, Html, joined, paragraph, row, table
from sim.report.standing import FIRST_PLACE, JUDGED, REVENUE, curve_of
from sim.report.words import interval_of, mean_of, share_of
from sim.sensitivity import BestCap, CapCurve

_DRAWN = {REVENUE: BLUE, FIRST_PLACE: VERMILLION}


def curves(findings: Findings) -> dict[str, CapCurve]:
    """The curve of each quality model."""
    numbers = dict(zip(findings.names, findings.caps or [], strict=True))
    return {model: curve_of(view, numbers) for model, view in findings.comparison.by_model.items()}


def caps(findings: Findings) -> Html:
    """The best cap in each measure under each model."""
    rows = [
        row(JUDGED[metric], [Cell(model, kind="prose"), *_best(view, curve, metric)])
        for metric in JUDGED
        for (model, view), curve in zip(
            findings.comparison.by_model.items(), curves(findings).values(), strict=True
        )
    ]
    columns = ["measure", "model", "best cap", "its mean", "best in resamples", "not told apart"]
    return joined(
        [
            paragraph(
                "The presets differ in nothing but the cap. The best cap has the highest mean; how "
                "often it still has it when the replications are drawn again with replacement says "
                "how sure that is. Caps that the paired test cannot tell from it at 5% (Holm) "
                "stand beside it."
            ),
            table("The best cap", columns, rows, ("model", "not told apart")),
        ]
    )


def _best(view: Comparison, curve: CapCurve, metric: str) -> list[Cell]:
    found = curve.best.get(metric)
    if found is None:
        return [Cell("not known"), Cell(""), Cell(""), Cell("", kind="prose")]
    point = next(each for each in curve.points if each.cap == found.cap)
    mean = point.measures[metric]
    sure = len(view.done) > 1
    return [
        Cell(str(found.cap), key=found.cap),
        Cell(mean_of(mean, metric), interval_of(mean, metric), None if mean is None else mean.mean),
        Cell(share_of(found.confidence, 0), key=found.confidence) if sure else Cell("not known"),
        Cell(_rivals(found), kind="prose"),
    ]


def _rivals(found: BestCap) -> str:
    """Caps in runs, such as 9 to 24."""
    runs: list[list[int]] = []
    for cap in sorted(found.rivals):
        if runs and cap - runs[-1][-1] == 1:
            runs[-1].append(cap)
        else:
            runs.append([cap])
    told = [f"{run[0]} to {run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs]
    return ", ".join(told) or "none"


def caps_plot(findings: Findings) -> Plot:
    """Revenue and first places over the caps, a row a model."""
    views = findings.comparison.by_model
    found = curves(findings)
    figure = Figure(figsize=(WIDTH, 0.9 + 1.9 * len(views)), layout="constrained")
    spaced(figure)
    grid = figure.subplots(len(views), 2, squeeze=False, sharex=True)
    for (model, curve), line in zip(found.items(), grid, strict=True):
        for axes, (metric, colour) in zip(line, _DRAWN.items(), strict=True):
            _curve(styled(axes), curve, metric, colour)
            what = f"{unit(findings.comparison)} a day" if metric == REVENUE else "first place"
            titled(axes, f"{model}: {what}")
    for axes in grid[-1]:
        axes.set_xlabel("cap: slots on the box", fontsize=9)
    keyed(figure, grid[0][0])
    return Plot(
        "cap_curve",
        "Revenue and first places over the cap",
        "Dots are means over the replications, the bands 95% intervals. The diamond is the best "
        "cap; hollow dots are caps that cannot be told from it. Each panel has its own scale.",
        " ".join(_told(model, curve) for model, curve in found.items()),
        figure,
    )


def _curve(axes: Axes, curve: CapCurve, metric: str, colour: str) -> None:
    points = [(each.cap, found) for each in curve.points if (found := each.measures[metric])]
    caps_, means = [cap for cap, _ in points], [found.mean for _, found in points]
    lows = [found.mean if found.lo is None else found.lo for _, found in points]
    highs = [found.mean if found.hi is None else found.hi for _, found in points]
    axes.fill_between(caps_, lows, highs, color=colour, alpha=0.25, linewidth=0)
    axes.plot(caps_, means, "o-", color=INK, linewidth=1, markersize=4, label="surely lower")
    best = curve.best.get(metric)
    if best is not None:
        at = dict(zip(caps_, means, strict=True))
        rivals = [cap for cap in best.rivals if cap in at]
        axes.plot(rivals, [at[cap] for cap in rivals], "o", color=INK, markerfacecolor=PAPER,
                  markersize=4.5, zorder=4, label="not told from the best")  # fmt: skip
        axes.plot([best.cap], [at[best.cap]], "D", color=INK, markersize=6.5, zorder=5,
                  label="best cap")  # fmt: skip
    axes.grid(color=INK, alpha=0.15)
    axes.set_ylim(bottom=min(0.0, *lows) if lows else 0.0)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=4))
    axes.yaxis.set_major_formatter(percent if metric in SHARES else "{x:,.4g}")


def _told(model: str, curve: CapCurve) -> str:
    told = [
        f"{metric} under {model}: best cap {best.cap}, not told apart: {_rivals(best)}."
        for metric in _DRAWN
        if (best := curve.best.get(metric)) is not None
    ]
    return " ".join(told)
