"""What reading a file of rows comes to: its bounds, its faults, and what kind of file it is."""

from dataclasses import dataclass, field
from pathlib import Path

from shared.errors import InputError
from shared.wire import found

HEAD_BYTES = 1024
"""How much of a file tells its kind."""
JSON, JSONL, CSV, PARQUET = "json", "jsonl", "csv", "parquet"
MOST_COLUMNS = 200
"""Names of columns that are remembered, for messages."""

_REFUSED = {
    b"PK\x03\x04": "a zip archive",
    b"PK\x05\x06": "a zip archive",
    b"\x1f\x8b": "gzip",
    b"BZh9": "bzip2",
    b"\xfd7zXZ": "xz",
    b"7z\xbc\xaf": "a 7z archive",
    b"Rar!": "a rar archive",
    b"\x28\xb5\x2f\xfd": "zstandard",
    b"\x80\x02": "a pickle",
    b"\x80\x03": "a pickle",
    b"\x80\x04": "a pickle",
    b"\x80\x05": "a pickle",
    b"ARROW1": "an Arrow file",
    b"%PDF": "a PDF",
    b"\xff\xfe": "UTF-16 text",
    b"\xfe\xff": "UTF-16 text",
}
_BOM = b"\xef\xbb\xbf"
_MARKUP = (b"<!doctype", b"<html", b"<?xml")
_KINDS = "JSON, JSON lines, CSV or Parquet, not compressed"


@dataclass(frozen=True, slots=True)
class ReadLimits:
    """Bounds of one file.

    most_bytes: of the file, and of the rows once decompressed. most_rows: the rest is left out.
    row_bytes: of one row (characters, of text). most_bad_share: of the rows, 0 to 1. early_rows:
    when none of so many can be used, no more are tried.
    """

    most_bytes: int = 2_000_000_000
    most_rows: int = 2_000_000
    row_bytes: int = 1 << 20
    most_bad_share: float = 0.5
    early_rows: int = 10_000


@dataclass(slots=True)
class Faults:
    """Rows left out: how many, and the number of the first, by reason."""

    by_reason: dict[str, tuple[int, int]] = field(default_factory=dict)

    def add(self, reason: str, number: int) -> None:
        """Count a row. number: of its line or row, from 1."""
        count, first = self.by_reason.get(reason, (0, number))
        self.by_reason[reason] = (count + 1, first)

    @property
    def total(self) -> int:
        """Rows left out in all."""
        return sum(count for count, _ in self.by_reason.values())

    @property
    def most(self) -> int:
        """Rows left out for the commonest reason."""
        return max((count for count, _ in self.by_reason.values()), default=0)

    def commonest(self) -> str:
        """The commonest reason, and where it was met first."""
        reason, (_, first) = max(self.by_reason.items(), key=lambda item: item[1][0])
        return f"{reason} (first in row {first})"


@dataclass(slots=True)
class Seen:
    """What was seen of a file so far.

    columns: names, in the order in which they were met. cut: why reading ended before the file did.
    left_share: of the file's bytes that could not be read, 0 to 1.
    """

    limits: ReadLimits
    faults: Faults = field(default_factory=Faults)
    columns: dict[str, None] = field(default_factory=dict)
    rows: int = 0
    cut: str = ""
    left_share: float = 0.0

    def note(self, names: dict[str, object]) -> None:
        """Remember the columns of a row."""
        if names.keys() - self.columns.keys() and len(self.columns) < MOST_COLUMNS:
            self.columns.update(dict.fromkeys(names))

    def hopeless(self) -> bool:
        """Whether so many rows were bad, and not one good, that it is no use to go on."""
        return self.rows == 0 and self.faults.total >= self.limits.early_rows


def kind_of(head: bytes, name: str) -> str:
    """The kind of a file by its first bytes: json (a list), jsonl, csv or parquet.

    name: as the message shows it. Raises InputError for anything else.
    """
    if head.startswith(b"PAR1"):
        return PARQUET
    for magic, what in _REFUSED.items():
        if head.startswith(magic):
            raise InputError(f"{name}: found {what}, allowed is {_KINDS}")
    text = head.removeprefix(_BOM).lstrip()
    if not text:
        raise InputError(f"{name}: found nothing in it, allowed are rows of {_KINDS}")
    if text.lower().startswith(_MARKUP):
        raise InputError(f"{name}: found a page of markup, allowed is {_KINDS}")
    if b"\x00" in head:
        raise InputError(f"{name}: found bytes that are no text, allowed is {_KINDS}")
    return {b"[": JSON, b"{": JSONL}.get(text[:1], CSV)


def kind_of_file(path: Path, limits: ReadLimits) -> str:
    """As ``kind_of``, of a file that is there, is one, and is not too large. Raises InputError."""
    try:
        if not path.is_file():
            raise InputError(f"{found(str(path))}: found no file, allowed is {_KINDS}")
        size = path.stat().st_size
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except OSError as why:
        raise InputError(f"{path}: cannot be read: {why.strerror}") from None
    if size > limits.most_bytes:
        raise InputError(f"{path}: found {size} bytes, allowed are {limits.most_bytes}")
    return kind_of(head, str(path))
