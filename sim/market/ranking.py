"""From submissions to scores, for many tasks at once.

A batch of tasks is a rectangle: one row a task, one column a submission in the order of its lines,
padded on the right where a task has fewer. Everything works on whole rectangles; a row never looks
at another. All formulas are the validator's published rules, mid-2025, with their numbers taken
from the rule set.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from sim.market.rules import Ranking, RuleSet

BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]


@dataclass(frozen=True)
class Submissions:
    """What the miners handed in, tasks x columns.

    ``group`` (tasks,) is the index into the rule set's groups. ``test_loss`` and ``synth_loss``
    (tasks, columns) are NaN where missing: nothing submitted, late, or not to be evaluated (an
    infinite one counts as missing too). ``is_finetune`` and ``took_part`` (tasks, columns) are
    masks; what stands in a column that did not take part is never read.

    Raises ``ValueError`` when the shapes differ.
    """

    group: IntArray
    test_loss: FloatArray
    synth_loss: FloatArray
    is_finetune: BoolArray
    took_part: BoolArray

    def __post_init__(self) -> None:
        shape = self.test_loss.shape
        others = (self.synth_loss, self.is_finetune, self.took_part)
        if len(shape) != 2 or any(other.shape != shape for other in others):
            raise ValueError(f"losses and masks must share one shape (tasks, columns), not {shape}")
        if self.group.shape != shape[:1]:
            raise ValueError(f"group must have shape {shape[:1]}, not {self.group.shape}")


@dataclass(frozen=True)
class TaskScores:
    """Scores of a batch, tasks x columns; zeros and False where nobody took part.

    ``score`` is what enters the income. ``left`` marks the submissions that were ranked, ``failed``
    the failed ones, ``out`` those of a text task outside the best 4, neither valid nor failed.
    ``place`` is 1 for the best, 0 where nobody took part: first those left by ranking value, then
    those out by test loss, then the failed, who all share the last place.
    ``counts`` (tasks,) is False for a task in which everybody scores 0: it counts nowhere.
    """

    score: FloatArray
    place: IntArray
    left: BoolArray
    out: BoolArray
    failed: BoolArray
    counts: BoolArray

    @cached_property
    def took_part(self) -> BoolArray:
        """Whoever is ranked, out or failed."""
        return self.left | self.out | self.failed

    @cached_property
    def first(self) -> BoolArray:
        """The winner of each task."""
        return self.left & (self.place <= 1)

    @cached_property
    def top4(self) -> BoolArray:
        """The first four places among those left; fewer when fewer are left."""
        return self.left & (self.place <= 4)

    @cached_property
    def penalised(self) -> BoolArray:
        """Whoever scores below 0."""
        return self.score < 0

    @cached_property
    def percentile(self) -> FloatArray:
        """Rank as a number from 1 (first) to 0 (last); alone in a task: 1.

        NaN where nobody took part and in tasks that count nowhere. Our measure, not the market's.
        """
        entered = self.took_part.sum(axis=1, keepdims=True)
        behind = np.where(entered > 1, (entered - self.place) / np.maximum(entered - 1, 1), 1.0)
        known = self.took_part & self.counts[:, None]
        return np.where(known, behind, np.nan)


def score_tasks(submissions: Submissions, rules: RuleSet) -> TaskScores:
    """Score every submission of every task.

    The steps in the rules' own order: who can be evaluated, the best few of a text task, duplicates
    struck without anyone moving up, the ranking value, the points.
    """
    submissions = _cleaned(submissions)
    eligible = _eligible(submissions)
    inside = _best_few(submissions, eligible, rules)
    out = eligible & ~inside
    synth = _synthetic(submissions, rules)
    left = inside & ~np.isnan(synth) & ~_duplicates(submissions, synth, out)
    failed = submissions.took_part & ~left & ~out
    value = _ranking_value(submissions, synth, left, rules)
    place = _places(submissions, value, left, out, failed, rules)
    score = _points(place, left, failed, rules)
    return TaskScores(score, place, left, out, failed, counts=(score != 0).any(axis=1))


def _cleaned(submissions: Submissions) -> Submissions:
    """The same with NaN for every loss that is infinite or whose column took no part."""

    def known(losses: FloatArray) -> FloatArray:
        return np.where(submissions.took_part & np.isfinite(losses), losses, np.nan)

    test, synth = known(submissions.test_loss), known(submissions.synth_loss)
    return replace(submissions, test_loss=test, synth_loss=synth)


def _eligible(submissions: Submissions) -> BoolArray:
    # A model that is no finetune of the base is failed before the best few are taken, so it takes
    # nobody's place among them; only duplicates are found afterwards.
    present = submissions.took_part & submissions.is_finetune
    return present & ~np.isnan(submissions.test_loss)


def _of_ranking(submissions: Submissions, rules: RuleSet, ranking: Ranking) -> BoolArray:
    """Which tasks are ranked that way, (tasks, 1)."""
    known = np.array([group.ranking is ranking for group in rules.groups])
    return known[submissions.group][:, None]


def _order_of(values: FloatArray, ranked: BoolArray) -> IntArray:
    """Position from 0, lowest value first, of the ranked columns; equal ones keep their order.

    Columns that are not ranked come after all that are.
    """
    keys = np.where(ranked, values, np.inf)
    order = np.argsort(keys, axis=1, kind="stable")
    position = np.empty_like(order)
    np.put_along_axis(position, order, np.arange(order.shape[1])[None, :], axis=1)
    return position


def _lower_is_better(submissions: Submissions, values: FloatArray, rules: RuleSet) -> FloatArray:
    return np.where(_of_ranking(submissions, rules, Ranking.REWARD), -values, values)


def _best_few(submissions: Submissions, eligible: BoolArray, rules: RuleSet) -> BoolArray:
    """The submissions that get a synthetic evaluation (all of a task that needs none)."""
    columns = submissions.test_loss.shape[1]
    places = np.array(
        [columns if group.synth_places is None else group.synth_places for group in rules.groups]
    )
    test = _lower_is_better(submissions, submissions.test_loss, rules)
    return eligible & (_order_of(test, eligible) < places[submissions.group][:, None])


def _synthetic(submissions: Submissions, rules: RuleSet) -> FloatArray:
    """The synthetic loss; in an image task it equals the test loss."""
    same = _of_ranking(submissions, rules, Ranking.TEST_ONLY)
    return np.where(same, submissions.test_loss, submissions.synth_loss)


def _duplicates(submissions: Submissions, synth: FloatArray, out: BoolArray) -> BoolArray:
    """Every submission whose pair of losses another one of its task has too.

    Those outside the best few have no synthetic loss, hence no pair; a pair with a missing loss is
    a failure anyway.
    """
    test = submissions.test_loss
    paired = submissions.took_part & ~out & ~np.isnan(test) & ~np.isnan(synth)
    first, second = np.where(paired, test, np.nan), np.where(paired, synth, np.nan)
    # Two stable sorts bring equal pairs side by side; NaN equals nothing, so gaps never match.
    order = np.argsort(second, axis=1, kind="stable")
    by_first = np.argsort(np.take_along_axis(first, order, axis=1), axis=1, kind="stable")
    order = np.take_along_axis(order, by_first, axis=1)
    first, second = (np.take_along_axis(part, order, axis=1) for part in (first, second))
    same = (first[:, 1:] == first[:, :-1]) & (second[:, 1:] == second[:, :-1])
    twice = np.zeros_like(paired)
    twice[:, 1:] |= same
    twice[:, :-1] |= same
    found = np.zeros_like(paired)
    np.put_along_axis(found, order, twice, axis=1)
    return found


def _ranking_value(
    submissions: Submissions, synth: FloatArray, left: BoolArray, rules: RuleSet
) -> FloatArray:
    """What orders those left, lower is better for all (rewards are negated)."""
    test = submissions.test_loss
    worse = np.maximum(test, synth)
    reward = -np.where(_mixes(test, synth, left, rules)[:, None], _mix(test, synth, rules), test)
    value = np.where(_of_ranking(submissions, rules, Ranking.REWARD), reward, worse)
    return np.where(_of_ranking(submissions, rules, Ranking.TEST_ONLY), test, value)


def _mix(test: FloatArray, synth: FloatArray, rules: RuleSet) -> FloatArray:
    return rules.reward.test * test + rules.reward.synth * synth


def _mixes(test: FloatArray, synth: FloatArray, left: BoolArray, rules: RuleSet) -> BoolArray:
    """Tasks, (tasks,), in which enough of those left have a sound ratio for the mix to rank."""
    above = left & (test > 0)
    with np.errstate(over="ignore"):  # a ratio too large for a float is too large for the rule
        ratio = np.divide(synth, test, out=np.full_like(test, np.inf), where=above)
    sound = (above & (ratio <= rules.reward.largest_ratio)).sum(axis=1)
    share = sound / np.maximum(left.sum(axis=1), 1)
    return np.asarray(share >= rules.reward.least_share)


def _places(
    submissions: Submissions,
    value: FloatArray,
    left: BoolArray,
    out: BoolArray,
    failed: BoolArray,
    rules: RuleSet,
) -> IntArray:
    test = _lower_is_better(submissions, submissions.test_loss, rules)
    behind_left = left.sum(axis=1, keepdims=True) + _order_of(test, out) + 1
    last = submissions.took_part.sum(axis=1, keepdims=True)
    place = np.where(left, _order_of(value, left) + 1, np.where(out, behind_left, last))
    return np.where(left | out | failed, place, 0)


def _points(place: IntArray, left: BoolArray, failed: BoolArray, rules: RuleSet) -> FloatArray:
    points = rules.points
    count = left.sum(axis=1, keepdims=True)
    table = np.zeros(max(place.shape[1], len(points.places)) + 1)
    table[1 : len(points.places) + 1] = points.places
    score = np.where(left, table[place], 0.0)
    last = np.maximum(1, (points.penalty_share * count).astype(np.int64))
    behind = left & (count > points.penalty_above) & (place > count - last)
    return np.where(behind | (failed & (count > 0)), points.penalty, score)
