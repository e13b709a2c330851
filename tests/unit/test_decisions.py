"""The gates, one by one and in their order, with their exact words."""

from dataclasses import replace

import pytest

from shared.box import UNDECLARED, BoxDeclaration
from shared.decisions import (
    DEFAULT_REPEAT_WINDOW_MS,
    DEFAULT_RESERVATION_TTL_MS,
    Decision,
    Gate,
    Policy,
    capacity_warning,
    priority_of,
    reason_of,
    static_gate,
)
from shared.inputs import OfferArrived, OperatorAsked, PolicyPut, StorageChanged
from shared.machine import Machine
from shared.offers import Offer
from shared.presets import ACCURACY_4, MAXIMUM_2, PRESETS, THROUGHPUT_24, UNIVERSAL_24, Preset
from shared.priority import Tables

LLAMA = "meta-llama/Llama-3.1-8B-Instruct"
TEXT_ONLY = BoxDeclaration(task_types=frozenset({"InstructTextTask"}))
LOW = Tables({}, {}, {}, 0.0, 0.0, 0.0)
"""Tables that make accuracy_4's priority 0.550."""
EVEN = Tables({}, {}, {}, 0.0, 0.0, 0.75)
"""Tables that make accuracy_4's priority 0.70 to the last bit."""


def offer(
    hours: float = 5.0,
    task_id: str = "t",
    task_type: str = "InstructTextTask",
    model: str = LLAMA,
) -> Offer:
    return Offer(task_id, model, task_type, hours)


def decide(policy: Policy, asked: Offer, *, full: bool = False) -> Decision:
    """What a box under this policy answers, empty or with every slot taken."""
    machine = Machine(policy)
    if full:
        roomy = replace(policy, preset=replace(policy.preset, tables=ACCURACY_4.tables))
        machine = Machine(roomy)
        for slot in range(policy.preset.cap):
            taken = machine.handle([OfferArrived(offer(1.0, f"full {slot:02}"))], now=1)[0]
            assert isinstance(taken, Decision)
            assert taken.accepted
        machine.handle([PolicyPut(policy)], now=2)
    answer = machine.handle([OfferArrived(asked)], now=2)[0]
    assert isinstance(answer, Decision)
    return answer


def test_gates_stand_in_the_specified_order_under_the_specified_names() -> None:
    assert [gate.label for gate in Gate] == [
        "accepted", "draining", "storage", "capacity", "time", "unsupported", "priority",
    ]  # fmt: skip
    assert list(Gate) == sorted(Gate)
    assert Gate.ACCEPTED == 0


def test_windows() -> None:
    assert DEFAULT_REPEAT_WINDOW_MS == 60_000
    assert Policy(ACCURACY_4).reservation_ttl_ms == DEFAULT_RESERVATION_TTL_MS == 1_800_000
    assert Policy(ACCURACY_4).box is UNDECLARED


def test_an_accepted_offer_whole() -> None:
    assert decide(Policy(ACCURACY_4), offer()) == Decision(
        at_ms=2,
        task_id="t",
        accepted=True,
        gate="accepted",
        reason="Accepted for accuracy optimization - priority 0.980",
        priority=0.25 * 0.20 + 0.95 * 0.20 + 0.95 * 0.20 + 0.30 + 0.25,
        slot=0,
        repeat=False,
    )


@pytest.mark.parametrize(
    ("preset", "message"),
    [
        (ACCURACY_4, "At accuracy-optimized capacity (4 jobs)"),
        (ACCURACY_4.varied(cap=6), "At accuracy-optimized capacity (6 jobs)"),
        (THROUGHPUT_24, "At throughput-optimized capacity (24 jobs)"),
        (UNIVERSAL_24, "At maximum capacity (24 jobs)"),
        (MAXIMUM_2, "At maximum-accuracy capacity (2 jobs)"),
    ],
)
def test_capacity(preset: Preset, message: str) -> None:
    decision = decide(Policy(preset), offer(), full=True)
    assert (decision.accepted, decision.gate, decision.slot) == (False, "capacity", None)
    assert decision.reason == message
    assert decision.priority == priority_of(offer(), preset)


