"""The machine: transitions, timers, ties, repeats, failing GPUs, another policy."""

from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest

from shared.decisions import Decision, Policy
from shared.errors import FourSlotError, IllegalTransition, InputError, OutOfOrder
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
from shared.jobs import Effect, Job
from shared.machine import Machine
from shared.offers import Offer
from shared.presets import ACCURACY_4, MAXIMUM_2, THROUGHPUT_24

TTL = 1_800_000
T0 = 1_000_000
HOUR = 3_600_000


def offered(task_id: str, hours: float = 5.0, source: str = "", **fields: Any) -> OfferArrived:
    return OfferArrived(Offer(task_id, "m/llama", "ChatTask", hours, **fields), source)


def machine_with(*task_ids: str, policy: Policy | None = None, at: int = T0) -> Machine:
    """A box that accepted these, in this order, at one instant."""
    machine = Machine(policy or Policy(ACCURACY_4))
    for task_id in task_ids:
        assert decide(machine, at, task_id).accepted
    return machine


def decide(machine: Machine, now: int, task_id: str, **fields: Any) -> Decision:
    answer = machine.handle([offered(task_id, **fields)], now=now)[0]
    assert isinstance(answer, Decision)
    return answer


def effect(machine: Machine, now: int, entry: Input) -> Effect:
    (answer,) = machine.handle([entry], now=now)
    assert isinstance(answer, Effect)
    return answer


def held(machine: Machine) -> dict[str, tuple[int, str]]:
    return {task_id: (job.slot, job.state) for task_id, job in machine.jobs.items()}


def state(machine: Machine) -> dict[str, Any]:
    """Everything the machine knows, as values that compare."""
    saved = dict(vars(machine))
    admission = saved.pop("_admission")
    saved["admission"] = {name: getattr(admission, name) for name in admission.__slots__}
    saved["repeats"] = vars(saved.pop("_repeats").copy())
    return {
        name: value.copy() if hasattr(value, "copy") else value for name, value in saved.items()
    }


def assert_refused_unchanged(
    machine: Machine, error: type[Exception], entries: list[Input], now: int
) -> str:
    before = state(machine)
    with pytest.raises(error) as raised:
        machine.handle(entries, now=now)
    assert state(machine) == before
    return str(raised.value)


# An empty box.


def test_a_fresh_machine() -> None:
    machine = Machine(Policy(ACCURACY_4))
    assert (machine.jobs, machine.slots_in_use, machine.failed_gpus) == ({}, 0, frozenset())
    assert not machine.draining
    assert not machine.storage_full
    assert machine.next_timer() is None
    assert machine.policy == Policy(ACCURACY_4)
    assert machine.handle([], now=5) == []


def test_two_machines_share_nothing() -> None:
    machine_with("a", "b")
    assert Machine(Policy(ACCURACY_4)).jobs == {}


def test_what_is_handed_out_changes_nothing_inside() -> None:
    machine = machine_with("a")
    machine.jobs.clear()
    assert held(machine) == {"a": (0, "reserved")}
    with pytest.raises(FrozenInstanceError):
        machine.jobs["a"].state = "running"  # type: ignore[misc]


# reserved -> running -> stopping -> free.


def test_the_life_of_a_job() -> None:
    machine = Machine(Policy(ACCURACY_4))
    decision = decide(machine, T0, "a", hours=2.5, source="v1")
    assert machine.jobs["a"] == Job(decision, 2.5, "v1", (0, 1), "reserved", T0 + TTL)
    assert machine.slots_in_use == 1
    deadline = T0 + 7 + round(2.5 * HOUR)
    assert effect(machine, T0 + 7, StartRequested("a", "v1")) == Effect(
        T0 + 7, "started", 1, "a", 0, deadline_ms=deadline
    )
    assert machine.jobs["a"].deadline_ms == deadline
    assert held(machine) == {"a": (0, "running")}
    assert effect(machine, T0 + 8, JobEnded("a", phase="stopping")) == Effect(
        T0 + 8, "stopping", 1, "a", 0
    )
    assert held(machine) == {"a": (0, "stopping")}
    assert decide(machine, T0 + 9, "b").slot == 1  # a's processes still live
    assert effect(machine, T0 + 10, JobEnded("a", "failed")) == Effect(
        T0 + 10, "released", 1, "a", 0, reason="failed"
    )
    assert held(machine) == {"b": (1, "reserved")}
    assert decide(machine, T0 + 11, "c").slot == 0


@pytest.mark.parametrize("outcome", ["completed", "failed", "gpu_failed", "cancelled"])
def test_a_running_job_may_be_gone_at_once(outcome: Any) -> None:
    machine = machine_with("a")
    effect(machine, T0 + 1, StartRequested("a"))
    assert effect(machine, T0 + 2, JobEnded("a", outcome)).reason == outcome
    assert machine.slots_in_use == 0


