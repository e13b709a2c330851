"""A ledger verifies, and whatever is wrong with it is found and named."""

import sqlite3
from contextlib import closing
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

import shared.machine
from shared.admission import Admission
from shared.box import BoxDeclaration
from shared.decisions import Gate, Policy
from shared.errors import InputError
from shared.inputs import (
    GpuChanged,
    JobEnded,
    OfferArrived,
    OperatorAsked,
    StorageChanged,
    TimerFired,
)
from shared.ledger import entry_line, first_difference
from shared.machine import Machine
from shared.presets import ACCURACY_4, MAXIMUM_2, PRESETS
from shared.repeats import Repeats
from sim.engine.shell import run_machine
from sim.engine.workload import Workload
from sim.ledger_file import LONGEST_LINE, read_ledger, write_ledger
from sim.stream import Labels, OfferStream, in_handling_order, taken
from sim.verify import verify

GRID = 30_000
TTL_MS = 4 * GRID
MODELS = ("meta-llama/Llama-3.1-8B", "microsoft/Phi-3.5-mini-instruct", "google/flan-t5-xl")
TYPES = ("InstructTextTask", "ChatTask", "ImageTask")
POLICY = Policy(
    ACCURACY_4.varied(threshold=0.945),
    BoxDeclaration(task_types=frozenset(TYPES[:2])),
    reservation_ttl_ms=TTL_MS,
)


