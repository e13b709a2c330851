"""The network's tasks by the validator's published rules (mid-2025), and what this miner sees."""

from functools import partial

import numpy as np
from numpy.typing import NDArray

from shared.units import MS_PER_MINUTE, hours_to_ms
from sim.arrivals.columns import NEVER, Arrivals, NetworkTasks, joined, network_tasks, offers_of
from sim.arrivals.config import NetworkArrivals
from sim.arrivals.loop import Loop, Pool
from sim.arrivals.processes import organic_times
from sim.arrivals.tasks import Bools, Draw, draw_market_hours, draw_tasks
from sim.stream import Floats, Ints
from sim.streams import uniforms, uuids


def generate_network(
    config: NetworkArrivals, start_ms: int, end_ms: int, seed: int, replication: int
) -> Arrivals:
    """The tasks made in [start_ms, end_ms) and those of their attempts that reach this miner."""
    first_ms = start_ms - hours_to_ms(config.warm_up_hours)
    ticks = range(first_ms, end_ms, round(config.synthetic.every_minutes * MS_PER_MINUTE))
    synthetic_draw = partial(_draw, seed, replication, "synthetic")
    organic_draw = partial(_draw, seed, replication, "organic")
    came = organic_times(config.organic, first_ms, end_ms, organic_draw)
    loop = Loop(
        config,
        synthetic=_pool(config, len(ticks), synthetic_draw, is_organic=False),
        organic=_pool(config, len(came), organic_draw, is_organic=True),
        due=[(at_ms, task, 0) for task, at_ms in enumerate(came.tolist())],
    )
    loop.run(ticks, end_ms)
    made = np.array(loop.made_at, dtype=np.int64)
    network = joined(
        _synthetic_tasks(loop, made, seed, replication),
        _organic_tasks(loop, came, seed, replication),
    )
    at_ms, task, finds_takers = _seen(loop, made, synthetic_draw, organic_draw)
    return _from(start_ms, network, at_ms, task, finds_takers)


def _draw(seed: int, replication: int, origin: str, purpose: str, n: int) -> Floats:
    return uniforms(seed, replication, f"arrivals.{origin}.{purpose}", n)


def _pool(config: NetworkArrivals, n: int, draw: Draw, *, is_organic: bool) -> Pool:
    row_ranges = config.organic.row_ranges if is_organic else config.hours.row_ranges
    attempts = config.organic.max_retries + 1 if is_organic else 1
    columns = draw_tasks(config.mix, n, draw)
    hours = draw_market_hours(config.hours, row_ranges, columns.is_image, draw)
    takers = draw("takers", n * attempts).reshape(n, attempts) >= config.too_few_takers
    return Pool(columns, hours, takers)


def _synthetic_tasks(loop: Loop, made: Ints, seed: int, replication: int) -> NetworkTasks:
    """The tasks of the closed loop: a task starts when it is made, or never."""
    n, pool = len(made), loop.synthetic
    first_n = np.arange(n)
    return network_tasks(
        uuids(seed, replication, "arrivals.synthetic.task_id", n),
        made,
        np.where(pool.finds_takers[:n, 0], made, NEVER),
        pool.columns.taken(first_n),
        pool.hours[:n],
        is_organic=False,
    )


def _organic_tasks(loop: Loop, came: Ints, seed: int, replication: int) -> NetworkTasks:
    """The customers' tasks: a task starts at its first attempt that finds its takers."""
    n, pool = len(came), loop.organic
    started = np.full(n, NEVER, dtype=np.int64)
    for at_ms, task, attempt in loop.attempts:
        if pool.finds_takers[task, attempt]:
            started[task] = at_ms
    task_id = uuids(seed, replication, "arrivals.organic.task_id", n)
    return network_tasks(task_id, came, started, pool.columns, pool.hours, is_organic=True)


def _seen(
    loop: Loop, made: Ints, synthetic_draw: Draw, organic_draw: Draw
) -> tuple[Ints, Ints, Bools]:
    """Time, task (synthetic ones first) and success of the attempts that reach this miner.

    An attempt that found too few takers has asked everybody, so it always does.
    """
    share = loop.config.offered_share
    columns = np.array(loop.attempts, dtype=np.int64).reshape(-1, 3).T
    at_ms, task, attempt = columns
    n_made, (n_organic, per_task) = len(made), loop.organic.finds_takers.shape
    luck = organic_draw("offered", n_organic * per_task).reshape(n_organic, per_task)
    takers = np.concatenate(
        [loop.synthetic.finds_takers[:n_made, 0], loop.organic.finds_takers[task, attempt]]
    )
    u = np.concatenate([synthetic_draw("offered", n_made), luck[task, attempt]])
    reached = (u < share) | ~takers
    all_at = np.concatenate([made, at_ms])
    all_tasks = np.concatenate([np.arange(n_made), n_made + task])
    return all_at[reached], all_tasks[reached], takers[reached]


def _from(
    start_ms: int, network: NetworkTasks, at_ms: Ints, task: Ints, finds_takers: Bools
) -> Arrivals:
    """The arrivals of the tasks made from start_ms on; the warm-up's tasks are left out."""
    order: NDArray[np.int64] = np.argsort(network.created_ms, kind="stable")
    order = order[network.created_ms[order] >= start_ms]
    row = np.full(len(network), -1, dtype=np.int64)
    row[order] = np.arange(len(order))
    counted = row[task] >= 0
    return offers_of(
        network.taken(order), at_ms[counted], row[task[counted]], finds_takers[counted]
    )
