"""Ledger lines read without pydantic, in an eighth of the time, for the replay at every start.

Only the kinds that fill a ledger, only as this release writes them, exact types and all. Whatever
else there is comes back as None and is read strictly instead, or refused there.
"""

import json
from collections.abc import Callable
from typing import Any, NamedTuple, get_args

from shared.inputs import Input, JobEnded, OfferArrived, Outcome, StartRequested, TimerFired
from shared.ledger import LedgerEntry, dumps
from shared.offers import Offer
from shared.wire import MAX_MS


class QuickLine(NamedTuple):
    """A line as far as its replay needs it. value: the whole of it, as JSON."""

    at_ms: int
    entry: Input
    value: dict[str, Any]


def quickly_read(line: str) -> QuickLine | None:
    """A ledger line, or None when it has to be read strictly."""
    try:
        value = json.loads(line)
        at_ms, entry = value["at_ms"], _READ[value["kind"]](value["input"])
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError):
        return None
    return QuickLine(at_ms, entry, value) if type(at_ms) is int and at_ms <= MAX_MS else None


def same_line(line: str, quick: QuickLine, now: LedgerEntry) -> bool:
    """Whether an entry made of the line's input is written as the line is, byte for byte.

    The input's keys and types were checked when it was read: it is written as it was found.
    """
    again = {
        "seq": now.seq,
        "at_ms": now.at_ms,
        "kind": now.entry.kind,
        "input": quick.value["input"],
        "decisions": now.decisions,
    }
    try:
        return dumps(again) == line
    except ValueError:  # NaN
        return False


_OFFER = ("task_id", "model", "task_type", "hours_to_complete", "ds_size", "model_params_count")


def _offer(fields: dict[str, Any]) -> Input:
    offer = fields["offer"]
    values = [*offer.values()]
    _check((*fields,) == ("offer", "source") and type(fields["source"]) is str)
    _check((*offer,) == _OFFER and type(values[3]) is float and _texts(values[:3]))
    _check(all(value is None or type(value) is int for value in values[4:]))
    return OfferArrived(Offer(*values), fields["source"])


def _start(fields: dict[str, Any]) -> Input:
    _check((*fields,) == ("task_id", "source") and _texts(fields.values()))
    return StartRequested(**fields)


def _ended(fields: dict[str, Any]) -> Input:
    _check((*fields,) == ("task_id", "outcome", "phase") and _texts(fields.values()))
    _check(fields["outcome"] in get_args(Outcome) and fields["phase"] in ("stopping", "gone"))
    return JobEnded(**fields)


def _timer(fields: dict[str, Any]) -> Input:
    _check(fields == {})
    return TimerFired()


def _texts(values: Any) -> bool:
    return all(type(value) is str for value in values)


def _check(holds: bool) -> None:
    if not holds:
        raise TypeError


_READ: dict[str, Callable[[dict[str, Any]], Input]] = {
    "offer": _offer,
    "start": _start,
    "ended": _ended,
    "timer": _timer,
}