def workload(seed=0, count=160):
    """Offers on a coarse grid, with everything that can befall a box."""
    rng = np.random.default_rng(seed)
    number = rng.integers(0, count * 3 // 4, count)
    at_ms = 1_000_000 + GRID * rng.integers(0, 60, count)
    _, first = np.unique(np.stack([at_ms, number]), axis=1, return_index=True)
    at_ms, number, n = at_ms[first], number[first], len(first)
    stream = OfferStream(
        at_ms=at_ms,
        task_id=pa.array([f"task-{i}" for i in number.tolist()]),
        model=Labels(rng.integers(0, 3, n).astype(np.int32), MODELS),
        task_type=Labels(rng.integers(0, 3, n).astype(np.int32), TYPES),
        hours=rng.choice([1.0, 48.0, 72.0, np.nextafter(72.0, 73.0), 90.0], n),
        ds_size=np.full(n, -1),
        params=np.full(n, -1),
        train_ms=GRID * rng.integers(0, 5, n),
    )
    timeline = [
        (1_000_000 + GRID * 3, GpuChanged(0, healthy=False)),
        (1_000_000 + GRID * 4, GpuChanged(6, healthy=False)),
        (1_000_000 + GRID * 9, GpuChanged(0, healthy=True)),
        (1_000_000 + GRID * 12, GpuChanged(6, healthy=True)),
        (1_000_000 + GRID * 50, OperatorAsked("drain")),
        (1_000_000 + GRID * 51, StorageChanged(available=False)),
        (1_000_000 + GRID * 52, OperatorAsked("resume")),
        (1_000_000 + GRID * 53, StorageChanged(available=True)),
    ]
    lag = GRID * rng.integers(0, 3, n)
    return Workload(in_handling_order(stream), lag, rng.random(n) < 0.7, timeline)


@pytest.fixture(scope="module")
def ledger():
    return run_machine(workload(), POLICY)


@pytest.fixture(scope="module")
def short(ledger):
    """The beginning of it, for what is tried at every entry."""
    return ledger[:110]


def found_in(entries):
    """The difference, and that it names an entry of the ledger."""
    difference = verify(entries).difference
    assert difference is not None
    named = [e for e in entries if (e.seq, e.at_ms) == (difference.seq, difference.at_ms)]
    assert named
    assert str(difference).startswith(f"entry {difference.seq} ({difference.kind} at ")
    return difference


# Sound ledgers.


def test_the_ledger_has_something_of_everything(ledger):
    kinds = {entry.entry.kind for entry in ledger}
    assert kinds == {"policy", "offer", "start", "ended", "timer", "gpu", "operator", "storage"}
    decided = [e.decisions[0] for e in ledger if e.entry.kind == "offer"]
    assert {decision["gate"] for decision in decided} == {gate.label for gate in Gate}
    assert any(decision["repeat"] for decision in decided)
    assert {e.entry.outcome for e in ledger if e.entry.kind == "ended"} == {
        "completed",
        "gpu_failed",
    }


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
@pytest.mark.parametrize("seed", range(5))
def test_what_the_machine_writes_verifies(preset, seed):
    entries = run_machine(workload(seed), replace(POLICY, preset=preset))
    verdict = verify(iter(entries))
    assert verdict.difference is None
    assert verdict.entries == len(entries)
    assert verdict.offers == sum(entry.entry.kind == "offer" for entry in entries)
    assert first_difference(entries) is None


@pytest.mark.parametrize("name", ["ledger.db", "ledger", "ledger.jsonl"])
def test_it_verifies_out_of_a_file(ledger, tmp_path, name):
    path = tmp_path / name
    write_ledger(ledger, path)
    assert list(tmp_path.iterdir()) == [path]
    assert list(read_ledger(path)) == ledger
    assert verify(read_ledger(path)).difference is None


def test_both_forms_hold_the_same_lines(ledger, tmp_path):
    write_ledger(ledger, tmp_path / "a.jsonl")
    write_ledger(ledger, tmp_path / "a.db")
    with closing(sqlite3.connect(tmp_path / "a.db")) as connection:
        rows = connection.execute("SELECT seq, at_ms, line FROM ledger ORDER BY seq").fetchall()
    assert rows == [(entry.seq, entry.at_ms, entry_line(entry)) for entry in ledger]
    assert (tmp_path / "a.jsonl").read_text("utf-8") == "".join(f"{row[2]}\n" for row in rows)


def test_an_empty_run_verifies():
    empty = run_machine(Workload(workload(count=0).stream), POLICY)
    assert len(empty) == 1
    assert verify(empty).difference is None


def test_a_ledger_may_end_anywhere(short):
    """A daemon's ledger is read while it runs: a timer that is due later is not missing."""
    for length in range(1, len(short) + 1):
        verdict = verify(short[:length])
        assert verdict.difference is None, length
        assert verdict.entries == length


# A production that decides otherwise: its ledger says one policy, its machine does another.


def _cap_off_by_one(by):
    admit = Admission.admit

    def broken(self, static_gate):
        if self.cap - self.free.bit_count() >= self.cap + by:
            return -int(Gate.CAPACITY)
        return admit(self, static_gate)

    return broken


def _highest_slot(self, static_gate):
    code = ADMIT(self, static_gate)
    if code < 0:
        return code
    self.free |= 1 << code
    highest = self.free.bit_length() - 1
    self.free ^= 1 << highest
    return highest


def _capacity_last(self, static_gate):
    return -static_gate if static_gate and not self._closed else ADMIT(self, static_gate)


def _storage_first(self, *, draining, storage):
    CLOSE(self, draining=draining and not storage, storage=storage)


def _at_least(offer, priority, policy):
    limit = policy.preset.time_limit_hours
    return Gate.TIME if offer.hours_to_complete >= limit else STATIC(offer, priority, policy)


def _threshold_included(offer, priority, policy):
    threshold = policy.preset.threshold
    gate = STATIC(offer, priority, policy)
    return Gate.ACCEPTED if gate is Gate.PRIORITY and priority >= threshold - 1e-9 else gate


def _priority_before_time(offer, priority, policy):
    low = not priority > policy.preset.threshold
    return Gate.PRIORITY if low else STATIC(offer, priority, policy)


def _unsupported_unseen(offer, priority, policy):
    gate = STATIC(offer, priority, policy)
    return Gate.ACCEPTED if gate is Gate.UNSUPPORTED else gate


def _late_reserve(self, entry, decision, slot):
    RESERVE(self, entry, decision, slot)
    task = decision.task_id
    self._jobs[task] = replace(self._jobs[task], lapses_ms=self._jobs[task].lapses_ms + 1)


def _released_twice(self, slot):
    RELEASE(self, slot)
    RELEASE(self, (slot + 1) % self.cap)


def _window_excluded(self, task_id, now):
    """A repeat at the window's last millisecond is taken for a new offer."""
    first = self._repeats.get(task_id)
    if task_id in self._jobs or first is None or now - first.at_ms != 60_000:
        return FIRST_ANSWER(self, task_id, now)
    others, self._repeats = self._repeats, Repeats()
    for made in (made for made in others._made if made is not first):
        self._repeats.remember(made, 60_000)
    return None


ADMIT, CLOSE, RELEASE = Admission.admit, Admission.close, Admission.release
FIRST_ANSWER = Machine._first_answer
STATIC, RESERVE = shared.machine.static_gate, Machine._reserve
WRONG = {
    "one slot less": (Admission, "admit", _cap_off_by_one(-1)),
    "highest slot": (Admission, "admit", _highest_slot),
    "capacity last": (Admission, "admit", _capacity_last),
    "storage before draining": (Admission, "close", _storage_first),
    "a slot lost and found": (Admission, "release", _released_twice),
    "time limit excluded": (shared.machine, "static_gate", _at_least),
    "threshold included": (shared.machine, "static_gate", _threshold_included),
    "priority before time": (shared.machine, "static_gate", _priority_before_time),
    "no declaration": (shared.machine, "static_gate", _unsupported_unseen),
    "offers before ends": (JobEnded, "rank", 6),
    "ends before failures, no longer": (GpuChanged, "rank", -1),
    "late timer": (Machine, "_reserve", _late_reserve),
    "repeat window excluded": (Machine, "_first_answer", _window_excluded),
}


@pytest.mark.parametrize("why", WRONG)
def test_another_policy_is_caught(monkeypatch, why):
    equal = ACCURACY_4.varied(threshold=0.94) if why == "threshold included" else POLICY.preset
    policy = replace(POLICY, preset=equal)
    owner, name, wrong = WRONG[why]
    with monkeypatch.context() as patched:
        patched.setattr(owner, name, wrong)
        entries = run_machine(workload(), policy)
    found_in(entries)
    assert verify(run_machine(workload(), policy)).difference is None


def test_ids_of_one_instant_in_another_order(monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(OfferArrived, "id", property(lambda self: ""))
        patched.setattr(JobEnded, "id", property(lambda self: ""))
        stream = workload()
        turned = np.lexsort((-np.arange(len(stream.stream)), stream.stream.at_ms))
        entries = run_machine(
            Workload(taken(stream.stream, turned), timeline=stream.timeline), POLICY
        )
    assert found_in(entries).field in ("input", "task_id")


# A ledger that was changed afterwards.


def _other(value):
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        return value + " "
    return 1 if value is None else value + 1


def test_every_field_of_every_decision_counts(short):
    """One field changed in one entry: that entry and that field are named."""
    kinds = {}
    for at, entry in enumerate(short):
        shape = (entry.entry.kind, *(tuple(d) for d in entry.decisions))
        kinds.setdefault(shape, []).append(at)
    chosen = [at for places in kinds.values() for at in (*places[:2], places[-1])]
    for at in chosen:
        entry = short[at]
        for number, decision in enumerate(entry.decisions):
            for key, value in decision.items():
                decisions = list(entry.decisions)
                decisions[number] = decision | {key: _other(value)}
                changed = replace(entry, decisions=tuple(decisions))
                found = found_in([*short[:at], changed, *short[at + 1 :]])
                assert (found.seq, found.field) == (entry.seq, key)
                assert (found.recorded, found.replayed) == (_other(value), value)


def test_one_bit_of_a_priority_counts(short):
    at = next(at for at, entry in enumerate(short) if entry.entry.kind == "offer")
    decision = short[at].decisions[0]
    nudged = decision | {"priority": float(np.nextafter(decision["priority"], 2))}
    changed = [*short[:at], replace(short[at], decisions=(nudged,)), *short[at + 1 :]]
    assert found_in(changed).field == "priority"


def test_every_dropped_line_is_missed(short):
    for at in range(1, len(short) - 1):
        found = found_in([*short[:at], *short[at + 1 :]])
        assert found.seq <= short[at + 1].seq


def test_every_line_twice_is_one_too_many(short):
    for at in range(1, len(short)):
        found = found_in([*short[: at + 1], *short[at:]])
        assert found.seq == short[at].seq


def test_a_timer_too_many_at_the_end(ledger):
    last = ledger[-1]
    extra = replace(last, seq=last.seq + 1, at_ms=last.at_ms + 1, entry=TimerFired(), decisions=())
    found = found_in([*ledger, extra])
    assert (found.seq, found.field, found.recorded) == (extra.seq, "kind", "timer")
    assert found.replayed is None


def test_every_two_lines_swapped_are_seen(short):
    for at in range(1, len(short) - 1):
        found = found_in([*short[:at], short[at + 1], short[at], *short[at + 2 :]])
        assert found.seq in (short[at].seq, short[at + 1].seq)


def test_swapped_and_renumbered_too(short):
    seen = 0
    for at in range(1, len(short) - 1):
        first, then = short[at], short[at + 1]
        if first.at_ms == then.at_ms and first.entry.kind == then.entry.kind == "offer":
            seen += 1
            turned = [replace(then, seq=first.seq), replace(first, seq=then.seq)]
            found = found_in([*short[:at], *turned, *short[at + 2 :]])
            assert (found.seq, found.field) == (first.seq, "input")
    assert seen > 10


def test_time_that_goes_back_names_the_entry(short):
    for at in range(2, len(short)):
        entry = short[at]
        back = replace(entry, at_ms=short[0].at_ms - 1)
        found = found_in([*short[:at], back, *short[at + 1 :]])
        assert found.seq == entry.seq
        assert "time never goes back" in str(found)


def test_a_later_time_is_seen(short):
    for at in range(1, len(short) - 1):
        entry = short[at]
        later = replace(entry, at_ms=entry.at_ms + 1)
        found = found_in([*short[:at], later, *short[at + 1 :]])
        assert found.seq <= short[at + 1].seq


def test_the_opening_counts_too(short):
    assert found_in([replace(short[0], seq=2), *short[1:]]).field == "seq"
    other = replace(short[0].entry, policy=replace(POLICY, preset=MAXIMUM_2))
    assert found_in([replace(short[0], entry=other), *short[1:]]) is not None


def test_a_job_that_nobody_has(short):
    ended = next(entry for entry in short if entry.entry.kind == "ended")
    at = ended.seq - 1
    nobody = replace(ended, entry=replace(ended.entry, task_id="nobody"))
    found = found_in([*short[:at], nobody, *short[at + 1 :]])
    assert found.seq <= ended.seq
    assert "nobody" in str(found)


# What is no ledger.


def test_an_empty_ledger(tmp_path):
    path = tmp_path / "empty.jsonl"
    path.write_bytes(b"")
    with pytest.raises(InputError, match="found no entry, allowed is a policy first"):
        verify(read_ledger(path))


def test_no_policy_first(ledger):
    with pytest.raises(InputError, match=r"entry 2: found \w+, allowed is policy first"):
        verify(ledger[1:])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"not json", "line: found"),
        (b"", "line: found"),
        (b"\x00\x01\xff" * 20, "line: found"),
        (b'{"seq":3', "line: found"),
        (b'{"seq":3,"at_ms":1,"kind":"party","input":{},"decisions":[]}', "kind: found 'party'"),
        (b'{"seq":3,"at_ms":1.5,"kind":"timer","input":{},"decisions":[]}', "at_ms: found '1.5'"),
        (b" " * (LONGEST_LINE + 1), f"found a line of over {LONGEST_LINE} bytes"),
    ],
)
def test_a_line_that_cannot_be_read_is_named(ledger, tmp_path, line, message):
    path = tmp_path / "bad.jsonl"
    good = "".join(f"{entry_line(entry)}\n" for entry in ledger[:2]).encode()
    path.write_bytes(good + line + b"\n" + entry_line(ledger[2]).encode() + b"\n")
    with pytest.raises(InputError) as wrong:
        verify(read_ledger(path))
    assert str(wrong.value).startswith(f"{path}:3: {message}")
    assert "\n" not in str(wrong.value)


