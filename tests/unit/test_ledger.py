"""The ledger's lines: written, read, replayed, compared."""

import json
from dataclasses import fields, replace

import pytest

from shared.box import BoxDeclaration
from shared.decisions import Policy
from shared.errors import InputError, OutOfOrder
from shared.inputs import (
    GpuChanged,
    JobEnded,
    OfferArrived,
    OperatorAsked,
    PolicyPut,
    StartRequested,
    StorageChanged,
    TimerFired,
)
from shared.jobs import Effect
from shared.ledger import (
    Difference,
    LedgerEntry,
    Recorder,
    answer_json,
    difference,
    dumps,
    entry_line,
    first_difference,
    input_json,
    opened,
    refusal,
)
from shared.ledger_wire import parse_ledger_line
from shared.offers import Offer
from shared.presets import ACCURACY_4, MAXIMUM_2, PRESETS, THROUGHPUT_24

BOX = BoxDeclaration(frozenset({"InstructTextTask", "ChatTask"}), shortest_row=512)
OFFER = Offer("a", "meta-llama/Llama-3.1-8B", "InstructTextTask", 10.0, 1_000, 8_030_261_248)
TTL_MS = 1_000
HAPPENED = (
    (10, OfferArrived(OFFER, "validator")),
    (12, OfferArrived(OFFER, "validator")),
    (20, StartRequested("a", "validator")),
    (21, StartRequested("b", "validator")),
    (30, GpuChanged(0, healthy=False)),
    (30, OfferArrived(replace(OFFER, task_id="é\n\"'", model_params_count=None))),
    (40, JobEnded("a", "gpu_failed", "stopping")),
    (41, JobEnded("a", "gpu_failed")),
    (50, GpuChanged(0, healthy=True)),
    (60, OperatorAsked("drain")),
    (61, OperatorAsked("resume")),
    (62, StorageChanged(available=False)),
    (63, StorageChanged(available=True)),
    (1_030, TimerFired()),
    (1_031, PolicyPut(Policy(MAXIMUM_2))),
    (1_032, OfferArrived(replace(OFFER, task_id="c", hours_to_complete=96.5))),
)


def ledger():
    recorder = Recorder(PolicyPut(Policy(ACCURACY_4, BOX, TTL_MS)), 5)
    made = [recorder.handle(entry, at_ms)[0] for at_ms, entry in HAPPENED]
    return [recorder.opening, *made]


# Writing and reading.


def test_a_ledger_of_every_kind_survives_the_file():
    entries = ledger()
    kinds = {entry.entry.kind for entry in entries}
    assert len(kinds) == 8
    for entry in entries:
        line = entry_line(entry)
        assert parse_ledger_line(line) == parse_ledger_line(line.encode()) == entry
        assert entry_line(parse_ledger_line(line)) == line
        assert "\n" not in line
        assert list(json.loads(line)) == ["seq", "at_ms", "kind", "input", "decisions"]


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_a_policy_is_written_with_all_its_numbers(preset):
    entry = LedgerEntry(1, 0, PolicyPut(Policy(preset, BOX, TTL_MS)), ())
    written = json.loads(entry_line(entry))["input"]["policy"]
    assert set(written) == {field.name for field in fields(Policy)}
    assert set(written["preset"]) == {field.name for field in fields(preset)}
    assert written["box"] == {"task_types": ["ChatTask", "InstructTextTask"], "shortest_row": 512}
    assert parse_ledger_line(entry_line(entry)).entry == entry.entry


def test_an_offers_decision_has_every_field_null_slot_too():
    entries = ledger()
    accepted, repeated, _, _, _, other = entries[1:7]
    assert accepted.decisions == (
        {
            "at_ms": 10,
            "task_id": "a",
            "accepted": True,
            "gate": "accepted",
            "reason": "Accepted for accuracy optimization - priority 0.980",
            "priority": 0.98,
            "slot": 0,
            "repeat": False,
        },
    )
    assert repeated.decisions[0] == accepted.decisions[0] | {"at_ms": 12, "repeat": True}
    assert other.decisions[0]["slot"] == 1, "slot 0 is out"
    refused = [entry.decisions[0] for entry in entries if entry.entry.kind == "offer"][-1]
    assert (refused["gate"], refused["slot"]) == ("time", None)


