"""Replay a workload through a policy by column: columns in, columns out.

SimPy schedules it: an arrival is an event, the end of a job is an event. What cannot change the
box needs no event of its own. Offers that a static gate refuses are decided by column; offers that
meet a full box are parked, and passed over in one step when a slot comes free. Every admission is
decided by ``shared.admission.Admission``, the core of ``Machine.handle``.
"""

from bisect import bisect_left
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import simpy
from numpy.typing import NDArray
from simpy.events import EventPriority

from shared.admission import Admission
from shared.decisions import Gate, Policy
from shared.inputs import JobEnded, OfferArrived
from sim.engine.alarm import Alarm
from sim.engine.gates import static_columns
from sim.engine.outcome import NEVER, NO_SLOT, Decisions
from sim.engine.workload import Workload
from sim.stream import Ints

END, OFFER = EventPriority(JobEnded.rank), EventPriority(OfferArrived.rank)
_UNFILLED = b"\xff"  # -1 as int8


class SlotEnd(Alarm):
    """The end of whatever job holds one slot."""

    def __init__(
        self, env: simpy.Environment, callback: Callable[["SlotEnd"], None], slot: int
    ) -> None:
        """An alarm of this slot, not armed yet."""
        super().__init__(env, callback)
        self.slot = slot


def replay_plain(workload: Workload, policy: Policy) -> Decisions:
    """Decide every offer, for a box that nothing befalls and tasks that are offered once.

    Memory beyond the input and the result: two lists of one integer an offer.
    """
    stream = workload.stream
    static, priority = static_columns(stream, policy)
    hold = workload.hold_ms(policy.reservation_ttl_ms)
    passing = np.flatnonzero(static == Gate.ACCEPTED)
    slot = np.full(len(stream), NO_SLOT, dtype=np.int8)
    slot[passing] = _admitted(stream.at_ms[passing], hold[passing], policy.preset.cap)
    accepted = slot != NO_SLOT
    gate = np.where(accepted, np.uint8(Gate.ACCEPTED), static)
    gate[passing[~accepted[passing]]] = Gate.CAPACITY
    end_ms = np.where(accepted, stream.at_ms + hold, NEVER)
    refused = np.flatnonzero(static != Gate.ACCEPTED)
    gate[refused[_met_full_box(refused, stream.at_ms, end_ms, policy.preset.cap)]] = Gate.CAPACITY
    nothing = np.zeros(len(stream), dtype=np.bool_)
    lapses = workload.lapses(policy.reservation_ttl_ms)
    lapsed = nothing if lapses is None else accepted & lapses
    return Decisions(gate, slot, priority, nothing, end_ms, nothing, lapsed)


def _met_full_box(offers: Ints, at_ms: Ints, end_ms: Ints, cap: int) -> NDArray[np.bool_]:
    """Which of these refused offers came while every slot was held; capacity is the first gate.

    Slots held at an offer: acceptances before it less the ends up to its own millisecond, since an
    end ranks before an offer.
    """
    accepted = end_ms != NEVER
    begun = np.cumsum(accepted)[offers]
    ended = np.searchsorted(np.sort(end_ms[accepted]), at_ms[offers], side="right")
    return cast("NDArray[np.bool_]", begun - ended == cap)


def _admitted(at_ms: Ints, hold_ms: Ints, cap: int) -> NDArray[np.int8]:
    """The SimPy run: the slot of each offer that every static gate passes, -1 at a full box.

    at_ms, hold_ms: int64, equal lengths, in handling order. The two callbacks are closures over
    plain locals and spell out ``Alarm.arm``: at a million events a second each call counts.
    """
    count, at, hold = len(at_ms), at_ms.tolist(), hold_ms.tolist()
    slots = bytearray(_UNFILLED) * count
    box = Admission(cap)
    admit, release = box.admit, box.release
    env = simpy.Environment(at[0] if count else 0)
    schedule = env.schedule
    cursor, parked, last = 0, False, count - 1

    def on_arrival(event: Alarm) -> None:
        nonlocal cursor, parked
        this = cursor
        slots[this] = slot = admit(0)
        end = ends[slot]
        end.callbacks = end_calls
        schedule(end, END, hold[this])
        cursor = this + 1
        if not box.free:
            parked = True
        elif this < last:
            event.callbacks = arrival_calls
            schedule(event, OFFER, at[cursor] - at[this])

    def on_end(event: SlotEnd) -> None:
        nonlocal cursor, parked
        release(event.slot)
        if parked:
            parked = False
            now = env.now
            cursor = bisect_left(at, now, cursor)
            if cursor < count:
                arrival.callbacks = arrival_calls
                schedule(arrival, OFFER, at[cursor] - now)

    arrival = Alarm(env, on_arrival)
    ends = [SlotEnd(env, on_end, slot) for slot in range(cap)]
    arrival_calls: list[Any] = [on_arrival]
    end_calls: list[Any] = [on_end]
    if count:
        arrival.arm(OFFER, 0)
    env.run()
    return np.frombuffer(slots, dtype=np.int8)
