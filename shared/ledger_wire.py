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
from shared.ledger import LedgerEntry

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

    seq: Annotated[int, Field(ge=1)]
    at_ms: Annotated[int, Field(ge=0)]
    kind: Literal["policy", "offer", "start", "ended", "timer", "gpu", "operator", "storage"]
    input: dict[str, Any]
    decisions: list[dict[str, Any]]


def parse_ledger_line(line: str | bytes) -> LedgerEntry:
    """One ledger line. Raises InputError saying which key is wrong, in one line."""
    try:
        outer = LedgerLine.model_validate_json(line)
        entry: Input = _ADAPTERS[outer.kind].validate_python(outer.input, strict=None)
    except ValidationError as wrong:
        raise InputError(_one_line(wrong)) from None
    return LedgerEntry(outer.seq, outer.at_ms, entry, tuple(outer.decisions))


def _one_line(wrong: ValidationError) -> str:
    first = wrong.errors(include_url=False, include_context=False)[0]
    key = ".".join(str(part) for part in first["loc"]) or "line"
    return (
        f"{key}: found {str(first['input'])[:40]!r}, {first['msg'][:1].lower()}{first['msg'][1:]}"
    )
