"""Offers from Parquet: the columns' types are checked, then their values, then rows explained."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from shared.errors import InputError
from shared.wire import ALLOWED, offer_of
from sim.offers_checks import OPTIONAL, TEXTS, Rows, check_names, checked, rows_of
from sim.offers_text import unreadable
from sim.stream import Ints

_SLICE_ROWS = 1 << 16
"""Rows looked at together when a file has a fault somewhere."""
_TICKS = {"ms": 1, "us": 1_000, "ns": 1_000_000}
"""Ticks in a millisecond of the units that Parquet knows."""


def read_parquet(path: Path) -> Iterator[Rows]:
    """The offers of the file. Raises InputError, row-exact (rows count from 1)."""
    table = _table(path)
    if table.num_rows == 0:
        return
    where = np.arange(1, table.num_rows + 1)
    rows = read_fast(table, where)
    if rows is not None:
        yield rows
        return
    for start in range(0, table.num_rows, _SLICE_ROWS):
        part = table.slice(start, _SLICE_ROWS)
        numbers = where[start : start + _SLICE_ROWS]
        yield read_fast(part, numbers) or read_exact(part, numbers, path)


def read_fast(table: pa.Table, where: Ints) -> Rows | None:
    """The rows by column, or None when one may be wrong."""
    try:
        table.validate(full=True)  # the UTF-8 of the strings, which nothing has looked at yet
    except pa.ArrowInvalid:
        return None
    return checked(table, where)


def read_exact(table: pa.Table, where: Ints, path: Path) -> Rows:
    """The rows one at a time. Raises InputError at the first that is wrong."""
    columns = [_values(table.column(name)) for name in table.column_names]
    offers = []
    for number, values in zip(where, zip(*columns, strict=True), strict=True):
        try:
            offers.append(offer_of(dict(zip(table.column_names, values, strict=True))))
        except InputError as wrong:
            raise InputError(f"{path}: row {number}: {wrong}") from None
    return rows_of(offers, where.tolist())


def _values(column: pa.ChunkedArray) -> list[Any]:
    """Python values; bytes that are not UTF-8 become lone surrogates, which pydantic refuses."""
    if not _is_text(column.type):
        return list(column.to_pylist())
    octets = column.cast(pa.string()).cast(pa.binary()).to_pylist()
    return [None if value is None else value.decode("utf-8", "surrogateescape") for value in octets]


def _table(path: Path) -> pa.Table:
    try:
        with path.open("rb"):  # its errors are plainer than arrow's
            pass
        with pq.ParquetFile(str(path)) as file:
            schema = file.schema_arrow
        _check_columns(schema, path)
        with pq.ParquetFile(str(path), read_dictionary=_labels(schema)) as file:
            table = file.read()
    except OSError as why:
        if why.errno is not None:
            raise unreadable(path, why) from None
        raise _no_parquet(path, why) from None
    except pa.ArrowException as why:
        raise _no_parquet(path, why) from None
    columns = [_plain(table.column(name)) for name in table.column_names]
    return pa.table(columns, names=table.column_names)


def _no_parquet(path: Path, why: Exception) -> InputError:
    reason = str(why).splitlines()[0] if str(why) else type(why).__name__
    return InputError(f"{path}: found no whole Parquet file ({reason}), allowed is one")


def _labels(schema: pa.Schema) -> list[str]:
    """The columns of few distinct strings, to be read as codes."""
    return [name for name in ("model", "task_type") if pa.types.is_string(schema.field(name).type)]


def _check_columns(schema: pa.Schema, path: Path) -> None:
    try:
        check_names(schema.names)
        for field in schema:
            _check_type(field)
    except InputError as wrong:
        raise InputError(f"{path}: {wrong}") from None


def _check_type(field: pa.Field) -> None:
    if not _takes(field.name, field.type):
        raise InputError(
            f"{field.name}: found a column of type {field.type}, allowed is {ALLOWED[field.name]}"
        )


def _takes(name: str, kind: pa.DataType) -> bool:
    """Whether a column of this type can hold what the key allows."""
    if name in TEXTS:
        return _is_text(kind)
    if name == "received_at":
        zoned = pa.types.is_timestamp(kind) and kind.tz is not None
        return zoned or pa.types.is_integer(kind) or _is_text(kind)
    number = pa.types.is_integer(kind) or pa.types.is_floating(kind)
    return number or (name in OPTIONAL and pa.types.is_null(kind))


def _is_text(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Instants as milliseconds; strings as plain ones, but for columns of codes."""
    kind = column.type
    if pa.types.is_timestamp(kind):
        return _milliseconds(column)
    if _is_text(kind) and not pa.types.is_dictionary(kind):
        return column.cast(pa.string())
    return column


def _milliseconds(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Epoch milliseconds, floored; nulls stay."""
    ticks = column.cast(pa.int64()).combine_chunks()
    at_ms = ticks.fill_null(0).to_numpy(zero_copy_only=False) // _TICKS[column.type.unit]
    nulls = ticks.is_null().to_numpy(zero_copy_only=False)
    return pa.chunked_array([pa.array(at_ms, pa.int64(), mask=nulls)])
