"""The tasks that a season is played on: the network's list, or the offers themselves."""

from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc

from shared.units import MS_PER_HOUR
from sim.arrivals import NEVER, Arrivals
from sim.market.rules import RuleSet
from sim.market.work import task_billions, task_work
from sim.quality.columns import Bools
from sim.stream import UNKNOWN, Floats, Ints, Labels, OfferStream

NO_TASK = -1
"""Stands for an offer whose task is not played: it never started, or its type has no group."""


@dataclass(frozen=True)
class PlayedNetwork:
    """Tasks that found their takers, in order of creation, and the row of each offer.

    group: index into the rule set's groups. created_ms, done_ms: epoch milliseconds, done when the
    hours to complete are over. work: as the market reckons it. task: (offers,), the row of each
    offer's task, -1 for none.
    """

    group: Ints
    created_ms: Ints
    done_ms: Ints
    is_organic: Bools
    work: Floats
    task: Ints


def played_network(arrivals: Arrivals | None, stream: OfferStream, rules: RuleSet) -> PlayedNetwork:
    """The network's tasks that started; without ``arrivals`` the offers are the whole network.

    Then each task id is one synthetic task, made and begun when it was first offered. Task types
    that the rules do not know are left out: the market could not rank them.
    """
    if arrivals is None:
        return _offers_alone(stream, rules)
    tasks = arrivals.network
    group = _groups(tasks.task_type, rules)
    keep = (tasks.started_ms != NEVER) & (group >= 0)
    work = _work(tasks.model, tasks.params, tasks.hours, rules)
    return _kept(
        keep,
        group,
        tasks.created_ms,
        tasks.started_ms + np.rint(tasks.hours * MS_PER_HOUR).astype(np.int64),
        tasks.is_organic,
        work,
        arrivals.task,
    )


def _offers_alone(stream: OfferStream, rules: RuleSet) -> PlayedNetwork:
    encoded = pc.dictionary_encode(stream.task_id).indices.to_numpy(zero_copy_only=False)
    task = np.asarray(encoded, dtype=np.int64)
    _, first = np.unique(task, return_index=True)
    group = _groups(stream.task_type.taken(first), rules)
    hours, at_ms = stream.hours[first], stream.at_ms[first]
    return _kept(
        group >= 0,
        group,
        at_ms,
        at_ms + np.rint(hours * MS_PER_HOUR).astype(np.int64),
        np.zeros(len(first), dtype=np.bool_),
        _work(stream.model.taken(first), stream.params[first], hours, rules),
        task,
    )


def _kept(
    keep: Bools,
    group: Ints,
    created_ms: Ints,
    done_ms: Ints,
    is_organic: Bools,
    work: Floats,
    task: Ints,
) -> PlayedNetwork:
    row = np.where(keep, np.cumsum(keep) - 1, NO_TASK)
    return PlayedNetwork(
        group[keep], created_ms[keep], done_ms[keep], is_organic[keep], work[keep], row[task]
    )


def _groups(task_type: Labels, rules: RuleSet) -> Ints:
    """Index of each task's group, -1 where the rules know no such type."""
    known = {name: rules.group_of(name) for name in rules.task_types}
    table = np.array([known.get(name, -1) for name in task_type.names], dtype=np.int64)
    return table[task_type.codes]


def _work(model: Labels, params: Ints, hours: Floats, rules: RuleSet) -> Floats:
    pairs = np.stack((model.codes.astype(np.int64), params))
    distinct, row = np.unique(pairs, axis=1, return_inverse=True)
    billions = [
        task_billions(model.names[code], None if count == UNKNOWN else count, rules.work)
        for code, count in distinct.T.tolist()
    ]
    return task_work(hours, np.array(billions, dtype=np.int64)[row.reshape(-1)], rules.work)
