"""Tournaments: a group stage, knockouts, and a final against the champion.

The stages, the six-task final with four wins needed and the decay of the prizes are the published
rules' later version. What they leave open is ours and is said where it is decided: the size of a
group and its number of tasks, how a group is ranked, who meets whom, and what a tie does.

Everything works on losses of shape (replications, entrants + 1, tasks): entrants in order of
stake, highest first, the reigning champion in the last place. Lower is better (negate rewards);
NaN is a failed task, as bad as an infinite loss. The tasks are, in order, those of the group
stage, one for each knockout round, those of the final. In a knockout task a loss is what the
entrant reaches in its own pair's task, so the noise must be drawn for each entrant.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from shared.errors import InputError
from sim.market.ranking import BoolArray, FloatArray, IntArray
from sim.market.rules import TournamentRules

Losses = FloatArray | Callable[[int, int, int], FloatArray]
"""The losses, or a function of (replications, entrants + 1, tasks) that draws them."""


@dataclass(frozen=True)
class Outcome:
    """How the replications of a tournament ended.

    ``rank`` (replications, entrants + 1): 1 holds the title afterwards, 2 lost the final, then the
    knockout rounds' losers and those of the group stage, better results first. ``winner``
    (replications,) is the index of rank 1; ``challenger`` who met the champion;
    ``wins`` how many of the final's tasks the challenger won.
    """

    rank: IntArray
    winner: IntArray
    challenger: IntArray
    wins: IntArray


def tasks_needed(rules: TournamentRules) -> int:
    """Tasks of one tournament: group stage, a task for each knockout round, the final."""
    return rules.group_tasks + _rounds(rules) + rules.final_tasks


def play(losses: FloatArray, rules: TournamentRules) -> Outcome:
    """Play every replication. Entrants beyond the most that may enter, by stake, rank last.

    Raises ``InputError`` for fewer entrants than a tournament needs, ``ValueError`` for an array
    of another number of tasks.
    """
    losses = np.where(np.isnan(losses), np.inf, losses)
    entrants = _entrants(losses, rules)
    group_stage = losses[:, :entrants, : rules.group_tasks]
    standing = _group_stage(group_stage, rules)
    standing, challenger = _knockouts(losses, standing, rules)
    wins = _final(losses, challenger, rules)
    return _outcome(losses, standing, challenger, wins, rules)


def tournament_win_rate(
    losses: Losses, entrant: int, rules: TournamentRules, *, shape: tuple[int, int] | None = None
) -> float:
    """Share of replications in which ``entrant`` holds the title afterwards.

    ``entrant`` is an index by stake; the champion is the last, or -1. Where ``losses`` is a
    function, ``shape`` says (replications, entrants), the champion not among them.
    """
    if callable(losses):
        if shape is None:
            raise ValueError("a function of losses needs shape=(replications, entrants)")
        losses = losses(shape[0], shape[1] + 1, tasks_needed(rules))
    champion = losses.shape[1] - 1
    wanted = champion if entrant == -1 else entrant
    return float((play(losses, rules).winner == wanted).mean())


def prize_shares(ranks: int, rules: TournamentRules) -> FloatArray:
    """Part of a tournament's pool by rank, (ranks,): 1, 0.3, 0.09, ... over their sum."""
    decayed = rules.prize_decay ** np.arange(ranks, dtype=np.float64)
    return np.asarray(decayed / decayed.sum())


def _rounds(rules: TournamentRules) -> int:
    return rules.knockout_places.bit_length() - 1


def _entrants(losses: FloatArray, rules: TournamentRules) -> int:
    if losses.ndim != 3 or losses.shape[2] != tasks_needed(rules):
        wanted = f"(replications, entrants + 1, {tasks_needed(rules)})"
        raise ValueError(f"losses must be of shape {wanted}, not {losses.shape}")
    entrants: int = losses.shape[1] - 1
    if entrants < rules.least_entrants:
        raise InputError(
            f"tournament.entrants: found {entrants}, allowed: {rules.least_entrants} or more"
        )
    return min(entrants, rules.most_entrants)


def _group_stage(losses: FloatArray, rules: TournamentRules) -> IntArray:
    """Entrants from best to worst, (replications, entrants).

    Ours: entrants are dealt out to the groups by stake, one each in turn. In each task the group's
    entrants are placed by loss (equal ones share the better place); the sum of places ranks the
    group, an equal sum the one of higher stake. Group winners come first, then the seconds, and so
    on; at equal positions the smaller sum of places, then the higher stake.
    """
    entrants = losses.shape[1]
    groups = -(-entrants // rules.group_size)
    group = np.arange(entrants) % groups
    position = np.empty(losses.shape[:2], dtype=np.int64)
    total = np.empty(losses.shape[:2], dtype=np.int64)
    for index in range(groups):
        members = losses[:, group == index]
        better = members[:, None, :, :] < members[:, :, None, :]
        total[:, group == index] = sums = better.sum(axis=2).sum(axis=2)
        order = np.argsort(sums, axis=1, kind="stable")
        position[:, group == index] = np.argsort(order, axis=1)
    # Stable, so that stake decides what neither the position nor the sum of places does.
    return np.lexsort((total, position), axis=1)


def _knockouts(
    losses: FloatArray, standing: IntArray, rules: TournamentRules
) -> tuple[IntArray, IntArray]:
    """The standing with the knockouts' losers in place, and the finalist (replications,).

    Ours: the best meets the worst of those that are left, the second the second worst; a tie, or
    a task that both fail, goes to the one with the better group stage.
    """
    standing = standing.copy()
    for round_ in range(_rounds(rules)):
        left = rules.knockout_places >> round_
        upper, lower = standing[:, : left // 2], standing[:, left // 2 : left][:, ::-1]
        task = rules.group_tasks + round_
        upset = _of(losses, lower, task) < _of(losses, upper, task)
        winners = np.where(upset, lower, upper)
        # The losers keep the order of the pairs they lost, which is that of the better seeds.
        standing[:, left // 2 : left] = np.where(upset, upper, lower)
        standing[:, : left // 2] = winners
    return standing, standing[:, 0]


def _of(losses: FloatArray, entrants: IntArray, task: int) -> FloatArray:
    """Loss of the named entrants, (replications, k), in one task."""
    return np.take_along_axis(losses[:, :, task], entrants, axis=1)


def _final(losses: FloatArray, challenger: IntArray, rules: TournamentRules) -> IntArray:
    """Tasks that the challenger wins, (replications,): only a better loss wins one."""
    tasks = losses[:, :, -rules.final_tasks :]
    theirs = tasks[np.arange(len(tasks)), challenger]
    better: BoolArray = theirs < tasks[:, -1]
    return np.asarray(better.sum(axis=1))


def _outcome(
    losses: FloatArray,
    standing: IntArray,
    challenger: IntArray,
    wins: IntArray,
    rules: TournamentRules,
) -> Outcome:
    replications, size = losses.shape[:2]
    champion = size - 1
    deposed = wins >= rules.wins_needed
    first = np.where(deposed, challenger, champion)
    second = np.where(deposed, champion, challenger)
    late = np.broadcast_to(
        np.arange(standing.shape[1], champion), (replications, champion - standing.shape[1])
    )
    order = np.column_stack((first, second, standing[:, 1:], late))
    rank = np.empty((replications, size), dtype=np.int64)
    np.put_along_axis(rank, order, np.arange(1, size + 1)[None, :], axis=1)
    return Outcome(rank, first, challenger, wins)
