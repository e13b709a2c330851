"""Text files in blocks of whole lines, so that neither a huge file nor a huge line fills memory."""

import gzip
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Protocol

from shared.errors import InputError

BLOCK_BYTES = 8 << 20
"""How much is read at a time."""
LINE_CAP = 1 << 20
"""Bytes a line may have, far over any offer."""
BOM = b"\xef\xbb\xbf"
_BLANK = b" \t\r\n"
EMPTY_LINE = "found an empty line, allowed are empty lines at the end only"


class Readable(Protocol):
    """A file of bytes, packed or not."""

    def read(self, size: int, /) -> bytes:
        """At most so many bytes; none at the end."""


Cut = Callable[[bytes], int]
"""Where the last whole record of a buffer ends; 0 when there is none."""


@dataclass(frozen=True, slots=True)
class Block:
    """Whole lines of a file, each ended by a line feed, the last one not blank.

    unended: the file ends within the last line (the line feed here was added).
    overlong: these are the first bytes of a line over ``LINE_CAP``; no line feed was added.
    """

    first_line: int
    data: bytes
    unended: bool = False
    overlong: bool = False

    def rest(self) -> "Block":
        """This block without its first line."""
        data = self.data[self.data.index(b"\n") + 1 :]
        return Block(self.first_line + 1, data, self.unended, self.overlong)

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """The lines with their numbers."""
        return enumerate(BytesIO(self.data), self.first_line)


def last_line(buffer: bytes) -> int:
    """The cut of formats whose records are lines."""
    return buffer.rfind(b"\n") + 1


@contextmanager
def opened(path: Path) -> Iterator[Readable]:
    """The file's bytes, unpacked when its name ends in .gz. Raises InputError."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            yield file
    except (EOFError, zlib.error, gzip.BadGzipFile) as why:
        raise InputError(f"{path}: found a damaged gzip file ({why}), allowed is a whole") from None
    except OSError as why:
        raise unreadable(path, why) from None


def unreadable(path: Path, why: OSError) -> InputError:
    """What to tell about a file that the system would not give."""
    reason = (why.strerror or str(why)).lower()
    return InputError(f"{path}: found {reason}, allowed is a readable offers file")


def blocks(file: Readable, path: Path, cut: Cut) -> Iterator[Block]:
    """The file in blocks of whole records. Raises InputError at a blank line before the end."""
    line, tail = 1, b""
    blank_at: int | None = None
    chunk = file.read(BLOCK_BYTES).removeprefix(BOM)
    while chunk:
        buffer = tail + chunk
        end = cut(buffer)
        kept = _without_blank_end(buffer, end)
        if kept:
            _no_blank_before(path, blank_at)
            yield Block(line, buffer[:kept])
            blank_at = None
        if kept < end and blank_at is None:
            blank_at = line + buffer.count(b"\n", 0, kept)
        line, tail = line + buffer.count(b"\n", 0, end), buffer[end:]
        if len(tail) > LINE_CAP:
            _no_blank_before(path, blank_at)
            yield Block(line, tail, overlong=True)
            return
        chunk = file.read(BLOCK_BYTES)
    if tail.strip(_BLANK):
        _no_blank_before(path, blank_at)
        yield Block(line, tail + b"\n", unended=True)


def _without_blank_end(buffer: bytes, end: int) -> int:
    """Where the last line that is not blank ends, within the first ``end`` bytes."""
    if end > 1 and buffer[end - 2] not in _BLANK:  # spares the copy that rstrip makes
        return end
    ink = len(buffer[:end].rstrip(_BLANK))
    return buffer.index(b"\n", ink) + 1 if ink else 0


def _no_blank_before(path: Path, blank_at: int | None) -> None:
    if blank_at is not None:
        raise InputError(f"{path}:{blank_at}: {EMPTY_LINE}")
