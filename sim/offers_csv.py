"""Offers from CSV (RFC 4180): arrow reads, columns are checked, pydantic explains what fails."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as arrow_csv
from numpy.typing import NDArray

from shared.errors import InputError
from shared.wire import OfferLine, found, offer_of
from sim.offers_checks import TEXTS, Rows, check_names, checked, rows_of
from sim.offers_text import BOM, EMPTY_LINE, LINE_CAP, Block, blocks, opened

_CELL = re.compile(rb'(?:"([^"]*(?:""[^"]*)*)"|([^",\r\n]*))(,|\r?\n)')
_INT = re.compile(r"[ \t]*(-?\d{1,25})[ \t]*", re.ASCII)
_NUMBER = re.compile(r"[ \t]*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)[ \t]*", re.ASCII)
_LF, _CR, _QUOTE, _COMMA = b'\n\r",'


@dataclass(frozen=True, slots=True)
class Record:
    """One record: its cells as bytes, and where the next one starts."""

    cells: list[bytes]
    end: int


def read_csv(path: Path) -> Iterator[Rows]:
    """The offers of the file, block by block. Raises InputError, line-exact."""
    header: list[str] | None = None
    with opened(path) as file:
        for block in blocks(file, path, last_record):
            body = block
            if header is None:
                header = _header(block, path)
                body = block.rest()
            if body.data:
                yield read_fast(body, header) or read_exact(body, header, path)


def last_record(buffer: bytes) -> int:
    """Where the last record ends: at the last line feed with all quotes before it closed."""
    end = buffer.rfind(b"\n") + 1
    open_quotes = np.count_nonzero(np.frombuffer(buffer, np.uint8, end) == _QUOTE) % 2
    while open_quotes:
        quote = buffer.rfind(b'"', 0, end)
        before = buffer.rfind(b"\n", 0, quote) + 1
        open_quotes = (open_quotes + buffer.count(b'"', before, end)) % 2
        end = before
    return end


def _header(block: Block, path: Path) -> list[str]:
    try:
        cells = _record(block.data, 0).cells
        names = [cell.decode("utf-8", "surrogateescape") for cell in cells]
        check_names(names)
    except InputError as wrong:
        raise InputError(f"{path}:{block.first_line}: {wrong}") from None
    return names


def read_fast(block: Block, header: list[str]) -> Rows | None:
    """The block's offers by column, or None when a line may be wrong."""
    octets = np.frombuffer(block.data, np.uint8)
    ends = np.flatnonzero(octets == _LF)
    if block.overlong or not _plain(block.data, octets, ends):
        return None
    try:
        table = _parsed(block.data, header)
    except (pa.ArrowInvalid, InputError):
        return None
    if table.num_rows != len(ends):  # a line end within quotes
        return None
    return checked(table, np.arange(block.first_line, block.first_line + len(ends)))


def _plain(data: bytes, octets: NDArray[np.uint8], ends: NDArray[np.int64]) -> bool:
    """Whether arrow reads this CSV as ``_CELL`` does: it is laxer in four ways."""
    return (
        int(np.diff(ends, prepend=-1).max()) <= LINE_CAP
        and not data.startswith(BOM)  # it drops a BOM wherever a block begins
        and not _hexadecimal(octets)  # it reads 0x10 as 16
        and data.count(b"\r") == data.count(b"\r\n")  # it ends a line at a bare CR
        and _quotes_enclose_cells(octets)  # it takes quotes anywhere
    )


def _hexadecimal(octets: NDArray[np.uint8]) -> bool:
    """Whether 0x or 0X stands anywhere."""
    after_zero = octets[1:][octets[:-1] == ord("0")]
    return bool(((after_zero == ord("x")) | (after_zero == ord("X"))).any())


