"""How much of its GPUs a job really had: slots that share a GPU divide it among those that run.

A slot that is free leaves its part to its neighbours, so 24 slots that are half empty are not a
third of a GPU each. Jobs in equal parts is assumed; nobody has published what three do.
"""

import numpy as np

from shared.layout import SlotLayout
from sim.stream import Floats, Ints


def gpu_shares(layout: SlotLayout, slot: Ints, start_ms: Ints, end_ms: Ints) -> Floats:
    """Mean share of each of its GPUs over a job's time, float64 (n,) in (0, 1].

    slot, start_ms, end_ms: int64 (n,), where and when each job ran.
    """
    share = np.ones(len(slot))
    if layout.gpu_share == 1.0:
        return share
    gpus = np.array([held[0] for held in layout.gpus])[slot]
    for gpu in np.unique(gpus).tolist():
        here = gpus == gpu
        share[here] = _shares_of_one(start_ms[here], end_ms[here])
    return share


def _shares_of_one(start_ms: Ints, end_ms: Ints) -> Floats:
    """Mean of 1 / (jobs running) over each job's time on one GPU."""
    at = np.concatenate([start_ms, end_ms])
    change = np.repeat([1, -1], len(start_ms))
    order = np.argsort(at, kind="stable")
    at, running = at[order], np.cumsum(change[order])
    # the integral of 1 / running up to each event, in milliseconds since the first one
    parts = np.diff(at) / np.maximum(running[:-1], 1)
    integral = np.concatenate([[0.0], np.cumsum(parts)])
    first, last = (integral[np.searchsorted(at, edge, side="left")] for edge in (start_ms, end_ms))
    return np.where(end_ms > start_ms, (last - first) / np.maximum(end_ms - start_ms, 1), 1.0)
