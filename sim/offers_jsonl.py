"""Offers from JSON lines: arrow reads, columns are checked, pydantic explains what fails."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.json as arrow_json
from numpy.typing import NDArray

from shared.errors import InputError
from shared.wire import NotJson, OfferLine, offer_line
from sim.offers_checks import Rows, checked, rows_of
from sim.offers_text import EMPTY_LINE, LINE_CAP, Block, blocks, last_line, opened

_TEXT_INSTANT = re.compile(rb'"received_at"\s*:\s*"')
_LF, _OPEN = b"\n{"
_ASCII = 127


def read_json_lines(path: Path) -> Iterator[Rows]:
    """The offers of the file, block by block. Raises InputError, line-exact."""
    with opened(path) as file:
        for block in blocks(file, path, last_line):
            yield read_fast(block) or read_exact(block, path)


def read_fast(block: Block) -> Rows | None:
    """The block's offers by column, or None when a line may be wrong."""
    octets = np.frombuffer(block.data, np.uint8)
    ends = np.flatnonzero(octets == _LF)
    if block.overlong or not _lines_begin_objects(octets, ends):
        return None
    try:
        table = _parsed(block.data)
        if octets.max() > _ASCII:  # arrow takes any bytes for UTF-8
            table.validate(full=True)
    except pa.ArrowInvalid:
        return None
    if table.num_rows != len(ends):  # more than one object on a line
        return None
    return checked(table, np.arange(block.first_line, block.first_line + len(ends)))


def _lines_begin_objects(octets: NDArray[np.uint8], ends: NDArray[np.int64]) -> bool:
    """Whether every line starts with a brace, and none is too long.

    Arrow takes two objects on one line, one over two lines, and nulls beside them (its parser dies
    of a null at the start). A line that starts with a brace cannot go on with the object of the
    line before, so it holds one at least; as many rows as lines then mean one a line.
    """
    starts = np.concatenate(([0], ends[:-1] + 1))
    return bool((octets[starts] == _OPEN).all() and (ends - starts).max() <= LINE_CAP)


def _parsed(data: bytes) -> pa.Table:
    """The lines as arrow reads them, in columns of known type. Raises ArrowInvalid."""
    first = data[: data.index(b"\n")]
    instants = pa.string() if _TEXT_INSTANT.search(first) else pa.int64()
    # counts as floats: 100000.0 is fine, and whole numbers up to 2^53 survive
    schema = pa.schema(
        [
            ("received_at", instants),
            ("task_id", pa.string()),
            ("model", pa.string()),
            ("task_type", pa.string()),
            ("hours_to_complete", pa.float64()),
            ("ds_size", pa.float64()),
            ("model_params_count", pa.float64()),
            ("train_hours", pa.float64()),
        ]
    )
    options = arrow_json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="error")
    return arrow_json.read_json(pa.BufferReader(data), parse_options=options)


def read_exact(block: Block, path: Path) -> Rows:
    """The block's offers one line at a time. Raises InputError at the first that is wrong."""
    offers, numbers = [], []
    for number, line in block.lines():
        try:
            offers.append(_offer(line, block.unended and number == _last(block)))
        except InputError as wrong:
            raise InputError(f"{path}:{number}: {wrong}") from None
        numbers.append(number)
    return rows_of(offers, numbers)


def _last(block: Block) -> int:
    return block.first_line + block.data.count(b"\n") - 1


def _offer(line: bytes, unended: bool) -> OfferLine:
    if len(line) > LINE_CAP:
        raise InputError(f"found a line of over {LINE_CAP} bytes, allowed is {LINE_CAP}")
    if not line.strip():
        raise InputError(EMPTY_LINE)
    try:
        return offer_line(line)
    except NotJson as wrong:
        if unended:
            raise InputError(f"found a truncated last line: {wrong}") from None
        raise
