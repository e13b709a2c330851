"""Presets x replications: every preset meets the same offers and the same luck in each.

A replication is a function of (scenario, seed, number) alone, so any number of processes gives
the same results in the same order.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing import get_context
from types import TracebackType
from typing import Self

import numpy as np

from shared.box import UNDECLARED, BoxDeclaration
from shared.errors import InputError
from shared.units import MS_PER_DAY, MS_PER_HOUR, MS_PER_MINUTE
from sim.arrivals import Arrivals, generate
from sim.engine.eventful import run_columns
from sim.engine.outcome import Decisions
from sim.engine.workload import Workload
from sim.metrics import gate_counts, hourly_slots, measured
from sim.quality import Calibration
from sim.scenario import Scenario
from sim.season import Scene, play, revenue_with_advantage, scene_of
from sim.service import with_service
from sim.stream import Ints, OfferStream
from sim.streams import exponential, uniforms
from sim.timeline import timeline_of

ADVANTAGES = (0.0, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
"""Shares by which the first preset's losses are lowered to find the break-even. Dense at the
beginning, where the leader's sigmoid bends the curve."""

WATCHED_REPLICATIONS, WATCHED_HOURS = 20, 90 * 24
"""How much of the slots in use is kept to see whether the warm-up was long enough."""


@dataclass(frozen=True)
class World:
    """What every replication of a comparison shares.

    offers: the stream of an offers file, None when each replication makes its own.
    calibration: what a live ledger taught; without it the calibrated model is not run.
    """

    scenario: Scenario
    box: BoxDeclaration = UNDECLARED
    offers: OfferStream | None = None
    calibration: Calibration | None = None

    def __post_init__(self) -> None:
        if self.scenario.reads_file and self.offers is None:
            raise InputError("arrivals.kind: found file, but no offers file was named (--offers)")
        start_ms, end_ms = self.span_ms
        if start_ms + self.warm_up_ms >= end_ms:
            raise InputError(
                f"warm_up_days: found {self.scenario.warm_up_days:g}, "
                "allowed is less than the offers file spans"
            )

    @property
    def warm_up_ms(self) -> int:
        """How much of the beginning is not counted."""
        return round(self.scenario.warm_up_days * MS_PER_DAY)

    @property
    def span_ms(self) -> tuple[int, int]:
        """Begin and end of a run: the scenario's days, or all that the offers file covers."""
        if self.offers is None:
            start_ms = self.scenario.start_ms
            return start_ms, start_ms + round(self.scenario.days * MS_PER_DAY)
        return int(self.offers.at_ms[0]), int(self.offers.at_ms[-1]) + 1

    @property
    def window_ms(self) -> tuple[int, int]:
        """The part of a run that counts."""
        start_ms, end_ms = self.span_ms
        return start_ms + self.warm_up_ms, end_ms


@dataclass(frozen=True)
class Replication:
    """One replication's results.

    measures: quality model to preset to measure to value. gates: preset to gate to count.
    advantage: revenue a day of the first preset under the neutral model with its losses lowered by
    each of ``ADVANTAGES``; empty with one preset. slots: preset to mean slots held hour by hour,
    of the first replications only.
    """

    number: int
    measures: dict[str, dict[str, dict[str, float]]]
    gates: dict[str, dict[str, int]]
    advantage: tuple[float, ...] = ()
    slots: dict[str, tuple[float, ...]] | None = None


def workload_of(world: World, replication: int) -> Workload:
    """The offers of one replication and the fate of each."""
    return made(world, replication)[1]


def made(world: World, replication: int) -> tuple[Arrivals | None, Workload]:
    """The generated offers (None: recorded ones), and with them the fate of each."""
    scenario = world.scenario
    start_ms, end_ms = world.span_ms
    seed = scenario.seed
    arrivals = starts = None
    if world.offers is None:
        arrivals = generate(
            scenario.arrivals,
            start_ms=start_ms,
            days=scenario.days,
            seed=seed,
            replication=replication,
        )
        stream, starts = arrivals.stream, arrivals.finds_takers
    else:
        stream = world.offers
    service = scenario.service_of(recorded=world.offers is not None)
    stream = with_service(stream, service, seed=seed, replication=replication)
    if scenario.start.never_share:
        comes = (
            uniforms(seed, replication, "start.comes", len(stream)) >= scenario.start.never_share
        )
        starts = comes if starts is None else starts & comes
    return arrivals, Workload(
        stream=stream,
        start_lag_ms=_start_lag_ms(scenario, replication, len(stream)),
        starts=None if starts is None or bool(starts.all()) else starts,
        timeline=timeline_of(scenario, start_ms, end_ms, replication),
    )