def test_a_running_job_never_lapses() -> None:
    machine = machine_with("a", "b")
    effect(machine, T0 + 1, StartRequested("a"))
    effect(machine, T0 + TTL, TimerFired())
    assert held(machine) == {"a": (0, "running")}
    assert machine.next_timer() is None
    assert decide(machine, T0 + 100 * TTL, "c").slot == 1
    assert machine.next_timer() == T0 + 101 * TTL


def test_the_lowest_free_slot_is_taken() -> None:
    machine = machine_with("a", "b", "c", "d")
    assert [held(machine)[task_id][0] for task_id in "abcd"] == [0, 1, 2, 3]
    assert decide(machine, T0 + 1, "e").gate == "capacity"
    for task_id in "cb":
        effect(machine, T0 + 2 + (task_id == "b"), StartRequested(task_id))
    effect(machine, T0 + 4, JobEnded("c"))
    effect(machine, T0 + 5, JobEnded("b"))
    assert [decide(machine, T0 + 6, task_id).slot for task_id in "fg"] == [1, 2]
    assert machine.jobs["f"].gpus == (2, 3)
    assert machine.slots_in_use == 4
    assert decide(machine, T0 + 7, "h").gate == "capacity"


def test_start_refusals_are_values_and_change_nothing() -> None:
    machine = Machine(Policy(ACCURACY_4))
    decide(machine, T0, "a", source="v1")
    refused = {
        "no accepted offer for this task": StartRequested("b", "v1"),
        "the offer came from another source": StartRequested("a", "v2"),
    }
    for at, (why, entry) in enumerate(refused.items(), T0 + 1):
        before = machine.jobs
        assert effect(machine, at, entry) == Effect(
            at, "start_refused", 1, entry.task_id, reason=why
        )
        assert machine.jobs == before
    effect(machine, T0 + 5, StartRequested("a", "v1"))
    again = effect(machine, T0 + 6, StartRequested("a", "v1"))
    assert (again.effect, again.reason) == ("start_refused", "the job is already running")
    assert machine.jobs["a"].deadline_ms == T0 + 5 + 5 * HOUR
    effect(machine, T0 + 7, JobEnded("a", phase="stopping"))
    again = effect(machine, T0 + 8, StartRequested("a", "v1"))
    assert (again.effect, again.reason) == ("start_refused", "the job is already stopping")


def test_a_refused_offer_cannot_start() -> None:
    machine = Machine(Policy(ACCURACY_4))
    assert decide(machine, T0, "a", hours=73.0).gate == "time"
    assert effect(machine, T0 + 1, StartRequested("a")).effect == "start_refused"


# Illegal transitions.


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (JobEnded("zz"), "no job of task zz"),
        (JobEnded("zz", phase="stopping"), "no job of task zz"),
        (JobEnded("reserved", phase="stopping"), "is reserved, not running"),
        (JobEnded("stopping", phase="stopping"), "is stopping, not running"),
        (TimerFired(), "the next one is due at"),
        (GpuChanged(8, healthy=False), "no such GPU"),
        (GpuChanged(-1, healthy=False), "no such GPU"),
        (GpuChanged(7, healthy=False), "already"),
        (GpuChanged(0, healthy=True), "already"),
    ],
)
def test_illegal_transitions_leave_the_state_unchanged(entry: Input, message: str) -> None:
    machine = machine_with("reserved", "stopping")
    effect(machine, T0 + 1, StartRequested("stopping"))
    effect(machine, T0 + 2, JobEnded("stopping", phase="stopping"))
    effect(machine, T0 + 3, GpuChanged(7, healthy=False))
    assert message in assert_refused_unchanged(machine, IllegalTransition, [entry], T0 + 4)
    first, last = offered("fine"), StartRequested("reserved")
    assert_refused_unchanged(machine, IllegalTransition, [first, entry, last], T0 + 4)
    assert decide(machine, T0 + 4, "next").slot == 2  # and it goes on


def test_errors_have_names() -> None:
    assert issubclass(IllegalTransition, FourSlotError)
    assert issubclass(OutOfOrder, FourSlotError)


def test_a_batch_whose_third_input_is_illegal_has_not_happened() -> None:
    machine = machine_with("a", "b", "c", "d")
    effect(machine, T0 + 1, StartRequested("a"))
    machine.handle([OperatorAsked("drain")], now=T0 + 2)
    now = T0 + 100_000
    batch: list[Input] = [
        JobEnded("a"),
        GpuChanged(3, healthy=False),
        GpuChanged(9, healthy=False),
        OperatorAsked("resume"),
        offered("e"),
    ]
    assert "no such GPU" in assert_refused_unchanged(machine, IllegalTransition, batch, now)
    answers = machine.handle([entry for entry in batch if entry != batch[2]], now=now)
    assert [getattr(answer, "effect", None) for answer in answers] == [
        "released", "gpu_out", "accepting", None,
    ]  # fmt: skip
    assert answers[-1].slot == 0


