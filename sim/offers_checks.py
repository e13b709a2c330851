"""Every check an offer must pass, a column at a time: numpy and arrow for what pydantic says.

The checks here may be stricter than ``shared.wire`` (whoever fails them is asked again there, line
by line) but never laxer; a property test holds the two against each other.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from shared import wire
from shared.errors import InputError
from shared.units import MS_PER_HOUR
from sim.stream import UNKNOWN, Codes, Floats, Ints, Labels, OfferStream

TEXTS = ("task_id", "model", "task_type")
"""The columns of strings."""
OPTIONAL = ("ds_size", "model_params_count", "train_hours")
"""The columns that may be left out, or hold nulls."""
_ISO = r"^\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)$"
"""The ISO 8601 forms that arrow and pydantic read alike."""
_OFFSETS_REACH = 2**31 - 1
"""Bytes of text that a plain arrow string array can hold."""


@dataclass(frozen=True, slots=True)
class Rows:
    """n checked offers in the order of their file.

    where: line or row number, int64. task_id: arrow strings. model, task_type: arrow dictionary
    arrays of strings. The rest as in ``OfferStream``.
    """

    where: Ints
    at_ms: Ints
    task_id: pa.Array
    model: pa.Array
    task_type: pa.Array
    hours: Floats
    ds_size: Ints
    params: Ints
    train_ms: Ints


class _Doubt(Exception):
    """A column holds something that only pydantic can judge."""


def check_names(names: list[str]) -> None:
    """Refuse unknown, doubled and missing columns. Raises InputError of one line."""
    for name in names:
        if name not in wire.ALLOWED:
            known = ", ".join(wire.ALLOWED)
            raise InputError(f"found the column {wire.found(name)}, allowed are {known}")
        if names.count(name) > 1:
            raise InputError(f"{name}: found the column twice, allowed is once")
    for name in wire.ALLOWED:
        if name not in names and name not in OPTIONAL:
            raise InputError(
                f"{name}: found no such column, allowed to be left out are {', '.join(OPTIONAL)}"
            )


def checked(table: pa.Table, where: Ints) -> Rows | None:
    """The rows of a table with the columns of an offers file, or None when any may be wrong.

    table: received_at as integers or ISO text, the numbers as integers or floats, the strings as
    valid UTF-8; where: the number of each row for messages.
    """
    try:
        return _rows(table, where)
    except _Doubt:
        return None


def _rows(table: pa.Table, where: Ints) -> Rows:
    hours = _numbers(_column(table, "hours_to_complete"), wire.MAX_HOURS)
    _be_sure(bool((hours > 0).all()))
    return Rows(
        where=where,
        at_ms=_instants(_column(table, "received_at")),
        task_id=_strings(_column(table, "task_id"), wire.MAX_TASK_ID),
        model=_label_codes(_column(table, "model"), wire.MAX_MODEL),
        task_type=_label_codes(_column(table, "task_type"), wire.MAX_TASK_TYPE),
        hours=hours,
        ds_size=_counts(_column(table, "ds_size")),
        params=_counts(_column(table, "model_params_count")),
        train_ms=_train_ms(_column(table, "train_hours"), hours),
    )


def _be_sure(holds: bool) -> None:
    if not holds:
        raise _Doubt


def _column(table: pa.Table, name: str) -> pa.Array:
    if name not in table.column_names:
        return pa.nulls(table.num_rows)
    column = table.column(name)
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _instants(column: pa.Array) -> Ints:
    """Epoch milliseconds, floored; a null is never allowed."""
    _be_sure(column.null_count == 0)
    if pa.types.is_integer(column.type):
        at_ms: Ints = column.to_numpy(zero_copy_only=False).astype(np.int64, copy=False)
    else:
        at_ms = _iso_instants(column)
    _be_sure(bool(((at_ms >= 0) & (at_ms <= wire.MAX_MS)).all()))
    return at_ms


def _iso_instants(column: pa.Array) -> Ints:
    _be_sure(pc.all(pc.match_substring_regex(column, _ISO)).as_py() is not False)
    try:
        micros = pc.cast(column, pa.timestamp("us", "UTC"))
    except pa.ArrowInvalid:
        raise _Doubt from None
    at_ms: Ints = pc.cast(micros, pa.int64()).to_numpy() // 1_000
    return at_ms


def _label_codes(column: pa.Array, longest: int) -> pa.Array:
    """A column of few distinct strings as codes: a dictionary array of int32 and strings."""
    if not pa.types.is_dictionary(column.type):
        return pc.dictionary_encode(_strings(column, longest))
    _be_sure(column.null_count == 0)
    names = _strings(column.dictionary.cast(pa.string()), longest)
    return pa.DictionaryArray.from_arrays(column.indices.cast(pa.int32()), names)


def _strings(column: pa.Array, longest: int) -> pa.Array:
    """Strings of 1 to ``longest`` characters, none null."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(pa.string())
    _be_sure(column.null_count == 0 and len(column) > 0)
    lengths = pc.min_max(pc.utf8_length(column)).as_py()
    _be_sure(lengths["min"] >= 1 and lengths["max"] <= longest)
    return column