def _start_lag_ms(scenario: Scenario, replication: int, n: int) -> Ints | None:
    mean_ms = scenario.start.lag_minutes * MS_PER_MINUTE
    if not mean_ms:
        return None
    drawn = exponential(uniforms(scenario.seed, replication, "start.lag", n), mean_ms)
    return np.rint(drawn).astype(np.int64)


def decided(world: World, workload: Workload) -> Iterator[tuple[str, Decisions]]:
    """Each preset's name and its decisions on the same workload."""
    for name, policy in world.scenario.policies(world.box).items():
        yield name, run_columns(workload, policy)


def replicate(world: World, number: int) -> Replication:
    """Run one replication under every preset, each job's outcome under every quality model."""
    scenario = world.scenario
    arrivals, workload = made(world, number)
    scene = scene_of(arrivals, workload, scenario.market, scenario.seed, number, world.calibration)
    policies = scenario.policies(world.box)
    runs = dict(decided(world, workload))
    measures: dict[str, dict[str, dict[str, float]]] = {}
    for name, decisions in runs.items():
        preset = policies[name].preset
        held = measured(workload.stream, decisions, preset.layout, world.window_ms)
        for model, earned in play(scene, decisions, preset, world.window_ms).items():
            measures.setdefault(model, {})[name] = {**held, **earned}
    gates = {
        name: gate_counts(workload.stream, decisions, world.window_ms)
        for name, decisions in runs.items()
    }
    return Replication(
        number, measures, gates, _advantage(world, scene, runs), _slots(world, number, scene, runs)
    )


def _advantage(world: World, scene: Scene, runs: dict[str, Decisions]) -> tuple[float, ...]:
    if len(runs) < 2:
        return ()
    name, decisions = next(iter(runs.items()))
    preset = world.scenario.policies(world.box)[name].preset
    return revenue_with_advantage(scene, decisions, preset, world.window_ms, ADVANTAGES)


def _slots(
    world: World, number: int, scene: Scene, runs: dict[str, Decisions]
) -> dict[str, tuple[float, ...]] | None:
    if number >= WATCHED_REPLICATIONS:
        return None
    begin, end = world.span_ms
    hours = min(WATCHED_HOURS, (end - begin) // MS_PER_HOUR)
    stream = scene.workload.stream
    return {
        name: tuple(hourly_slots(stream, decisions, world.span_ms, hours).tolist())
        for name, decisions in runs.items()
    }


class Replicator:
    """Runs replications by their numbers, on one or more processes that live as long as it does.

    Left by an exception (Ctrl-C), it ends its processes at once.
    """

    def __init__(self, world: World, processes: int) -> None:
        """``processes`` 1: here, in this process."""
        self._world = world
        self.pool: ProcessPoolExecutor | None = None
        if processes > 1:
            # a fresh server process forks the workers: no threads of ours are copied into them
            context = get_context("forkserver")
            context.set_forkserver_preload(["sim.experiment"])
            self.pool = ProcessPoolExecutor(
                processes, mp_context=context, initializer=_take_world, initargs=(world,)
            )

    def run(self, numbers: Sequence[int]) -> Iterator[Replication]:
        """Run these replications; each is given as it is finished."""
        if self.pool is None:
            yield from (replicate(self._world, number) for number in numbers)
            return
        waiting = {self.pool.submit(_replicate_here, number) for number in numbers}
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        if self.pool is None:
            return
        if kind is not None:
            for process in list((self.pool._processes or {}).values()):  # there is no public way
                process.terminate()
        self.pool.shutdown(wait=False, cancel_futures=True)


def replications(world: World, count: int, processes: int) -> Iterator[Replication]:
    """Run ``count`` replications on so many processes; each is given as it is finished."""
    with Replicator(world, min(processes, count)) as replicator:
        yield from replicator.run(range(count))


_world: World | None = None


def _take_world(world: World) -> None:
    """Keep the world in this worker: a task then carries a number only. Ctrl-C is the parent's."""
    import signal

    global _world
    _world = world
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def world_here() -> World:
    """The world that this worker of a ``Replicator`` was given."""
    assert _world is not None
    return _world


def _replicate_here(number: int) -> Replication:
    return replicate(world_here(), number)
