"""An offer as it arrives, in a file or over the wire, read strictly: nothing is coerced or guessed.

Reading can change a decision, so both worlds read with this module. It is the only one of
``shared``, with its ledger sibling, that needs more than the standard library (pydantic).
"""

import json
import re
from typing import Annotated, Any

from pydantic import (
    AwareDatetime,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
)

from shared.box import BoxDeclaration
from shared.decisions import DEFAULT_REPEAT_WINDOW_MS
from shared.errors import InputError
from shared.offers import Offer
from shared.units import MS_PER_DAY, MS_PER_SECOND, hours_to_ms
from shared.wire_faults import one_line

MAX_MS = 253_402_300_799_999
"""The last millisecond of the year 9999, UTC."""
MAX_TASK_ID = 64
MAX_MODEL = 256
MAX_TASK_TYPE = 64
MAX_HOURS = 10_000.0
MAX_COUNT = 2**53
"""Largest dataset or model size: whole numbers up to here survive a trip through a float."""
MAX_TRAIN_HOURS = 1e9
MIN_REPEAT_MS = DEFAULT_REPEAT_WINDOW_MS
"""A task offered again within this many milliseconds is an error; later it is a retry."""

FOUND_CHARS = 40
"""How much of an offending value a message shows."""
_ENDLESS = "a number of thousands of digits"

ALLOWED = {
    "received_at": "UTC epoch milliseconds (a whole number from 0 to 253402300799999) "
    "or ISO 8601 text with a zone",
    "task_id": f"text of 1 to {MAX_TASK_ID} characters",
    "model": f"text of 1 to {MAX_MODEL} characters",
    "task_type": f"text of 1 to {MAX_TASK_TYPE} characters",
    "hours_to_complete": "a number over 0 and at most 10000",
    "ds_size": "a whole number from 0 to 2^53, or null",
    "model_params_count": "a whole number from 0 to 2^53, or null",
    "train_hours": "a number from 0 to 1e9, or null",
}
"""Every key of an offers file, in order, with what it may hold."""

_DAY_FIRST = re.compile(r"\d{4}-\d\d-\d\d[Tt _]", re.ASCII)
_AWARE: TypeAdapter[Any] = TypeAdapter(AwareDatetime)
_EPOCH = _AWARE.validate_python("1970-01-01T00:00:00Z")


def instant_ms(text: str) -> int:
    """Epoch milliseconds of an ISO 8601 instant with a zone, floored, without floats.

    Raises ValueError for anything else: no zone, a bare date, a number in text.
    """
    if not _DAY_FIRST.match(text):  # pydantic would take "1700000000" for seconds
        raise ValueError(text)
    since = _AWARE.validate_python(text) - _EPOCH
    return int(
        since.days * MS_PER_DAY + since.seconds * MS_PER_SECOND + since.microseconds // 1_000
    )


def _epoch_ms(value: object) -> object:
    """ISO text as epoch milliseconds; all else as it is, for the strict integer check."""
    return instant_ms(value) if isinstance(value, str) else value


