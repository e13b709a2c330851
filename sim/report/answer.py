"""The answer in words, made from the numbers: for the top of the report and for the terminal."""

from dataclasses import dataclass

from shared.units import MS_PER_DAY
from sim.comparison import Comparison
from sim.output_analysis import Estimate
from sim.report.dependence import dependence
from sim.report.short import in_short
from sim.report.standing import (
    FIRST_PLACE,
    JUDGED,
    PERCENTILE,
    REVENUE,
    Leader,
    Pair,
    leader,
    question,
    sized,
)
from sim.report.words import (
    counted,
    fewer_or_more,
    interval_of,
    listed,
    mean_of,
    sentence,
    shares_between,
    times,
)

UNDER = {
    "physical": "if compute, memory and published scaling laws decide (physical model)",
    "claims": "if the strategy document's own percentages are true (claims model)",
    "neutral": "if a slot's size changes nothing but the number of jobs (neutral model)",
    "calibrated": "if jobs turn out as in the calibration file (calibrated model)",
}
"""What each quality model supposes, as the beginning of a sentence."""

BRACKETS = "Brackets hold 95% intervals."
PERCENTILE_MEANT = "The rank percentile is 100% for the first of a task and 0% for the last."

_MOST_NAMED = 4
"""Presets that are named where the best cannot be told from them; more are counted."""


@dataclass(frozen=True)
class Answer:
    """The answer in parts: in short, under the primary model, under each other one, on what
    it depends.
    """

    short: str
    setting: str
    primary: list[str]
    others: list[str]
    depends: list[str]

    @property
    def paragraph(self) -> str:
        """All of it, as one text."""
        return " ".join([self.short, self.setting, *self.primary, *self.others, *self.depends])


def answer(comparison: Comparison) -> Answer:
    """Who earns more and ranks higher, how sure that is, and on what it depends."""
    primary, *others = comparison.by_model
    told = _told(comparison.by_model[primary], primary, full=True)
    brief = [" ".join(_told(comparison.by_model[model], model, full=False)) for model in others]
    return Answer(in_short(comparison), _setting(comparison), told, brief, dependence(comparison))


def _setting(comparison: Comparison) -> str:
    begin, end = comparison.world.window_ms
    offers = mean_of(comparison.presets[comparison.names[0]]["offers"], "offers")
    runs = len(comparison.done)
    told = (
        f"{(end - begin) / MS_PER_DAY:.4g} days were simulated {counted(runs, 'time')}, with "
        f"{offers} offers each{' on average' if runs > 1 else ''}."
    )
    return f"{told} {BRACKETS}" if runs > 1 else told


def _told(view: Comparison, model: str, *, full: bool) -> list[str]:
    under = sentence(UNDER.get(model, f"under the {model} model"))
    pair = question(view)
    if len(view.names) == 1:
        return [f"{under}, {_alone(view)}"]
    if len(view.names) == 2 and pair:
        return _of_pair(view, pair, under, full)
    told = [f"{under}, {_leaders(view)}"]
    if pair:
        told += _of_pair(view, pair, "Of the two that the question is about", full=False)
    return told


def _alone(view: Comparison) -> str:
    name = view.names[0]
    found = view.presets[name]
    told = [
        f"{words} {_sure(found[metric], metric)}"
        for metric, words in JUDGED.items()
        if metric != REVENUE
    ]
    return (
        f"{sized(view.policies[name].preset, name)} earns {_sure(found[REVENUE], REVENUE)} "
        f"{unit(view)} a day: {listed(told)} over its jobs."
    )


def _of_pair(view: Comparison, names: tuple[str, str], under: str, full: bool) -> list[str]:
    revenue = Pair(view, *names, REVENUE)
    ranks = [Pair(view, *names, metric) for metric in (FIRST_PLACE, PERCENTILE)]
    earned = f"{under}, {_earned(revenue, full)}"
    if full:
        return [earned, _ranked(ranks, full), PERCENTILE_MEANT]
    return [f"{earned.removesuffix('.')}; {_ranked(ranks, full)}"]


