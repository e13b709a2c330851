"""The ledger on disk: one SQLite file, one writer, durable when ``append`` returns.

WAL with synchronous FULL: a commit is in the log and the log is synced before it counts. Others
may read the file meanwhile; a lock beside it keeps a second daemon out.
"""

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import apsw

from live import faults
from live.migrations import migrate
from live.passing import PassingError
from live.rows import ForgetNonces, JobFolder, Nonce, Row, StartPayload, Submission, Training
from shared.errors import FourSlotError, InputError
from shared.inputs import JobEnded
from shared.ledger import LedgerEntry, entry_line

_BUSY_MS = 5_000
_UNDO_BUSY_MS = 200
"""Whoever offers waits meanwhile, and not for long."""
_LOG_BYTES = 64 << 20
"""The write-ahead log is cut back to this after a reader held it open."""
Line = tuple[int, int, str]
"""seq, at_ms and the line itself."""


PASSING = (
    apsw.FullError, apsw.IOError, apsw.BusyError, apsw.LockedError, apsw.NoMemError,
)  # fmt: skip
"""A disk that is full or fails now, a file that somebody else holds."""


class StorageError(PassingError):
    """The ledger cannot be written; nothing of what was to be written has happened."""


class LedgerConflict(FourSlotError):
    """Something else wrote to the ledger: the file and this process disagree."""


class LedgerStore:
    """The ledger's file, held by one daemon."""

    def __init__(self, path: Path, *, vfs: str | None = None) -> None:
        """Open or create the file, take its lock, bring its schema up to date.

        vfs: the SQLite VFS to go through, for tests. Raises InputError when the file is no ledger,
        is of a newer release, cannot be opened or written, or when another daemon holds it.
        """
        self.path = path
        self._lock = _locked(path)
        try:
            self._writer = _opened(path, vfs)
            self._reader = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY, vfs=vfs)
            self._reader.set_busy_timeout(_BUSY_MS)
            _sync_folder(path)
        except BaseException:
            self._lock.close()
            raise

    def close(self) -> None:
        """Let go of the file and of its lock. Closing twice is closing once."""
        with suppress(apsw.Error):  # what is durable already stays so
            self._reader.close()
        with suppress(apsw.Error):
            self._writer.close()
        self._lock.close()

    # Writing.

    def append(self, entries: Sequence[LedgerEntry], rows: Sequence[Row] = ()) -> None:
        """Write entries and rows in one transaction; they are durable when this returns.

        A Training row without a seq gets that of its job's ``gone`` among the entries; where there
        is none the job did not end, and the row is left out.

        Raises StorageError when they cannot be written, LedgerConflict when the file already has
        an entry of that seq; then none of them is.
        """
        lines = [(entry.seq, entry.at_ms, entry_line(entry)) for entry in entries]
        try:
            self._write(lines, [*_numbered(rows, entries)])
        except apsw.ConstraintError:
            self._undo()
            raise LedgerConflict(
                f"{self.path}: entry {lines[0][0]} is already there, something else wrote to it"
            ) from None
        except apsw.Error as why:
            self._undo()
            if not self._has(lines):
                raise StorageError(f"{self.path}: cannot be written: {_words(why)}") from None

    def _write(self, lines: Sequence[Line], rows: Sequence[Row]) -> None:
        execute = self._writer.execute
        execute("BEGIN IMMEDIATE")
        faults.reached("before_insert")
        self._writer.executemany("INSERT INTO ledger VALUES (?, ?, ?)", lines)
        for row in rows:
            execute(*_statement(row))
        faults.reached("after_insert")
        faults.reached("before_commit")
        execute("COMMIT")
        faults.reached("after_commit")

    def _undo(self) -> None:
        """Leave nothing of a failed transaction, not in the log either.

        A commit that was written whole but not synced would come back after a crash.
        """
        with suppress(apsw.Error):
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
        self._writer.set_busy_timeout(_UNDO_BUSY_MS)
        with suppress(apsw.Error):
            self._writer.wal_checkpoint(mode=apsw.SQLITE_CHECKPOINT_TRUNCATE)
        self._writer.set_busy_timeout(_BUSY_MS)

    def _has(self, lines: Sequence[Line]) -> bool:
        """Whether the lines are there all the same: the error came after the commit."""
        if not lines:
            return False
        try:
            sql = "SELECT line FROM ledger WHERE seq = ?"
            return [*self._writer.execute(sql, (lines[-1][0],))] == [(lines[-1][2],)]
        except apsw.Error:
            return False

    # Reading.

    def lines(self) -> Iterator[Line]:
        """The ledger, in the order of its seq."""
        yield from self._reader.execute("SELECT seq, at_ms, line FROM ledger ORDER BY seq")

    def nonces(self) -> Iterator[Nonce]:
        """Every nonce that is still remembered."""
        for row in self._reader.execute("SELECT hotkey, nonce, expires_ms FROM nonces"):
            yield Nonce(*row)

    def start_payload(self, task_id: str) -> str | None:
        """What the task's latest start request that took effect brought, or None."""
        sql = "SELECT payload FROM starts WHERE task_id = ? ORDER BY seq DESC LIMIT 1"
        return self._value(sql, task_id)

    def submission(self, task_id: str) -> str | None:
        """What is answered when the task's trained model is asked for, or None."""
        return self._value("SELECT value FROM submissions WHERE task_id = ?", task_id)

    def job_folder(self, task_id: str) -> JobFolder | None:
        """The folder of the task's latest job, or None."""
        sql = "SELECT seq, task_id, dir FROM jobs WHERE task_id = ? ORDER BY seq DESC LIMIT 1"
        found: list[Any] = self._reader.execute(sql, (task_id,)).fetchall()
        return JobFolder(*found[0]) if found else None

    def _value(self, sql: str, task_id: str) -> str | None:
        found: list[Any] = self._reader.execute(sql, (task_id,)).fetchall()
        return found[0][0] if found else None


