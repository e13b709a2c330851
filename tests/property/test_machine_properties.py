"""The machine under any history: a second, plain book of slots must never disagree with it."""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from shared.decisions import Decision, Policy
from shared.errors import FourSlotError, IllegalTransition, OutOfOrder
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
from shared.jobs import Answer, Effect
from shared.machine import Machine
from shared.offers import Offer
from shared.presets import ACCURACY_4, MAXIMUM_2, THROUGHPUT_24, Preset

GPUS = 8
TASKS = tuple(f"task {number:02}" for number in range(30))
tasks = st.sampled_from(TASKS)
steps = st.sampled_from((0, 0, 0, 1, 17, 60_000, 60_001, 400_000))
policies = st.builds(
    Policy,
    preset=st.one_of(
        st.sampled_from((ACCURACY_4, THROUGHPUT_24, MAXIMUM_2)),
        st.integers(1, 24).map(lambda cap: ACCURACY_4.varied(cap=cap)),
    ),
    reservation_ttl_ms=st.sampled_from((2, 500, 90_000, 1_800_000)),
)


@dataclass
class Booking:
    """What the book knows of one accepted offer."""

    slot: int
    gpus: frozenset[int]
    lapses_ms: int
    held_over: bool = False
    state: str = "reserved"


@dataclass
class Book:
    """The same rules kept the slow way: every question is answered by looking at every booking."""

    preset: Preset
    bookings: dict[str, Booking]
    failed: set[int]
    decided: dict[str, Decision]
    draining: bool = False
    storage_full: bool = False

    def gpus_of(self, slot: int) -> frozenset[int]:
        cap = self.preset.cap
        if cap > GPUS:
            return frozenset({slot % GPUS})
        return frozenset(range(slot * (GPUS // cap), (slot + 1) * (GPUS // cap)))

    def is_free(self, slot: int) -> bool:
        gpus = self.gpus_of(slot)
        return gpus.isdisjoint(self.failed) and not any(
            gpus & booking.gpus if booking.held_over else booking.slot == slot
            for booking in self.bookings.values()
        )

    def free_slots(self) -> list[int]:
        return [slot for slot in range(self.preset.cap) if self.is_free(slot)]

    def gate(self, offer: Offer) -> str:
        if self.draining or self.storage_full:
            return "draining" if self.draining else "storage"
        if not self.free_slots():
            return "capacity"
        return "time" if offer.hours_to_complete > self.preset.time_limit_hours else "accepted"

    def due(self) -> int | None:
        reserved = [b.lapses_ms for b in self.bookings.values() if b.state == "reserved"]
        return min(reserved) if reserved else None


class MachineAgainstBook(RuleBasedStateMachine):
    """Feeds both, as a shell would: stamps every input, fires every timer when it is due."""

    @initialize(policy=policies)
    def begin(self, policy: Policy) -> None:
        self.first_policy = self.policy = policy
        self.machine = Machine(policy)
        self.book = Book(policy.preset, {}, set(), {})
        self.now = 1_000
        self.ledger: list[tuple[int, Input, list[Answer]]] = []

    # The shell.

    def enter(self, entry: Input) -> list[Answer]:
        """Enter one input at its stamp, after the timers that are due by then."""
        while True:
            at_ms = self.machine.stamp(self.now, entry)
            due = self.machine.next_timer()
            if due is None or (at_ms, entry.rank) < (due, TimerFired.rank):
                break
            self.fire(due)
        self.now = at_ms
        return self.handled(entry, at_ms)

    def handled(self, entry: Input, at_ms: int) -> list[Answer]:
        answers = self.machine.handle([entry], now=at_ms)
        self.ledger.append((at_ms, entry, answers))
        return answers

    def fire(self, due: int) -> None:
        assert self.machine.stamp(due, TimerFired()) == due
        self.now = max(self.now, due)
        lapsed = sorted(
            task_id
            for task_id, booking in self.book.bookings.items()
            if booking.state == "reserved" and booking.lapses_ms == due
        )
        assert lapsed
        told = self.handled(TimerFired(), due)
        assert [(a.task_id, a.slot) for a in told if isinstance(a, Effect)] == [
            (task_id, self.book.bookings.pop(task_id).slot) for task_id in lapsed
        ]

    def refused(self, entry: Input, error: type[FourSlotError]) -> None:
        """An input that must raise and change nothing."""
        before = self.seen()
        at_ms = self.machine.stamp(self.now, entry)
        due = self.machine.next_timer()
        if due is None or (at_ms, entry.rank) < (due, TimerFired.rank):
            with pytest.raises(error):
                self.machine.handle([entry], now=at_ms)
        assert self.seen() == before

    def seen(self) -> tuple[object, ...]:
        machine = self.machine
        return machine.jobs, machine.slots_in_use, machine.next_timer(), machine.failed_gpus

    # What happens.

    @rule(by=steps)
    def wait(self, by: int) -> None:
        self.now += by

    @rule(task_id=tasks, hours=st.sampled_from((1.0, 72.0, 72.5, 97.0)))
    def offer(self, task_id: str, hours: float) -> None:
        offer = Offer(task_id, "m/llama", "ChatTask", hours)
        (answer,) = self.enter(OfferArrived(offer))
        assert isinstance(answer, Decision)
        assert answer.at_ms == self.now
        first = self.book.decided.get(task_id)
        if first and (task_id in self.book.bookings or self.now - first.at_ms <= 60_000):
            assert answer == replace(first, at_ms=self.now, repeat=True)
            return
        free = self.book.free_slots()
        assert not answer.repeat
        assert answer.gate == self.book.gate(offer)
        assert answer.accepted == (answer.gate == "accepted")
        assert answer.slot == (free[0] if answer.accepted else None)
        self.book.decided[task_id] = answer
        if answer.slot is not None:
            self.accept(answer, answer.slot)

    def accept(self, answer: Decision, slot: int) -> None:
        gpus = frozenset(self.machine.jobs[answer.task_id].gpus)
        assert gpus == self.book.gpus_of(slot)
        assert gpus.isdisjoint(self.machine.failed_gpus)
        lapses_ms = answer.at_ms + self.policy.reservation_ttl_ms
        self.book.bookings[answer.task_id] = Booking(slot, gpus, lapses_ms)

    @rule(task_id=tasks)
    def start(self, task_id: str) -> None:
        (answer,) = self.enter(StartRequested(task_id))
        assert isinstance(answer, Effect)
        booking = self.book.bookings.get(task_id)
        startable = booking is not None and booking.gpus.isdisjoint(self.book.failed)
        if booking is None or booking.state != "reserved" or not startable:
            assert answer.effect == "start_refused"
        else:
            assert (answer.effect, answer.slot) == ("started", booking.slot)
            booking.state = "running"

    def in_state(self, *states: str) -> list[str]:
        return sorted(t for t, b in self.book.bookings.items() if b.state in states)

    @precondition(lambda self: self.in_state("running"))
    @rule(data=st.data())
    def stopping(self, data: st.DataObject) -> None:
        task_id = data.draw(st.sampled_from(self.in_state("running")))
        self.enter(JobEnded(task_id, phase="stopping"))
        self.book.bookings[task_id].state = "stopping"

    @precondition(lambda self: self.in_state("running", "stopping"))
    @rule(data=st.data())
    def gone(self, data: st.DataObject) -> None:
        task_id = data.draw(st.sampled_from(self.in_state("running", "stopping")))
        (answer,) = self.enter(JobEnded(task_id))
        assert isinstance(answer, Effect)
        assert (answer.effect, answer.slot) == ("released", self.book.bookings.pop(task_id).slot)

    @rule(gpu=st.integers(0, GPUS - 1))
    def gpu(self, gpu: int) -> None:
        healthy = gpu in self.book.failed
        self.enter(GpuChanged(gpu, healthy=healthy))
        self.book.failed ^= {gpu}

    @rule(drain=st.booleans())
    def operator(self, drain: bool) -> None:
        self.enter(OperatorAsked("drain" if drain else "resume"))
        self.book.draining = drain

    @rule(available=st.booleans())
    def storage(self, available: bool) -> None:
        self.enter(StorageChanged(available=available))
        self.book.storage_full = not available

    @rule(policy=policies)
    def put_policy(self, policy: Policy) -> None:
        self.enter(PolicyPut(policy))
        if policy.preset.cap != self.book.preset.cap:
            for booking in self.book.bookings.values():
                booking.held_over = True
        self.policy, self.book.preset = policy, policy.preset

    @rule(task_id=tasks)
    def illegal(self, task_id: str) -> None:
        if task_id not in self.book.bookings:
            self.refused(JobEnded(task_id), IllegalTransition)
        if task_id not in self.in_state("running"):
            self.refused(JobEnded(task_id, phase="stopping"), IllegalTransition)
        self.refused(GpuChanged(0, healthy=0 not in self.book.failed), IllegalTransition)

    @rule()
    def timer_at_another_time(self) -> None:
        before, due = self.seen(), self.machine.next_timer()
        at_ms = self.machine.stamp(self.now, TimerFired())
        if at_ms != due:
            with pytest.raises(IllegalTransition):
                self.machine.handle([TimerFired()], now=at_ms)
        if due is not None:
            with pytest.raises(OutOfOrder):
                self.machine.handle([OperatorAsked("resume")], now=due)
        assert self.seen() == before

    # What must hold whatever happened.

    @invariant()
    def never_over_cap_no_slot_lost(self) -> None:
        cap = self.book.preset.cap
        assert 0 <= self.machine.slots_in_use <= cap
        assert self.machine.slots_in_use == cap - len(self.book.free_slots())
        assert sum(not booking.held_over for booking in self.book.bookings.values()) <= cap

    @invariant()
    def the_jobs_are_the_bookings(self) -> None:
        jobs = self.machine.jobs
        assert {(t, j.slot, frozenset(j.gpus), j.state, j.lapses_ms) for t, j in jobs.items()} == {
            (t, b.slot, b.gpus, b.state, b.lapses_ms) for t, b in self.book.bookings.items()
        }
        assert self.machine.next_timer() == self.book.due()

    @invariant()
    def no_slot_is_booked_twice(self) -> None:
        current = [b.slot for b in self.book.bookings.values() if not b.held_over]
        assert len(current) == len(set(current))

    @invariant()
    def jobs_on_whole_gpus_share_none(self) -> None:
        """Only jobs that were cut from one layout with shared GPUs may meet on a GPU."""
        bookings = list(self.book.bookings.values())
        for at, one in enumerate(bookings):
            for other in bookings[:at]:
                if one.gpus & other.gpus:
                    assert len(one.gpus) == len(other.gpus) == 1
                    assert one.slot != other.slot
                    assert one.slot % GPUS == other.slot % GPUS
                    assert one.held_over == other.held_over

    @invariant()
    def the_states_are_the_book_s(self) -> None:
        machine, book = self.machine, self.book
        assert machine.failed_gpus == book.failed
        assert (machine.draining, machine.storage_full) == (book.draining, book.storage_full)

    def teardown(self) -> None:
        if not hasattr(self, "machine"):
            return
        self.the_ledger_is_sorted_and_replays()
        self.everything_ends_and_every_slot_is_free()

    def the_ledger_is_sorted_and_replays(self) -> None:
        keys = [order_key(at_ms, entry) for at_ms, entry, _ in self.ledger]
        assert keys == sorted(keys)
        for batched in (False, True):
            again = Machine(self.first_policy)
            for at_ms, entries, answers in batches(self.ledger, batched=batched):
                assert again.handle(entries, now=at_ms) == answers
            assert again.jobs == self.machine.jobs
            assert again.slots_in_use == self.machine.slots_in_use

    def everything_ends_and_every_slot_is_free(self) -> None:
        for task_id in self.in_state("running", "stopping"):
            self.enter(JobEnded(task_id))
        for gpu in sorted(self.book.failed):
            self.enter(GpuChanged(gpu, healthy=True))
        while (due := self.machine.next_timer()) is not None:
            self.now = max(self.now, due)
            self.machine.handle([TimerFired()], now=due)
        self.enter(OperatorAsked("resume"))
        self.enter(StorageChanged(available=True))
        assert (self.machine.slots_in_use, self.machine.jobs) == (0, {})
        self.now += 60_001
        offers = [Offer(f"last {slot:02}", "m/llama", "ChatTask", 1.0) for slot in range(25)]
        answers = [self.enter(OfferArrived(offer))[0] for offer in offers]
        cap = self.book.preset.cap
        assert [answer.slot for answer in answers] == [*range(cap), *[None] * (25 - cap)]


def batches(
    ledger: list[tuple[int, Input, list[Answer]]], *, batched: bool
) -> Iterable[tuple[int, list[Input], list[Answer]]]:
    """The ledger's inputs one by one, or all of one instant at once, in reverse."""
    by_time: dict[tuple[int, int], tuple[list[Input], list[Answer]]] = {}
    for seq, (at_ms, entry, answers) in enumerate(ledger):
        key = (at_ms, 0 if batched else seq)
        entries, together = by_time.setdefault(key, ([], []))
        entries.append(entry)
        together.extend(answers)
    for (at_ms, _), (entries, together) in by_time.items():
        yield at_ms, distinct_reversed(entries), together


def distinct_reversed(entries: list[Input]) -> list[Input]:
    """Reversed, where no two inputs stand in the same place: those keep their order."""
    keys = [order_key(0, entry) for entry in entries]
    return entries[::-1] if len(keys) == len(set(keys)) else entries


TestMachineAgainstBook = MachineAgainstBook.TestCase
TestMachineAgainstBook.settings = settings(
    max_examples=150,
    stateful_step_count=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
