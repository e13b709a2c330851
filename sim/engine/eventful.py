"""The column replay when more happens: GPUs fail, the box is closed, tasks are offered again."""

from bisect import bisect_left

import numpy as np
import simpy

from shared.admission import Admission
from shared.decisions import Policy
from shared.inputs import GpuChanged, JobEnded, OfferArrived, OperatorAsked
from sim.engine.alarm import Alarm
from sim.engine.gates import static_columns
from sim.engine.outcome import NEVER, NO_SLOT, Decisions
from sim.engine.replay import replay_plain
from sim.engine.workload import Interruption, Workload

NOBODY = -1


class JobEnd(Alarm):
    """The end of one job. Brought forward, the job gets another and this one is ignored."""

    index: int


class EventfulReplay:
    """One run of one workload under one policy.

    Every offer has an event, unless the box is shut: then arrivals are parked, and read off as
    refused before anything about the box changes.
    """

    def __init__(self, workload: Workload, policy: Policy) -> None:
        """Lay out the columns."""
        stream = workload.stream
        self._workload, self._layout = workload, policy.preset.layout
        self._repeat_window_ms = policy.repeat_window_ms
        self._lapses = workload.lapses(policy.reservation_ttl_ms)
        static, self._priority = static_columns(stream, policy)
        self._static: list[int] = static.tolist()
        self._at: list[int] = stream.at_ms.tolist()
        self._hold: list[int] = workload.hold_ms(policy.reservation_ttl_ms).tolist()
        self._gate = [0] * len(stream)
        self._slot = [NO_SLOT] * len(stream)
        self._end = [NEVER] * len(stream)
        self._previous = stream.previous
        self._repeated = (
            [] if self._previous is None else np.flatnonzero(self._previous >= 0).tolist()
        )
        self._answered_by: dict[int, int] = {}
        self._holder = [NOBODY] * policy.preset.cap
        self._gpu_failed: set[int] = set()
        self._failed: frozenset[int] = frozenset()
        self._draining = self._storage_full = False
        self._box = Admission(policy.preset.cap)
        self._cursor = self._entry = self._shut = 0

    def run(self) -> Decisions:
        """Run until every offer is decided, every slot is free and the timeline is at its end."""
        self._env = simpy.Environment(self._begins_ms())
        self._arrival = Alarm(self._env, self._on_arrival)
        self._befall = Alarm(self._env, self._on_timeline)
        self._arm_arrival()
        self._arm_timeline()
        self._env.run()
        self._read_off(len(self._at))
        return self._decisions()

    @property
    def _now(self) -> int:
        return self._env.now  # type: ignore[return-value]

    def _begins_ms(self) -> int:
        timeline = [at_ms for at_ms, _ in self._workload.timeline[:1]]
        return min(self._at[:1] + timeline, default=0)

    def _arm_arrival(self) -> None:
        if self._cursor < len(self._at):
            self._arrival.arm(OfferArrived.rank, self._at[self._cursor] - self._now)

    def _on_arrival(self, _: Alarm) -> None:
        index = self._cursor
        root = self._first_answer(index)
        if root is None:
            self._decide(index)
        else:
            self._answer_again(index, root)
        self._cursor = index + 1
        self._shut = self._box.shut_gate()
        if not self._shut:
            self._arm_arrival()

    def _decide(self, index: int) -> None:
        code = self._box.admit(self._static[index])
        if code < 0:
            self._gate[index] = -code
            return
        self._slot[index] = code
        self._holder[code] = index
        self._arm_end(index, self._hold[index])

    def _arm_end(self, index: int, delay: int) -> None:
        self._end[index] = self._now + delay
        end = JobEnd(self._env, self._on_job_end)
        end.index = index
        end.arm(JobEnded.rank, delay)

    def _first_answer(self, index: int) -> int | None:
        """Index of the decision that still answers for this offer's task, or None."""
        if self._previous is None or self._previous[index] < 0:
            return None
        previous = int(self._previous[index])
        root = self._answered_by.get(previous, previous)
        holds_slot = self._slot[root] != NO_SLOT and self._holder[self._slot[root]] == root
        recent = self._at[index] - self._at[root] <= self._repeat_window_ms
        return root if holds_slot or recent else None

    def _answer_again(self, index: int, root: int) -> None:
        self._answered_by[index] = root
        self._gate[index] = self._gate[root]
        self._slot[index] = self._slot[root]
        self._priority[index] = self._priority[root]

    def _on_job_end(self, end: Alarm) -> None:
        assert isinstance(end, JobEnd)
        index, slot = end.index, self._slot[end.index]
        if self._holder[slot] == index:
            self._settle()
            self._holder[slot] = NOBODY
            self._box.release(slot)
            self._go_on()

    def _settle(self) -> None:
        """Before the box changes: read off the parked offers, which met it as it was."""
        if self._shut:
            self._read_off(bisect_left(self._at, self._now, self._cursor))

    def _read_off(self, stop: int) -> None:
        """Refuse the offers from the cursor to ``stop``, but repeats: those are answered again."""
        start, self._cursor = self._cursor, stop
        self._gate[start:stop] = [self._shut] * (stop - start)
        first = bisect_left(self._repeated, start)
        for index in self._repeated[first : bisect_left(self._repeated, stop)]:
            root = self._first_answer(index)
            if root is not None:
                self._answer_again(index, root)

    def _go_on(self) -> None:
        """After the box changed: parked arrivals may come again."""
        if self._shut:
            self._shut = self._box.shut_gate()
            if not self._shut:
                self._arm_arrival()

    def _arm_timeline(self) -> None:
        if self._entry < len(self._workload.timeline):
            at_ms, entry = self._workload.timeline[self._entry]
            self._befall.arm(entry.rank, at_ms - self._now)

    def _on_timeline(self, _: Alarm) -> None:
        self._settle()
        self._befell(self._workload.timeline[self._entry][1])
        self._go_on()
        self._entry += 1
        self._arm_timeline()

    def _befell(self, entry: Interruption) -> None:
        if isinstance(entry, GpuChanged):
            self._change_gpu(entry)
            return
        if isinstance(entry, OperatorAsked):
            self._draining = entry.action == "drain"
        else:
            self._storage_full = not entry.available
        self._box.close(draining=self._draining, storage=self._storage_full)

    def _change_gpu(self, entry: GpuChanged) -> None:
        self._failed = self._failed ^ {entry.gpu}
        self._box.take_out(self._layout.slots_on(self._failed))
        if entry.healthy:
            return
        for slot, gpus in enumerate(self._layout.gpus):
            index = self._holder[slot]
            if entry.gpu in gpus and index != NOBODY and self._end[index] > self._now + 1:
                # an end ranks before the failure, so the job's comes in the next millisecond
                self._gpu_failed.add(index)
                self._arm_end(index, 1)

    def _decisions(self) -> Decisions:
        repeat = np.zeros(len(self._at), dtype=np.bool_)
        repeat[list(self._answered_by)] = True
        gpu_failed = np.zeros_like(repeat)
        gpu_failed[list(self._gpu_failed)] = True
        end_ms = np.array(self._end, dtype=np.int64)
        lapses = False if self._lapses is None else self._lapses
        return Decisions(
            gate=np.array(self._gate, dtype=np.uint8),
            slot=np.array(self._slot, dtype=np.int8),
            priority=self._priority,
            repeat=repeat,
            end_ms=end_ms,
            gpu_failed=gpu_failed,
            lapsed=(end_ms != NEVER) & ~gpu_failed & lapses,
        )


def run_columns(workload: Workload, policy: Policy) -> Decisions:
    """Decide every offer of a workload under one policy, by column."""
    if workload.timeline or workload.stream.previous is not None:
        return EventfulReplay(workload, policy).run()
    return replay_plain(workload, policy)