def test_a_batch_that_ends_badly_after_offers_and_a_new_policy_has_not_happened() -> None:
    machine = machine_with("a")
    effect(machine, T0 + 1, GpuChanged(7, healthy=False))
    one_gpu = replace(ACCURACY_4, cap=1, gpus=1)
    batch: list[Input] = [PolicyPut(Policy(MAXIMUM_2)), PolicyPut(Policy(one_gpu)), offered("b")]
    assert_refused_unchanged(machine, IllegalTransition, batch, T0 + 90_000)
    assert machine.policy == Policy(ACCURACY_4)
    assert decide(machine, T0 + 90_000, "b").slot == 1


# Order and ties.


def test_inputs_of_one_instant_are_handled_by_rank_then_id() -> None:
    now = T0 + TTL
    batch: list[Input] = [
        offered("z"),
        offered("y"),
        offered("Z"),
        OperatorAsked("resume"),
        StartRequested("c"),
        TimerFired(),
        GpuChanged(7, healthy=False),
        GpuChanged(6, healthy=False),
        JobEnded("b"),
        JobEnded("a"),
    ]
    for order in (batch, batch[::-1], batch[5:] + batch[:5]):
        replayed = machine_with("a", "b", "c", "d")
        for task_id in "ab":
            effect(replayed, T0 + 1, StartRequested(task_id))
        answers = replayed.handle(order, now=now)
        told = [
            (answer.effect, answer.task_id or answer.gpu)
            if isinstance(answer, Effect)
            else (answer.task_id, answer.slot)
            for answer in answers
        ]
        assert told == [
            ("released", "a"),
            ("released", "b"),
            ("gpu_out", 6),
            ("gpu_out", 7),
            ("lapsed", "c"),
            ("lapsed", "d"),
            ("start_refused", "c"),
            ("accepting", None),
            ("Z", 0),  # ids by code point
            ("y", 1),
            ("z", 2),
        ]


def test_ids_compare_by_code_point() -> None:
    ids = ["\U0001f600", "\uff5e", "é", "z", "Z", "10", "9", ""]
    handled = sorted(ids, key=lambda each: order_key(1, offered(each)))
    assert handled == ["", "10", "9", "Z", "z", "é", "\uff5e", "\U0001f600"]


def test_ranks() -> None:
    ranked: list[Input] = [
        JobEnded("z"),
        GpuChanged(7, healthy=True),
        TimerFired(),
        StartRequested("z"),
        OperatorAsked("drain"),
        offered("a"),
    ]
    assert [order_key(9, entry)[:2] for entry in ranked] == [(9, rank) for rank in range(6)]
    for entry in (StorageChanged(available=True), PolicyPut(Policy(ACCURACY_4))):
        assert order_key(9, entry)[:2] == (9, 4)
    kinds = [entry.kind for entry in ranked]
    assert kinds == ["ended", "gpu", "timer", "start", "operator", "offer"]
    assert (StorageChanged.kind, PolicyPut.kind) == ("storage", "policy")
    assert order_key(9, GpuChanged(3, healthy=True)) == (9, 1, "3:repaired")


def test_what_sorts_before_the_last_input_is_out_of_order() -> None:
    machine = machine_with("b")
    for entry, now in (
        (offered("a"), T0),
        (offered("c"), T0 - 1),
        (JobEnded("b"), T0),
        (StartRequested("b"), T0),
        (TimerFired(), T0),
    ):
        assert_refused_unchanged(machine, OutOfOrder, [entry], now)
        assert_refused_unchanged(machine, OutOfOrder, [entry, offered("z")], now)
    assert decide(machine, T0, "b").repeat  # the very same place is no step back
    assert decide(machine, T0, "c").slot == 1
    assert_refused_unchanged(Machine(Policy(ACCURACY_4)), OutOfOrder, [offered("a")], -1)


def test_stamp_moves_an_input_that_would_sort_before_the_last_one() -> None:
    machine = machine_with("m")
    assert machine.stamp(T0, offered("m")) == T0
    assert machine.stamp(T0, offered("n")) == T0
    assert machine.stamp(T0, offered("a")) == T0 + 1
    assert machine.stamp(T0, JobEnded("m")) == T0 + 1
    assert machine.stamp(T0 + 1, JobEnded("m")) == T0 + 1
    assert machine.stamp(T0 + 50, JobEnded("m")) == T0 + 50


