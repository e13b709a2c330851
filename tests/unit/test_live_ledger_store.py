"""The ledger's file: its schema, its lock, what others see of it, what is taken out of it."""

import json
import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import apsw
import pytest

from live import faults
from live.ledger_store import LedgerConflict, LedgerStore
from live.migrations import MIGRATIONS, VERSION
from live.rows import ForgetNonces, JobFolder, Nonce, StartPayload, Submission, Training
from live.transfer import backup, export, export_offers, export_training
from shared.decisions import Policy
from shared.errors import InputError
from shared.inputs import JobEnded, OfferArrived, OperatorAsked, PolicyPut, StartRequested
from shared.ledger import Recorder, entry_line
from shared.offers import Offer
from shared.presets import ACCURACY_4
from sim.ledger_file import read_ledger, write_ledger
from sim.offers_file import read_offers
from sim.verify import verify

ROOT = Path(__file__).parents[2]
START = 1_700_000_000_000
MINUTE = 60_000


def offer(task_id):
    return OfferArrived(Offer(task_id, "meta-llama/Llama-3.1-8B", "ChatTask", 10.0, 5), "v")


def entries():
    recorder = Recorder(PolicyPut(Policy(ACCURACY_4, repeat_window_ms=10)), START)
    inputs = [
        (START, offer("a")),
        (START + 5, offer("a")),  # a repeat
        (START + 7, OperatorAsked("drain")),
        (START + 8, offer("é")),
        (START + 30, offer("é")),  # decided anew, though within a minute
        (START + 9 + MINUTE, offer("é")),
    ]
    return [recorder.opening, *(recorder.handle(entry, at_ms)[0] for at_ms, entry in inputs)]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ledger.db"


@pytest.fixture
def store(path):
    store = LedgerStore(path)
    yield store
    store.close()


def sqlite(path, *statements):
    with closing(sqlite3.connect(path)) as connection:
        found = [connection.execute(statement).fetchall() for statement in statements]
        connection.commit()
    return found[-1]


def test_what_is_appended_is_there_for_everybody_at_once(store, path):
    store.append(entries()[:3])
    assert list(read_ledger(path)) == entries()[:3], "read while the daemon has it open"
    store.append(entries()[3:])
    assert verify(read_ledger(path)).entries == 7
    rows = [(entry.seq, entry.at_ms, entry_line(entry)) for entry in entries()]
    assert list(store.lines()) == rows == sqlite(path, "SELECT * FROM ledger")


def test_it_is_synced_before_it_counts(store, path):
    assert store._writer.pragma("synchronous") == 2
    assert sqlite(path, "PRAGMA journal_mode") == [("wal",)]


def test_an_entry_that_is_there_already_is_a_conflict_and_changes_nothing(store):
    store.append(entries()[:2])
    with pytest.raises(LedgerConflict, match="entry 2 is already there"):
        store.append(entries()[1:3], [Submission("a", "x")])
    assert len(list(store.lines())) == 2
    assert store.submission("a") is None
    store.append(entries()[2:3])


def test_rows_beside_the_ledger(store, path):
    store.append(
        [], [Nonce("k", "1", 5), Nonce("k", "1", 9), Nonce("k", "2", 7), Nonce("l", "1", 6)]
    )
    assert sorted(store.nonces(), key=str) == [
        Nonce("k", "1", 5),
        Nonce("k", "2", 7),
        Nonce("l", "1", 6),
    ]
    store.append([], [ForgetNonces(6)])
    assert len(list(store.nonces())) == 2
    store.append(
        [], [StartPayload("a", "one", 3), StartPayload("a", "two", 9), Submission("a", "x")]
    )
    store.append([], [JobFolder(3, "a", "00000003"), JobFolder(9, "a", "00000009")])
    assert store.start_payload("a") == "two"
    assert store.submission("a") == "x"
    assert store.job_folder("a") == JobFolder(9, "a", "00000009")
    for ask in (store.start_payload, store.submission, store.job_folder):
        assert ask("b") is None
    store.close()
    again = LedgerStore(path)
    assert again.start_payload("a") == "two"
    again.close()


