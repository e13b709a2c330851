"""The program one would write first: SimPy with a process per offer and a Resource.

It writes the same decision columns as the engine (gate, priority, slot). It shares no code with
the product but the priority of each offer, which is handed to it as a column, as to the engine's
other peer; so it is spared the static gates' arithmetic, and the engine is not.
"""

import heapq
from collections.abc import Iterator
from typing import Any

import simpy

ACCEPTED, CAPACITY, TIME, PRIORITY = 0, 3, 4, 6


def naive_simpy(
    at_ms: list[int],
    train_ms: list[int],
    hours: list[float],
    scores: list[float],
    cap: int,
    limit: float,
    threshold: float,
) -> tuple[list[int], list[float], list[int]]:
    """Gate, priority and slot of each offer."""
    env = simpy.Environment(at_ms[0])
    slots = simpy.Resource(env, capacity=cap)
    free = list(range(cap))
    gates, priorities, taken = [ACCEPTED] * len(at_ms), [0.0] * len(at_ms), [-1] * len(at_ms)

    def offer(i: int) -> Iterator[Any]:
        priorities[i] = priority = scores[i]
        if slots.count >= cap:
            gates[i] = CAPACITY
            return
        if hours[i] > limit:
            gates[i] = TIME
            return
        if not priority > threshold:
            gates[i] = PRIORITY
            return
        with slots.request() as request:
            yield request
            taken[i] = slot = heapq.heappop(free)
            yield env.timeout(train_ms[i])
            heapq.heappush(free, slot)

    def arrivals() -> Iterator[Any]:
        for i, at in enumerate(at_ms):
            yield env.timeout(at - env.now)
            env.process(offer(i))

    env.process(arrivals())
    env.run()
    return gates, priorities, taken


def heap_loop(
    at_ms: list[int],
    train_ms: list[int],
    hours: list[float],
    scores: list[float],
    cap: int,
    limit: float,
    threshold: float,
) -> tuple[list[int], list[float], list[int]]:
    """The same columns from a bare loop over a heap of ends: no simulator at all."""
    gates, taken = [ACCEPTED] * len(at_ms), [-1] * len(at_ms)
    free, ends = list(range(cap)), []
    push, pop = heapq.heappush, heapq.heappop
    for i, now in enumerate(at_ms):
        while ends and ends[0][0] <= now:
            push(free, pop(ends)[1])
        if not free:
            gates[i] = CAPACITY
        elif hours[i] > limit:
            gates[i] = TIME
        elif not scores[i] > threshold:
            gates[i] = PRIORITY
        else:
            taken[i] = slot = pop(free)
            push(ends, (now + train_ms[i], slot))
    return gates, list(scores), taken