@pytest.mark.parametrize(
    ("preset", "limit", "message"),
    [
        (ACCURACY_4, 72, "Job duration too long (>72 hours)"),
        (THROUGHPUT_24, 72, "Job duration too long (>72 hours)"),
        (UNIVERSAL_24, 48, "Job duration too long (>48 hours)"),
        (MAXIMUM_2, 96, "Job duration too long (>96 hours)"),
        (replace(ACCURACY_4, time_limit_hours=2.5), 2.5, "Job duration too long (>2.5 hours)"),
    ],
)
def test_time(preset: Preset, limit: float, message: str) -> None:
    policy = Policy(preset)
    for exactly in (limit, float(limit)):
        assert decide(policy, offer(exactly)).gate == "accepted"
    over = decide(policy, offer(limit * (1 + 2**-52)))
    assert (over.accepted, over.gate, over.reason) == (False, "time", message)
    assert over.slot is None


def test_priority_below() -> None:
    low = replace(ACCURACY_4, tables=LOW)
    decision = decide(Policy(low), offer())
    assert (decision.accepted, decision.gate) == (False, "priority")
    assert decision.reason == "Priority 0.550 below accuracy threshold"
    assert decision.priority == 0.55


@pytest.mark.parametrize(
    ("preset", "message"),
    [
        (ACCURACY_4, "Priority 0.700 below accuracy threshold"),
        (THROUGHPUT_24, "Priority 0.700 below throughput threshold"),
        (UNIVERSAL_24, "Priority score 0.700 below the threshold"),
        (MAXIMUM_2, "Priority 0.700 below maximum-accuracy threshold"),
    ],
)
def test_equal_to_the_threshold_is_a_reject(preset: Preset, message: str) -> None:
    even = replace(preset, tables=EVEN, formula=ACCURACY_4.formula, threshold=0.70)
    decision = decide(Policy(even), offer())
    assert decision.priority == 0.70
    assert (decision.gate, decision.reason) == ("priority", message)
    below = replace(even, threshold=0.6999999999999999)
    assert decide(Policy(below), offer()).gate == "accepted"
    above = replace(even, threshold=0.7000000000000001)
    assert decide(Policy(above), offer()).gate == "priority"


def test_threshold_1_refuses_a_priority_of_1() -> None:
    assert decide(Policy(MAXIMUM_2), offer()).priority == 1.0
    assert decide(Policy(MAXIMUM_2.varied(threshold=1.0)), offer()).gate == "priority"


def test_no_threshold_takes_every_offer_that_passes_the_other_gates() -> None:
    lowest = replace(UNIVERSAL_24, tables=LOW)
    decision = decide(Policy(lowest), offer(48.0))
    assert decision.accepted
    assert decision.priority == 0.5
    assert decision.reason == "Accepted all jobs strategy - priority score 0.500"
    assert decide(Policy(replace(lowest, formula=ACCURACY_4.formula)), offer()).accepted


@pytest.mark.parametrize(
    ("preset", "message"),
    [
        (ACCURACY_4, "Accepted for accuracy optimization - priority 0.980"),
        (THROUGHPUT_24, "Accepted for throughput optimization - priority 0.980"),
        (MAXIMUM_2, "Accepted for maximum accuracy - priority 1.000"),
        # 0.25 * 2.15 + 0.10 / 5 + 0.05 + 0.25 = 0.8575
        (UNIVERSAL_24, f"Accepted all jobs strategy - priority score {0.8575:.3f}"),
    ],
)
def test_acceptance_in_each_preset_s_words(preset: Preset, message: str) -> None:
    assert decide(Policy(preset), offer()).reason == message


def test_unsupported_names_what_it_is() -> None:
    policy = Policy(ACCURACY_4, TEXT_ONLY)
    decision = decide(policy, offer(task_type="ImageTask"))
    assert (decision.accepted, decision.gate, decision.slot) == (False, "unsupported", None)
    assert decision.reason == "Unsupported on this box: task type ImageTask"
    assert decide(policy, offer()).accepted


def test_an_unknown_task_type_is_no_error() -> None:
    unknown = offer(task_type="NeverHeardOfTask")
    assert decide(Policy(ACCURACY_4), unknown).accepted
    assert decide(Policy(ACCURACY_4, TEXT_ONLY), unknown).gate == "unsupported"


def test_unsupported_holds_for_every_preset() -> None:
    for preset in PRESETS.values():
        assert decide(Policy(preset, TEXT_ONLY), offer(task_type="DpoTask")).gate == "unsupported"


def test_names_with_braces_are_no_templates() -> None:
    odd = offer(task_type="{cap} {why!r}")
    reason = decide(Policy(ACCURACY_4, TEXT_ONLY), odd).reason
    assert reason == "Unsupported on this box: task type {cap} {why!r}"


