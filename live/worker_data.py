"""The rows a job trains on: read, turned into tokens, and dealt out the same way every time."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from shared.errors import InputError
from shared.wire import strict_json

MOST_BYTES = 256 * 2**20
BUILT_IN_ROWS = 512
PAD, BEGIN, END = 0, 1, 2
BYTE_OFFSET = 3
BYTE_VOCABULARY = 256 + BYTE_OFFSET
IGNORED = -100
"""The label that takes no part in the loss."""

Encode = Callable[[str], list[int]]


def encode_bytes(text: str) -> list[int]:
    """Text as tokens of one UTF-8 byte each, between a begin and an end."""
    return [BEGIN, *(byte + BYTE_OFFSET for byte in text.encode()), END]


def built_in_rows() -> list[str]:
    """Sentences with something to learn in them, always the same."""
    pairs = ((row * 7 % 31, row * 11 % 29) for row in range(BUILT_IN_ROWS))
    return [f"{a} plus {b} is {a + b}." for a, b in pairs]


def rows_of(path: Path) -> list[str]:
    """The text rows of a JSON list or of JSON lines; of an object, its texts in order.

    Raises InputError of one line.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise InputError(f"{path}: found over {MOST_BYTES} bytes, allowed are at most so many")
        text = path.read_bytes()
    except OSError as why:
        raise InputError(f"{path}: cannot be read: {why.strerror}") from None
    rows = [row for row in map(_text, _values(path, text)) if row]
    if not rows:
        raise InputError(f"{path}: found no row of text, allowed is one or more")
    return rows


def _values(path: Path, text: bytes) -> Iterator[Any]:
    if text.lstrip().startswith(b"["):
        try:
            yield from json.loads(text)
        except ValueError as why:
            raise InputError(f"{path}: found no valid JSON: {why}") from None
        return
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            try:
                yield strict_json(line)
            except InputError as why:
                raise InputError(f"{path}: line {number}: {why}") from None


def _text(row: Any) -> str:
    if isinstance(row, str):
        return row
    if not isinstance(row, dict):
        return ""
    return "\n".join(value for value in row.values() if isinstance(value, str))


class Rows:
    """Tokenised rows, dealt to ranks by the step alone: a resumed job goes on where it was."""

    def __init__(self, texts: Sequence[str], encode: Encode, max_length: int, seed: int) -> None:
        """max_length: tokens a row is cut to."""
        self._rows = [encode(text)[:max_length] for text in texts]
        self._seed = seed
        self._epoch, self._order = -1, [0]

    def __len__(self) -> int:
        """How many rows there are."""
        return len(self._rows)

    def _row(self, index: int) -> list[int]:
        epoch, place = divmod(index, len(self._rows))
        if epoch != self._epoch:
            dice = torch.Generator().manual_seed(self._seed + epoch)
            self._epoch = epoch
            self._order = torch.randperm(len(self._rows), generator=dice).tolist()
        return self._rows[self._order[place]]

    def batch(self, first: int, count: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Rows ``first`` on, padded: tokens, attention mask, labels."""
        rows = [self._row(index) for index in range(first, first + count)]
        width = max(len(row) for row in rows)
        tokens = torch.tensor([row + [PAD] * (width - len(row)) for row in rows])
        lengths = torch.tensor([[len(row)] for row in rows])
        mask = (torch.arange(width) < lengths).long()
        return tokens, mask, tokens.masked_fill(mask == 0, IGNORED)
