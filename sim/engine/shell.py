"""The SimPy shell of the shared machine: every input typed, every answer in the ledger.

Slower than the column replay and equal to it in every decision. It is what writes a ledger and
what a ledger is verified with.
"""

from functools import partial

import simpy

from shared.decisions import Decision, Policy
from shared.inputs import (
    GpuChanged,
    Input,
    JobEnded,
    OfferArrived,
    Outcome,
    PolicyPut,
    StartRequested,
    TimerFired,
)
from shared.ledger import LedgerEntry, Recorder
from sim.engine.alarm import Alarm
from sim.engine.workload import Workload


class MachineShell:
    """One box: SimPy keeps the calendar, the machine decides, this carries out what it answers."""

    def __init__(self, workload: Workload, policy: Policy) -> None:
        """An empty box at the time of the first thing that happens."""
        self._workload = workload
        self._offers = _Offers(workload)
        self._hold = workload.hold_ms(policy.reservation_ttl_ms)
        self._lapses = workload.lapses(policy.reservation_ttl_ms)
        begins_ms = self._begins_ms()
        self.env = simpy.Environment(begins_ms)
        self._recorder = Recorder(PolicyPut(policy), begins_ms)
        self._machine = self._recorder.machine
        self._calendar: dict[tuple[int, int], list[Input]] = {}
        self._starts: dict[str, int] = {}
        self._ends: dict[str, int] = {}
        self._timer: int | None = None
        self._entries = [self._recorder.opening]

    def run(self) -> list[LedgerEntry]:
        """Run to the end; returns the ledger."""
        for at_ms, entry in self._workload.timeline:
            self._put(at_ms, entry)
        self._next_offer = Alarm(self.env, self._on_offer)
        self._arm_offer()
        self.env.run()
        return self._entries

    @property
    def _now(self) -> int:
        return self.env.now  # type: ignore[return-value]

    def _begins_ms(self) -> int:
        at_ms = self._workload.stream.at_ms
        times = [at_ms[0].item()] if len(at_ms) else []
        times += [at for at, _ in self._workload.timeline[:1]]
        return min(times, default=0)

    def _put(self, at_ms: int, entry: Input) -> None:
        """Put an input on the calendar; those of one time and rank are handled by id."""
        key = (at_ms, entry.rank)
        if key not in self._calendar:
            self._calendar[key] = []
            Alarm(self.env, partial(self._on_calendar, key)).arm(entry.rank, at_ms - self._now)
        self._calendar[key].append(entry)

    def _on_calendar(self, key: tuple[int, int], _: Alarm) -> None:
        for entry in sorted(self._calendar.pop(key), key=lambda entry: entry.id):
            if self._still_true(entry):
                self._handle(entry)

    def _still_true(self, entry: Input) -> bool:
        """Whether an input put on the calendar earlier still happens."""
        match entry:
            case JobEnded():
                return self._ends.get(entry.task_id) == self._now
            case TimerFired():
                return self._machine.next_timer() == self._now
            case StartRequested():
                return self._starts.get(entry.task_id) == self._now
            case _:
                return True

    def _arm_offer(self) -> None:
        at_ms = self._offers.next_ms()
        if at_ms is not None:
            self._next_offer.arm(OfferArrived.rank, at_ms - self._now)

    def _on_offer(self, _: Alarm) -> None:
        index, offer = self._offers.take()
        answers = self._handle(offer)
        decision = answers[0]
        if isinstance(decision, Decision) and decision.accepted and not decision.repeat:
            self._accepted(index, decision.task_id)
        self._arm_offer()

    def _accepted(self, index: int, task_id: str) -> None:
        """Put a job's start and end on the calendar."""
        self._starts.pop(task_id, None)
        if self._lapses is not None and self._lapses[index]:
            return
        ends_ms = self._now + int(self._hold[index])
        lag = self._workload.start_lag_ms
        starts_ms = self._now + max(1, 0 if lag is None else int(lag[index]))
        if starts_ms < ends_ms:  # a start sorts after the end of its own millisecond
            self._starts[task_id] = starts_ms
            self._put(starts_ms, StartRequested(task_id))
        self._end_at(ends_ms, task_id, "completed")

    def _end_at(self, at_ms: int, task_id: str, outcome: Outcome) -> None:
        self._ends[task_id] = at_ms
        self._put(at_ms, JobEnded(task_id, outcome))

    def _handle(self, entry: Input) -> list[object]:
        written, answers = self._recorder.handle(entry, self._now)
        self._entries.append(written)
        if isinstance(entry, JobEnded):
            self._ends.pop(entry.task_id, None)
        if isinstance(entry, JobEnded | StartRequested):
            self._starts.pop(entry.task_id, None)
        if isinstance(entry, GpuChanged) and not entry.healthy:
            self._fail_jobs_on(entry.gpu)
        self._keep_timer()
        return list(answers)

    def _fail_jobs_on(self, gpu: int) -> None:
        for task_id, job in self._machine.jobs.items():
            if gpu in job.gpus and self._ends.get(task_id, job.lapses_ms) > self._now + 1:
                self._end_at(self._now + 1, task_id, "gpu_failed")

    def _keep_timer(self) -> None:
        """Have the machine's next timer on the calendar."""
        due = self._machine.next_timer()
        if due is not None and due != self._timer:
            self._put(due, TimerFired())
        self._timer = due


class _Offers:
    """The offers of a stream, one at a time."""

    def __init__(self, workload: Workload) -> None:
        self._stream = workload.stream
        self._index = 0

    def next_ms(self) -> int | None:
        more = self._index < len(self._stream)
        return self._stream.at_ms[self._index].item() if more else None

    def take(self) -> tuple[int, OfferArrived]:
        index = self._index
        self._index = index + 1
        return index, OfferArrived(self._stream.offer(index))


def run_machine(workload: Workload, policy: Policy) -> list[LedgerEntry]:
    """Decide every offer of a workload through ``Machine.handle``; returns the ledger."""
    return MachineShell(workload, policy).run()