def test_a_truncated_last_line(ledger, tmp_path):
    path = tmp_path / "cut.jsonl"
    write_ledger(ledger, path)
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(InputError, match=rf"cut\.jsonl:{len(ledger)}: line: found"):
        verify(read_ledger(path))


def test_windows_line_ends_are_read(ledger, tmp_path):
    path = tmp_path / "crlf.jsonl"
    path.write_bytes("".join(f"{entry_line(entry)}\r\n" for entry in ledger).encode())
    assert verify(read_ledger(path)).difference is None


def test_a_binary_file(tmp_path):
    path = tmp_path / "picture.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR")
    with pytest.raises(InputError, match=r"picture\.png:1: line: found"):
        verify(read_ledger(path))


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="cannot be read: no such file"):
        verify(read_ledger(tmp_path / "none"))
    with pytest.raises(InputError, match="cannot be read: is a directory"):
        verify(read_ledger(tmp_path))


def sqlite_of(path, *statements):
    with closing(sqlite3.connect(path)) as connection:
        for statement, values in statements:
            connection.execute(statement, values)
        connection.commit()


TABLE = ("CREATE TABLE ledger(seq INTEGER PRIMARY KEY, at_ms, line)", ())


@pytest.mark.parametrize(
    ("statements", "message"),
    [
        ([("CREATE TABLE other(a)", ())], "found no ledger, no such table: ledger"),
        ([("CREATE TABLE ledger(a)", ())], "found no ledger, no such column"),
        ([TABLE, ("INSERT INTO ledger VALUES (1, 0, ?)", ("{}",))], "1: line: its seq and at_ms"),
        ([TABLE, ("INSERT INTO ledger VALUES (7, 0, ?)", (b"{}",))], "7: line: its seq and at_ms"),
        ([TABLE, ("INSERT INTO ledger VALUES (7, 0, ?)", (None,))], "7: line: its seq and at_ms"),
        ([TABLE, ("INSERT INTO ledger VALUES (1, 0, ?)", ('{"seq":1,"at_ms":0,',))], "1: line: fo"),
    ],
)
def test_a_sqlite_file_that_is_no_ledger(tmp_path, statements, message):
    path = tmp_path / "other file.db"
    sqlite_of(path, *statements)
    with pytest.raises(InputError) as wrong:
        verify(read_ledger(path))
    assert str(wrong.value).startswith(str(path))
    assert message in str(wrong.value)


