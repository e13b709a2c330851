"""On what the answer depends: the losses' gap, the document's recommendation, the assumptions."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from sim.claims import ClaimVerdict
from sim.comparison import Comparison
from sim.field import field_of
from sim.loss_advantage import LossAdvantage
from sim.output_analysis import Estimate, fitted
from sim.report.parameters import parameters_of
from sim.report.standing import REVENUE, leader, question
from sim.report.words import counted, listed, share_of, shares_between

RECOMMENDATION, CONCESSION = "ranking", "revenue"
"""The claims that are the document's advice and what it says that the advice costs."""


def dependence(comparison: Comparison) -> list[str]:
    """Sentences: the break-even, the recommendation, what was assumed."""
    found = asked(comparison)
    told = [] if found is None else [break_even_told(comparison, found)]
    return [*told, *recommendation(comparison), assumed(comparison)]


def asked(comparison: Comparison) -> LossAdvantage | None:
    """The break-even that the answer is about: of its pair, else against the one earning most."""
    pair = question(comparison)
    if pair and pair[0] == comparison.names[0]:
        return next((each for each in comparison.advantages if each.b == pair[1]), None)
    best = leader(comparison, REVENUE)
    named = best.name if best else None
    return next((each for each in comparison.advantages if each.b == named), None)


def break_even_told(comparison: Comparison, found: LossAdvantage) -> str:
    """How much lower the losses must be, and how much lower they are."""
    value, most = found.break_even.value, share_of(found.lower[-1], 0)
    if value is None or (found.gap[0] is not None and found.gap[0].mean == 0):
        return f"{_never(found, most)} {_given(comparison, found)}"
    if len(comparison.done) < 2:
        value = Estimate(value.mean, None, None)
    return (
        f"All else equal, {found.a} earns as much as {found.b} once its losses are "
        f"{shares_between(value, 2)} lower{_coarse(found, value)}. {_given(comparison, found)}"
    )


def _never(found: LossAdvantage, most: str) -> str:
    first, last = found.gap[0], found.gap[-1]
    if first is None or last is None:
        return f"How low {found.a}'s losses must be to earn as much as {found.b} is not known."
    if first.mean == 0:
        return f"{found.a} and {found.b} earn the same without any advantage in the losses."
    if first.mean > 0:
        return (
            f"All else equal, {found.a} earns more than {found.b} even without any advantage in "
            "its losses."
        )
    return (
        f"All else equal, even losses {most} lower would not let {found.a} earn as much as "
        f"{found.b}."
    )


def _coarse(found: LossAdvantage, value: Estimate) -> str:
    """Between which values tried the crossing was read from a straight line."""
    for left, right in pairwise(found.lower):
        if left <= value.mean <= right and right - left > value.mean:
            ends = f"{share_of(left, 2)} and {share_of(right, 2)}"
            return f" (read from a straight line between {ends}, the values tried)"
    return ""


def _given(comparison: Comparison, found: LossAdvantage) -> str:
    """How much lower each model has them."""
    told = [
        f"{share_of(lower.mean)} ({model})"
        for model, view in comparison.by_model.items()
        if (lower := loss_lower(view, found.a, found.b)) is not None
    ]
    return f"As simulated, its test losses are lower by {listed(told)}." if told else ""


def loss_lower(view: Comparison, a: str, b: str) -> Estimate | None:
    """The share by which a's mean test loss is lower than b's."""
    ours = np.asarray(view.values(a, "test_loss"), dtype=np.float64)
    theirs = np.asarray(view.values(b, "test_loss"), dtype=np.float64)
    return fitted((1 - ours / theirs).tolist())


def recommendation(comparison: Comparison) -> list[str]:
    """Whether the strategy document's advice, and what it says the advice costs, are borne out."""
    pair = question(comparison)
    rows = {row: [each for each in comparison.claims if each.id == row]
            for row in (RECOMMENDATION, CONCESSION)}  # fmt: skip
    caps = {comparison.policies[name].preset.cap for name in comparison.names}
    if pair is None or not {4, 24} <= caps:
        return [
            "The document's advice (4 slots, not 24) needs both among the presets to be judged."
        ]
    advice, cost = (_judged(rows[row]) for row in (RECOMMENDATION, CONCESSION))
    told = f"The strategy document's advice, 4 slots for top ranking, {advice}"
    return [f"{told}; its word that 24 slots earn more {cost}."]


_JUDGED = {
    "holds": "is borne out under",
    "fails": "is not borne out under",
    "assumed": "is an assumption of",
    "cannot judge": "cannot be judged under",
}


def _judged(rows: Sequence[ClaimVerdict]) -> str:
    told = []
    for verdict, words in _JUDGED.items():
        models = [row.quality_model for row in rows if row.verdict == verdict]
        if models:
            told.append(f"{words} {listed(models)}")
    return listed(told)


def assumed(comparison: Comparison) -> str:
    """The field, and how many numbers have no source."""
    market = comparison.world.scenario.market
    field = field_of(market.field)
    kind = market.field if isinstance(market.field, str) else "stated"
    count = sum(each.assumed for each in parameters_of(comparison))
    emission = f"{market.emission_per_day:,.6g} tokens a day at a price of {market.price:g}"
    article = "an" if kind[0] in "aeiou" else "a"
    return (
        f"Assumed are above all {article} {kind} field of {field.miners} competitors, whose median "
        f"loss is {share_of(field.median_loss, 0)} of the reference run's, and an emission of "
        f"{emission}; "
        f"{counted(count, 'number')} in all {'has' if count == 1 else 'have'} no public source."
    )