# Schema.


@pytest.mark.parametrize("empty", [False, True])
def test_an_older_file_is_brought_up_to_date(path, empty):
    write_ledger(entries()[: 0 if empty else 4], path)
    assert sqlite(path, "PRAGMA user_version") == [(0,)]
    store = LedgerStore(path)
    store.append(entries()[0 if empty else 4 :], [Submission("a", "x")])
    store.close()
    assert sqlite(path, "PRAGMA user_version") == [(VERSION,)]
    assert list(read_ledger(path)) == entries()
    names = {name for (name,) in sqlite(path, "SELECT name FROM sqlite_schema WHERE type='table'")}
    assert names == {"ledger", "nonces", "starts", "submissions", "jobs", "training"}


def test_a_file_of_the_first_release_keeps_all_that_it_has(path):
    write_ledger(entries()[:4], path)
    sqlite(
        path,
        *MIGRATIONS[0],
        "PRAGMA user_version = 1",
        "INSERT INTO starts VALUES (3, 'a', 'brought')",
        "INSERT INTO submissions VALUES ('a', 'x/y')",
        "INSERT INTO jobs VALUES (3, 'a', '00000003')",
        "INSERT INTO nonces VALUES ('k', '1', 5)",
    )
    with pytest.raises(InputError, match="found no training records"):
        export_training(path, path.with_name("t.jsonl"))
    store = LedgerStore(path)
    assert sqlite(path, "PRAGMA user_version") == [(VERSION,)]
    assert (store.start_payload("a"), store.submission("a")) == ("brought", "x/y")
    assert store.job_folder("a") == JobFolder(3, "a", "00000003")
    assert [*store.nonces()] == [Nonce("k", "1", 5)]
    store.append(entries()[4:])
    store.close()
    assert verify(read_ledger(path)).difference is None
    assert verify(read_ledger(path)).entries == 7
    assert export_training(path, path.with_name("t.jsonl")) == 0


# What a training came to.


def ended(*phases):
    """A ledger of one job, to its end: opening, offer, start, then its phases."""
    recorder = Recorder(PolicyPut(Policy(ACCURACY_4)), START)
    inputs = [offer("a"), StartRequested("a", "v"), *(JobEnded("a", phase=each) for each in phases)]
    told = [recorder.handle(entry, START + 1 + at)[0] for at, entry in enumerate(inputs)]
    return [recorder.opening, *told]


def trainings(path):
    return sqlite(path, "SELECT * FROM training ORDER BY seq")


def test_a_training_is_kept_by_the_entry_that_its_job_is_gone(store, path):
    entries = ended("stopping", "gone")
    store.append(entries[:3])
    store.append(entries[3:], [Training("a", "{}"), Submission("a", "x")])
    assert trainings(path) == [(5, "a", "{}")]
    assert entries[4].seq == 5
    assert list(read_ledger(path)) == entries
    assert verify(read_ledger(path)).difference is None


def test_a_training_whose_job_did_not_end_is_left_out(store, path):
    entries = ended("stopping", "gone")
    store.append(entries[:4], [Training("a", "early")])
    store.append(entries[4:], [Training("b", "another's"), Training("a", "1"), Training("a", "2")])
    assert trainings(path) == [(5, "a", "1")], "an end that is told twice is one end"
    assert len(list(store.lines())) == 5


def test_trainings_are_taken_out(store, path, tmp_path):
    store.append(ended("gone"), [Training("a", '{"model": "m é", "steps": 3}')])
    out = tmp_path / "training.jsonl"
    assert export_training(path, out) == 1
    line = {"seq": 4, "task_id": "a", "training": {"model": "m é", "steps": 3}}
    assert [json.loads(text) for text in out.read_text("utf-8").splitlines()] == [line]
    backup(path, tmp_path / "copy.db")
    assert trainings(tmp_path / "copy.db") == trainings(path)
    sqlite(path, "UPDATE training SET payload = '{'")
    with pytest.raises(InputError, match=r"ledger\.db: training: found a row that is no JSON"):
        export_training(path, out)
    assert len(out.read_text().splitlines()) == 1