def test_the_clock_never_goes_back() -> None:
    machine = machine_with("m")
    assert machine.stamp(T0 - HOUR, offered("n")) == T0
    assert machine.stamp(T0 - HOUR, offered("a")) == T0 + 1
    assert machine.stamp(-5, StartRequested("m")) == T0 + 1
    before = state(machine)
    machine.stamp(T0 + 5, offered("n"))
    assert state(machine) == before
    assert Machine(Policy(ACCURACY_4)).stamp(0, JobEnded("")) == 0


# Timers.


def test_a_reservation_lapses_exactly_at_its_time() -> None:
    machine = machine_with("a")
    assert machine.next_timer() == T0 + TTL
    assert_refused_unchanged(machine, IllegalTransition, [TimerFired()], T0 + TTL - 1)
    assert_refused_unchanged(machine, IllegalTransition, [TimerFired()], T0 + TTL + 1)
    assert effect(machine, T0 + TTL, TimerFired()) == Effect(T0 + TTL, "lapsed", 0, "a", 0)
    assert machine.jobs == {}
    assert machine.next_timer() is None
    assert_refused_unchanged(machine, IllegalTransition, [TimerFired()], T0 + TTL)


def test_a_timer_that_is_due_must_fire_before_anything_later() -> None:
    machine = machine_with("a")
    due = T0 + TTL
    late: list[tuple[Input, int]] = [
        (offered("b"), due),
        (StartRequested("a"), due),
        (OperatorAsked("drain"), due),
        (PolicyPut(Policy(MAXIMUM_2)), due),
        (JobEnded("a"), due + 1),
        (GpuChanged(0, healthy=False), due + 1),
        (offered("b"), due + HOUR),
    ]
    for entry, now in late:
        message = assert_refused_unchanged(machine, OutOfOrder, [entry], now)
        assert f"the timer due at {due} has not fired" in message
    assert decide(machine, due - 1, "b").slot == 1
    assert effect(machine, due, GpuChanged(7, healthy=False)).effect == "gpu_out"
    answers = machine.handle([StartRequested("a"), TimerFired()], now=due)
    assert [answer.effect for answer in answers if isinstance(answer, Effect)] == [
        "lapsed", "start_refused",
    ]  # fmt: skip


def test_a_start_in_the_last_millisecond_is_in_time() -> None:
    machine = machine_with("a")
    assert effect(machine, T0 + TTL - 1, StartRequested("a")).effect == "started"
    assert machine.next_timer() is None


def test_timers_of_one_instant_fire_together_in_the_order_of_their_ids() -> None:
    machine = machine_with("a", "b", "c")
    decide(machine, T0 + 1, "A")
    answers = machine.handle([TimerFired()], now=T0 + TTL)
    assert answers == [
        Effect(T0 + TTL, "lapsed", 3, "a", 0),
        Effect(T0 + TTL, "lapsed", 2, "b", 1),
        Effect(T0 + TTL, "lapsed", 1, "c", 2),
    ]
    assert machine.next_timer() == T0 + TTL + 1
    assert effect(machine, T0 + TTL + 1, TimerFired()).slot == 3


def test_lapses_of_one_instant_come_by_id_not_by_slot() -> None:
    machine = machine_with("z", policy=Policy(ACCURACY_4, reservation_ttl_ms=10))
    effect(machine, T0 + 5, PolicyPut(Policy(ACCURACY_4, reservation_ttl_ms=5)))
    decide(machine, T0 + 5, "a")
    answers = machine.handle([TimerFired()], now=T0 + 10)
    assert [(answer.task_id, answer.slot) for answer in answers] == [("a", 1), ("z", 0)]


def test_the_time_to_lapse_is_the_policy_s_and_stays_the_reservation_s() -> None:
    machine = machine_with("a", policy=Policy(ACCURACY_4, reservation_ttl_ms=10))
    assert machine.next_timer() == T0 + 10
    machine.handle([PolicyPut(Policy(ACCURACY_4, reservation_ttl_ms=500))], now=T0 + 1)
    decide(machine, T0 + 2, "b")
    assert machine.next_timer() == T0 + 10
    effect(machine, T0 + 10, TimerFired())
    assert machine.next_timer() == T0 + 502


# Asked again.


def test_a_repeat_while_the_job_exists_gets_the_first_answer() -> None:
    machine = machine_with("a")
    first = machine.jobs["a"].decision
    for now in (T0, T0 + 1, T0 + 60_001, T0 + TTL - 1):
        before = machine.jobs, machine.slots_in_use, machine.next_timer()
        again = decide(machine, now, "a")
        assert again == replace(first, at_ms=now, repeat=True)
        assert (machine.jobs, machine.slots_in_use, machine.next_timer()) == before
    assert first.repeat is False


