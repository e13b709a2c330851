"""What a generator gives: the offers that reach this miner, and the network's own task list."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from sim.arrivals.tasks import Bools, TaskColumns, whole_ms
from sim.stream import Floats, Ints, Labels, OfferStream, handling_order

NEVER = -1
"""Stands for the start of a task that never found enough takers."""


@dataclass(frozen=True, slots=True)
class NetworkTasks:
    """Every task the network made, sorted by created_ms; whether or not this miner was asked.

    task_id: pyarrow strings. created_ms, started_ms: int64 epoch milliseconds; started_ms is
    when enough takers were found, -1 when they never were (before the stream's end). hours:
    float64. ds_size, params: int64. is_organic: bool, paid for by a customer.
    """

    task_id: pa.Array
    created_ms: Ints
    started_ms: Ints
    task_type: Labels
    model: Labels
    hours: Floats
    ds_size: Ints
    params: Ints
    is_organic: Bools

    def __len__(self) -> int:
        return len(self.created_ms)

    def taken(self, order: Ints) -> "NetworkTasks":
        """The same tasks in another order, or a part of them."""
        return NetworkTasks(
            task_id=self.task_id.take(pa.array(order)),
            created_ms=self.created_ms[order],
            started_ms=self.started_ms[order],
            task_type=self.task_type.taken(order),
            model=self.model.taken(order),
            hours=self.hours[order],
            ds_size=self.ds_size[order],
            params=self.params[order],
            is_organic=self.is_organic[order],
        )


@dataclass(frozen=True, slots=True)
class Arrivals:
    """An offer stream of n offers and where each came from.

    stream: the offers in handling order; its train_ms is the whole hours_to_complete, until a
    service model says otherwise. is_organic: bool (n,). finds_takers: bool (n,), whether the
    attempt gathered enough takers, so that its training starts. task: int64 (n,), the offer's row
    in ``network``.
    """

    stream: OfferStream
    is_organic: Bools
    finds_takers: Bools
    task: Ints
    network: NetworkTasks


def network_tasks(
    task_id: pa.Array,
    created_ms: Ints,
    started_ms: Ints,
    columns: TaskColumns,
    hours: Floats,
    *,
    is_organic: bool,
) -> NetworkTasks:
    """The task list of one origin out of what was drawn, row by row alike."""
    return NetworkTasks(
        task_id=task_id,
        created_ms=created_ms,
        started_ms=started_ms,
        task_type=columns.task_type,
        model=columns.model,
        hours=hours,
        ds_size=columns.ds_size,
        params=columns.params,
        is_organic=np.full(len(created_ms), is_organic),
    )


def joined(first: NetworkTasks, then: NetworkTasks) -> NetworkTasks:
    """The rows of one list, then those of the other; both name types and models alike."""
    return NetworkTasks(
        task_id=pa.concat_arrays([first.task_id, then.task_id]),
        created_ms=np.concatenate([first.created_ms, then.created_ms]),
        started_ms=np.concatenate([first.started_ms, then.started_ms]),
        task_type=_joined_labels(first.task_type, then.task_type),
        model=_joined_labels(first.model, then.model),
        hours=np.concatenate([first.hours, then.hours]),
        ds_size=np.concatenate([first.ds_size, then.ds_size]),
        params=np.concatenate([first.params, then.params]),
        is_organic=np.concatenate([first.is_organic, then.is_organic]),
    )


def _joined_labels(first: Labels, then: Labels) -> Labels:
    return Labels(np.concatenate([first.codes, then.codes]), first.names)


def offers_of(network: NetworkTasks, at_ms: Ints, task: Ints, finds_takers: Bools) -> Arrivals:
    """The arrivals whose offer i comes at at_ms[i] and is of task[i], put in handling order."""
    ids = network.task_id.take(pa.array(task))
    order = handling_order(at_ms, ids)
    at_ms, task = at_ms[order], task[order]
    offered = network.taken(task)
    stream = OfferStream(
        at_ms=at_ms,
        task_id=offered.task_id,
        model=offered.model,
        task_type=offered.task_type,
        hours=offered.hours,
        ds_size=offered.ds_size,
        params=offered.params,
        train_ms=whole_ms(offered.hours),
    )
    return Arrivals(stream, offered.is_organic, finds_takers[order], task, network)