def test_a_migration_that_fails_leaves_the_file_as_it_was(path, monkeypatch):
    write_ledger(entries(), path)
    broken = ("CREATE TABLE nonces(a)", "no sql at all")
    monkeypatch.setattr("live.migrations.MIGRATIONS", (broken,))
    with pytest.raises(InputError, match="cannot be opened: "):
        LedgerStore(path)
    assert sqlite(path, "SELECT name FROM sqlite_schema") == [("ledger",)]
    assert sqlite(path, "PRAGMA user_version") == [(0,)]


def test_a_newer_file_is_refused(path):
    LedgerStore(path).close()
    sqlite(path, f"PRAGMA user_version = {VERSION + 1}")
    with pytest.raises(
        InputError, match=rf"ledger\.db: found a ledger of schema version {VERSION + 1}"
    ):
        LedgerStore(path)


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("CREATE TABLE other(a)", "found no ledger, allowed is a file with the table ledger"),
        ("CREATE TABLE ledger(a)", "found no ledger, allowed is a file with the table ledger"),
    ],
)
def test_another_database_is_refused_and_left_alone(path, statement, message):
    sqlite(path, statement)
    before = path.read_bytes()
    with pytest.raises(InputError, match=message):
        LedgerStore(path)
    assert path.read_bytes() == before


@pytest.mark.parametrize("content", [b"hello\n" * 400, b"SQLite format 3\x00" + b"\xff" * 2000])
def test_a_file_that_is_no_ledger_is_refused_and_left_alone(path, content):
    path.write_bytes(content)
    with pytest.raises(InputError) as wrong:
        LedgerStore(path)
    assert str(wrong.value).startswith(f"{path}: found no ledger, ")
    assert "\n" not in str(wrong.value)
    assert path.read_bytes() == content


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match=r"x\.db\.lock: cannot be written: No such file"):
        LedgerStore(tmp_path / "none" / "x.db")
    with pytest.raises(InputError, match="cannot be opened"):
        LedgerStore(tmp_path)


# One daemon a folder.


def test_a_second_daemon_is_refused(store, path):
    with pytest.raises(
        InputError, match="found another daemon on it, allowed is one a data folder"
    ):
        LedgerStore(path)
    store.close()
    store.close()
    LedgerStore(path).close()


def test_a_killed_daemon_leaves_no_lock(path):
    code = (
        "from live.ledger_store import *; import sys\n"
        "s = LedgerStore(Path(sys.argv[1])); print(1, flush=True); sys.stdin.read()"
    )
    call = [sys.executable, "-c", code, str(path)]
    with subprocess.Popen(call, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT) as other:
        assert other.stdout.readline() == b"1\n"
        with pytest.raises(InputError, match="another daemon"):
            LedgerStore(path)
        other.kill()
    LedgerStore(path).close()


# Taken out.


def test_a_backup_of_a_running_ledger_is_a_ledger(store, path, tmp_path):
    store.append(entries(), [Submission("a", "x")])
    out = tmp_path / "copy.db"
    backup(path, out)
    backup(path, out)
    assert {file.name for file in tmp_path.iterdir() if "copy" in file.name} == {"copy.db"}
    assert verify(read_ledger(out)).entries == 7
    copy = LedgerStore(out)
    assert copy.submission("a") == "x"
    copy.close()


def test_the_lines_are_what_the_simulator_writes(store, path, tmp_path):
    store.append(entries())
    assert export(path, tmp_path / "out.jsonl") == 7
    write_ledger(entries(), tmp_path / "theirs.jsonl")
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "theirs.jsonl").read_bytes()


def test_the_offers_are_an_offers_file_without_repeats(store, path, tmp_path):
    store.append(entries())
    out = tmp_path / "offers.jsonl"
    assert export_offers(path, out) == 3
    stream = read_offers(out)
    assert stream.task_id.to_pylist() == ["a", "é", "é"]
    assert stream.at_ms.tolist() == [START, START + 8, START + 9 + MINUTE]
    assert stream.offer(0) == offer("a").offer