@pytest.mark.parametrize("phase", ["running", "stopping"])
def test_a_repeat_while_the_job_runs_or_stops(phase: str) -> None:
    machine = machine_with("a")
    effect(machine, T0 + 1, StartRequested("a"))
    if phase == "stopping":
        effect(machine, T0 + 2, JobEnded("a", phase="stopping"))
    again = decide(machine, T0 + 50 * HOUR, "a", hours=99.0)
    assert (again.accepted, again.slot, again.repeat) == (True, 0, True)
    assert held(machine) == {"a": (0, phase)}


def test_a_refusal_answers_for_60_seconds_and_not_a_millisecond_longer() -> None:
    machine = Machine(Policy(ACCURACY_4))
    first = decide(machine, T0, "a", hours=73.0)
    again = decide(machine, T0 + 60_000, "a")
    assert again == replace(first, at_ms=T0 + 60_000, repeat=True)
    anew = decide(machine, T0 + 60_001, "a")
    assert (anew.accepted, anew.repeat, anew.slot) == (True, False, 0)


def test_a_repeat_does_not_lengthen_the_60_seconds() -> None:
    machine = Machine(Policy(ACCURACY_4))
    decide(machine, T0, "a", hours=73.0)
    for now in range(T0 + 10_000, T0 + 60_001, 10_000):
        assert decide(machine, now, "a").repeat
    assert not decide(machine, T0 + 60_001, "a").repeat


def test_a_second_decision_starts_its_own_60_seconds() -> None:
    machine = Machine(Policy(ACCURACY_4))
    decide(machine, T0, "a", hours=73.0)
    second = decide(machine, T0 + 60_001, "a", hours=74.0)
    assert not second.repeat
    assert decide(machine, T0 + 120_001, "a").gate == "time"
    assert not decide(machine, T0 + 120_002, "a").repeat


def test_a_decision_answers_for_60_seconds_though_its_job_is_gone() -> None:
    machine = machine_with("a")
    effect(machine, T0 + 1, StartRequested("a"))
    effect(machine, T0 + 2, JobEnded("a"))
    again = decide(machine, T0 + 60_000, "a")
    assert (again.accepted, again.repeat, machine.jobs) == (True, True, {})
    assert effect(machine, T0 + 60_001, StartRequested("a")).effect == "start_refused"
    assert not decide(machine, T0 + 60_001, "a").repeat


def test_after_a_lapse_the_retry_is_a_new_offer() -> None:
    machine = machine_with("a")
    effect(machine, T0 + TTL, TimerFired())
    anew = decide(machine, T0 + TTL, "a")
    assert (anew.accepted, anew.repeat) == (True, False)
    assert machine.next_timer() == T0 + 2 * TTL


def test_a_repeat_stays_what_it_was_whatever_happens_to_the_box() -> None:
    machine = Machine(Policy(ACCURACY_4))
    refused = decide(machine, T0, "a", hours=73.0)
    accepted = decide(machine, T0, "b")
    machine.handle(
        [
            OperatorAsked("drain"),
            StorageChanged(available=False),
            PolicyPut(Policy(MAXIMUM_2)),
            *(GpuChanged(gpu, healthy=False) for gpu in range(8)),
        ],
        now=T0 + 1,
    )
    for first in (refused, accepted):
        again = decide(machine, T0 + 2, first.task_id)
        assert again == replace(first, at_ms=T0 + 2, repeat=True)
    assert decide(machine, T0 + 2, "c").gate == "draining"


def test_twice_in_one_batch_is_one_decision() -> None:
    machine = Machine(Policy(ACCURACY_4))
    answers = machine.handle([offered("a"), offered("a")], now=T0)
    assert [answer.slot for answer in answers] == [0, 0]
    assert [answer.repeat for answer in answers if isinstance(answer, Decision)] == [False, True]
    assert machine.slots_in_use == 1


def test_decisions_are_forgotten_when_they_answer_no_more() -> None:
    machine = Machine(Policy(ACCURACY_4))
    for second in range(1000):
        decide(machine, T0 + second * 1000, f"t{second:04}", hours=73.0)
    repeats = vars(machine)["_repeats"]
    assert len(repeats) == len(vars(repeats)["_made"]) == 61


def test_what_was_saved_needs_no_more_than_the_window() -> None:
    machine = Machine(Policy(ACCURACY_4))
    for second in range(1000):
        machine.save()
        decide(machine, T0 + second * 1000, f"t{second:04}", hours=73.0)
    assert len(vars(vars(machine)["_repeats"])["_made"]) == 62


