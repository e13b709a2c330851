"""Presets x replications: every preset meets the same offers and the same luck in each.

A replication is a function of (scenario, seed, number) alone, so any number of processes gives
the same results in the same order.
"""

from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np

from shared.box import UNDECLARED, BoxDeclaration
from shared.errors import InputError
from shared.units import MS_PER_DAY, MS_PER_MINUTE
from sim.arrivals import Arrivals, generate
from sim.engine.eventful import run_columns
from sim.engine.outcome import Decisions
from sim.engine.workload import Workload
from sim.metrics import gate_counts, measured
from sim.scenario import Scenario
from sim.service import with_service
from sim.stream import Ints, OfferStream
from sim.streams import exponential, uniforms
from sim.timeline import timeline_of


@dataclass(frozen=True)
class World:
    """What every replication of a comparison shares.

    offers: the stream of an offers file, None when each replication makes its own.
    """

    scenario: Scenario
    box: BoxDeclaration = UNDECLARED
    offers: OfferStream | None = None

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
    """One replication's results: preset to measure to value, and preset to gate to count."""

    number: int
    measures: dict[str, dict[str, float]]
    gates: dict[str, dict[str, int]]


def workload_of(world: World, replication: int) -> Workload:
    """The offers of one replication and the fate of each."""
    scenario = world.scenario
    start_ms, end_ms = world.span_ms
    seed = scenario.seed
    starts = None
    if world.offers is None:
        arrivals: Arrivals = generate(
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
    return Workload(
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
    """Run one replication under every preset."""
    workload = workload_of(world, number)
    policies = world.scenario.policies(world.box)
    measures, gates = {}, {}
    for name, decisions in decided(world, workload):
        layout = policies[name].preset.layout
        measures[name] = measured(workload.stream, decisions, layout, world.window_ms)
        gates[name] = gate_counts(workload.stream, decisions, world.window_ms)
    return Replication(number, measures, gates)


def replications(world: World, count: int, processes: int) -> Iterator[Replication]:
    """Run ``count`` replications on so many processes; each is given as it is finished.

    Closed early (Ctrl-C), it ends its processes at once.
    """
    if processes <= 1 or count <= 1:
        yield from (replicate(world, number) for number in range(count))
        return
    # a fresh server process forks the workers: no threads of ours are copied into them
    context = get_context("forkserver")
    context.set_forkserver_preload(["sim.experiment"])
    pool = ProcessPoolExecutor(
        min(processes, count), mp_context=context, initializer=_take_world, initargs=(world,)
    )
    try:
        waiting = {pool.submit(_replicate_here, number) for number in range(count)}
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in done)
    except BaseException:
        for process in list((pool._processes or {}).values()):  # no public way to end them at once
            process.terminate()
        raise
    finally:
        pool.shutdown(wait=False, cancel_futures=True)


_world: World | None = None


def _take_world(world: World) -> None:
    """Keep the world in this worker: a task then carries a number only. Ctrl-C is the parent's."""
    import signal

    global _world
    _world = world
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _replicate_here(number: int) -> Replication:
    assert _world is not None
    return replicate(_world, number)
