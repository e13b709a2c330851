"""Plots of the measures: each preset with its interval, and who decided the offers."""

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from shared.decisions import Gate
from sim.measures import SHARES
from sim.output_analysis import Estimate
from sim.report.drawing import (
    BLUE,
    GREEN,
    INK,
    ORANGE,
    PURPLE,
    SKY,
    VERMILLION,
    YELLOW,
    Plot,
    canvas,
    keyed,
    label_of,
    named,
    titled,
)
from sim.report.findings import Findings
from sim.report.words import listed, mean_of

SHOWN = {
    "acceptance_rate": ("Acceptance rate: offers accepted / offers", BLUE),
    "slot_utilisation": ("Utilisation: share of slot time held", VERMILLION),
    "gpu_hours": ("GPU hours held", GREEN),
}
"""The measures drawn, each with its title and its colour."""

GATE_COLOURS = {
    Gate.ACCEPTED: GREEN,
    Gate.DRAINING: SKY,
    Gate.STORAGE: PURPLE,
    Gate.CAPACITY: VERMILLION,
    Gate.TIME: ORANGE,
    Gate.UNSUPPORTED: BLUE,
    Gate.PRIORITY: YELLOW,
}
_WIDE_ENOUGH = 0.07
"""Share of a bar that has room for its own number."""


def measures_plot(findings: Findings) -> Plot:
    """Acceptance, utilisation and GPU hours: over the caps of a sweep, or preset by preset."""
    return _over_caps(findings) if findings.caps else _side_by_side(findings)


def _side_by_side(findings: Findings) -> Plot:
    names = findings.names
    figure, panels = canvas(3, 3 * (0.8 + 0.3 * len(names)))
    for axes, (metric, (title, colour)) in zip(panels, SHOWN.items(), strict=True):
        found = [findings.presets[name][metric] for name in names]
        _dots(axes, found, metric, colour)
        titled(axes, title)
        axes.set_yticks(range(len(names)), [label_of(name) for name in names])
        axes.set_ylim(len(names) - 0.5, -0.8)
        named(axes.get_yticklabels())
        _scaled(axes, metric)
    return Plot(
        "measures",
        "Acceptance, utilisation and GPU hours",
        "Dots are means over the replications, the bars beside them 95% intervals (where none is "
        "seen, it is narrower than the dot).",
        _told(findings),
        figure,
    )


def _dots(axes: Axes, found: list[Estimate | None], metric: str, colour: str) -> None:
    for place, each in enumerate(found):
        if each is None:
            continue
        axes.plot([each.mean], [place], "o", color=colour, markersize=6, clip_on=False, zorder=3)
        if each.lo is not None and each.hi is not None:
            axes.hlines(place, each.lo, each.hi, color=colour, linewidth=3, alpha=0.6)
        axes.annotate(
            mean_of(each, metric), (each.mean, place), xytext=(0, 6), textcoords="offset points",
            ha="center", va="bottom", fontsize=8.5, color=INK, annotation_clip=False,
        )  # fmt: skip


def _scaled(axes: Axes, metric: str) -> None:
    """From zero, so that lengths can be compared; rates up to all of it."""
    axes.grid(axis="x", color=INK, alpha=0.15)
    if metric in SHARES:
        axes.set_xlim(0, 1.04)
        axes.xaxis.set_major_formatter(PercentFormatter(1))
    else:
        axes.set_xlim(0, axes.get_xlim()[1] * 1.06)
        axes.xaxis.set_major_formatter("{x:,.0f}")


def _over_caps(findings: Findings) -> Plot:
    by_cap = sorted(zip(findings.caps or [], findings.names, strict=True))
    figure, panels = canvas(3, 6.6, sharex=True)
    for axes, (metric, (title, colour)) in zip(panels, SHOWN.items(), strict=True):
        found = [(cap, findings.presets[name][metric]) for cap, name in by_cap]
        _curve(axes, [(cap, each) for cap, each in found if each is not None], colour)
        titled(axes, title)
        axes.grid(color=INK, alpha=0.15)
        axes.set_ylim(0, 1.04 if metric in SHARES else None)
        axes.yaxis.set_major_formatter(PercentFormatter(1) if metric in SHARES else "{x:,.0f}")
    panels[-1].set_xlabel("cap: slots on the box")
    panels[-1].xaxis.set_major_locator(MaxNLocator(integer=True, nbins=12))
    return Plot(
        "measures",
        "Acceptance, utilisation and GPU hours over the cap",
        "Dots are means over the replications, the band around them 95% intervals (where none is "
        "seen, it is narrower than the dots). GPU hours jump where the number of GPUs that divide "
        "evenly among the slots changes.",
        _told(findings),
        figure,
    )


def _curve(axes: Axes, found: list[tuple[int, Estimate]], colour: str) -> None:
    caps = [cap for cap, _ in found]
    lows = [each.mean if each.lo is None else each.lo for _, each in found]
    highs = [each.mean if each.hi is None else each.hi for _, each in found]
    axes.fill_between(caps, lows, highs, color=colour, alpha=0.3, linewidth=0)
    axes.plot(caps, [each.mean for _, each in found], "o-", color=colour, markersize=4)


def _told(findings: Findings) -> str:
    """The same in words, for those who do not see it."""
    return " ".join(
        f"{title}: {listed(_means(findings, metric))}." for metric, (title, _) in SHOWN.items()
    )


def _means(findings: Findings, metric: str) -> list[str]:
    return [f"{name} {mean_of(found[metric], metric)}" for name, found in findings.presets.items()]


def gates_plot(findings: Findings) -> Plot:
    """For each preset the share of offers that each gate decided."""
    names = findings.names
    figure, (axes,) = canvas(1, 1.3 + 0.32 * len(names))
    shares = {name: gate_shares(findings.comparison.gates[name]) for name in names}
    left = [0.0] * len(names)
    for gate in Gate:
        width = [shares[name][gate.label] for name in names]
        if gate is Gate.ACCEPTED or any(width):
            _bars(axes, gate, left, width)
        left = [begin + part for begin, part in zip(left, width, strict=True)]
    axes.set_yticks(range(len(names)), [label_of(name) for name in names])
    named(axes.get_yticklabels())
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(PercentFormatter(1))
    axes.set_xlabel("share of all offers")
    keyed(figure, axes)
    return Plot(
        "gates",
        "Which gate decided the offers",
        "Each bar is all offers of a replication, on average. A gate without a colour here "
        "decided none.",
        _gates_told(shares),
        figure,
    )


def _bars(axes: Axes, gate: Gate, left: list[float], width: list[float]) -> None:
    places = list(range(len(left)))
    colour = GATE_COLOURS[gate]
    axes.barh(places, width, 0.66, left=left, color=colour, edgecolor=INK, linewidth=0.6,
              label=gate.label)  # fmt: skip
    for place, begin, part in zip(places, left, width, strict=True):
        if part >= _WIDE_ENOUGH:
            axes.text(
                begin + part / 2, place, f"{part:.1%}", ha="center", va="center", fontsize=8.5,
                color="white" if colour in (BLUE, GREEN, VERMILLION) else "black",
            )  # fmt: skip


def gate_shares(counts: dict[str, float]) -> dict[str, float]:
    """Counts as shares of all offers; all zero when there was no offer."""
    total = sum(counts.values())
    return {gate: number / total if total else 0.0 for gate, number in counts.items()}


def _gates_told(shares: dict[str, dict[str, float]]) -> str:
    return " ".join(
        f"{name}: {listed([f'{gate} {share:.1%}' for gate, share in gates.items() if share])}."
        for name, gates in shares.items()
    )
