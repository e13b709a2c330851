"""What is taken out of a ledger, while a daemon may be writing to it.

A copy, its lines, its offers, and what its jobs' trainings came to.
"""

import json
import os
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import apsw

from live.ledger_store import read_only
from shared.errors import InputError
from shared.inputs import OfferArrived
from shared.ledger import LedgerEntry, dumps
from shared.ledger_wire import parse_ledger_line
from shared.wire import MIN_REPEAT_MS

_LINES = "SELECT seq, line FROM ledger ORDER BY seq"
_TRAINING = "SELECT seq, task_id, payload FROM training ORDER BY seq"


def backup(ledger: Path, out: Path) -> None:
    """Write a consistent copy of a ledger's file, with all its tables, as one plain file.

    Raises InputError when the ledger cannot be read, ``out`` is the ledger or cannot be written.
    """
    with (
        closing(read_only(ledger)) as source,
        _whole(ledger, out) as aside,
        closing(apsw.Connection(str(aside))) as copy,
    ):
        with copy.backup("main", source, "main") as copying:
            copying.step()
        copy.pragma("journal_mode", "delete")


def export(ledger: Path, out: Path) -> int:
    """Write a ledger's lines as JSON lines; returns how many.

    Raises InputError as ``backup`` does.
    """
    with closing(read_only(ledger)) as source, _whole(ledger, out) as aside:
        return _written(aside, (line for _, line in _rows(ledger, source)))


def export_offers(ledger: Path, out: Path) -> int:
    """Write an offers file (JSON lines) of a ledger's offers; returns how many.

    Repeats are dropped, and what an offers file would call one: a task offered again within a
    minute. Raises InputError as ``backup`` does, and when a line cannot be read.
    """
    if out.suffix != ".jsonl":
        raise InputError(f"{out}: found another ending, allowed is .jsonl")
    with closing(read_only(ledger)) as source, _whole(ledger, out) as aside:
        return _written(aside, map(dumps, _offers(_entries(ledger, source))))


def export_training(ledger: Path, out: Path) -> int:
    """Write what each job's training came to as JSON lines of seq, task_id and training.

    Returns how many. Raises InputError as ``backup`` does, and when the ledger is of a release that
    kept none, or a record is no JSON.
    """
    with closing(read_only(ledger)) as source, _whole(ledger, out) as aside:
        return _written(aside, map(dumps, _trainings(ledger, source)))


def _trainings(ledger: Path, source: apsw.Connection) -> Iterator[dict[str, Any]]:
    try:
        for seq, task_id, payload in source.execute(_TRAINING):
            yield {"seq": seq, "task_id": task_id, "training": json.loads(payload)}
    except apsw.Error as why:
        raise InputError(f"{ledger}: found no training records: {why}") from None
    except ValueError:
        raise InputError(f"{ledger}: training: found a row that is no JSON") from None


def _rows(ledger: Path, source: apsw.Connection) -> Iterator[tuple[int, str]]:
    try:
        for seq, line in source.execute(_LINES):
            if not isinstance(line, str):
                raise InputError(f"{ledger}:{seq}: line: found no text, allowed is JSON")
            yield seq, line
    except apsw.Error as why:
        raise InputError(f"{ledger}: cannot be read: {why}") from None


def _entries(ledger: Path, source: apsw.Connection) -> Iterator[LedgerEntry]:
    for seq, line in _rows(ledger, source):
        try:
            yield parse_ledger_line(line)
        except InputError as wrong:
            raise InputError(f"{ledger}:{seq}: {wrong}") from None


def _offers(entries: Iterable[LedgerEntry]) -> Iterator[dict[str, Any]]:
    written: dict[str, int] = {}
    for entry in entries:
        if not isinstance(entry.entry, OfferArrived) or entry.decisions[0]["repeat"]:
            continue
        offer, last = entry.entry.offer, written.get(entry.entry.offer.task_id)
        if last is not None and entry.at_ms - last <= MIN_REPEAT_MS:
            continue
        written[offer.task_id] = entry.at_ms
        yield {
            "received_at": entry.at_ms,
            "task_id": offer.task_id,
            "model": offer.model,
            "task_type": offer.task_type,
            "hours_to_complete": offer.hours_to_complete,
            "ds_size": offer.ds_size,
            "model_params_count": offer.model_params_count,
        }


def _written(path: Path, lines: Iterable[str]) -> int:
    count = 0
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for count, line in enumerate(lines, start=1):  # noqa: B007
            file.write(f"{line}\n")
        file.flush()
        os.fsync(file.fileno())
    return count


@contextmanager
def _whole(ledger: Path, out: Path) -> Iterator[Path]:
    """A file beside ``out`` that takes its name when all went well; else nothing is left."""
    if out.resolve() in {ledger.with_name(f"{ledger.name}{end}").resolve() for end in _ENDS}:
        raise InputError(f"{out}: is the ledger itself, allowed is a file of its own")
    try:
        handle, name = tempfile.mkstemp(prefix=f".{out.name}.", dir=out.parent)
    except OSError as why:
        raise _unwritable(out, why.strerror) from None
    os.close(handle)
    aside = Path(name)
    try:
        yield aside
        aside.replace(out)
    except OSError as why:
        raise _unwritable(out, why.strerror) from None
    except apsw.Error as why:
        raise _unwritable(out, str(why)) from None
    finally:
        aside.unlink(missing_ok=True)


_ENDS = ("", "-wal", "-shm", ".lock")


def _unwritable(path: Path, why: str | None) -> InputError:
    return InputError(f"{path}: cannot be written: {(why or 'unknown').lower()}")
