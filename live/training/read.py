"""A file of rows, read one by one in bounded memory: JSON list, JSON lines, CSV or Parquet.

What a file is, its content tells, not its name. A row that cannot be read is counted with the place
it was first met at, and left out; a file that breaks off in the middle is read up to there.
"""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from live.training.table import PARQUET, ReadLimits, Seen, kind_of_file
from live.training.text_rows import TOO_LONG, Row, text_rows
from shared.errors import InputError

BATCH_ROWS = 256
"""Rows of a Parquet file at once: each may be as long as a row is allowed to be."""
MOST_THRIFT_BYTES = 64 << 20
MOST_THRIFT_ITEMS = 1 << 20
"""Bounds of the description that a Parquet file gives of itself."""
NOT_UTF8 = "not UTF-8"


class Table:
    """Rows of a file, to be gone through once. kind: json, jsonl, csv or parquet."""

    def __init__(self, path: Path, kind: str, limits: ReadLimits, wanted: Collection[str]) -> None:
        self.path, self.kind, self.seen = path, kind, Seen(limits)
        self._wanted = wanted

    def __iter__(self) -> Iterator[Row]:
        """Each row with its number, from 1. Raises InputError when the file cannot be read."""
        seen = self.seen
        try:
            for number, row in self._rows():
                if seen.rows >= seen.limits.most_rows:
                    seen.cut = f"only the first {seen.limits.most_rows} rows are used"
                    return
                seen.rows += 1
                seen.note(row)
                yield number, row
        except OSError as why:
            raise InputError(f"{self.path}: cannot be read: {_line(why)}") from None

    def _rows(self) -> Iterator[Row]:
        return _rows_in(self.path, self.kind, self.seen, self._wanted)


class Shards(Table):
    """A table in several files, read as one; rows are numbered on from file to file."""

    def __init__(
        self, paths: Sequence[Path], kind: str, limits: ReadLimits, wanted: Collection[str]
    ) -> None:
        super().__init__(paths[0], kind, limits, wanted)
        self._paths = paths

    def _rows(self) -> Iterator[Row]:
        before = 0
        for path in self._paths:
            kind = kind_of_file(path, self.seen.limits)
            if kind != self.kind:
                raise InputError(f"{path.name}: found {kind}, allowed is {self.kind} as before it")
            number = 0
            for number, row in _rows_in(path, kind, self.seen, self._wanted):
                yield before + number, row
            before += number


def read(path: Path, limits: ReadLimits, wanted: Collection[str] = ()) -> Table:
    """A file's rows. wanted: columns of a Parquet file that are read; none means all.

    Raises InputError of one line when the file is none of those allowed.
    """
    return Table(path, kind_of_file(path, limits), limits, wanted)


def read_shards(folder: Path, limits: ReadLimits, wanted: Collection[str] = ()) -> Table:
    """The rows of all files in a folder, by their names' order. Otherwise as ``read``."""
    paths = sorted(each for each in folder.iterdir() if each.is_file())
    if not paths:
        raise InputError(f"{folder}: found no file, allowed are one or more")
    return Shards(paths, kind_of_file(paths[0], limits), limits, wanted)


def _rows_in(path: Path, kind: str, seen: Seen, wanted: Collection[str]) -> Iterator[Row]:
    if kind == PARQUET:
        return _parquet_rows(path, seen, wanted)
    return text_rows(path, kind, seen)


def _line(why: Exception) -> str:
    return " ".join(str(why).split())[:200]


def _parquet_rows(path: Path, seen: Seen, wanted: Collection[str]) -> Iterator[Row]:
    try:
        with pq.ParquetFile(
            path,
            thrift_string_size_limit=MOST_THRIFT_BYTES,
            thrift_container_size_limit=MOST_THRIFT_ITEMS,
        ) as file:
            yield from _batches(file, path, seen, wanted)
    except (pa.ArrowException, OSError) as why:
        raise InputError(f"{path}: found no readable Parquet: {_line(why)}") from None


def _batches(
    file: pq.ParquetFile, path: Path, seen: Seen, wanted: Collection[str]
) -> Iterator[Row]:
    names = list(dict.fromkeys(file.schema_arrow.names))
    seen.note(dict.fromkeys(names))
    chosen = [name for name in names if name in wanted] or names
    _fits(file, path, seen.limits, chosen)
    number, total = 0, 0
    for batch in file.iter_batches(BATCH_ROWS, columns=chosen, use_threads=False):
        total += batch.nbytes
        if total > seen.limits.most_bytes:
            seen.cut = f"only the first {seen.limits.most_bytes} bytes are used"
            return
        for row in _rows_of(batch):
            number += 1
            if isinstance(row, str):
                seen.faults.add(row, number)
            elif _chars(row) > seen.limits.row_bytes:
                seen.faults.add(TOO_LONG, number)
            else:
                yield number, row
        if seen.hopeless():
            return


def _fits(file: pq.ParquetFile, path: Path, limits: ReadLimits, chosen: list[str]) -> None:
    """Refuse what says itself that a piece of it, decompressed, is too large to hold."""
    for group in range(file.metadata.num_row_groups):
        about = file.metadata.row_group(group)
        pieces = (about.column(at) for at in range(about.num_columns))
        size = sum(
            piece.total_uncompressed_size
            for piece in pieces
            if piece.path_in_schema.split(".", 1)[0] in chosen
        )
        if size > limits.most_bytes:
            raise InputError(
                f"{path}: found a row group of {size} bytes, allowed are {limits.most_bytes}"
            )


def _rows_of(batch: pa.RecordBatch) -> Iterator[dict[str, Any] | str]:
    """Rows of a batch; of one whose text is not UTF-8, or that Python has no value for, why."""
    try:
        yield from batch.to_pylist()
        return
    except (ValueError, OverflowError, pa.ArrowException):
        pass
    for at in range(batch.num_rows):
        try:
            yield batch.slice(at, 1).to_pylist()[0]
        except UnicodeDecodeError:
            yield NOT_UTF8
        except (ValueError, OverflowError, pa.ArrowException):
            yield "no readable value"


def _chars(row: dict[str, Any]) -> int:
    return sum(len(value) for value in row.values() if isinstance(value, (str, bytes)))