def _earned(pair: Pair, full: bool) -> str:
    """Who earns more, by how much and how sure."""
    pair = pair.higher_first()
    view, gap = pair.view, pair.gap
    a, b = (_named(view, name, full) for name in (pair.a, pair.b))
    ours, theirs = (mean_of(mean, pair.metric) for mean in pair.means)
    if gap is None:
        return f"what {a} and {b} earn is not known."
    if pair.verdict == "the same":
        return f"{a} and {b} earn the same, {ours} {unit(view)} a day."
    against = f"{ours} {unit(view)} a day against {theirs}"
    if pair.verdict == "cannot be told":
        return f"{a} earned more than {b} in the one replication: {against}; how sure is not known."
    if pair.verdict != "more":
        return (
            f"which of {a} and {b} earns more cannot be told: {against}, "
            f"{fewer_or_more(gap, pair.metric)}{_beats(pair)}."
        )
    size = f", {fewer_or_more(gap, pair.metric)}{_factor(pair)}" if full else ""
    return f"{a} earns more than {b}: {against}{size}{_beats(pair)}."


def _factor(pair: Pair) -> str:
    ours, theirs = pair.means
    if ours is None or theirs is None or theirs.mean <= 0:
        return ""
    return f", {times(ours.mean / theirs.mean)} as much"


def _beats(pair: Pair) -> str:
    """The probability that the one named first has more."""
    found, runs = pair.more, len(pair.view.done)
    if found is None:
        return ""
    won = f"{round(found.mean * runs)} of {counted(runs, 'replication')}"
    return f"; {pair.a} earned more in {won} (probability {shares_between(found)})"


def _ranked(ranks: list[Pair], full: bool) -> str:
    """Who ranks higher: first places and the mean rank, which need not agree."""
    if any(each.gap is None for each in ranks):
        return _start("the ranks are not known: no job had a result.", full)
    ahead = {each.a if each.verdict == "more" else each.b
             for each in ranks if each.verdict in ("more", "less")}  # fmt: skip
    if len(ahead) == 1:
        winner = next(iter(ahead))
        ranks = [each if each.a == winner else each.turned for each in ranks]
        return f"{winner} ranks higher: {_ranks_told(ranks, full)}."
    if len(ahead) == 2:
        words = "first places and mean ranks do not agree"
    elif all(each.verdict == "the same" for each in ranks):
        words = "both rank the same"
    else:
        words = "which ranks higher cannot be told"
    return f"{_start(words, full)}: {_ranks_told(ranks, full)}."


def _start(words: str, full: bool) -> str:
    return sentence(words) if full else words


def _ranks_told(ranks: list[Pair], full: bool) -> str:
    return ", ".join(_rank_told(each, full) for each in ranks)


def _rank_told(pair: Pair, full: bool) -> str:
    ours, theirs = (mean_of(mean, pair.metric) for mean in pair.means)
    told = _RANK_WORDS[pair.metric].format(ours, theirs, a=pair.a, b=pair.b)
    if not full or pair.verdict in ("cannot be told", "the same"):
        return told
    return f"{told} ({fewer_or_more(pair.gap, pair.metric)})"


_RANK_WORDS = {
    FIRST_PLACE: "first place in {} of the jobs of {a} against {} of {b}",
    PERCENTILE: "mean rank percentile {} against {}",
}


def _leaders(view: Comparison) -> str:
    """The best of many presets in income and in rank."""
    earns, first = leader(view, REVENUE), leader(view, FIRST_PLACE)
    if earns is None:
        return "all presets earn the same, or what they earn is not known."
    found = view.presets[earns.name][REVENUE]
    told = (
        f"{_named(view, earns.name, True)} earns most, {_sure(found, REVENUE)} {unit(view)} a day"
        f"{_rivals(view, earns)}"
    )
    if first is None:
        return f"{told}; first places do not set the presets apart."
    rate = _sure(view.presets[first.name][FIRST_PLACE], FIRST_PLACE)
    return (
        f"{told}; {first.name} comes first most often, in {rate} of its jobs{_rivals(view, first)}."
    )


def _rivals(view: Comparison, best: Leader) -> str:
    if len(view.done) < 2:
        return " (in the one replication)"
    if not best.rivals:
        return " (surely the best)"
    if len(best.rivals) == len(view.names) - 1:
        return " (no other preset can be told apart from it)"
    if len(best.rivals) > _MOST_NAMED:
        return f" ({len(best.rivals)} others cannot be told apart from it)"
    return f" ({listed(best.rivals)} cannot be told apart from it)"


def _named(view: Comparison, name: str, full: bool) -> str:
    return sized(view.policies[name].preset, name) if full else name


def unit(view: Comparison) -> str:
    """What revenue is counted in."""
    return "tokens" if view.world.scenario.market.price == 1 else "of your currency"


def _sure(found: Estimate | None, metric: str) -> str:
    interval = interval_of(found, metric)
    return mean_of(found, metric) + (f" [{interval}]" if interval else "")
