"""Ledgers on disk: one SQLite file, or the same lines as JSON lines."""

import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path

from shared.errors import InputError
from shared.ledger import LedgerEntry, entry_line
from shared.ledger_wire import parse_ledger_line
from sim.files import written_whole

_TABLE = "CREATE TABLE ledger(seq INTEGER PRIMARY KEY, at_ms INTEGER NOT NULL, line TEXT NOT NULL)"
_SQLITE_MAGIC = b"SQLite format 3\x00"
LONGEST_LINE = 1 << 20
"""Bytes of a ledger line; far over any real one."""


def write_ledger(entries: Iterable[LedgerEntry], path: Path) -> None:
    """Write a ledger whole: JSON lines where the name ends in .jsonl, else SQLite."""
    lines = ((entry.seq, entry.at_ms, entry_line(entry)) for entry in entries)
    with written_whole(path) as aside:
        if path.suffix == ".jsonl":
            with aside.open("w", encoding="utf-8", newline="\n") as file:
                file.writelines(f"{line}\n" for _, _, line in lines)
            return
        connection = sqlite3.connect(aside)
        try:
            connection.execute(_TABLE)
            connection.executemany("INSERT INTO ledger VALUES (?, ?, ?)", lines)
            connection.commit()
        except sqlite3.OperationalError as why:  # a full disk
            raise InputError(f"{path}: cannot be written: {why}") from None
        finally:
            connection.close()


def read_ledger(path: Path) -> Iterator[LedgerEntry]:
    """Read a ledger of either form, in the order of its seq.

    Raises InputError naming the line and the key when one cannot be read.
    """
    for where, line in _lines(path):
        try:
            yield parse_ledger_line(line)
        except InputError as wrong:
            raise InputError(f"{path}:{where}: {wrong}") from None


def _lines(path: Path) -> Iterator[tuple[int, str | bytes]]:
    try:
        with path.open("rb") as file:
            magic = file.read(len(_SQLITE_MAGIC))
    except OSError as why:
        raise InputError(f"{path}: cannot be read: {(why.strerror or str(why)).lower()}") from None
    yield from _sqlite_lines(path) if magic == _SQLITE_MAGIC else _text_lines(path)


def _text_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    with path.open("rb") as file:
        number = 0
        while line := file.readline(LONGEST_LINE + 1):
            number += 1
            if len(line) > LONGEST_LINE:
                raise InputError(
                    f"{path}:{number}: found a line of over {LONGEST_LINE} bytes, "
                    f"allowed is {LONGEST_LINE}"
                )
            yield number, line.rstrip(b"\r\n")


def _sqlite_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines of a SQLite ledger, read while a daemon may be writing to it."""
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    try:
        for seq, at_ms, line in connection.execute(
            "SELECT seq, at_ms, line FROM ledger ORDER BY seq"
        ):
            begins = f'{{"seq":{seq},"at_ms":{at_ms},'
            if not isinstance(line, str) or not line.startswith(begins):
                raise InputError(f"{path}:{seq}: line: its seq and at_ms are not the row's")
            yield seq, line
    except sqlite3.DatabaseError as why:
        raise InputError(f"{path}: found no ledger, {why}") from None
    finally:
        connection.close()