# GPUs.


def test_a_gpu_out_and_back_under_a_free_slot() -> None:
    machine = machine_with("a")
    assert effect(machine, T0 + 1, GpuChanged(2, healthy=False)) == Effect(
        T0 + 1, "gpu_out", 2, gpu=2
    )
    assert machine.failed_gpus == {2}
    assert machine.slots_in_use == 2
    assert [decide(machine, T0 + 2, task_id).slot for task_id in "bcd"] == [2, 3, None]
    assert effect(machine, T0 + 3, GpuChanged(2, healthy=True)) == Effect(
        T0 + 3, "gpu_back", 3, gpu=2
    )
    assert decide(machine, T0 + 4, "e").slot == 1


def test_a_slot_is_out_while_either_of_its_gpus_is() -> None:
    machine = Machine(Policy(ACCURACY_4))
    effect(machine, T0, GpuChanged(0, healthy=False))
    effect(machine, T0, GpuChanged(1, healthy=False))
    assert machine.slots_in_use == 1
    assert effect(machine, T0 + 1, GpuChanged(0, healthy=True)).in_use == 1
    assert decide(machine, T0 + 1, "a").slot == 1
    assert effect(machine, T0 + 2, GpuChanged(1, healthy=True)).in_use == 1
    assert decide(machine, T0 + 2, "b").slot == 0


def test_a_gpu_out_under_a_job() -> None:
    machine = machine_with("a", "b")
    effect(machine, T0 + 1, StartRequested("a"))
    assert effect(machine, T0 + 2, GpuChanged(1, healthy=False)).in_use == 2
    assert held(machine)["a"] == (0, "running")
    assert effect(machine, T0 + 3, JobEnded("a", "gpu_failed")).in_use == 2
    assert decide(machine, T0 + 4, "c").slot == 2
    effect(machine, T0 + 5, GpuChanged(1, healthy=True))
    assert decide(machine, T0 + 6, "d").slot == 0


def test_a_gpu_back_while_its_slot_is_still_held() -> None:
    machine = machine_with("a")
    effect(machine, T0 + 1, StartRequested("a"))
    effect(machine, T0 + 2, GpuChanged(0, healthy=False))
    assert effect(machine, T0 + 3, GpuChanged(0, healthy=True)).in_use == 1
    assert decide(machine, T0 + 4, "b").slot == 1
    assert effect(machine, T0 + 5, JobEnded("a")).in_use == 1
    assert decide(machine, T0 + 6, "c").slot == 0


def test_a_reservation_on_a_failed_gpu_lapses_into_a_slot_out_of_service() -> None:
    machine = machine_with("a")
    effect(machine, T0 + 1, GpuChanged(0, healthy=False))
    assert effect(machine, T0 + TTL, TimerFired()).in_use == 1
    assert decide(machine, T0 + TTL, "b").slot == 1


def test_one_failing_gpu_takes_3_slots_of_24() -> None:
    machine = Machine(Policy(THROUGHPUT_24))
    assert effect(machine, T0, GpuChanged(1, healthy=False)).in_use == 3
    slots = [decide(machine, T0 + 1, f"t{number:02}").slot for number in range(24)]
    assert slots == [*(slot for slot in range(24) if slot % 8 != 1), None, None, None]


def test_an_idle_gpu_takes_no_slot() -> None:
    machine = Machine(Policy(ACCURACY_4.varied(cap=3)))
    assert effect(machine, T0, GpuChanged(7, healthy=False)).in_use == 0


def test_every_gpu_out_is_capacity() -> None:
    machine = Machine(Policy(ACCURACY_4))
    machine.handle([GpuChanged(gpu, healthy=False) for gpu in range(8)], now=T0)
    assert decide(machine, T0, "a").reason == "At accuracy-optimized capacity (4 jobs)"


# Draining and storage.


def test_draining_and_storage() -> None:
    machine = machine_with("a")
    assert effect(machine, T0 + 1, OperatorAsked("drain")) == Effect(T0 + 1, "draining", 1)
    assert machine.draining
    assert decide(machine, T0 + 2, "b").gate == "draining"
    assert effect(machine, T0 + 3, StartRequested("a")).effect == "started"  # jobs go on
    assert effect(machine, T0 + 4, StorageChanged(available=False)) == Effect(
        T0 + 4, "storage_full", 1
    )
    assert machine.storage_full
    assert effect(machine, T0 + 5, OperatorAsked("resume")) == Effect(T0 + 5, "accepting", 1)
    assert not machine.draining
    assert decide(machine, T0 + 6, "c").gate == "storage"
    assert effect(machine, T0 + 7, JobEnded("a")).in_use == 0
    assert decide(machine, T0 + 8, "d").gate == "storage"
    assert effect(machine, T0 + 9, StorageChanged(available=True)) == Effect(
        T0 + 9, "storage_available", 0
    )
    assert not machine.storage_full
    assert decide(machine, T0 + 10, "e").slot == 0