def test_an_effect_is_written_without_what_it_does_not_have():
    assert answer_json(Effect(5, "draining", 0)) == {"at_ms": 5, "effect": "draining", "in_use": 0}
    assert answer_json(Effect(5, "lapsed", 1, task_id="a", slot=0))["slot"] == 0


def test_numbers_are_written_in_their_shortest_form_and_text_as_it_is():
    assert (
        dumps({"a": 0.1 + 0.2, "b": "é", "c": None}) == '{"a":0.30000000000000004,"b":"é","c":null}'
    )
    with pytest.raises(ValueError, match="not JSON compliant"):
        dumps(float("nan"))


def test_an_input_is_written_whole():
    assert input_json(TimerFired()) == {}
    assert input_json(JobEnded("a")) == {"task_id": "a", "outcome": "completed", "phase": "gone"}


def test_sets_are_written_in_order():
    types = [f"type {number:02}" for number in range(40)]
    policy = PolicyPut(Policy(ACCURACY_4, BoxDeclaration(frozenset(types))))
    assert input_json(policy)["policy"]["box"]["task_types"] == types


# Lines that cannot be read.

GOOD = {"seq": 2, "at_ms": 5, "kind": "gpu", "input": {"gpu": 0, "healthy": True}, "decisions": []}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (dumps(GOOD | {"seq": 0}), "seq: found '0'"),
        (dumps(GOOD | {"seq": "2"}), "seq: found '2'"),
        (dumps(GOOD | {"at_ms": -1}), "at_ms: found '-1'"),
        (dumps(GOOD | {"at_ms": 1.5}), "at_ms: found '1.5'"),
        (dumps(GOOD | {"kind": "party"}), "kind: found 'party'"),
        (dumps(GOOD | {"input": []}), "input: found"),
        (dumps(GOOD | {"input": {"gpu": "x", "healthy": True}}), "gpu: found 'x'"),
        (dumps(GOOD | {"input": {"gpu": 0}}), "healthy: found"),
        (dumps(GOOD | {"input": {"gpu": 0, "healthy": True, "hot": 1}}), "hot: found '1'"),
        (dumps(GOOD | {"decisions": {}}), "decisions: found"),
        (dumps(GOOD | {"decisions": [1]}), "decisions.0: found '1'"),
        (dumps(GOOD | {"more": 1}), "more: found '1'"),
        (dumps({key: GOOD[key] for key in GOOD if key != "seq"}), "seq: found"),
        (dumps(GOOD)[:-1], "line: found"),
        (dumps(GOOD | {"input": {"gpu": "3", "healthy": True}}), "gpu: found '3'"),
        (dumps(GOOD | {"input": {"gpu": 0, "healthy": "yes"}}), "healthy: found 'yes'"),
        (dumps(GOOD | {"input": {"gpu": True, "healthy": True}}), "gpu: found 'True'"),
        (dumps(GOOD).replace('"gpu":', '"gpu":1,"gpu":'), "gpu: found the key twice"),
        (dumps(GOOD | {"seq": 10**400}), "seq: found"),
        (dumps(GOOD | {"at_ms": 10**18}), "at_ms: found"),
        (dumps(GOOD | {"a\nb": 1}), "a b: found '1'"),
        (dumps(GOOD)[:-1] + ',"more":NaN}', "line: found NaN"),
        ("", "line: found an empty line"),
        ("[]", "line: found"),
        (b"\xff\xfe\x00", "line: found"),
    ],
)
def test_a_line_that_cannot_be_read_names_its_key(line, message):
    with pytest.raises(InputError) as wrong:
        parse_ledger_line(line)
    assert str(wrong.value).startswith(message)
    assert "\n" not in str(wrong.value)
    assert parse_ledger_line(dumps(GOOD)).entry == GpuChanged(0, healthy=True)


def test_a_policy_out_of_range_cannot_be_read():
    line = entry_line(LedgerEntry(1, 0, PolicyPut(Policy(ACCURACY_4)), ()))
    with pytest.raises(InputError, match="cap: found 25, allowed is 1 to 24"):
        parse_ledger_line(line.replace('"cap":4', '"cap":25'))


# Replaying.


def test_a_sound_ledger_replays():
    assert first_difference(ledger()) is None
    assert first_difference([]) is None


