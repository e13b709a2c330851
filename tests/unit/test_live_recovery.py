"""A ledger is opened only when its replay agrees with it byte for byte, and then goes on."""

import json
import runpy
from dataclasses import fields, replace
from pathlib import Path

import pytest

from live.ledger_store import LedgerStore
from live.quick_lines import QuickLine, quickly_read, same_line
from live.recovery import open_ledger, replayed, replayed_lines
from shared.decisions import Policy
from shared.errors import FourSlotError, InputError
from shared.inputs import (
    GpuChanged,
    JobEnded,
    OfferArrived,
    OperatorAsked,
    PolicyPut,
    StartRequested,
    TimerFired,
)
from shared.jobs import Effect
from shared.ledger import (
    LedgerEntry,
    Recorder,
    answer_json,
    dumps,
    entry_line,
    first_difference,
    input_json,
)
from shared.ledger_wire import parse_ledger_line
from shared.offers import Offer
from shared.presets import ACCURACY_4, MAXIMUM_2, THROUGHPUT_24
from sim.engine.shell import run_machine
from sim.ledger_file import read_ledger, write_ledger
from sim.verify import verify

TIES = runpy.run_path(str(Path(__file__).parents[1] / "parity" / "test_verify.py"))
POLICY = TIES["POLICY"]
START = 1_700_000_000_000
WHERE = Path("ledger.db")


@pytest.fixture(scope="module")
def entries():
    return run_machine(TIES["workload"](), POLICY)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ledger.db"


def lines_of(entries):
    return [(entry.seq, entry.at_ms, entry_line(entry)) for entry in entries]


def stored(path, entries):
    store = LedgerStore(path)
    store.append(entries)
    store.close()


def offer(task_id, params=None):
    return OfferArrived(Offer(task_id, "m/llama", "ChatTask", 10.0, None, params), "v")


def test_a_new_ledger_begins_with_the_policy(path):
    opened = open_ledger(path, POLICY, START)
    assert (opened.replayed, opened.last_ms, opened.policy_put) == (0, START, True)
    opened.store.close()
    (only,) = read_ledger(path)
    assert (only.seq, only.at_ms, only.entry) == (1, START, PolicyPut(POLICY))


def test_it_stands_where_the_ledger_ends(path, entries):
    """Cut anywhere, opened and fed the rest, a ledger ends as it would have."""
    for cut in (1, 2, 40, 90, len(entries) - 1):
        file = path.with_name(f"{cut}.db")
        stored(file, entries[:cut])
        opened = open_ledger(file, POLICY, 0)
        assert (opened.replayed, opened.policy_put) == (cut, False)
        assert opened.last_ms == entries[cut - 1].at_ms
        again = [opened.recorder.handle(entry.entry, entry.at_ms)[0] for entry in entries[cut:]]
        assert again == entries[cut:]
        opened.store.close()


def test_it_tells_the_start_of_every_job_that_holds_a_slot(path):
    recorder = Recorder(PolicyPut(POLICY), START)
    made = [recorder.opening]
    inputs = [
        offer("a"),
        offer("b"),
        offer("c"),
        StartRequested("a", "v"),
        StartRequested("b", "v"),
    ]
    inputs += [JobEnded("a"), JobEnded("b", phase="stopping"), StartRequested("c", "x")]
    for at, entry in enumerate(inputs):
        made.append(recorder.handle(entry, START + 1 + at)[0])
    stored(path, made)
    opened = open_ledger(path, POLICY, 0)
    assert opened.started == {"b": 6}
    assert opened.reserved == {"c": offer("c").offer}
    assert opened.offers == {task_id: offer(task_id).offer for task_id in "bc"}
    assert set(opened.recorder.machine.jobs) == {"b", "c"}
    opened.store.close()


# Another policy.


def test_another_policy_is_put_after_the_timers_that_are_due(path):
    recorder = Recorder(PolicyPut(POLICY), START)
    accepted = recorder.handle(offer("a"), START + 1)[0]
    stored(path, [recorder.opening, accepted])
    other = Policy(THROUGHPUT_24)
    late = START + 10 * POLICY.reservation_ttl_ms
    opened = open_ledger(path, other, late)
    assert (opened.policy_put, opened.last_ms) == (True, late)
    assert opened.recorder.machine.policy == other
    opened.store.close()
    found = list(read_ledger(path))
    assert verify(found).difference is None
    assert [(e.entry.kind, e.at_ms) for e in found[2:]] == [
        ("timer", START + 1 + POLICY.reservation_ttl_ms),
        ("policy", late),
    ]
    again = open_ledger(path, other, 0)
    assert not again.policy_put
    again.store.close()


