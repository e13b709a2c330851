"""Changed scenarios and replications, in parallel: what each preset's season comes to."""

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from dataclasses import dataclass, replace
from typing import Any

from sim.experiment import Replicator, World, decided, made, world_here
from sim.field import field_of
from sim.metrics import measured
from sim.scenario import Scenario
from sim.season import play, scene_of

Season = dict[str, dict[str, dict[str, float]]]
"""Quality model to preset to measure to value, of one replication."""


@dataclass(frozen=True, slots=True)
class Unit:
    """One replication of one scenario: the unit of work. models: the quality models wanted."""

    scenario: Scenario
    number: int
    models: tuple[str, ...]


def base_of(scenario: Scenario, *, recorded: bool) -> dict[str, Any]:
    """A scenario's mapping in which every number that is in force stands.

    A shipped field's name becomes its numbers, a service model left out the one in force.
    recorded: the offers come from a file.
    """
    base = scenario.model_dump()
    base["market"]["field"] = field_of(scenario.market.field).model_dump()
    base["service"] = scenario.service_of(recorded=recorded).model_dump()
    return base


def season(world: World, number: int, models: Sequence[str]) -> Season:
    """One replication under every preset, the jobs' outcomes under these quality models alone.

    The same numbers as ``sim.experiment.replicate`` gives, without what a tornado does not need.
    """
    scenario = world.scenario
    arrivals, workload = made(world, number)
    scene = scene_of(arrivals, workload, scenario.market, scenario.seed, number, world.calibration)
    policies = scenario.policies(world.box)
    found: Season = {model: {} for model in models}
    for name, decisions in decided(world, workload):
        preset = policies[name].preset
        held = measured(workload.stream, decisions, preset.layout, world.window_ms)
        for model, earned in play(scene, decisions, preset, world.window_ms, models).items():
            found[model][name] = {**held, **earned}
    return found


class Seasons(Replicator):
    """Runs replications of changed scenarios on processes that live as long as it does."""

    def of(self, units: Sequence[Unit], finished: Callable[[], None]) -> list[Season]:
        """The season of each unit, in their order; ``finished`` is called after each."""
        if self.pool is None:
            return [_told(_season_of(self._world, unit), finished) for unit in units]
        futures = [self.pool.submit(_season_here, unit) for unit in units]
        waiting = set(futures)
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                future.result()
                finished()
        return [future.result() for future in futures]


def _told(found: Season, finished: Callable[[], None]) -> Season:
    finished()
    return found


def _season_of(world: World, unit: Unit) -> Season:
    return season(replace(world, scenario=unit.scenario), unit.number, unit.models)


def _season_here(unit: Unit) -> Season:
    return _season_of(world_here(), unit)
