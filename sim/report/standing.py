"""Who earns more and who ranks higher: pairs of presets, and the best of many."""

from dataclasses import dataclass
from functools import cached_property

from shared.presets import Preset
from sim.comparison import Comparison
from sim.output_analysis import Estimate, paired, probability_of_beating
from sim.report.words import counted, verdict_of
from sim.sensitivity import BestCap, CapCurve, cap_curve

REVENUE, FIRST_PLACE, PERCENTILE = "revenue_per_day", "first_place_rate", "mean_rank_percentile"
JUDGED = {
    REVENUE: "revenue a day",
    FIRST_PLACE: "first place",
    PERCENTILE: "mean rank percentile",
}
"""The measures that answer the question, as the report calls them."""


@dataclass(frozen=True)
class Pair:
    """One measure of two presets under one quality model, replication by replication."""

    view: Comparison
    a: str
    b: str
    metric: str

    @cached_property
    def gap(self) -> Estimate | None:
        """The difference a - b, paired."""
        return paired(self.view.values(self.a, self.metric), self.view.values(self.b, self.metric))

    @cached_property
    def verdict(self) -> str:
        """What the interval says that a has: more, less, ..."""
        return verdict_of(self.gap)

    @property
    def more(self) -> Estimate | None:
        """The probability that a has more than b in a replication."""
        ours = self.view.values(self.a, self.metric)
        return probability_of_beating(ours, self.view.values(self.b, self.metric))

    @property
    def means(self) -> tuple[Estimate | None, Estimate | None]:
        """Both presets' own estimates."""
        return self.view.presets[self.a][self.metric], self.view.presets[self.b][self.metric]

    def higher_first(self) -> "Pair":
        """The same with the larger mean as a."""
        return self.turned if self.gap is not None and self.gap.mean < 0 else self

    @property
    def turned(self) -> "Pair":
        """The same with a and b exchanged."""
        return Pair(self.view, self.b, self.a, self.metric)


def question(comparison: Comparison) -> tuple[str, str] | None:
    """The pair that the answer is about: both presets, or those with 4 and 24 slots of several."""
    names = comparison.names
    if len(names) == 2:
        return names[0], names[1]
    four, many = with_slots(comparison, 4), with_slots(comparison, 24)
    return (four, many) if four and many else None


def with_slots(comparison: Comparison, cap: int) -> str | None:
    """The first preset with so many slots."""
    caps = {name: comparison.policies[name].preset.cap for name in comparison.names}
    return next((name for name in comparison.names if caps[name] == cap), None)


def curve_of(view: Comparison, numbers: dict[str, int]) -> CapCurve:
    """The judged measures over the presets' numbers, whatever these are."""
    metrics = list(JUDGED)
    measures = {name: {metric: view.values(name, metric) for metric in metrics} for name in numbers}
    return cap_curve(measures, numbers, metrics)


@dataclass(frozen=True)
class Leader:
    """The preset with the highest mean of a measure.

    sure: share of bootstrap resamples of the replications in which it leads. rivals: presets that
    cannot be told from it at 5% after Holm's correction.
    """

    name: str
    sure: float
    rivals: list[str]


def leader(view: Comparison, metric: str) -> Leader | None:
    """Who leads in a measure; None where it is not known or all have the same."""
    best: BestCap | None = _curve(view).best.get(metric)
    means = {found[metric] and found[metric].mean for found in view.presets.values()}  # type: ignore[union-attr]
    if best is None or len(means) == 1:
        return None
    names = view.names
    return Leader(names[best.cap], best.confidence, [names[rival] for rival in best.rivals])


def _curve(view: Comparison) -> CapCurve:
    return curve_of(view, {name: number for number, name in enumerate(view.names)})


def sized(preset: Preset, name: str) -> str:
    """A preset's name with its slots and how much of a GPU each is."""
    layout = preset.layout
    return f"{name} ({counted(len(layout.gpus), 'slot')} of {_gpus(layout.gpus_per_slot)})"


def _gpus(each: float) -> str:
    return counted(round(each), "GPU") if each >= 1 else f"1/{round(1 / each)} GPU"
