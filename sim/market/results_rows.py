"""Reading a table of results: JSON lines, one submission a line."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, NotRequired

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError, with_config
from pydantic_core import ErrorDetails
from typing_extensions import TypedDict  # pydantic wants this one below Python 3.12

from shared.errors import InputError
from shared.wire import Count, EpochMs, Hours, ModelId, TaskId, TaskType

_SHOWN = 60
"""Characters of a wrong value that an error shows."""

Miner = Annotated[str, Field(min_length=1, max_length=256)]
Loss = float | None


@with_config(ConfigDict(strict=True, extra="forbid", allow_inf_nan=False))
class ResultRow(TypedDict):
    """One submission, or the lack of one: both losses are then null.

    ``created_at`` is when the task was created. Everything but the last four fields belongs to
    the task and is the same in all of its rows. A plain dict, because a table has a hundred
    thousand of them and a model object costs twice as much to make.
    """

    task_id: TaskId
    task_type: TaskType
    hours_to_complete: Hours
    model: ModelId
    model_params_count: NotRequired[Count | None]
    is_organic: bool
    created_at: EpochMs
    miner: Miner
    test_loss: Loss
    synth_loss: Loss
    is_finetune: bool


TIME_ALLOWED = "UTC epoch milliseconds as a whole number, or ISO 8601 with a zone"

_ROW = TypeAdapter(ResultRow)

ALLOWED = {
    "task_id": "a text of 1 to 64 characters",
    "task_type": "a text of 1 to 64 characters",
    "hours_to_complete": "a number over 0, at most 10000",
    "model": "a text of 1 to 256 characters",
    "model_params_count": "a whole number from 0 to 2^53, or null",
    "is_organic": "true or false",
    "created_at": TIME_ALLOWED,
    "miner": "a text of 1 to 256 characters",
    "test_loss": "a finite number, or null for a missing loss",
    "synth_loss": "a finite number, or null for a missing loss",
    "is_finetune": "true or false",
}
"""What each key may hold, in words."""


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows in the order of their lines; ``numbers`` count lines from 1, blank ones included."""

    numbers: list[int]
    rows: list[ResultRow]


def read_rows(path: Path) -> Rows:
    """Every row of the file, in order; blank lines are passed over.

    Raises ``InputError`` with one line naming file, line and key, what was found and what is
    allowed, for the first line that is not a row.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InputError(
            f"{path}: found {reason}, allowed: a readable file of JSON lines"
        ) from None
    numbers = [number for number, text in enumerate(lines, start=1) if text.strip()]
    return Rows(numbers, [_read(lines[number - 1], path, number) for number in numbers])


def _read(text: bytes, path: Path, number: int) -> ResultRow:
    try:
        row = _ROW.validate_json(text)
    except ValidationError as error:
        # The key given twice goes first: of its two values the parser kept the last without a word.
        _refuse_repeated_keys(text, path, number)
        raise InputError(f"{path}, line {number}{_explain(error.errors()[0])}") from None
    if not _surely_no_key_twice(text, row):
        _refuse_repeated_keys(text, path, number)
    return row


def _surely_no_key_twice(text: bytes, row: ResultRow) -> bool:
    """Whether the quotation marks are just those of each key once and of the text values.

    Counting is much faster than a second parse, which is left for lines with an escape.
    """
    if b"\\" in text:
        return False
    marks = text.count(b'"')
    # task_id, task_type, model, miner; created_at may be a fifth.
    expected = 2 * (len(row) + 4)
    return marks == expected


def _refuse_repeated_keys(text: bytes, path: Path, number: int) -> None:
    def refuse(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        seen: dict[str, Any] = {}
        for key, value in pairs:
            if key in seen:
                raise InputError(
                    f"{path}, line {number}, key {shown(key)}: found twice, allowed: once"
                )
            seen[key] = value
        return seen

    try:
        json.loads(text, object_pairs_hook=refuse)
    except InputError:
        raise
    except (ValueError, RecursionError):
        return  # not JSON: whoever called explains that


def _explain(error: ErrorDetails) -> str:
    """The end of an error's line, from the key on."""
    if not error["loc"]:
        if error["type"] == "json_invalid":
            reason = error["ctx"]["error"]
            return f": found no JSON ({reason}), allowed: one JSON object a line"
        return f": found {shown(error['input'])}, allowed: one JSON object a line"
    key = str(error["loc"][0])
    if error["type"] == "extra_forbidden":
        return f", key {shown(key)}: found an unknown key, allowed: {', '.join(ALLOWED)}"
    found = "no such key" if error["type"] == "missing" else shown(error["input"])
    return f", key {key}: found {found}, allowed: {ALLOWED[key]}"


def shown(value: object) -> str:
    """A wrong value as an error shows it: as JSON where it can be, cut to a readable length."""
    text = json.dumps(value) if isinstance(value, str | bool | None) else repr(value)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