def test_rows_are_read_in_the_order_of_seq(ledger, tmp_path):
    path = tmp_path / "ledger.db"
    rows = [(entry.seq, entry.at_ms, entry_line(entry)) for entry in reversed(ledger)]
    insert = "INSERT INTO ledger VALUES (?, ?, ?)"
    sqlite_of(path, ("CREATE TABLE ledger(seq, at_ms, line)", ()), *((insert, r) for r in rows))
    assert verify(read_ledger(path)).difference is None


def test_a_damaged_sqlite_file(tmp_path):
    path = tmp_path / "damaged.db"
    path.write_bytes(b"SQLite format 3\x00" + b"\xff" * 200)
    with pytest.raises(InputError, match=r"damaged\.db: found no ledger, file is not a database"):
        verify(read_ledger(path))


def test_a_row_that_says_otherwise_than_its_line(ledger, tmp_path):
    path = tmp_path / "ledger.db"
    write_ledger(ledger, path)
    sqlite_of(path, ("UPDATE ledger SET at_ms = at_ms + 1 WHERE seq = 5", ()))
    with pytest.raises(InputError, match=r"ledger\.db:5: line: its seq and at_ms are not the row"):
        verify(read_ledger(path))


def test_a_ledger_is_read_while_it_is_written(ledger, tmp_path):
    path = tmp_path / "ledger.db"
    write_ledger(ledger[:-1], path)
    last = ledger[-1]
    with closing(sqlite3.connect(path)) as writer:
        writer.execute("PRAGMA journal_mode=WAL")
        row = (last.seq, last.at_ms, entry_line(last))
        writer.execute("INSERT INTO ledger VALUES (?, ?, ?)", row)
        assert verify(read_ledger(path)).entries == len(ledger) - 1
        writer.commit()
        assert verify(read_ledger(path)).entries == len(ledger)


def test_a_ledger_that_cannot_be_made_leaves_nothing(ledger, tmp_path):
    def cut_short():
        yield ledger[0]
        raise KeyboardInterrupt

    for name in ("a.jsonl", "a.db"):
        with pytest.raises(KeyboardInterrupt):
            write_ledger(cut_short(), tmp_path / name)
    assert list(tmp_path.iterdir()) == []
