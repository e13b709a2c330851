"""The other miners: who takes a task, and what they hand in. A scenario parameter.

Each competitor has one skill for the whole of a replication, its median loss relative to the
reference run's, so that windows and shares are about somebody. Takers of a task are drawn without
regard to skill: every competitor is willing with the acceptance rate, and the first of a random
order get the places. The market's order favours better scores three to one at most and those who
have not taken part today; that is left out here.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from sim.market.rules import RuleSet
from sim.quality.columns import Bools, normal
from sim.quality.config import Noise, Part, Share
from sim.stream import Floats, Ints
from sim.streams import uniforms

FieldName = Literal["weak", "even", "strong"]


class FieldConfig(Part):
    """The competitors as a population."""

    miners: Annotated[int, Field(ge=8, le=1000)] = Field(
        default=60, description="Competitors, at least the 8 that a tournament needs; assumed."
    )
    median_loss: Annotated[float, Field(gt=0, le=100)] = Field(
        default=1.0,
        description="Loss of the median competitor over the reference run's, no unit; assumed.",
    )
    skill_sd: Annotated[float, Field(ge=0, le=2)] = Field(
        default=0.05,
        description="Standard deviation of the logarithm of that loss over the field; assumed.",
    )
    acceptance_rate: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.5, description="Share of offers that a competitor takes; assumed."
    )
    failure_rate: Share = Field(
        default=0.05, description="Share of its tasks that a competitor fails; assumed."
    )
    noise: Noise = Field(default=Noise(), description="Luck of a competitor's run.")


FIELDS: dict[FieldName, FieldConfig] = {
    "weak": FieldConfig(median_loss=1.15, failure_rate=0.10),
    "even": FieldConfig(),
    "strong": FieldConfig(median_loss=0.90, failure_rate=0.02),
}
"""Shipped fields. even: the median competitor is as good as the reference run; weak: its loss is
15% higher; strong: 10% lower. The numbers are assumed."""


def field_of(field: FieldName | FieldConfig) -> FieldConfig:
    """A shipped field by its name, or the field itself."""
    return field if isinstance(field, FieldConfig) else FIELDS[field]


@dataclass(frozen=True)
class Competition:
    """The field's submissions to every task of a replication, tasks x places.

    miner: int64, who takes the place, 0 .. miners - 1. test_loss, synth_loss: relative, NaN where
    it failed. taken: bool, the place is taken. skill: float64 (miners,), each one's median loss.
    Places are in random order. The same for every preset and every quality model.
    """

    miner: Ints
    test_loss: Floats
    synth_loss: Floats
    taken: Bools
    skill: Floats

    @cached_property
    def last(self) -> Ints:
        """The last place taken of each task, which gives way when we take part; -1 for none."""
        return np.asarray(self.taken.sum(axis=1) - 1, dtype=np.int64)

    @cached_property
    def best(self) -> int:
        """The competitor with the lowest median loss."""
        return int(np.argmin(self.skill))


def compete(
    config: FieldConfig, group: Ints, rules: RuleSet, seed: int, replication: int
) -> Competition:
    """The field's part in every task; ``group`` (tasks,) is each task's index into the rules.

    Draws belong to (task, place) and (task, miner): more tasks only add rows at the end.
    """
    tasks, places = len(group), max(group_.pool[1] for group_ in rules.groups)

    def draw(purpose: str, columns: int) -> Floats:
        return uniforms(seed, replication, f"field.{purpose}", tasks * columns).reshape(-1, columns)

    miner, taken = _takers(config, group, rules, draw("order", config.miners), draw("pool", 1))
    skill = skills(config, seed, replication)
    width = miner.shape[1]
    run = np.exp(config.noise.run * normal(draw("run", places)[:, :width]))
    apart = np.exp(config.noise.synth * normal(draw("synth", places)[:, :width]))
    fails = draw("failure", places)[:, :width] < config.failure_rate
    test = np.where(fails | ~taken, np.nan, skill[miner] * run)
    return Competition(miner, test, test * apart, taken, skill)


def skills(config: FieldConfig, seed: int, replication: int) -> Floats:
    """Median loss of each competitor, (miners,), for the whole of a replication."""
    z = normal(uniforms(seed, replication, "field.skill", config.miners))
    return np.asarray(config.median_loss * np.exp(config.skill_sd * z))


def _takers(
    config: FieldConfig, group: Ints, rules: RuleSet, order: Floats, pool: Floats
) -> tuple[Ints, Bools]:
    """Who takes the places of each task, and which places are taken.

    One uniform a competitor does for both questions: below the acceptance rate it is willing, and
    given that, where below is uniform again and puts the willing in a random order.
    """
    least, most = np.array([group_.pool for group_ in rules.groups], dtype=np.int64)[group].T
    places = least + np.floor(pool[:, 0] * (most - least + 1)).astype(np.int64)
    width = min(max(group_.pool[1] for group_ in rules.groups), config.miners)
    first = np.argpartition(order, width - 1, axis=1)[:, :width]
    keys = np.take_along_axis(order, first, axis=1)
    by_key = np.argsort(keys, axis=1, kind="stable")
    miner = np.take_along_axis(first, by_key, axis=1)
    willing = np.take_along_axis(keys, by_key, axis=1) < config.acceptance_rate
    return miner, willing & (np.arange(width) < places[:, None])