def _whole(value: object) -> object:
    """100000.0 as 100000 (pandas writes counts so); all else as it is."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


EpochMs = Annotated[int, BeforeValidator(_epoch_ms), Field(ge=0, le=MAX_MS)]
TaskId = Annotated[str, Field(min_length=1, max_length=MAX_TASK_ID)]
ModelId = Annotated[str, Field(min_length=1, max_length=MAX_MODEL)]
TaskType = Annotated[str, Field(min_length=1, max_length=MAX_TASK_TYPE)]
Hours = Annotated[float, Field(gt=0, le=MAX_HOURS)]
Count = Annotated[int, BeforeValidator(_whole), Field(ge=0, le=MAX_COUNT)]
TrainHours = Annotated[float, Field(ge=0, le=MAX_TRAIN_HOURS)]

STRICT = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class OfferLine(BaseModel):
    """One line of an offers file. ``received_at`` is epoch milliseconds once read."""

    model_config = STRICT

    received_at: EpochMs
    task_id: TaskId
    model: ModelId
    task_type: TaskType
    hours_to_complete: Hours
    ds_size: Count | None = None
    model_params_count: Count | None = None
    train_hours: TrainHours | None = None

    @property
    def train_ms(self) -> int:
        """How long the slot is really busy, in milliseconds."""
        told = self.train_hours
        return hours_to_ms(self.hours_to_complete if told is None else told)

    def offer(self) -> Offer:
        """The fields a decision may rest on."""
        return Offer(
            task_id=self.task_id,
            model=self.model,
            task_type=self.task_type,
            hours_to_complete=self.hours_to_complete,
            ds_size=self.ds_size,
            model_params_count=self.model_params_count,
        )


_BOX: TypeAdapter[BoxDeclaration] = TypeAdapter(BoxDeclaration)


def box_of(content: object) -> BoxDeclaration:
    """The box declaration that a file's content says; nothing at all declares nothing.

    Raises InputError of one line, naming the key.
    """
    try:
        return _BOX.validate_python({} if content is None else content)
    except ValidationError as wrong:
        raise InputError(one_line(wrong, content)) from None


class NotJson(InputError):
    """A line that is not one JSON value, whatever a schema would say of it."""


def offer_line(line: bytes) -> OfferLine:
    """One line of an offers file, with or without its line end.

    Raises InputError, of one line: KEY: found ..., allowed is ...; NotJson when the line itself is
    no JSON.
    """
    value = strict_json(line)
    if not isinstance(value, dict):
        raise InputError(f"found {found(value)}, allowed is one JSON object a line")
    return offer_of(value)


def offer_of(fields: dict[str, Any]) -> OfferLine:
    """An offer from its keys and values. Raises InputError of one line."""
    try:
        return OfferLine.model_validate(fields)
    except ValidationError as error:
        raise InputError(explain(error)) from None


def explain(error: ValidationError) -> str:
    """The first fault of an ``OfferLine`` as one line: key, what was found, what is allowed."""
    fault = error.errors(include_url=False, include_context=False)[0]
    key = str(fault["loc"][0])
    if fault["type"] == "extra_forbidden":
        return f"{_bare(key)}: found an unknown key, allowed are {', '.join(ALLOWED)}"
    what = "nothing" if fault["type"] == "missing" else found(fault["input"])
    return f"{key}: found {what}, allowed is {ALLOWED[key]}"


def found(value: object) -> str:
    """A value as a message shows it: JSON, ASCII, on one line, at most some 40 characters."""
    if isinstance(value, (dict, list)):
        return "an object" if isinstance(value, dict) else "a list"
    try:
        text = json.dumps(value[:FOUND_CHARS] if isinstance(value, str) else value, default=repr)
    except ValueError:  # an integer too long for Python to print
        return _ENDLESS
    cut = len(text) > FOUND_CHARS or (isinstance(value, str) and len(value) > FOUND_CHARS)
    return text[: FOUND_CHARS - 3] + "..." if cut else text


def _bare(key: str) -> str:
    """A key as a message shows it: bare when it is a plain word, quoted else."""
    return key if key.isascii() and key.isidentifier() and len(key) <= FOUND_CHARS else found(key)


def strict_json(line: bytes) -> Any:
    """The one JSON value (RFC 8259) of a line, UTF-8.

    NaN and infinities come back as such, so that a schema refuses them by key. Raises NotJson for
    a line that is no JSON, and InputError for a key twice in one object.
    """
    try:
        return json.loads(line.decode("utf-8"), object_pairs_hook=_no_key_twice)
    except UnicodeDecodeError as error:
        raise NotJson(
            f"found bytes that are not UTF-8 (at byte {error.start + 1}), "
            "allowed is UTF-8 text, one JSON object a line"
        ) from None
    except json.JSONDecodeError as error:
        raise NotJson(_no_json(line, error)) from None
    except RecursionError:
        raise NotJson("found values nested too deep, allowed is one JSON object a line") from None
    except InputError:
        raise
    except ValueError:  # the only one left: an integer too long for Python to read
        raise InputError(f"found {_ENDLESS}, allowed are the numbers of an offer") from None


def _no_json(line: bytes, error: json.JSONDecodeError) -> str:
    if not line.strip():
        return "found an empty line, allowed is one JSON object a line"
    if error.msg == "Extra data":
        return f"found more after the object (column {error.pos + 1}), allowed is one object a line"
    return (
        f"found no valid JSON ({error.msg.lower()}, column {error.pos + 1}: "
        f"{found(error.doc[error.pos :])}), allowed is one JSON object a line"
    )


def _no_key_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for at, key in enumerate(keys) if key in keys[:at])
        raise InputError(f"{_bare(twice)}: found the key twice, allowed is once in an object")
    return fields
