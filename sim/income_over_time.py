"""Our share of the emission over a season: the validator's reckoning, once a day."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from shared.units import MS_PER_DAY
from sim.field import Competition
from sim.market.income import Results, TaskFacts, collect, income
from sim.market.ranking import TaskScores
from sim.market.rules import RuleSet
from sim.played_network import PlayedNetwork
from sim.stream import Ints

EVERY_MS = MS_PER_DAY
"""Milliseconds between two moments at which the share is taken."""


@dataclass(frozen=True)
class History:
    """The scores of every task, ours among them; our column is the last and our number too."""

    network: PlayedNetwork
    rules: RuleSet
    field: Competition
    scores: TaskScores

    @property
    def miners(self) -> int:
        """The field and we."""
        return len(self.field.skill) + 1

    def with_ours(self, rows: Ints, ours: TaskScores) -> "History":
        """The same history with these tasks scored anew, (len(rows), columns)."""
        names = ("score", "place", "left", "out", "failed", "counts")
        columns = {name: getattr(self.scores, name).copy() for name in names}
        for name, column in columns.items():
            column[rows] = getattr(ours, name)
        return History(self.network, self.rules, self.field, TaskScores(**columns))

    def known_at(self, now_ms: int) -> Results:
        """What the market knows at a moment: tasks of its history that are over by then."""
        network = self.network
        since = now_ms - round(self.rules.history_days * MS_PER_DAY)
        begin, end = np.searchsorted(network.created_ms, [since, now_ms + 1])
        rows = begin + np.flatnonzero(network.done_ms[begin:end] <= now_ms)
        facts = TaskFacts(
            network.group[rows],
            network.is_organic[rows],
            network.created_ms[rows],
            network.work[rows],
        )
        us = np.full((len(rows), 1), self.miners - 1)
        return collect(facts, np.column_stack((self.field.miner[rows], us)), self._taken(rows))

    def _taken(self, rows: Ints) -> TaskScores:
        """These tasks with the submissions that score 0 left out: they bear on nobody's share."""
        one = self.scores
        score = one.score[rows]
        bears = score != 0
        return TaskScores(
            score,
            one.place[rows],
            one.left[rows] & bears,
            one.out[rows] & bears,
            one.failed[rows] & bears,
            one.counts[rows],
        )


def moments(created_ms: Ints, window_ms: tuple[int, int], rules: RuleSet) -> Iterator[int]:
    """Each day's moment of a window [begin, end), its end included.

    From the day on which the history is full; a window that ends before has its end alone, with
    whatever history there is.
    """
    begin, end = window_ms
    first = int(created_ms[0]) if len(created_ms) else begin
    full = max(begin, first + round(rules.history_days * MS_PER_DAY))
    days = max(0, end - full) // EVERY_MS
    yield from (end - day * EVERY_MS for day in range(days, -1, -1))


def mean_share(history: History, window_ms: tuple[int, int]) -> float:
    """Our share, 0 to 1: the mean over the window's moments."""
    shares = [
        income(history.known_at(now_ms), now_ms, history.miners, history.rules).share[-1]
        for now_ms in moments(history.network.created_ms, window_ms, history.rules)
    ]
    return float(np.mean(shares))