def read_only(path: Path) -> apsw.Connection:
    """A ledger's file open for reading, beside a running daemon too. Raises InputError."""
    if not path.is_file():
        raise InputError(f"{path}: cannot be read: no such file")
    try:
        connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
        connection.set_busy_timeout(_BUSY_MS)
        connection.execute("SELECT seq, at_ms, line FROM ledger LIMIT 0")
    except apsw.Error as why:
        raise InputError(f"{path}: found no ledger, {_words(why)}") from None
    return connection


def _opened(path: Path, vfs: str | None) -> apsw.Connection:
    try:
        connection = apsw.Connection(str(path), vfs=vfs)
        connection.set_busy_timeout(_BUSY_MS)
        ready = _ready(connection)
    except InputError as wrong:
        raise InputError(f"{path}: {wrong}") from None
    except apsw.NotADBError as why:
        raise InputError(f"{path}: found no ledger, {_words(why)}") from None
    except PASSING as why:
        raise PassingError(f"{path}: cannot be opened now: {_words(why)}") from None
    except apsw.Error as why:
        raise InputError(f"{path}: cannot be opened: {_words(why)}") from None
    return ready


def _ready(connection: apsw.Connection) -> apsw.Connection:
    migrate(connection)
    mode = connection.pragma("journal_mode", "wal")
    if mode != "wal":
        raise InputError(f"found journal mode {mode}, allowed is wal: is it a local disk?")
    connection.pragma("synchronous", "full")
    connection.pragma("journal_size_limit", _LOG_BYTES)
    return connection


def _locked(path: Path) -> Any:
    """The lock file, locked for as long as it is open. Raises InputError."""
    beside = path.with_name(f"{path.name}.lock")
    try:
        lock = beside.open("ab")
    except OSError as why:
        raise InputError(f"{beside}: cannot be written: {why.strerror}") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        lock.close()
        raise InputError(
            f"{path}: found another daemon on it, allowed is one a data folder"
        ) from None
    return lock


def _sync_folder(path: Path) -> None:
    """A new file's name is durable only when its folder is synced."""
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _numbered(rows: Sequence[Row], entries: Sequence[LedgerEntry]) -> Iterator[Row]:
    """The rows, those of a training with the seq of the entry that its job is gone."""
    gone = {
        entry.entry.task_id: entry.seq
        for entry in entries
        if isinstance(entry.entry, JobEnded) and entry.entry.phase == "gone"
    }
    for row in rows:
        if not isinstance(row, Training) or row.seq:
            yield row
        elif row.task_id in gone:
            yield replace(row, seq=gone[row.task_id])


def _statement(row: Row) -> tuple[str, tuple[Any, ...]]:
    match row:
        case Nonce():
            sql = "INSERT OR IGNORE INTO nonces VALUES (?, ?, ?)"
            return sql, (row.hotkey, row.nonce, row.expires_ms)
        case ForgetNonces():
            return "DELETE FROM nonces WHERE expires_ms < ?", (row.before_ms,)
        case StartPayload():
            return "INSERT INTO starts VALUES (?, ?, ?)", (row.seq, row.task_id, row.payload)
        case Submission():
            return "INSERT OR REPLACE INTO submissions VALUES (?, ?)", (row.task_id, row.value)
        case Training():
            sql = "INSERT OR IGNORE INTO training VALUES (?, ?, ?)"
            return sql, (row.seq, row.task_id, row.payload)
        case JobFolder():
            return "INSERT INTO jobs VALUES (?, ?, ?)", (row.seq, row.task_id, row.dir)


def _words(why: apsw.Error) -> str:
    """SQLite's own words, without its class in front."""
    return str(why).rsplit("Error: ", 1)[-1].splitlines()[0].lower()