def test_the_first_entry_must_be_a_policy():
    with pytest.raises(InputError, match="entry 2: found offer, allowed is policy first"):
        first_difference(ledger()[1:])
    assert opened(ledger()[0]).machine.policy.preset == ACCURACY_4
    with pytest.raises(InputError, match="entry 1: found decisions"):
        opened(replace(ledger()[0], decisions=({},)))


def test_another_policy_decides_otherwise():
    opening, *rest = ledger()
    other = replace(opening, entry=PolicyPut(Policy(THROUGHPUT_24, BOX, TTL_MS)))
    found = first_difference([other, *rest])
    assert found is not None
    assert (found.seq, found.field) == (2, "reason")


def test_an_input_that_the_machine_does_not_take():
    entries = ledger()
    found = first_difference([*entries[:3], replace(entries[3], at_ms=11), *entries[4:]])
    assert found is not None
    assert (found.seq, found.kind, found.field) == (4, "start", "input")
    assert "sorts before the last input handled" in str(found)
    assert refusal(entries[3], OutOfOrder("why")) == Difference(
        4, 20, "start", "input", list(entries[3].decisions), "why"
    )


def test_a_refused_input_is_not_recorded():
    recorder = Recorder(PolicyPut(Policy(ACCURACY_4)), 5)
    recorder.handle(OperatorAsked("drain"), 10)
    with pytest.raises(OutOfOrder):
        recorder.handle(OperatorAsked("resume"), 9)
    assert recorder.handle(OperatorAsked("resume"), 11)[0].seq == 3


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"seq": 9}, "seq"),
        ({"at_ms": 9}, "at_ms"),
        ({"entry": OfferArrived(replace(OFFER, ds_size=7), "validator")}, "input"),
        ({"entry": TimerFired()}, "kind"),
        ({"decisions": ()}, "decisions"),
    ],
)
def test_a_difference_names_the_field(change, field):
    entry = ledger()[1]
    found = difference(entry, replace(entry, **change))
    assert found is not None
    assert (found.seq, found.at_ms, found.kind, found.field) == (2, 10, "offer", field)
    assert str(found).startswith(f"entry 2 (offer at 10): {field}: ledger has ")
    assert difference(entry, entry) is None


@pytest.mark.parametrize("field", ledger()[1].decisions[0])
def test_every_field_of_a_decision_counts(field):
    entry = ledger()[1]
    decision = entry.decisions[0]
    for value in ("other", None, 1e300):
        found = difference(entry, replace(entry, decisions=(decision | {field: value},)))
        assert found == Difference(2, 10, "offer", field, decision[field], value)


def test_one_and_true_and_one_point_nought_are_three_things():
    entry = ledger()[1]
    for value in (1, 1.0):
        changed = replace(entry, decisions=(entry.decisions[0] | {"accepted": value},))
        found = difference(entry, changed)
        assert found is not None
        assert found.field == "accepted"


def test_fields_too_many_too_few_or_in_another_order():
    entry = ledger()[1]
    decision = entry.decisions[0]
    more = replace(entry, decisions=(decision | {"mood": 1},))
    assert difference(more, entry) == Difference(2, 10, "offer", "mood", 1, None)
    assert difference(entry, more) == Difference(2, 10, "offer", "mood", None, 1)
    turned = replace(entry, decisions=(dict(reversed(decision.items())),))
    found = difference(entry, turned)
    assert found is not None
    assert found.field == "decisions"
    twice = replace(entry, decisions=entry.decisions * 2)
    found = difference(twice, entry)
    assert found is not None
    assert (found.field, len(found.recorded), len(found.replayed)) == ("decisions", 2, 1)


def test_what_cannot_be_kept_is_taken_back():
    """A batch that the disk refuses: the recorder goes on as if it had not happened."""
    recorder = Recorder(PolicyPut(Policy(ACCURACY_4, BOX, TTL_MS)), 5)
    for at_ms, entry in HAPPENED[:6]:
        recorder.handle(entry, at_ms)
    saved = recorder.save()
    before = (recorder.machine.jobs, recorder.machine.slots_in_use, recorder.machine.next_timer())
    for at_ms, entry in HAPPENED[6:]:
        recorder.handle(entry, at_ms)
    machine = recorder.machine
    recorder.restore(saved)
    assert recorder.machine is machine
    assert (machine.jobs, machine.slots_in_use, machine.next_timer()) == before
    again = [recorder.handle(entry, at_ms)[0] for at_ms, entry in HAPPENED[6:]]
    assert again == ledger()[7:]