def test_asking_for_the_same_state_twice_is_legal() -> None:
    machine = Machine(Policy(ACCURACY_4))
    for now in (T0, T0 + 1):
        assert effect(machine, now, OperatorAsked("drain")).effect == "draining"
        assert effect(machine, now, StorageChanged(available=False)).effect == "storage_full"
    for now in (T0 + 2, T0 + 3):
        assert effect(machine, now, OperatorAsked("resume")).effect == "accepting"
        assert effect(machine, now, StorageChanged(available=True)).effect == "storage_available"
    assert decide(machine, T0 + 4, "a").accepted


# Another policy in the middle.


def test_another_policy_with_the_same_slots_moves_nothing() -> None:
    machine = machine_with("a", "b")
    stricter = Policy(ACCURACY_4.varied(threshold=1.0))
    assert effect(machine, T0 + 1, PolicyPut(stricter)) == Effect(T0 + 1, "policy", 2)
    assert machine.policy == stricter
    assert decide(machine, T0 + 2, "c").gate == "priority"
    effect(machine, T0 + 3, PolicyPut(Policy(ACCURACY_4)))
    assert decide(machine, T0 + 4, "d").slot == 2
    effect(machine, T0 + 5, StartRequested("a"))
    effect(machine, T0 + 6, JobEnded("a"))
    assert decide(machine, T0 + 7, "e").slot == 0


def test_from_24_slots_to_4_the_old_jobs_block_the_pairs_they_touch() -> None:
    machine = machine_with("a", "b", "c", policy=Policy(THROUGHPUT_24))  # GPUs 0, 1, 2
    for task_id in "abc":
        effect(machine, T0 + 1, StartRequested(task_id))
    assert effect(machine, T0 + 2, PolicyPut(Policy(ACCURACY_4))).in_use == 2
    assert decide(machine, T0 + 3, "d").slot == 2
    assert effect(machine, T0 + 4, JobEnded("a")).in_use == 3  # GPU 1 is b's still
    assert effect(machine, T0 + 5, JobEnded("b")).in_use == 2
    assert [decide(machine, T0 + 6, task_id).slot for task_id in "efg"] == [0, 3, None]
    assert effect(machine, T0 + 7, JobEnded("c")).in_use == 3
    assert decide(machine, T0 + 8, "h").slot == 1
    assert {task_id: job.gpus for task_id, job in machine.jobs.items()} == {
        "d": (4, 5), "e": (0, 1), "f": (6, 7), "h": (2, 3),
    }  # fmt: skip


def test_from_4_slots_to_24_and_on_to_2() -> None:
    machine = machine_with("a", "b")  # GPUs 0, 1 and 2, 3
    assert effect(machine, T0 + 1, PolicyPut(Policy(THROUGHPUT_24))).in_use == 12
    assert decide(machine, T0 + 2, "c").slot == 4
    assert effect(machine, T0 + 3, PolicyPut(Policy(MAXIMUM_2))).in_use == 2
    assert decide(machine, T0 + 4, "d").reason == "At maximum-accuracy capacity (2 jobs)"
    effect(machine, T0 + 5, StartRequested("a"))
    effect(machine, T0 + 6, JobEnded("a"))
    assert machine.slots_in_use == 2
    answers = machine.handle([TimerFired()], now=T0 + TTL)
    assert [(answer.task_id, answer.slot) for answer in answers] == [("b", 1)]
    assert machine.slots_in_use == 1
    assert decide(machine, T0 + TTL, "e").slot == 0
    assert machine.jobs["e"].gpus == (0, 1, 2, 3)
    assert effect(machine, T0 + TTL + 2, TimerFired()).task_id == "c"
    assert decide(machine, T0 + TTL + 3, "f").slot == 1


def test_another_layout_keeps_failed_gpus_and_closed_states() -> None:
    machine = machine_with("a")
    machine.handle(
        [GpuChanged(7, healthy=False), OperatorAsked("drain"), StorageChanged(available=False)],
        now=T0 + 1,
    )
    assert effect(machine, T0 + 2, PolicyPut(Policy(MAXIMUM_2))).in_use == 2
    assert machine.draining
    assert machine.storage_full
    assert decide(machine, T0 + 3, "b").gate == "draining"
    effect(machine, T0 + 4, OperatorAsked("resume"))
    assert decide(machine, T0 + 5, "c").gate == "storage"
    effect(machine, T0 + 6, StorageChanged(available=True))
    assert decide(machine, T0 + 7, "d").gate == "capacity"
    assert effect(machine, T0 + 8, GpuChanged(7, healthy=True)).in_use == 1
    assert decide(machine, T0 + 9, "e").slot == 1


