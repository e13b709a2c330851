"""Offers written as JSON lines, CSV or Parquet: what ``offers_file`` reads back the same."""

import gzip
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as arrow_csv
import pyarrow.parquet as pq

from shared.units import MS_PER_HOUR
from sim.stream import UNKNOWN, Floats, Ints, Labels, OfferStream

_ROWS = 1 << 16
"""Offers written at a time."""
_PLAIN = r"^[ !#-\[\]-~]*$"
"""Text that JSON holds as it is: printable ASCII but for the quote and the backslash."""


def write_json_lines(stream: OfferStream, path: Path, packed: bool) -> None:
    """One JSON object a line, ASCII."""
    with _opened(path, packed) as file:
        for table in _tables(stream):
            lines = pc.binary_join_element_wise(*_json_pieces(table), "")
            file.write("\n".join(lines.to_pylist()).encode() + b"\n")


def write_csv(stream: OfferStream, path: Path, packed: bool) -> None:
    """A header and one record an offer; null is an empty cell."""
    tables = _tables(stream)
    first = next(tables)
    with (
        _opened(path, packed) as file,
        arrow_csv.CSVWriter(
            file, first.schema, write_options=arrow_csv.WriteOptions(quoting_style="needed")
        ) as writer,
    ):
        writer.write_table(first)
        for table in tables:
            writer.write_table(table)


def write_parquet(stream: OfferStream, path: Path, packed: bool) -> None:
    """One row an offer; the times as integer milliseconds. Never packed again."""
    del packed
    tables = _tables(stream)
    first = next(tables)
    labels = ["model", "task_type"]
    with pq.ParquetWriter(
        str(path), first.schema, compression="zstd", use_dictionary=labels
    ) as writer:
        writer.write_table(pa.concat_tables([first, *tables]), row_group_size=1 << 18)


def hours_of(train_ms: Ints) -> Floats:
    """Hours that ``hours_to_ms`` turns into just these milliseconds.

    Below 1e9 hours half the gap between floats is under a quarter of a millisecond, so the way
    back rounds to where it came from.
    """
    hours: Floats = train_ms / MS_PER_HOUR
    return hours


@contextmanager
def _opened(path: Path, packed: bool) -> Iterator[BinaryIO]:
    with path.open("wb") as raw:
        if packed:  # no name and no time in it: the same offers give the same bytes
            with gzip.GzipFile("", "wb", 6, raw, mtime=0) as file:
                yield cast(BinaryIO, file)
        else:
            yield raw


def _tables(stream: OfferStream) -> Iterator[pa.Table]:
    """The columns of an offers file, some rows at a time; one empty table of no offers."""
    for start in range(0, max(len(stream), 1), _ROWS):
        part = slice(start, start + _ROWS)
        yield pa.table(
            {
                "received_at": stream.at_ms[part],
                "task_id": stream.task_id[part].cast(pa.string()),
                "model": _texts(stream.model, part),
                "task_type": _texts(stream.task_type, part),
                "hours_to_complete": stream.hours[part],
                "ds_size": _counts(stream.ds_size[part]),
                "model_params_count": _counts(stream.params[part]),
                "train_hours": hours_of(stream.train_ms[part]),
            }
        )


def _texts(labels: Labels, part: slice) -> pa.Array:
    return pa.array(labels.names, pa.string()).take(pa.array(labels.codes[part]))


def _counts(values: Ints) -> pa.Array:
    return pa.array(values, pa.int64(), mask=values == UNKNOWN)


def _json_pieces(table: pa.Table) -> Iterator[pa.Array | str]:
    """The pieces of each line in order: the text between the values, and the values."""
    before = "{"
    for name in table.column_names:
        yield f'{before}"{name}":'
        column = table.column(name).combine_chunks()
        if pa.types.is_string(column.type):
            yield _quoted(column)
        else:
            yield column.cast(pa.string()).fill_null("null")
        before = ","
    yield "}"


def _quoted(texts: pa.Array) -> pa.Array:
    """Strings as JSON strings; only those that need escapes go through ``json``."""
    if pc.all(pc.match_substring_regex(texts, _PLAIN)).as_py() is not False:
        return pc.binary_join_element_wise('"', texts, '"', "")
    return pa.array([json.dumps(text) for text in texts.to_pylist()], pa.string())
