"""Rows of JSON lists, JSON lines and CSV, one by one, whatever the file holds.

Bytes that are not UTF-8 come as lone surrogates (``surrogateescape``), so that one bad row does not
end the reading; who uses a text refuses it then. Of a key, or a column, twice in a row: JSON's last
one counts, CSV's first.
"""

import csv
import json
import re
from collections.abc import Iterator
from io import TextIOWrapper
from pathlib import Path
from typing import Any, BinaryIO, Self

from live.training.table import Seen

Row = tuple[int, dict[str, Any]]
"""The number of a line or row in its file, from 1, and its columns."""

BLOCK_CHARS = 1 << 20
WINDOW_ROWS = 8
"""A row of a JSON list may be so many times as long as allowed, and still be passed over."""
LONG_INT = 18
"""Digits from which a whole number is kept as text: reading thousands of them takes forever."""

TOO_LONG, UNREADABLE, DEEP = "too long", "no valid JSON", "nested too deep"
NO_OBJECT, ODD_FIELDS = "no object", "more fields than columns"

_SPACE = re.compile(r"[ \t\r\n]*")


def _whole(digits: str) -> int | str:
    return int(digits) if len(digits) <= LONG_INT else digits


_DECODER = json.JSONDecoder(parse_int=_whole, strict=False)


def opened(file: BinaryIO) -> TextIOWrapper:
    """The text of a file; its line ends are kept."""
    return TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="")


class _Overlong(Exception):
    """A line, or a CSV row of many lines, over its bound."""


class _Lines:
    """Lines of a text, none of them longer than allowed; ``row_ends`` starts the count anew."""

    def __init__(self, text: TextIOWrapper, most: int) -> None:
        self._text, self._most, self._since = text, most, 0
        self.number = 0

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        line = self._text.readline(self._most + 1)
        if not line:
            raise StopIteration
        self.number += 1
        self._since += len(line)
        if self._since > self._most:
            self._skip(line)
            self._since = 0
            raise _Overlong
        return line

    def _skip(self, line: str) -> None:
        while line and not line.endswith(("\n", "\r")):
            line = self._text.readline(BLOCK_CHARS)

    def row_ends(self) -> None:
        self._since = 0


def json_lines(path: Path, seen: Seen) -> Iterator[Row]:
    """Objects, one a line. Raises OSError."""
    with path.open("rb") as file:
        lines = _Lines(opened(file), seen.limits.row_bytes)
        while not seen.hopeless():
            try:
                line = next(lines, None)
                if line is None:
                    return
                lines.row_ends()
                value = _DECODER.decode(line) if line.strip() else None
            except (_Overlong, ValueError, RecursionError) as why:
                seen.faults.add(_said(why), lines.number)
                continue
            if isinstance(value, dict):
                yield lines.number, value
            elif line.strip():
                seen.faults.add(NO_OBJECT, lines.number)


def _said(why: Exception) -> str:
    if isinstance(why, _Overlong):
        return TOO_LONG
    return DEEP if isinstance(why, RecursionError) else UNREADABLE


class _Window:
    """A stretch of a text that slides on as it is read."""

    def __init__(self, text: TextIOWrapper) -> None:
        self._text, self.held, self.at, self.ended = text, "", 0, False

    def more(self, chars: int) -> bool:
        """Drop what was read and hold so many characters more; False at the end of the text."""
        block = self._text.read(chars)
        self.held, self.at = self.held[self.at :] + block, 0
        self.ended = not block
        return bool(block)

    def left(self) -> int:
        return len(self.held) - self.at

    def peek(self) -> str:
        """The next character that is no space, "" at the end."""
        while True:
            self.at = _SPACE.match(self.held, self.at).end()  # type: ignore[union-attr]
            if self.at < len(self.held):
                return self.held[self.at]
            if not self.more(BLOCK_CHARS):
                return ""

    def value(self, most: int) -> tuple[Any, int]:
        """The next value and its characters.

        Raises ValueError when it is none, or so long that it may be one, and RecursionError.
        """
        while True:
            try:
                value, end = _DECODER.raw_decode(self.held, self.at)
                if end < len(self.held) or self.ended:
                    length, self.at = end - self.at, end
                    return value, length
            except ValueError:
                if self.ended or self.left() > most:
                    raise
            self.more(max(BLOCK_CHARS, self.left()))


