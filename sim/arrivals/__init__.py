"""Where offers come from: generated streams, made by the market's rules or by a plain process."""

from functools import partial
from typing import assert_never

import numpy as np

from shared.errors import InputError
from shared.units import MS_PER_DAY, MS_PER_HOUR
from sim.arrivals.columns import NEVER, Arrivals, NetworkTasks, network_tasks, offers_of
from sim.arrivals.config import (
    ArrivalConfig,
    FileArrivals,
    Mix,
    NetworkArrivals,
    PoissonArrivals,
)
from sim.arrivals.network import generate_network
from sim.arrivals.processes import poisson_times
from sim.arrivals.tasks import draw_hours, draw_tasks
from sim.stream import Floats
from sim.streams import uniforms, uuids

__all__ = [
    "NEVER",
    "ArrivalConfig",
    "Arrivals",
    "FileArrivals",
    "Mix",
    "NetworkArrivals",
    "NetworkTasks",
    "PoissonArrivals",
    "generate",
]

MOST_TASKS = 20_000_000
"""Tasks that one stream may be expected to hold; more would not fit a small machine's memory."""

LAST_MS = 253_402_300_800_000
"""The first millisecond of the year 10000: streams end before it."""


def generate(
    config: ArrivalConfig, *, start_ms: int, days: float, seed: int, replication: int = 0
) -> Arrivals:
    """The offers that reach this miner in [start_ms, start_ms + days), and the network's tasks.

    The same arguments give the same bytes; more days only add offers at the end. start_ms is UTC
    epoch milliseconds. InputError when days is not above 0, when the stream would be too long, or
    when the offers are in a file.
    """
    if isinstance(config, FileArrivals):
        raise InputError(
            "arrivals.kind: found file, allowed is network or poisson here: "
            "offers in a file are read, not made"
        )
    end_ms = _end_ms(config, start_ms, days)
    match config:
        case NetworkArrivals():
            return generate_network(config, start_ms, end_ms, seed, replication)
        case PoissonArrivals():
            return _generate_poisson(config, start_ms, end_ms, seed, replication)
        case _:  # pragma: no cover
            assert_never(config)


def _end_ms(config: NetworkArrivals | PoissonArrivals, start_ms: int, days: float) -> int:
    """Where the stream ends, after the checks that keep it in memory."""
    if not days > 0:
        raise InputError(f"days: found {days}, allowed is a number above 0")
    if (expected := days * _most_per_day(config)) > MOST_TASKS:
        raise InputError(
            f"days: found {days:g}, which makes about {expected:.3g} tasks, "
            f"allowed is at most {MOST_TASKS:,} tasks"
        )
    end_ms = start_ms + round(days * MS_PER_DAY)
    if start_ms < 0 or end_ms >= LAST_MS:
        raise InputError("start and days: allowed are times from 1970 to the year 9999")
    return end_ms


def _most_per_day(config: NetworkArrivals | PoissonArrivals) -> float:
    if isinstance(config, PoissonArrivals):
        return config.offers_per_hour * 24
    return 24 * 60 / config.synthetic.every_minutes + config.organic.per_day


def _generate_poisson(
    config: PoissonArrivals, start_ms: int, end_ms: int, seed: int, replication: int
) -> Arrivals:
    """An open stream: every task is offered to this miner once, and none is organic."""
    draw = partial(_draw, seed, replication)
    at_ms = poisson_times(config.offers_per_hour / MS_PER_HOUR, start_ms, end_ms, draw, "gap")
    n = len(at_ms)
    columns = draw_tasks(config.mix, n, draw)
    hours = draw_hours(config.hours, columns.is_image, draw)
    task_id = uuids(seed, replication, "arrivals.poisson.task_id", n)
    network = network_tasks(task_id, at_ms, at_ms, columns, hours, is_organic=False)
    return offers_of(network, at_ms, np.arange(n), np.ones(n, dtype=np.bool_))


def _draw(seed: int, replication: int, purpose: str, n: int) -> Floats:
    return uniforms(seed, replication, f"arrivals.poisson.{purpose}", n)
