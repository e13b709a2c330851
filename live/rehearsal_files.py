"""What a rehearsal is told by files: the offers to play, and what befalls the box meanwhile."""

import csv
import gzip
import io
import json
import re
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import NAMESPACE_URL, uuid5

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from live.intake.protocol import task_uuid
from shared.errors import InputError
from shared.presets import preset_named
from shared.wire import MIN_REPEAT_MS, OfferLine, found, offer_line, offer_of
from shared.wire_faults import one_line

FORMATS = (".jsonl", ".ndjson", ".json", ".csv", ".parquet")
_TEXTS = frozenset({"task_id", "model", "task_type"})
_INT = re.compile(r"\s*[+-]?\d{1,25}\s*", re.ASCII)
_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", re.ASCII)

Numbered = tuple[int, OfferLine]
"""An offer, and its line or row, from 1."""


class Event(BaseModel):
    """Something that befalls the box in the middle. at_hours: since the first offer, virtual."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, strict=True)

    at_hours: Annotated[float, Field(ge=0, le=1e6)]
    do: Literal["drain", "resume", "disk_full", "disk_free", "gpu_fails", "gpu_repaired", "policy"]
    gpu: Annotated[int, Field(ge=0)] | None = None
    preset: str | None = None
    cap: Annotated[int, Field(ge=1, le=24)] | None = None

    def check(self, gpus: int) -> None:
        """Raise InputError for what could not be brought about on a box of so many GPUs."""
        of_gpu, of_policy = self.do.startswith("gpu_"), self.do == "policy"
        if of_gpu and (self.gpu is None or self.gpu >= gpus):
            raise InputError(f"gpu: found {self.gpu}, allowed with {self.do} is 0 to {gpus - 1}")
        if of_policy and self.preset is None and self.cap is None:
            raise InputError("preset, cap: found neither, allowed with policy is one or both")
        for key, value in (("gpu", self.gpu), ("preset", self.preset), ("cap", self.cap)):
            if value is not None and not (of_gpu if key == "gpu" else of_policy):
                raise InputError(f"{key}: found {value!r}, allowed with {self.do} is none")
        if self.preset is not None:
            preset_named(self.preset)


def read_offer_lines(path: Path) -> list[OfferLine]:
    """The offers of a file (JSON lines, CSV, Parquet; text also packed, in .gz), by time.

    Raises InputError naming the line and the key; for a task that is offered again within a minute
    both lines.
    """
    suffixes = [each.lower() for each in path.suffixes]
    packed = suffixes[-1:] == [".gz"]
    ending = (suffixes[-2:-1] if packed else suffixes[-1:] or [""])[0] if suffixes else ""
    if ending not in FORMATS or (packed and ending == ".parquet"):
        raise InputError(
            f"{path}: found the name {found(path.name)}, allowed are names ending in "
            f"{', '.join(FORMATS)} (the text forms also packed, in .gz)"
        )
    try:
        offers = list(_rows(path) if ending == ".parquet" else _lines(path, ending, packed=packed))
    except (OSError, EOFError) as why:
        told = getattr(why, "strerror", None) or str(why)
        raise InputError(f"{path}: cannot be read: {told.lower()}") from None
    except (pa.ArrowException, csv.Error, UnicodeDecodeError) as why:
        raise InputError(f"{path}: cannot be read: {str(why).splitlines()[0]}") from None
    if not offers:
        raise InputError(f"{path}: found no offer, allowed is one or more")
    _check_repeats(path, offers, "row" if ending == ".parquet" else "line")
    told = (_for_the_wire(offer) for _, offer in offers)
    return sorted(told, key=lambda each: (each.received_at, each.task_id))


def _lines(path: Path, ending: str, *, packed: bool) -> Iterator[Numbered]:
    with gzip.open(path, "rb") if packed else path.open("rb") as file:
        if ending != ".csv":
            for number, line in enumerate(file, start=1):
                yield number, _told(path, number, lambda line=line: offer_line(line))
            return
        records = csv.DictReader(io.TextIOWrapper(file, "utf-8-sig", newline=""), strict=True)
        for record in records:
            number = records.line_num
            yield number, _told(path, number, lambda record=record: offer_of(_cells(record)))


def _cells(record: dict[str | None, Any]) -> dict[str, Any]:
    """A record's values; an empty cell is no value. Raises InputError."""
    if None in record or None in record.values():
        raise InputError("found more or fewer cells than the header has")
    return {
        str(key): None if cell == "" else cell if key in _TEXTS else _number(cell)
        for key, cell in record.items()
    }


def _number(cell: str) -> int | float | str:
    if _INT.fullmatch(cell):
        return int(cell)
    return float(cell) if _NUMBER.fullmatch(cell) else cell


def _rows(path: Path) -> Iterator[Numbered]:
    with pq.ParquetFile(path) as file:
        number = 0
        for batch in file.iter_batches():
            for row in batch.to_pylist():
                number += 1
                yield number, _told(path, number, lambda row=row: offer_of(row))


def _told(path: Path, number: int, read: Any) -> OfferLine:
    """Raises InputError naming file and line."""
    try:
        offer: OfferLine = read()
    except InputError as wrong:
        at = f"{path}: row {number}" if path.suffix.lower() == ".parquet" else f"{path}:{number}"
        raise InputError(f"{at}: {wrong}") from None
    return offer


def _check_repeats(path: Path, offers: list[Numbered], kind: str) -> None:
    """Raise InputError for a task that is offered again within a minute."""
    in_time = sorted(offers, key=lambda each: (each[1].task_id, each[1].received_at, each[0]))
    for (one, before), (other, after) in pairwise(in_time):
        gap = after.received_at - before.received_at
        if after.task_id == before.task_id and gap <= MIN_REPEAT_MS:
            first, last = sorted((one, other))
            at = f"{path}:{last}" if kind == "line" else f"{path}: row {last}"
            raise InputError(
                f"{at}: task_id: found {found(after.task_id)} {gap} ms from {kind} {first}, "
                f"allowed is the same task again after more than {MIN_REPEAT_MS} ms"
            )


def _for_the_wire(offer: OfferLine) -> OfferLine:
    """The market names its tasks by UUIDs; a file may do otherwise, and gets one for each name."""
    try:
        task_uuid(offer.task_id)
    except InputError:
        return offer.model_copy(update={"task_id": str(uuid5(NAMESPACE_URL, offer.task_id))})
    return offer


def read_events(path: Path | None, gpus: int) -> list[Event]:
    """The events of a JSON-lines file, by time, for a box of so many GPUs.

    Raises InputError naming the line and the key: a run is hours long, and none is to end at an
    event in its middle.
    """
    if path is None:
        return []
    events = []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as why:
        raise InputError(f"{path}: cannot be read: {why}") from None
    for number, line in enumerate(lines, start=1):
        try:
            content = json.loads(line)
            event = Event.model_validate(content)
            event.check(gpus)
        except InputError as wrong:
            raise InputError(f"{path}:{number}: {wrong}") from None
        except ValidationError as wrong:
            raise InputError(f"{path}:{number}: {one_line(wrong, content)}") from None
        except ValueError as wrong:
            raise InputError(f"{path}:{number}: no valid JSON: {wrong}") from None
        events.append(event)
    return sorted(events, key=lambda each: each.at_hours)