def json_list(path: Path, seen: Seen) -> Iterator[Row]:
    """Objects of one list. Where it is no valid JSON any more, reading ends. Raises OSError."""
    most = seen.limits.row_bytes
    with path.open("rb") as file:
        window = _Window(opened(file))
        window.peek()
        window.at += 1
        number = 0
        while window.peek() not in ("]", "") and not seen.hopeless():
            number += 1
            try:
                value, length = window.value(most * WINDOW_ROWS)
            except (ValueError, RecursionError) as why:
                return _broken(seen, path, file, window, number, _said(why))
            if length > most:
                seen.faults.add(TOO_LONG, number)
            elif isinstance(value, dict):
                yield number, value
            else:
                seen.faults.add(NO_OBJECT, number)
            if window.peek() == ",":
                window.at += 1
            elif window.peek() != "]":
                return _broken(seen, path, file, window, number + 1, UNREADABLE)
        if window.peek() == "]":
            window.at += 1
            number = number if window.peek() else -1
        if number >= 0 and not seen.hopeless():
            _broken(seen, path, file, window, number + 1, UNREADABLE)


def _broken(
    seen: Seen, path: Path, file: BinaryIO, window: _Window, number: int, reason: str
) -> None:
    """Say that what follows cannot be read, and how much of the file that is."""
    seen.faults.add(reason, number)
    seen.cut = f"{reason} from row {number} on"
    size = path.stat().st_size
    seen.left_share = min(1.0, (size - file.tell() + window.left()) / max(1, size))


def csv_rows(path: Path, seen: Seen) -> Iterator[Row]:
    """Rows by the names of the first one; commas, else tabs or semicolons. Raises OSError."""
    limits = seen.limits
    csv.field_size_limit(max(csv.field_size_limit(), limits.row_bytes + 1))
    with path.open("rb") as file:
        lines = _Lines(opened(file), limits.row_bytes)
        names = _header(lines, seen)
        if names is None:
            return
        reader = csv.reader(lines, delimiter=names[0])
        yield from _records(reader, lines, names[1], seen)


def _header(lines: _Lines, seen: Seen) -> tuple[str, list[str]] | None:
    try:
        line = next(lines, "")
        marks = [mark for mark in ",\t;" if mark in line]
        delimiter = marks[0] if marks else ","
        names = next(csv.reader(_Again(line, lines), delimiter=delimiter), [])
    except (_Overlong, csv.Error):
        seen.faults.add("no names of columns", 1)
        return None
    lines.row_ends()
    return delimiter, [name.strip() for name in names]


class _Again:
    """A line that was looked at already, and those after it."""

    def __init__(self, line: str, lines: _Lines) -> None:
        self._line, self._lines = line, lines

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> str:
        line, self._line = self._line, ""
        return line or next(self._lines)


def _records(reader: Any, lines: _Lines, names: list[str], seen: Seen) -> Iterator[Row]:
    keep: dict[str, int] = {}
    for at, name in enumerate(names):
        if name:
            keep.setdefault(name, at)
    while not seen.hopeless():
        first = lines.number + 1
        try:
            fields = next(reader, None)
        except (_Overlong, csv.Error) as why:
            lines.row_ends()
            seen.faults.add(TOO_LONG if isinstance(why, _Overlong) else "no valid CSV", first)
            continue
        if fields is None:
            return
        lines.row_ends()
        if len(fields) > len(names):
            seen.faults.add(ODD_FIELDS, first)
        elif fields:
            fields += [""] * (len(names) - len(fields))
            yield first, {name: fields[at] for name, at in keep.items()}


def text_rows(path: Path, kind: str, seen: Seen) -> Iterator[Row]:
    """Rows of a text file by its kind: json, jsonl or csv. Raises OSError."""
    readers = {"json": json_list, "jsonl": json_lines, "csv": csv_rows}
    return readers[kind](path, seen)
