"""From scores to each miner's share of the emission.

A cell is one window, one task group and one origin. In each cell a miner's points depend on its
own results and on the best miner's; the weighted points of all cells, over those of all miners,
are its share. All formulas are the validator's published rules, mid-2025.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any, TypeVar

import numpy as np

from shared.units import MS_PER_DAY
from sim.market.ranking import BoolArray, FloatArray, IntArray, TaskScores
from sim.market.rules import Curve, Emission, RuleSet

ORGANIC, SYNTHETIC = 0, 1
"""Index of an origin in every array that has an axis of origins."""


@dataclass(frozen=True)
class TaskFacts:
    """What the income needs to know of each task, all of shape (tasks,).

    ``group`` is the index into the rule set's groups, ``created_ms`` UTC epoch milliseconds,
    ``work`` as ``sim.market.work.task_work`` gives it.
    """

    group: IntArray
    is_organic: BoolArray
    created_ms: IntArray
    work: FloatArray


@dataclass(frozen=True)
class CountedTasks:
    """Tasks that count, one element each, in order of creation."""

    created_ms: IntArray
    group: IntArray
    origin: IntArray


@dataclass(frozen=True)
class CountedScores:
    """Submissions to tasks that count, one element each, in order of their tasks' creation.

    ``miner`` is an index from 0, ``work`` the task's. Zero scores are here too: they count as a
    task taken part in, and nothing else is made of them.
    """

    created_ms: IntArray
    group: IntArray
    origin: IntArray
    miner: IntArray
    score: FloatArray
    work: FloatArray
    first: BoolArray


Rows = TypeVar("Rows", CountedTasks, CountedScores)


@dataclass(frozen=True)
class Results:
    """A market's history: what ``collect`` makes of scored tasks and ``income`` reads."""

    tasks: CountedTasks
    scores: CountedScores


def collect(facts: TaskFacts, miner: IntArray, scores: TaskScores) -> Results:
    """Flatten scored tasks; ``miner`` (tasks, columns) is each column's index from 0.

    A task in which everybody scores 0 is left out whole. Entries of ``miner`` in columns that did
    not take part are never read.
    """
    counted = np.flatnonzero(scores.counts)
    rows = counted[np.argsort(facts.created_ms[counted], kind="stable")]
    part = scores.took_part[rows]
    row = rows[np.nonzero(part)[0]]
    origin = np.where(facts.is_organic, ORGANIC, SYNTHETIC)
    return Results(
        CountedTasks(facts.created_ms[rows], facts.group[rows], origin[rows]),
        CountedScores(
            facts.created_ms[row],
            facts.group[row],
            origin[row],
            miner[rows][part],
            scores.score[rows][part],
            facts.work[row],
            scores.first[rows][part],
        ),
    )


def join(parts: Iterable[Results]) -> Results:
    """Several batches (one at least) as one, in order of creation; equal times keep their order."""
    batches = list(parts)
    return Results(
        _in_order([batch.tasks for batch in batches]),
        _in_order([batch.scores for batch in batches]),
    )


@dataclass(frozen=True)
class Income:
    """Who earns what at one moment; M miners, G groups, W windows.

    ``share`` (M,) sums to 1, or is all 0 when nobody has a point. ``points`` (W, G, 2, M) is what
    each cell gives, weights included, before normalising. ``flagged`` (G, M) marks miners that
    get nothing for their organic part. Over the history (7 days): ``mean_score`` (M,) without
    zeros, 0 where there is none; ``tasks``, ``first_places``, ``penalties`` (M,) count.
    """

    share: FloatArray
    points: FloatArray
    flagged: BoolArray
    mean_score: FloatArray
    tasks: IntArray
    first_places: IntArray
    penalties: IntArray


def income(results: Results, now_ms: int, miners: int, rules: RuleSet) -> Income:
    """Income of ``miners`` miners at ``now_ms``; what was created later does not exist yet."""
    history = _last(results.scores, now_ms, rules.history_days)
    flagged = _flagged(_entering(history, rules), miners, rules)
    parts = _origin_shares(_last(results.tasks, now_ms, rules.history_days), rules)
    weights = (np.array([group.weight for group in rules.groups])[:, None] * parts)[:, :, None]
    points = []
    for window in rules.windows:
        entering = _entering(_last(results.scores, now_ms, window.days), rules)
        cells = points_of_cell(_worth(entering, miners, rules), rules.curve)
        # Only now: a flagged miner still counts when the cell's largest is sought.
        cells[:, ORGANIC][flagged] = 0.0
        points.append(cells * weights * window.weight)
    total = np.sum(points, axis=(0, 1, 2))
    share = total / total.sum() if total.sum() > 0 else np.zeros(miners)
    return Income(share, np.array(points), flagged, *_tallies(history, miners, rules))


def shares_over_time(
    results: Results, moments_ms: IntArray, miners: int, rules: RuleSet
) -> FloatArray:
    """Shares (moments, miners) at each moment: what a run's emission is paid by."""
    rows = [income(results, int(moment), miners, rules).share for moment in moments_ms]
    return np.array(rows).reshape(len(rows), miners)