@pytest.mark.parametrize("take", [backup, export, export_offers, export_training])
def test_what_cannot_be_taken_out(store, path, tmp_path, take):
    store.append(entries())
    before = sorted(file.name for file in tmp_path.iterdir())
    other = tmp_path / "other.jsonl"
    for wrong, out, message in (
        (tmp_path / "none", other, "cannot be read: no such file"),
        (path, tmp_path / "no" / "o.jsonl", "cannot be written: no such file"),
    ):
        with pytest.raises(InputError, match=message):
            take(wrong, out)
    if take is not export_offers:
        with pytest.raises(InputError, match="is the ledger itself"):
            take(path, path)
        with pytest.raises(InputError, match="is the ledger itself"):
            take(path, tmp_path / "ledger.db-wal")
    else:
        with pytest.raises(InputError, match=r"found another ending, allowed is \.jsonl"):
            take(path, tmp_path / "offers.csv")
    (tmp_path / "text").write_text("no ledger")
    with pytest.raises(InputError, match="text: found no ledger"):
        take(tmp_path / "text", other)
    (tmp_path / "text").unlink()
    assert sorted(file.name for file in tmp_path.iterdir()) == before


def test_a_line_that_cannot_be_read_is_named(store, path, tmp_path):
    store.append(entries())
    sqlite(path, "UPDATE ledger SET line = '{}' WHERE seq = 3")
    with pytest.raises(InputError, match=r"ledger\.db:3: \w+: "):
        export_offers(path, tmp_path / "o.jsonl")
    assert not (tmp_path / "o.jsonl").exists()
    sqlite(path, "UPDATE ledger SET line = x'00' WHERE seq = 3")
    with pytest.raises(InputError, match=r"ledger\.db:3: line: found no text"):
        export(path, tmp_path / "o.jsonl")


# The points a test may stop a process at.


@pytest.mark.parametrize(
    "point", ["before_insert", "after_insert", "before_commit", "after_commit"]
)
def test_a_kill_at_every_point_of_a_commit(path, point, tmp_path):
    write_ledger(entries(), tmp_path / "all.jsonl")
    code = """
from pathlib import Path
import sys
from live.ledger_store import LedgerStore
from sim.ledger_file import read_ledger
store = LedgerStore(Path(sys.argv[1]))
for entry in read_ledger(Path(sys.argv[2])):
    store.append([entry])
    print(entry.seq, flush=True)
"""
    call = [sys.executable, "-c", code, str(path), str(tmp_path / "all.jsonl")]
    env = os.environ | {faults.VARIABLE: f"{point}:3"}
    done = subprocess.run(call, env=env, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL
    assert done.stdout.split() == ["1", "2"]
    store = LedgerStore(path)
    assert [line[0] for line in store.lines()] == ([1, 2, 3] if point == "after_commit" else [1, 2])
    store.close()


@pytest.mark.parametrize("text", ["nowhere:1", "before_insert", "before_insert:0", "spawn:x", ":"])
def test_a_point_that_is_none(text):
    with pytest.raises(InputError, match=r"FOUR_SLOT_FAULT: found .* allowed is POINT:COUNT"):
        faults.arm(text)


def test_unarmed_nothing_happens(monkeypatch):
    killed = []
    monkeypatch.setattr(os, "kill", lambda pid, sent: killed.append((pid, sent)))
    faults.reached("before_commit")
    faults.arm("before_commit:2")
    faults.reached("after_commit")
    faults.reached("before_commit")
    assert killed == []
    faults.reached("before_commit")
    assert killed == [(os.getpid(), signal.SIGKILL)]
    faults.arm(None)
    faults.reached("before_commit")
    assert len(killed) == 1


def test_sqlite_is_current():
    """Earlier ones could reset a log that another process still read."""
    assert tuple(map(int, apsw.sqlite_lib_version().split("."))) >= (3, 51, 3)
