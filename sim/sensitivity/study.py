"""The four studies of a scenario: which seasons each one needs, and what it makes of them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from shared.errors import InputError
from shared.layout import MOST_SLOTS
from sim.experiment import World
from sim.quality import models_of
from sim.scenario import PresetEntry, PresetVariant, Scenario, parse_scenario
from sim.sensitivity.cap_curve import CapCurve, cap_curve
from sim.sensitivity.indices import MorrisEffect, SobolIndex, morris, sobol
from sim.sensitivity.one_at_a_time import Bar, tornado
from sim.sensitivity.parameters import Parameter
from sim.sensitivity.ranges import parameters_of
from sim.sensitivity.seasons import Season, Unit, base_of

CAPS = range(1, MOST_SLOTS + 1)
CAP_METRICS = ("revenue_per_day", "first_place_rate")

Run = Callable[[Sequence[Unit]], Sequence[Season]]
"""Units to their seasons, in their order."""


@dataclass(frozen=True)
class Question:
    """What is asked: the first preset less the second in one measure under one quality model.

    replications: of every scenario, the same for all.
    """

    world: World
    model: str
    metric: str
    replications: int

    def __post_init__(self) -> None:
        if len(self.names) < 2:
            raise InputError("presets: found 1, allowed is at least 2: the first less the second")

    @property
    def names(self) -> list[str]:
        """The first two presets."""
        return list(self.world.scenario.policies(self.world.box))[:2]

    @property
    def base(self) -> dict[str, Any]:
        """The scenario's mapping with the two presets alone and every number in force."""
        base = base_of(self.world.scenario, recorded=self.recorded)
        return {**base, "presets": base["presets"][:2]}

    @property
    def recorded(self) -> bool:
        """Whether the offers come from a file."""
        return self.world.offers is not None

    @property
    def parameters(self) -> list[Parameter]:
        """What is varied."""
        return parameters_of(self.world.scenario, self.model, recorded=self.recorded)

    def differences(self, scenarios: Sequence[Mapping[str, Any]], run: Run) -> list[list[float]]:
        """The difference in every replication of each scenario.

        Raises InputError when a changed scenario is none.
        """
        changed = [parse_scenario(dict(each), "varied scenario") for each in scenarios]
        numbers = range(self.replications)
        units = [Unit(each, number, (self.model,)) for each in changed for number in numbers]
        values = [self._difference(found) for found in run(units)]
        return [values[i : i + len(numbers)] for i in range(0, len(values), len(numbers))]

    def _difference(self, found: Season) -> float:
        first, second = (found[self.model][name][self.metric] for name in self.names)
        return first - second

    def means(self, scenarios: Sequence[Mapping[str, Any]], run: Run) -> list[float]:
        """The mean difference of each scenario. Raises InputError where it is not known."""
        found = self.differences(scenarios, run)
        known = [[value for value in each if value == value] for each in found]
        if not all(known):
            raise InputError(
                f"--metric: {self.metric} is not known in some of the scenarios drawn "
                "(a rate of nothing): take another measure or more days"
            )
        return [float(np.mean(each)) for each in known]


def tornado_of(question: Question, run: Run) -> list[Bar]:
    """The tornado of a question, the widest bar first."""
    return tornado(question.base, question.parameters, lambda many: question.differences(many, run))


def morris_of(question: Question, run: Run, trajectories: int) -> list[MorrisEffect]:
    """Morris screening of a question, the largest effect first."""
    effects = morris(
        question.base, question.parameters, lambda many: question.means(many, run),
        trajectories=trajectories, seed=_seed(question),
    )  # fmt: skip
    return sorted(effects, key=lambda each: each.mu_star, reverse=True)


def sobol_of(question: Question, run: Run, samples: int) -> list[SobolIndex]:
    """Sobol' indices of a question, the largest total first."""
    found = sobol(
        question.base, question.parameters, lambda many: question.means(many, run),
        samples=samples, seed=_seed(question),
    )  # fmt: skip
    return sorted(found, key=lambda each: each.total, reverse=True)


def _seed(question: Question) -> int:
    return question.world.scenario.seed % 2**32  # numpy's old generators take no more


def known_model(world: World, model: str | None) -> str:
    """The quality model asked for, or the scenario's primary one. Raises InputError."""
    if model is None:
        return world.scenario.market.quality_model
    known = models_of(world.scenario.market.quality, world.calibration)
    if model not in known:
        needs = "; calibrated needs --calibration" if model == "calibrated" else ""
        raise InputError(f"--quality-model: found {model}, allowed is {', '.join(known)}{needs}")
    return model


def caps_of(
    world: World, models: Sequence[str], replications: int, run: Run
) -> dict[str, CapCurve]:
    """Quality model to the curve of revenue and first places over caps 1 to 24.

    Nothing but the cap of the scenario's first preset changes.
    """
    scenario = world.scenario.model_copy(update={"presets": swept(world.scenario)})
    caps = {name: each.preset.cap for name, each in scenario.policies(world.box).items()}
    found = run([Unit(scenario, number, tuple(models)) for number in range(replications)])
    return {
        model: cap_curve(
            {name: {key: [each[model][name][key] for each in found] for key in CAP_METRICS}
             for name in caps},
            caps,
        )
        for model in models
    }  # fmt: skip


def swept(scenario: Scenario) -> tuple[PresetEntry, ...]:
    """The scenario's first preset with every cap."""
    first = scenario.presets[0]
    base = PresetVariant(base=first) if isinstance(first, str) else first
    return tuple(base.model_copy(update={"cap": cap, "name": f"cap_{cap}"}) for cap in CAPS)
