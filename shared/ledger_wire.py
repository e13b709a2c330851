"""Ledger lines as they are read: parsed strictly, so that nothing is taken for what it is not."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from shared.errors import InputError
from shared.inputs import (
    GpuChanged,
    Input,
    JobEnded,
    OfferArrived,
    OperatorAsked,
    PolicyPut,
    StartRequested,
    StorageChanged,
    TimerFired,
)
from shared.ledger import LedgerEntry, dumps
from shared.wire import MAX_COUNT, MAX_MS, NotJson, strict_json

_INPUTS: dict[str, type[Input]] = {
    kind.kind: kind
    for kind in (
        PolicyPut,
        OfferArrived,
        StartRequested,
        JobEnded,
        TimerFired,
        GpuChanged,
        OperatorAsked,
        StorageChanged,
    )
}
_ADAPTERS: dict[str, TypeAdapter[Any]] = {
    kind: TypeAdapter(found) for kind, found in _INPUTS.items()
}


class LedgerLine(BaseModel):
    """One line of a ledger before its input is parsed by kind."""

    model_config = ConfigDict(extra="forbid", strict=True)

    seq: Annotated[int, Field(ge=1, le=MAX_COUNT)]
    at_ms: Annotated[int, Field(ge=0, le=MAX_MS)]
    kind: Literal["policy", "offer", "start", "ended", "timer", "gpu", "operator", "storage"]
    input: dict[str, Any]
    decisions: list[dict[str, Any]]


def parse_ledger_line(line: str | bytes) -> LedgerEntry:
    """One ledger line. Raises InputError saying which key is wrong, in one line.

    A part of the input that an earlier version did not write takes its default.
    """
    try:
        outer = LedgerLine.model_validate(_json(line))
        # in pydantic's JSON mode lists are tuples and sets, and nothing else is taken for another
        entry: Input = _ADAPTERS[outer.kind].validate_json(dumps(outer.input), strict=True)
    except ValidationError as wrong:
        raise InputError(_one_line(wrong)) from None
    return LedgerEntry(outer.seq, outer.at_ms, entry, tuple(outer.decisions))


def _json(line: str | bytes) -> Any:
    """The line's JSON, without the numbers JSON does not have."""
    try:
        value = strict_json(line.encode() if isinstance(line, str) else line)
        dumps(value)
    except NotJson as wrong:
        raise InputError(f"line: {wrong}") from None
    except ValueError as wrong:
        if isinstance(wrong, InputError):
            raise
        raise InputError("line: found NaN or an infinity, allowed are numbers") from None
    return value


def _one_line(wrong: ValidationError) -> str:
    first = wrong.errors(include_url=False, include_context=False)[0]
    key = " ".join(".".join(str(part) for part in first["loc"]).split())[:80] or "line"
    said = " ".join(first["msg"].split())
    return f"{key}: found {str(first['input'])[:40]!r}, {said[:1].lower()}{said[1:]}"