@pytest.mark.parametrize(
    "other",
    [
        replace(POLICY, reservation_ttl_ms=POLICY.reservation_ttl_ms + 1),
        replace(POLICY, preset=POLICY.preset.varied(threshold=0.944999)),
        replace(POLICY, box=replace(POLICY.box, shortest_row=512)),
        replace(POLICY, preset=MAXIMUM_2),
    ],
)
def test_any_other_number_is_another_policy(path, other):
    open_ledger(path, POLICY, START).store.close()
    for expected in (True, False):
        opened = open_ledger(path, other, START)
        assert opened.policy_put is expected
        opened.store.close()
    assert [entry.entry.policy for entry in read_ledger(path)] == [POLICY, other]


def test_a_box_that_the_ledger_s_failed_gpu_is_not_part_of(path):
    recorder = Recorder(PolicyPut(POLICY), START)
    failed = recorder.handle(GpuChanged(7, healthy=False), START)[0]
    stored(path, [recorder.opening, failed])
    smaller = Policy(replace(ACCURACY_4, gpus=4))
    with pytest.raises(
        InputError, match=r"ledger\.db: the policy cannot be put in force: policy: a"
    ):
        open_ledger(path, smaller, START)
    open_ledger(path, POLICY, START).store.close()


# A ledger that does not agree.


def test_a_changed_decision_is_refused_with_the_first_difference(path, entries):
    at = next(at for at, entry in enumerate(entries) if entry.entry.kind == "offer")
    decision = entries[at].decisions[0] | {"slot": 3}
    stored(path, [*entries[:at], replace(entries[at], decisions=(decision,)), *entries[at + 1 :]])
    with pytest.raises(InputError) as wrong:
        open_ledger(path, POLICY, START)
    said = str(wrong.value)
    assert said.startswith(
        f"{path}: the ledger does not agree with its replay: entry {at + 1} (offer"
    )
    assert "slot: ledger has 3, replay gives" in said
    open_file = LedgerStore(path)  # the lock was let go
    open_file.close()


def test_a_ledger_that_begins_otherwise(entries):
    assert replayed_lines([], WHERE) is None
    with pytest.raises(
        InputError, match=r"ledger\.db:2: entry 2: found \w+, allowed is policy first"
    ):
        replayed_lines(lines_of(entries[1:]), WHERE)
    with pytest.raises(InputError, match=r"entry 2 \(policy at \d+\): seq: ledger has 2, replay"):
        replayed_lines(lines_of([replace(entries[0], seq=2)]), WHERE)


def test_a_row_that_says_otherwise_than_its_line(entries):
    (seq, at_ms, line), *rest = lines_of(entries)
    for row in ((seq + 1, at_ms, line), (seq, at_ms + 1, line), (seq, at_ms, None)):
        with pytest.raises(InputError, match=r"line: its seq and at_ms are not the row's"):
            replayed_lines([row, *rest], WHERE)


# The quick way of reading agrees with the strict one, whatever the line.


def strictly(lines):
    """What the strict reader and the shared replay say of lines: agrees or not."""
    try:
        return first_difference([parse_ledger_line(line) for line in lines]) is None
    except FourSlotError:
        return False


def quickly(lines):
    try:
        rows = [(json.loads(line)["seq"], json.loads(line)["at_ms"], line) for line in lines]
        return replayed_lines(rows, WHERE) is not None
    except InputError:
        return False


def test_what_fills_a_ledger_is_read_quickly_and_the_same(entries):
    quick = {"offer", "start", "ended", "timer"}
    for entry in entries:
        read = quickly_read(entry_line(entry))
        assert (read is not None) == (entry.entry.kind in quick)
        assert read is None or (read.at_ms, read.entry) == (entry.at_ms, entry.entry)


def test_answers_are_spelt_out_as_the_ledger_s_encoder_writes_them(entries):
    recorder = Recorder(PolicyPut(POLICY), START)
    odd = OfferArrived(Offer('q"\\\n\x7f\u2028ü', "m/llama", "Chat\tTask", 1e-7), "v")
    made = [recorder.handle(odd, START)]
    made += [recorder.handle(offer(task_id), START + 1) for task_id in "ab"]
    for entry, answers in made:
        quick = QuickLine(entry.at_ms, entry.entry, dumps(input_json(entry.entry)))
        assert same_line(entry_line(entry), quick, entry.seq, answers)
        assert not same_line(entry_line(entry), quick, entry.seq + 1, answers)
        assert not same_line(entry_line(entry), quick, entry.seq, [*answers, *answers])
    assert quickly_read(entry_line(made[0][0])) is None


def test_an_effect_is_spelt_out_whatever_fields_it_has():
    every = {each.name: 7 for each in fields(Effect)} | {
        "effect": "released", "task_id": 'a"\\\u2028', "reason": "ü\n",
    }  # fmt: skip
    bare = {name: every[name] for name in ("at_ms", "effect", "in_use")}
    for told in (every, bare, *(bare | {name: every[name]} for name in every)):
        quick = QuickLine(START, TimerFired(), "{}")
        made = LedgerEntry(1, START, TimerFired(), (answer_json(Effect(**told)),))
        assert same_line(entry_line(made), quick, 1, [Effect(**told)])