def _numbers(column: pa.Array, most: float) -> Floats:
    """Float64 from 0 to ``most``; nulls, NaN and infinities raise the doubt."""
    _be_sure(column.null_count == 0)
    values: Floats = column.to_numpy(zero_copy_only=False).astype(np.float64, copy=False)
    _be_sure(bool(((values >= 0) & (values <= most)).all()))
    return values


def _counts(column: pa.Array) -> Ints:
    """Whole numbers below 2^53 as int64, null as -1; 2^53 itself may be a rounded 2^53 + 1."""
    if column.null_count == len(column):
        return np.full(len(column), UNKNOWN, dtype=np.int64)
    values = _numbers(column.fill_null(0) if column.null_count else column, wire.MAX_COUNT - 1)
    whole = values.astype(np.int64)
    _be_sure(bool((whole == values).all()))
    if column.null_count:
        whole[column.is_null().to_numpy(zero_copy_only=False)] = UNKNOWN
    return whole


def _train_ms(column: pa.Array, hours: Floats) -> Ints:
    """How long the slot is busy; null means the hours to complete."""
    if column.null_count == len(column):
        return hours_to_ms_column(hours)
    told = _numbers(column.fill_null(0) if column.null_count else column, wire.MAX_TRAIN_HOURS)
    if column.null_count:
        told = np.where(column.is_null().to_numpy(zero_copy_only=False), hours, told)
    return hours_to_ms_column(told)


def hours_to_ms_column(hours: Floats) -> Ints:
    """``shared.units.hours_to_ms`` of every element (a property test holds them equal)."""
    return np.rint(hours * MS_PER_HOUR).astype(np.int64)


def rows_of(offers: Sequence[wire.OfferLine], where: Sequence[int]) -> Rows:
    """The columns of offers that pydantic has read; at least one."""

    def counts(values: list[int | None]) -> Ints:
        return np.array([UNKNOWN if v is None else v for v in values], dtype=np.int64)

    def texts(values: list[str]) -> pa.Array:
        return pa.array(values, pa.string())

    return Rows(
        where=np.array(where, dtype=np.int64),
        at_ms=np.array([offer.received_at for offer in offers], dtype=np.int64),
        task_id=texts([offer.task_id for offer in offers]),
        model=pc.dictionary_encode(texts([offer.model for offer in offers])),
        task_type=pc.dictionary_encode(texts([offer.task_type for offer in offers])),
        hours=np.array([offer.hours_to_complete for offer in offers], dtype=np.float64),
        ds_size=counts([offer.ds_size for offer in offers]),
        params=counts([offer.model_params_count for offer in offers]),
        train_ms=np.array([offer.train_ms for offer in offers], dtype=np.int64),
    )


def joined(parts: list[Rows]) -> tuple[OfferStream, Ints]:
    """All parts as one stream, still in the order of the file, and where each offer stood."""
    stream = OfferStream(
        at_ms=np.concatenate([part.at_ms for part in parts]),
        task_id=_one_array([part.task_id for part in parts]),
        model=_labels([part.model for part in parts]),
        task_type=_labels([part.task_type for part in parts]),
        hours=np.concatenate([part.hours for part in parts]),
        ds_size=np.concatenate([part.ds_size for part in parts]),
        params=np.concatenate([part.params for part in parts]),
        train_ms=np.concatenate([part.train_ms for part in parts]),
    )
    return stream, np.concatenate([part.where for part in parts])


def _one_array(arrays: list[pa.Array]) -> pa.Array:
    if sum(array.nbytes for array in arrays) > _OFFSETS_REACH:
        arrays = [array.cast(pa.large_string()) for array in arrays]
    return pa.concat_arrays(arrays)


def _labels(parts: list[pa.Array]) -> Labels:
    """One column of codes; the names sorted, so that the order of the lines leaves no trace."""
    column = pa.chunked_array(parts).unify_dictionaries().combine_chunks()
    names: list[str] = column.dictionary.to_pylist()
    order = sorted(range(len(names)), key=names.__getitem__)
    rank = np.empty(len(names), dtype=np.int32)
    rank[order] = np.arange(len(names), dtype=np.int32)
    codes: Codes = rank[column.indices.to_numpy(zero_copy_only=False)]
    return Labels(codes, tuple(names[at] for at in order))