def _quotes_enclose_cells(octets: NDArray[np.uint8]) -> bool:
    """Whether every quoted cell is quoted from its first byte to its last."""
    quotes = np.flatnonzero(octets == _QUOTE)
    if len(quotes) == 0:
        return True
    if len(quotes) % 2:
        return False
    before = octets[quotes[0::2] - 1]  # of a quote that opens the block: its last byte, a LF
    after = octets[quotes[1::2] + 1]
    opens = (before == _COMMA) | (before == _LF) | (before == _QUOTE)
    closes = (after == _COMMA) | (after == _LF) | (after == _CR) | (after == _QUOTE)
    return bool(opens.all() and closes.all())


def _parsed(data: bytes, header: list[str]) -> pa.Table:
    """The records as arrow reads them, in columns of known type. Raises ArrowInvalid."""
    types = {name: pa.string() if name in TEXTS else pa.float64() for name in header}
    instant = _record(data, 0).cells[: len(header)][header.index("received_at")]
    types["received_at"] = pa.int64() if _INT.fullmatch(instant.decode()) else pa.string()
    return arrow_csv.read_csv(
        pa.BufferReader(data),
        read_options=arrow_csv.ReadOptions(column_names=header),
        parse_options=arrow_csv.ParseOptions(ignore_empty_lines=False),
        convert_options=arrow_csv.ConvertOptions(
            column_types=types, null_values=[""], strings_can_be_null=True
        ),
    )


def read_exact(block: Block, header: list[str], path: Path) -> Rows:
    """The block's offers one at a time. Raises InputError where the first bad one starts."""
    offers, numbers = [], []
    number, start = block.first_line, 0
    while start < len(block.data):
        try:
            record = _record(block.data, start)
            offers.append(_offer(record.cells, header))
        except InputError as wrong:
            raise InputError(f"{path}:{number}: {_cut_short(block, start)}{wrong}") from None
        numbers.append(number)
        number += block.data.count(b"\n", start, record.end)
        start = record.end
    return rows_of(offers, numbers)


def _cut_short(block: Block, start: int) -> str:
    """Says so when the record at ``start`` is the last of a file that ends within a line."""
    last = block.data.find(b"\n", start) + 1 == len(block.data)
    return "found a truncated last line: " if block.unended and last else ""


def _record(data: bytes, start: int) -> Record:
    """The record that starts there. Raises InputError for stray quotes and endless records."""
    cells, at, ended = [], start, False
    while not ended:
        cell = _CELL.match(data, at)
        if cell is None or cell.end() - start > LINE_CAP:
            raise InputError(_no_cell(data, start, at))
        quoted, bare, separator = cell.groups()
        cells.append(bare if quoted is None else quoted.replace(b'""', b'"'))
        at, ended = cell.end(), separator != b","
    return Record(cells, at)


def _no_cell(data: bytes, start: int, at: int) -> str:
    line_end = data.find(b"\n", start)
    if (line_end < 0 or line_end - start > LINE_CAP) and data[at : at + 1] != b'"':
        return f"found a line of over {LINE_CAP} bytes, allowed is {LINE_CAP}"
    text = data[at : at + 60].decode("utf-8", "replace")
    return (
        f"found a stray or unclosed quote, or a bare carriage return ({found(text)}), "
        "allowed is RFC 4180: such a cell in quotes, quotes in it doubled"
    )


def _offer(cells: list[bytes], header: list[str]) -> OfferLine:
    if len(cells) == 1 and not cells[0].strip():
        raise InputError(EMPTY_LINE)
    if len(cells) != len(header):
        raise InputError(f"found {len(cells)} cells, allowed are the {len(header)} of the header")
    try:
        texts = [cell.decode("utf-8") for cell in cells]
    except UnicodeDecodeError:
        raise InputError("found bytes that are not UTF-8, allowed is UTF-8 text") from None
    return offer_of({name: _value(name, cell) for name, cell in zip(header, texts, strict=True)})


def _value(name: str, cell: str) -> object:
    """What a cell says: null when empty; a number where one is due and written; else text."""
    if not cell:
        return None
    if name in TEXTS:
        return cell
    if whole := _INT.fullmatch(cell):
        return int(whole[1])
    number = None if name == "received_at" else _NUMBER.fullmatch(cell)
    return float(number[1]) if number else cell
