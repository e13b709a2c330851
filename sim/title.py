"""Our chance of a tournament's title: our own jobs' losses against the field's."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sim.field import Competition, FieldConfig
from sim.market.rules import TournamentRules
from sim.market.tournament import tasks_needed, tournament_win_rate
from sim.quality.columns import normal
from sim.stream import Floats
from sim.streams import uniforms

PLAYED = 200
"""Tournaments played for one estimate."""


@dataclass(frozen=True)
class Titles:
    """The field in ``PLAYED`` tournaments: the best competitor is the champion, others enter.

    Our stake is taken as the middle one. A loss in a tournament's task is the worse of the two,
    as for a text task.
    """

    config: FieldConfig
    field: Competition
    rules: TournamentRules
    seed: int
    replication: int

    @property
    def _rivals(self) -> int:
        return min(self.rules.most_entrants, len(self.field.skill)) - 1

    @property
    def _place(self) -> int:
        return self._rivals // 2

    def _draw(self, purpose: str, *shape: int) -> Floats:
        n = int(np.prod(shape))
        return uniforms(self.seed, self.replication, f"title.{purpose}", n).reshape(shape)

    @cached_property
    def _losses(self) -> Floats:
        """Losses of all, (tournaments, rivals + us + champion, tasks); ours are still missing."""
        others = np.delete(np.arange(len(self.field.skill)), self.field.best)[: self._rivals]
        who = np.concatenate([np.insert(others, self._place, -1), [self.field.best]])
        shape = (PLAYED, len(who), tasks_needed(self.rules))
        noise = self.config.noise
        run = np.exp(noise.run * normal(self._draw("run", *shape)))
        apart = np.exp(noise.synth * normal(self._draw("synth", *shape)))
        fails = self._draw("failure", *shape) < self.config.failure_rate
        losses = self.field.skill[who][None, :, None] * run * np.maximum(apart, 1.0)
        return np.where(fails, np.nan, losses)

    @cached_property
    def _pick(self) -> Floats:
        return self._draw("ours", PLAYED, tasks_needed(self.rules))

    def win_rate(self, ours: Floats) -> float:
        """Share of the tournaments after which we hold the title, NaN without any job of ours.

        ours: losses of our jobs, NaN where one failed; each task of a tournament draws one.
        """
        if not len(ours):
            return float("nan")
        losses = self._losses.copy()
        losses[:, self._place] = ours[(self._pick * len(ours)).astype(np.int64)]
        return tournament_win_rate(losses, self._place, self.rules)
