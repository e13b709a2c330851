"""The machine: inputs in, decisions out. It reads no clock and does no input or output.

Whoever drives it (the simulator's SimPy shell, the daemon's one consumer) tells it the time and
carries out what it answers. An illegal input raises and leaves the state as it was.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import assert_never

from shared.admission import Admission
from shared.decisions import (
    Decision,
    Gate,
    Policy,
    priority_of,
    reason_of,
    static_gate,
)
from shared.errors import IllegalTransition, OutOfOrder
from shared.inputs import (
    GpuChanged,
    Input,
    JobEnded,
    OfferArrived,
    OperatorAsked,
    PolicyPut,
    StartRequested,
    StorageChanged,
    TimerFired,
    order_key,
)
from shared.jobs import Answer, Effect, Job, start_refusal
from shared.repeats import Mark, Repeats
from shared.units import hours_to_ms


@dataclass(frozen=True, slots=True)
class Saved:
    """Where a machine stood. For ``Machine.restore``."""

    fields: dict[str, object]
    admission: Admission
    jobs: dict[str, Job]
    repeats: Mark


class Machine:
    """One box under one policy at a time."""

    def __init__(self, policy: Policy, *, now: int = 0) -> None:
        """An empty, healthy, accepting box; nothing can be entered before ``now``."""
        self.policy = policy
        self._admission = Admission(policy.preset.cap)
        self._jobs: dict[str, Job] = {}
        self._repeats = Repeats()
        self._failed: frozenset[int] = frozenset()
        self._held_over: frozenset[str] = frozenset()
        self._draining = False
        self._storage_full = False
        self._last: tuple[int, int, str] = (now, -1, "")

    # What the outside may look at.

    @property
    def jobs(self) -> dict[str, Job]:
        """Jobs that hold a slot, by task id: a copy."""
        return dict(self._jobs)

    @property
    def slots_in_use(self) -> int:
        """Slots that count against capacity."""
        return self._admission.in_use()

    @property
    def failed_gpus(self) -> frozenset[int]:
        """GPUs out of service."""
        return self._failed

    @property
    def draining(self) -> bool:
        """Whether the operator stopped acceptance."""
        return self._draining

    @property
    def storage_full(self) -> bool:
        """Whether there is no room for another job."""
        return self._storage_full

    def next_timer(self) -> int | None:
        """When the next reservation lapses, or None. ``TimerFired`` is due exactly then."""
        due = [job.lapses_ms for job in self._jobs.values() if job.state == "reserved"]
        return min(due, default=None)

    def stamp(self, now: int, entry: Input) -> int:
        """The time to enter an input at: now, or the next millisecond where it would sort before
        the last one handled. The clock never goes back. A timer due by then has to fire first.
        """
        last_at = self._last[0]
        at_ms = max(now, last_at)
        return last_at + 1 if order_key(at_ms, entry) < self._last else at_ms

    # What happens.

    def handle(self, events: Iterable[Input], *, now: int) -> list[Answer]:
        """Handle the inputs of one instant, in their order; returns the answers in that order.

        now: epoch milliseconds. Raises OutOfOrder when an input sorts before the last one handled
        or after a timer that has not fired, IllegalTransition when the state does not allow one;
        then none of them has happened.
        """
        ordered = sorted(events, key=lambda entry: (entry.rank, entry.id))
        if len(ordered) == 1:
            return self._step(ordered[0], now)
        before = self.copy()
        try:
            return [answer for entry in ordered for answer in self._step(entry, now)]
        except BaseException:
            self.__dict__.update(before.__dict__)
            raise

    def _step(self, entry: Input, now: int) -> list[Answer]:
        """One input; everything that can raise does so before anything changes."""
        key = order_key(now, entry)
        self._check_order(key, entry)
        answers: list[Answer]
        match entry:
            case OfferArrived():
                answers = [self._offer(entry, now)]
            case JobEnded():
                answers = [self._ended(entry, now)]
            case StartRequested():
                answers = [self._start(entry, now)]
            case TimerFired():
                answers = self._lapse(now)
            case GpuChanged():
                answers = [self._gpu(entry, now)]
            case OperatorAsked() | StorageChanged():
                answers = [self._box_state(entry, now)]
            case PolicyPut():
                answers = [self._put_policy(entry.policy, now)]
            case _:
                assert_never(entry)
        self._last = key
        return answers

    def _check_order(self, key: tuple[int, int, str], entry: Input) -> None:
        if key < self._last:
            raise OutOfOrder(f"{entry.kind} at {key[0]} sorts before the last input handled")
        due = self.next_timer()
        if isinstance(entry, TimerFired):
            if due != key[0]:
                raise IllegalTransition(f"timer at {key[0]}: the next one is due at {due}")
        elif due is not None and key > (due, TimerFired.rank, TimerFired.id):
            raise OutOfOrder(f"{entry.kind} at {key[0]}: the timer due at {due} has not fired")

    def _offer(self, entry: OfferArrived, now: int) -> Decision:
        first = self._first_answer(entry.offer.task_id, now)
        if first is not None:
            return replace(first, at_ms=now, repeat=True)
        offer, policy = entry.offer, self.policy
        priority = priority_of(offer, policy.preset)
        code = self._admission.admit(static_gate(offer, priority, policy))
        gate = Gate.ACCEPTED if code >= 0 else Gate(-code)
        decision = Decision(
            at_ms=now,
            task_id=offer.task_id,
            accepted=gate is Gate.ACCEPTED,
            gate=gate.label,
            reason=reason_of(gate, offer, priority, policy),
            priority=priority,
            slot=code if code >= 0 else None,
        )
        self._repeats.remember(decision, policy.repeat_window_ms)
        if decision.slot is not None:
            self._reserve(entry, decision, decision.slot)
        return decision

    def _first_answer(self, task_id: str, now: int) -> Decision | None:
        """The decision that still answers for this task."""
        if task_id in self._jobs:
            return self._jobs[task_id].decision
        first = self._repeats.get(task_id)
        return first if first and now - first.at_ms <= self.policy.repeat_window_ms else None

    def _reserve(self, entry: OfferArrived, decision: Decision, slot: int) -> None:
        self._jobs[decision.task_id] = Job(
            decision=decision,
            hours_to_complete=entry.offer.hours_to_complete,
            source=entry.source,
            gpus=self.policy.preset.layout.gpus[slot],
            state="reserved",
            lapses_ms=decision.at_ms + self.policy.reservation_ttl_ms,
        )

    def _start(self, entry: StartRequested, now: int) -> Effect:
        job = self._jobs.get(entry.task_id)
        refusal = start_refusal(job, entry, self._failed)
        if job is None or refusal:
            return self._effect(now, "start_refused", task_id=entry.task_id, reason=refusal)
        deadline_ms = now + hours_to_ms(job.hours_to_complete)
        self._jobs[entry.task_id] = replace(job, state="running", deadline_ms=deadline_ms)
        return self._effect(
            now, "started", task_id=entry.task_id, slot=job.slot, deadline_ms=deadline_ms
        )

    def _ended(self, entry: JobEnded, now: int) -> Effect:
        job = self._jobs.get(entry.task_id)
        if job is None:
            raise IllegalTransition(f"ended: no job of task {entry.task_id} holds a slot")
        if entry.phase == "stopping":
            if job.state != "running":
                raise IllegalTransition(f"ended: task {entry.task_id} is {job.state}, not running")
            self._jobs[entry.task_id] = replace(job, state="stopping")
            return self._effect(now, "stopping", task_id=entry.task_id, slot=job.slot)
        self._free(entry.task_id)
        return self._effect(
            now, "released", task_id=entry.task_id, slot=job.slot, reason=entry.outcome
        )

    def _lapse(self, now: int) -> list[Answer]:
        due = sorted(
            task_id
            for task_id, job in self._jobs.items()
            if job.state == "reserved" and job.lapses_ms == now
        )
        answers: list[Answer] = []
        for task_id in due:
            slot = self._jobs[task_id].slot
            self._free(task_id)
            answers.append(self._effect(now, "lapsed", task_id=task_id, slot=slot))
        return answers

    def _free(self, task_id: str) -> None:
        """The task's job holds its slot no longer."""
        job = self._jobs.pop(task_id)
        if task_id in self._held_over:
            self._held_over -= {task_id}
            self._take_out()
        else:
            self._admission.release(job.slot)

    def _gpu(self, entry: GpuChanged, now: int) -> Effect:
        if not 0 <= entry.gpu < self.policy.preset.gpus:
            raise IllegalTransition(f"gpu: found {entry.gpu}, this box has no such GPU")
        if entry.healthy == (entry.gpu not in self._failed):
            raise IllegalTransition(f"gpu: GPU {entry.gpu} was already so")
        self._failed = self._failed ^ {entry.gpu}
        self._take_out()
        return self._effect(now, "gpu_back" if entry.healthy else "gpu_out", gpu=entry.gpu)

    def _box_state(self, entry: OperatorAsked | StorageChanged, now: int) -> Effect:
        if isinstance(entry, OperatorAsked):
            self._draining = entry.action == "drain"
            effect = "draining" if self._draining else "accepting"
        else:
            self._storage_full = not entry.available
            effect = "storage_full" if self._storage_full else "storage_available"
        self._admission.close(draining=self._draining, storage=self._storage_full)
        return self._effect(now, effect)

    def _put_policy(self, policy: Policy, now: int) -> Effect:
        """Jobs keep their GPUs; where the slots are cut anew, they block those they touch."""
        if policy.preset.gpus <= max(self._failed, default=-1):
            raise IllegalTransition("policy: a failed GPU is not among the new box's GPUs")
        recut = policy.preset.layout != self.policy.preset.layout
        self.policy = policy
        if recut:
            self._held_over = frozenset(self._jobs)
            self._admission = Admission(policy.preset.cap)
            self._admission.close(draining=self._draining, storage=self._storage_full)
            self._take_out()
        return self._effect(now, "policy")

    def _take_out(self) -> None:
        """Slots on failed GPUs, or on those that jobs of an earlier layout hold, are out."""
        held = (self._jobs[task_id].gpus for task_id in self._held_over)
        gpus = self._failed.union(*held)
        self._admission.take_out(self.policy.preset.layout.slots_on(gpus))

    def _effect(self, now: int, effect: str, **fields: object) -> Effect:
        return Effect(at_ms=now, effect=effect, in_use=self.slots_in_use, **fields)  # type: ignore[arg-type]

    def copy(self) -> "Machine":
        """Another machine in the same state."""
        twin = object.__new__(Machine)
        twin.__dict__.update(self.__dict__)
        twin._admission, twin._jobs = self._admission.copy(), dict(self._jobs)
        twin._repeats = self._repeats.copy()
        return twin

    def save(self) -> Saved:
        """The state as it is, to come back to until the next ``save``."""
        return Saved(dict(self.__dict__), self._admission.copy(), dict(self._jobs),
                     self._repeats.mark())  # fmt: skip

    def restore(self, saved: Saved) -> None:
        """What was handled since that ``save`` (before a ``copy`` too) has not happened."""
        repeats = self._repeats
        repeats.back_to(saved.repeats)
        self.__dict__.update(saved.fields)
        self._admission, self._jobs = saved.admission.copy(), dict(saved.jobs)
        self._repeats = repeats