def revenue_per_day(share: FloatArray, emission: Emission) -> FloatArray:
    """Revenue a day in the price's currency, same shape: share x emission per day x price."""
    return np.asarray(share * emission.per_day * emission.price)


def points_of_cell(worth: FloatArray, curve: Curve) -> FloatArray:
    """Points of each miner, last axis, from its ``sum(score * work) * mean(score)``.

    Nobody has points in a cell whose largest value is not above 0.
    """
    largest = worth.max(axis=-1, keepdims=True, initial=0.0)
    some = np.broadcast_to(largest > 0, worth.shape)
    x = np.divide(worth, largest, out=np.zeros_like(worth), where=some)
    risen = 1.0 / (1.0 + np.exp(-curve.steepness * (np.maximum(x, 0.0) - curve.middle)))
    return np.where(x > 0, curve.height * risen**curve.power + curve.slope * x, 0.0)


def _in_order(parts: list[Rows]) -> Rows:
    made: Any = type(parts[0])
    columns = [
        np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(made)
    ]
    joined: Rows = made(*columns)
    return _take(joined, np.argsort(joined.created_ms, kind="stable"))


def _take(rows: Rows, index: slice | BoolArray | IntArray) -> Rows:
    made: Any = type(rows)
    taken: Rows = made(*(getattr(rows, field.name)[index] for field in fields(rows)))
    return taken


def _last(rows: Rows, now_ms: int, days: float) -> Rows:
    """What was created in the last ``days`` days, both ends included."""
    since = now_ms - round(days * MS_PER_DAY)
    start = np.searchsorted(rows.created_ms, since, side="left")
    stop = np.searchsorted(rows.created_ms, now_ms, side="right")
    return _take(rows, slice(int(start), int(stop)))


def _entering(scores: CountedScores, rules: RuleSet) -> CountedScores:
    """Scores that enter sums and means: zeros are left out."""
    return _take(scores, (scores.score >= rules.least_counted) | (scores.score < 0))


def _add_up(
    scores: CountedScores, what: FloatArray | None, miners: int, rules: RuleSet
) -> FloatArray:
    """Sum of ``what`` (None: the count) per cell, (groups, 2, miners)."""
    cell = (scores.group * 2 + scores.origin) * miners + scores.miner
    cells = len(rules.groups) * 2 * miners
    total = np.bincount(cell, weights=what, minlength=cells)
    return total.astype(np.float64).reshape(len(rules.groups), 2, miners)


def _worth(entering: CountedScores, miners: int, rules: RuleSet) -> FloatArray:
    """``sum(score * work) * mean(score)`` per cell, 0 when the mean is negative."""
    count = _add_up(entering, None, miners, rules)
    mean = _add_up(entering, entering.score, miners, rules) / np.maximum(count, 1)
    worked = _add_up(entering, entering.score * entering.work, miners, rules)
    return np.where(mean < 0, 0.0, worked * mean)


def _flagged(entering: CountedScores, miners: int, rules: RuleSet) -> BoolArray:
    """Miners (groups, miners) that do suspiciously better on organic tasks.

    The rule is mean_o - mean_s > f * sd_s, with sd_s = sqrt(n_s * q_s - t_s**2) / n_s for a count
    n, a sum t and a sum of squares q. Multiplied out by n_o * n_s no division is left to round,
    and whole scores decide an exact tie exactly.
    """
    count = _add_up(entering, None, miners, rules)
    total = _add_up(entering, entering.score, miners, rules)
    squares = _add_up(entering, entering.score**2, miners, rules)[:, SYNTHETIC]
    n_o, n_s = count[:, ORGANIC], count[:, SYNTHETIC]
    gap = total[:, ORGANIC] * n_s - total[:, SYNTHETIC] * n_o
    spread = np.sqrt(np.maximum(n_s * squares - total[:, SYNTHETIC] ** 2, 0.0))
    unlike = gap > rules.flag_deviations * n_o * spread
    return np.asarray((n_o > 0) & ((n_s == 0) | unlike))


def _origin_shares(tasks: CountedTasks, rules: RuleSet) -> FloatArray:
    """Each origin's share (groups, 2) of its group's tasks; 0 for a group without any."""
    cell = tasks.group * 2 + tasks.origin
    count = np.bincount(cell, minlength=len(rules.groups) * 2).reshape(-1, 2)
    return np.asarray(count / np.maximum(count.sum(axis=1, keepdims=True), 1))


def _tallies(
    history: CountedScores, miners: int, rules: RuleSet
) -> tuple[FloatArray, IntArray, IntArray, IntArray]:
    """Mean score, tasks, first places and penalties of each miner."""
    entering = _entering(history, rules)
    total = np.bincount(entering.miner, weights=entering.score, minlength=miners)
    count = np.bincount(entering.miner, minlength=miners)
    return (
        total / np.maximum(count, 1),
        np.bincount(history.miner, minlength=miners),
        np.bincount(history.miner[history.first], minlength=miners),
        np.bincount(history.miner[history.score < 0], minlength=miners),
    )