OTHER_VALUES = (None, True, 0, 1, -1, 1.0, 10, "1", "", "a", [], {}, 2**60, "\\ud800", 1e300)


def changed_inputs(value):
    """Every way of changing one part of a line's input, its keys and its order."""
    fields = value["input"]
    for where in [fields, *(part for part in fields.values() if isinstance(part, dict))]:
        original = dict(where)
        for key in original:
            for other in OTHER_VALUES:
                where[key] = other
                yield value
            del where[key]
            yield value
            where.clear()
            where.update(original)
        where["more"] = 1
        yield value
        where.clear()
        where.update(reversed(original.items()))
        yield value
        where.clear()
        where.update(original)


@pytest.fixture(scope="module")
def one_of_each():
    recorder = Recorder(PolicyPut(POLICY), START)
    inputs = [
        (START + 1, offer("a", 8)),
        (START + 2, offer("b", 8)),
        (START + 3, StartRequested("a", "v")),
        (START + 4, JobEnded("a", "failed", "stopping")),
        (START + 5, JobEnded("a", "failed")),
        (START + 2 + POLICY.reservation_ttl_ms, TimerFired()),
        (START + 3 + POLICY.reservation_ttl_ms, OperatorAsked("drain")),
    ]
    return [recorder.opening, *(recorder.handle(entry, at)[0] for at, entry in inputs)]


def test_whatever_is_changed_in_an_input_both_ways_agree(one_of_each):
    lines = [entry_line(entry) for entry in one_of_each]
    assert strictly(lines)
    assert quickly(lines)
    tried = accepted = 0
    for at, line in enumerate(lines[1:-1], start=1):
        for value in changed_inputs(json.loads(line)):
            text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
            now = [*lines[:at], text]
            assert quickly(now) == strictly(now), text
            tried += 1
            accepted += quickly(now)
    assert tried > 200
    assert 0 < accepted < tried


@pytest.mark.parametrize(
    "change",
    [
        lambda line: line.replace('"input"', ' "input"'),  # the same JSON
        lambda line: line.replace('"source":"v"', '"source":"v","source":"v"'),
        lambda line: line.replace(',"source":"v"', ""),  # as an earlier release wrote it
        lambda line: line.replace('"priority":', '"priority":1,"priority":'),
        lambda line: line.replace('"slot":0', '"slot":0.0'),
        lambda line: line.replace('"slot":0', '"slot":false'),
        lambda line: line.replace('"repeat":false', '"repeat":0'),
        lambda line: line.replace("10.0", "10.00"),
        lambda line: line.replace("10.0", "1e1"),
        lambda line: line.replace("10.0", "NaN"),
        lambda line: line.replace("10.0", "72.5"),
        lambda line: line.replace('"decisions"', '"decision"'),
        lambda line: line.replace('"kind":"offer"', '"kind":"start"'),
        lambda line: line[:-1] + ',"more":1}',
        lambda line: line + " ",
    ],
)
def test_whatever_is_changed_in_a_line_both_ways_agree(one_of_each, change):
    lines = [entry_line(entry) for entry in one_of_each[:2]]
    assert change(lines[1]) != lines[1]
    lines[1] = change(lines[1])
    assert quickly(lines) == strictly(lines)


def test_a_line_that_is_no_json_at_all(one_of_each):
    opening = lines_of(one_of_each)[0]
    for text in ("", "[]", "{", '"x"', "[" * 5_000):
        row = (2, START, f'{{"seq":2,"at_ms":{START},{text}')
        with pytest.raises(InputError, match=r"ledger\.db:2: "):
            replayed_lines([opening, row], WHERE)
    assert quickly_read("[" * 100_000) is None


def test_an_entry_that_the_machine_does_not_take(one_of_each):
    early = replace(one_of_each[2], seq=2, at_ms=START - 1)
    with pytest.raises(
        InputError, match=r"entry 2 \(offer at \d+\): input: .* sorts before the last"
    ):
        replayed_lines(lines_of([one_of_each[0], early]), WHERE)


def test_times_beyond_the_calendar_are_not_read(one_of_each):
    entry = LedgerEntry(2, 10**17, OperatorAsked("drain"), ())
    for kind in (entry, replace(one_of_each[1], at_ms=10**17)):
        with pytest.raises(InputError, match="at_ms: found"):
            replayed_lines(lines_of([one_of_each[0], kind]), WHERE)


def test_nothing_is_kept_of_what_was_replayed(path, entries):
    write_ledger(entries, path)
    store = LedgerStore(path)
    found = replayed(store)
    assert found is not None
    assert set(found.started) <= set(found.recorder.machine.jobs)
    store.close()