WORST = offer(10_000.0, task_type="ImageTask")
"""Fails time, unsupported and, under LOW, priority."""


def test_each_gate_hides_those_behind_it() -> None:
    policy = Policy(replace(ACCURACY_4, tables=LOW), TEXT_ONLY)
    assert decide(policy, WORST, full=True).gate == "capacity"
    assert decide(policy, WORST).gate == "time"
    assert decide(policy, replace(WORST, hours_to_complete=72.0)).gate == "unsupported"
    assert decide(policy, offer(72.0)).gate == "priority"


def test_an_over_long_offer_at_a_full_box_gets_the_capacity_reason() -> None:
    reason = decide(Policy(ACCURACY_4), offer(72.5), full=True).reason
    assert reason == "At accuracy-optimized capacity (4 jobs)"


def test_draining_before_storage_before_capacity() -> None:
    machine = Machine(Policy(ACCURACY_4.varied(cap=1)))
    asked = iter(range(100))

    def gate() -> str:
        answer = machine.handle([OfferArrived(offer(task_id=f"{next(asked)}"))], now=now)[0]
        assert isinstance(answer, Decision)
        assert answer.gate in answer.reason or answer.gate in ("capacity", "accepted")
        return answer.gate

    now = 1
    assert [gate(), gate()] == ["accepted", "capacity"]
    machine.handle([StorageChanged(available=False)], now=(now := 2))
    assert gate() == "storage"
    machine.handle([OperatorAsked("drain")], now=(now := 3))
    assert gate() == "draining"
    machine.handle([StorageChanged(available=True)], now=(now := 4))
    assert gate() == "draining"
    machine.handle([OperatorAsked("resume")], now=(now := 5))
    assert gate() == "capacity"


def test_states_of_the_box_come_before_the_offer_s_own_faults() -> None:
    machine = Machine(Policy(replace(ACCURACY_4, tables=LOW), TEXT_ONLY))
    machine.handle([OperatorAsked("drain")], now=1)
    answer = machine.handle([OfferArrived(WORST)], now=2)[0]
    assert isinstance(answer, Decision)
    assert answer.gate == "draining"
    assert answer.reason == "Not accepting: draining, the operator stopped acceptance"
    machine.handle([OperatorAsked("resume"), StorageChanged(available=False)], now=3)
    answer = machine.handle([OfferArrived(replace(WORST, task_id="u"))], now=4)[0]
    assert isinstance(answer, Decision)
    assert answer.gate == "storage"
    assert answer.reason == "Not accepting: storage, no room for another job"


def test_static_gate_alone() -> None:
    policy = Policy(ACCURACY_4, TEXT_ONLY)
    assert static_gate(offer(), 0.71, policy) is Gate.ACCEPTED
    assert static_gate(offer(), 0.70, policy) is Gate.PRIORITY
    assert static_gate(offer(), 0.0, policy) is Gate.PRIORITY
    assert static_gate(offer(72.1), 0.0, policy) is Gate.TIME
    assert static_gate(WORST, 0.0, policy) is Gate.TIME
    assert static_gate(offer(task_type="ImageTask"), 0.0, policy) is Gate.UNSUPPORTED


@pytest.mark.parametrize("gate", Gate)
@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_every_gate_has_words_in_every_preset(gate: Gate, preset: Preset) -> None:
    said = reason_of(gate, offer(task_type="ImageTask"), 0.5, Policy(preset, TEXT_ONLY))
    assert said
    assert "{" not in said
    supported = reason_of(gate, offer(), 0.5, Policy(preset, TEXT_ONLY))
    assert (said == supported) == (gate is not Gate.UNSUPPORTED)


@pytest.mark.parametrize(
    ("preset", "line"),
    [
        (ACCURACY_4, "At accuracy capacity: 4/4 jobs"),
        (ACCURACY_4.varied(cap=7), "At accuracy capacity: 4/7 jobs"),
        (THROUGHPUT_24, "At throughput capacity: 4/24 jobs"),
        (UNIVERSAL_24, "At maximum capacity: 4/24 jobs"),
        (MAXIMUM_2, "At maximum-accuracy capacity: 4/2 jobs"),
    ],
)
def test_capacity_warning(preset: Preset, line: str) -> None:
    assert capacity_warning(preset, 4) == line
