"""The subnet's wire protocol, read strictly into what the machine takes.

An offer goes through ``shared.wire``, as in an offers file, so both worlds see the same numbers.
Whatever else a message brings is ignored by decisions and kept: of a start request all of it.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from math import isfinite
from typing import Any, Literal
from uuid import UUID

from pydantic import ValidationError

from live.intake.train_requests import REQUESTS, TrainRequest, fault
from shared.errors import InputError
from shared.ledger import Json, dumps
from shared.offers import Offer
from shared.wire import ALLOWED, found, offer_of, strict_json

Kind = Literal["text", "grpo", "image"]
DEEPEST = 32
"""Levels of nesting in a message."""
NOT_ON_THE_WIRE = {"received_at", "train_hours"}
OFFER_KEYS = [key for key in ALLOWED if key not in NOT_ON_THE_WIRE]

_UUID = re.compile(r"[0-9a-fA-F]{8}(-?)[0-9a-fA-F]{4}(\1[0-9a-fA-F]{4}){2}\1[0-9a-fA-F]{12}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_UNWRITABLE = re.compile("[\0\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Dialect:
    """What differed between versions of the protocol beyond the fields that all of them read.

    submission: the answer about a trained model is the repository's name alone, or an object of
    ``repo`` and ``model_hash``.
    """

    name: str
    submission: Literal["repo", "object"]

    def submission_answer(self, value: str) -> Any:
        """What is answered of a stored submission: a repository, or JSON of repo and model_hash."""
        stored = _stored_submission(value)
        return stored["repo"] if self.submission == "repo" else stored


DIALECTS = {
    dialect.name: dialect for dialect in (Dialect("early", "repo"), Dialect("late", "object"))
}
"""early: whole hours, a JSON string for a submission. late: fractional hours, an object."""


@dataclass(frozen=True, slots=True)
class WireOffer:
    """An offer as it came. unknown: keys it brought that nobody here knows."""

    offer: Offer
    unknown: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class WireStart:
    """A start request as it came. payload: all of it, as JSON text.

    model, hours_to_complete: what it says of the offer; None where it says nothing.
    """

    task_id: str
    payload: str
    unknown: tuple[str, ...] = ()
    model: str | None = None
    hours_to_complete: float | None = None


def dialect_named(name: str) -> Dialect:
    """The dialect of that name. Raises InputError naming those that exist."""
    if name not in DIALECTS:
        raise InputError(f"protocol: found {found(name)}, allowed is one of {', '.join(DIALECTS)}")
    return DIALECTS[name]


def task_uuid(text: object) -> str:
    """A task id in the one form it is known by here: lower case, with hyphens.

    Raises InputError when it is no UUID.
    """
    if not isinstance(text, str) or not _UUID.fullmatch(text):
        raise InputError(f"task_id: found {found(text)}, allowed is a UUID")
    return str(UUID(text))


def known_task_id(text: object) -> object:
    """A task id from a source that does not keep to UUIDs: one that is one has still one form."""
    return str(UUID(text)) if isinstance(text, str) and _UUID.fullmatch(text) else text


def read_object(body: bytes) -> Json:
    """The one JSON object of a message, free of what no file can hold.

    Raises NotJson for what is no JSON, InputError for all else.
    """
    value = strict_json(body)
    if not isinstance(value, dict):
        raise InputError(f"found {found(value)}, allowed is one JSON object")
    try:
        check_plain([*value, *value.values()])
    except InputError:
        _blame(value)
        raise
    return value


def _blame(fields: Json) -> None:
    """Raise InputError naming the first key that cannot be kept, or whose value cannot."""
    for key, part in fields.items():
        try:
            check_plain([key, part])
        except InputError as why:
            raise InputError(f"{found(key).strip(chr(34))}: {why}") from None


def read_offer(body: bytes, now_ms: int) -> WireOffer:
    """An offer from the wire. Raises InputError of one line: KEY: found ..., allowed is ...."""
    fields = read_object(body)
    if "task_id" in fields:
        fields["task_id"] = task_uuid(fields["task_id"])
    return offer_from(fields, now_ms)


def offer_from(fields: Json, now_ms: int) -> WireOffer:
    """An offer from its keys and values, whatever its task id looks like. Raises InputError."""
    known = {key: fields[key] for key in OFFER_KEYS if key in fields}
    offer = offer_of({**known, "received_at": now_ms}).offer()
    for key, text in (("task_id", offer.task_id), ("task_type", offer.task_type)):
        _check_line(key, text)
    check_model(offer.model)
    return WireOffer(offer, _unknown(fields, OFFER_KEYS))


def read_start(body: bytes, kind: Kind) -> WireStart:
    """A start request from the wire. Raises InputError of one line."""
    fields = read_object(body)
    task_id = task_uuid(fields["task_id"]) if "task_id" in fields else ""
    return start_from(fields, kind, task_id)


def start_from(fields: Json, kind: Kind, task_id: str) -> WireStart:
    """A start request from its keys and values. task_id: in our form. Raises InputError."""
    model = REQUESTS[kind]
    try:
        request: TrainRequest = model.model_validate(fields)
    except ValidationError as error:
        raise InputError(fault(error)) from None
    check_model(request.model)
    unknown = _unknown(fields, model.model_fields)
    return WireStart(task_id, dumps(fields), unknown, request.model, request.hours_to_complete)


def kind_of(task_type: str) -> Kind:
    """Which start request goes with a task type."""
    return {"GrpoTask": "grpo", "ImageTask": "image"}.get(task_type, "text")  # type: ignore[return-value]


def check_model(model: str) -> None:
    """Raise InputError for a model id that could be taken for a path out of somewhere."""
    _check_line("model", model)
    if {"", ".", ".."} & set(model.split("/")) or "\\" in model:
        raise InputError(f"model: found {found(model)}, allowed is a name, or two with a slash")


def _check_line(key: str, text: str) -> None:
    if _CONTROL.search(text):
        raise InputError(f"{key}: found {found(text)}, allowed is text without control characters")


def _unknown(fields: Json, known: Any) -> tuple[str, ...]:
    return tuple(sorted(key for key in fields if key not in known))


def check_plain(value: Any) -> None:
    """Raise InputError for what JSON can bring in and no file takes: NUL, half a surrogate pair,
    NaN; and for nesting of more than ``DEEPEST`` levels.
    """
    level = [value]
    for _ in range(DEEPEST):
        if not level:
            return
        level = [inner for each in level for inner in _inside(each)]
    if level:
        raise InputError(f"found nesting of more than {DEEPEST} levels, allowed are so many")


def _inside(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        yield from value
        yield from value.values()
    elif isinstance(value, list):
        yield from value
    elif isinstance(value, str):
        if _UNWRITABLE.search(value):
            raise InputError(f"found {found(value)}, allowed is Unicode text without NUL")
    elif isinstance(value, float) and not isfinite(value):
        raise InputError(f"found {found(value)}, allowed are finite numbers")


def _stored_submission(value: str) -> Json:
    if value.startswith("{"):
        told = strict_json(value.encode())
        return {"repo": told["repo"], "model_hash": told.get("model_hash")}
    return {"repo": value, "model_hash": None}