def test_a_held_over_job_whose_gpu_failed() -> None:
    machine = machine_with("a")
    effect(machine, T0 + 1, PolicyPut(Policy(THROUGHPUT_24)))
    assert effect(machine, T0 + 2, GpuChanged(0, healthy=False)).in_use == 6
    effect(machine, T0 + 3, StartRequested("a"))
    assert effect(machine, T0 + 4, JobEnded("a", "gpu_failed")).in_use == 3
    assert effect(machine, T0 + 5, GpuChanged(0, healthy=True)).in_use == 0


def test_a_box_without_a_gpu_that_failed_is_refused() -> None:
    machine = Machine(Policy(ACCURACY_4))
    effect(machine, T0, GpuChanged(4, healthy=False))
    four_gpus = Policy(replace(ACCURACY_4, gpus=4))
    assert_refused_unchanged(machine, IllegalTransition, [PolicyPut(four_gpus)], T0 + 1)
    effect(machine, T0 + 1, GpuChanged(4, healthy=True))
    effect(machine, T0 + 2, GpuChanged(3, healthy=False))
    assert effect(machine, T0 + 3, PolicyPut(four_gpus)).in_use == 1
    assert_refused_unchanged(machine, IllegalTransition, [GpuChanged(4, healthy=False)], T0 + 4)


def test_a_new_policy_has_room_for_one_offer_in_one_instant() -> None:
    """Rank 4 comes before rank 5: an offer of the same millisecond is decided by the new policy."""
    machine = Machine(Policy(ACCURACY_4))
    batch: list[Input] = [offered("a", hours=80.0), PolicyPut(Policy(MAXIMUM_2))]
    assert machine.handle(batch, now=T0)[1].slot == 0


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (OperatorAsked("drain"), OperatorAsked("resume")),
        (StorageChanged(available=True), StorageChanged(available=False)),
        (GpuChanged(3, healthy=False), GpuChanged(3, healthy=True)),
    ],
)
def test_opposite_inputs_of_one_millisecond_have_one_order(first: Input, then: Input) -> None:
    assert order_key(9, first) < order_key(9, then)


def test_a_start_on_a_failed_gpu_is_refused_and_the_reservation_stays() -> None:
    machine = machine_with("a")
    machine.handle([GpuChanged(0, healthy=False)], now=T0 + 1)
    (answer,) = machine.handle([StartRequested("a")], now=T0 + 2)
    assert isinstance(answer, Effect)
    assert (answer.effect, answer.reason) == (
        "start_refused",
        "a GPU of its slot is out of service",
    )
    assert machine.jobs["a"].state == "reserved"


def test_nothing_is_entered_before_the_machine_begins() -> None:
    machine = Machine(Policy(ACCURACY_4), now=T0)
    assert_refused_unchanged(machine, OutOfOrder, [offered("a")], T0 - 1)
    assert decide(machine, T0, "a").slot == 0


@pytest.mark.parametrize("name", ["reservation_ttl_ms", "repeat_window_ms"])
def test_a_policy_with_impossible_times_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=name):
        Policy(ACCURACY_4, **{name: -1})


def test_a_wording_that_asks_for_something_unknown_is_refused() -> None:
    with pytest.raises(InputError, match=r"messages\.accepted.*allowed in braces is cap"):
        replace(ACCURACY_4.messages, accepted="ok {n}/{cap}")


# Coming back.


def test_a_policy_taken_back_remembers_what_it_had_dropped() -> None:
    """A shorter window forgets at once; when that cannot be written it has not happened."""
    machine = Machine(Policy(ACCURACY_4))
    first = decide(machine, T0, "a", hours=73.0)
    saved = machine.save()
    short = replace(machine.policy, repeat_window_ms=10)
    machine.handle([PolicyPut(short)], now=T0 + 500)
    decide(machine, T0 + 1000, "b", hours=73.0)
    machine.restore(saved)
    assert decide(machine, T0 + 1000, "a") == replace(first, at_ms=T0 + 1000, repeat=True)


def test_a_copy_goes_its_own_way() -> None:
    machine = machine_with("a")
    saved = machine.save()
    decide(machine, T0 + 10, "b")
    twin = machine.copy()
    twin.restore(saved)
    decide(twin, T0 + 20, "c")
    assert (set(machine.jobs), set(twin.jobs)) == ({"a", "b"}, {"a", "c"})
    assert (machine.slots_in_use, twin.slots_in_use) == (2, 2)
    assert decide(machine, T0 + 30, "c").repeat is False
