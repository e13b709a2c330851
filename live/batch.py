"""What the daemon decides together and writes together."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from live.inbox import Waiting
from live.rows import JobFolder, Row, StartPayload, job_dir
from live.stamping import Handled
from shared.errors import InputError
from shared.inputs import Input
from shared.jobs import Answer, Effect
from shared.ledger import LedgerEntry, dumps, input_json


@dataclass(slots=True)
class Batch:
    """What was decided together and is written together."""

    waiting: list[Waiting]
    handled: list[Handled] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)


def check_writable(entry: Input) -> None:
    """Raise InputError for what JSON can bring in and no file takes: half a surrogate pair, NaN."""
    try:
        dumps(input_json(entry)).encode()
    except ValueError as why:
        raise InputError(f"{entry.kind}: found {why}, allowed is Unicode text, numbers") from None


def started_rows(entry: LedgerEntry, answers: list[Answer], rows: tuple[Row, ...]) -> Iterator[Row]:
    """What is kept of a start request that took effect: its folder's name and what it brought."""
    for answer in answers:
        if isinstance(answer, Effect) and answer.effect == "started" and answer.task_id:
            yield JobFolder(entry.seq, answer.task_id, job_dir(entry.seq))
            yield from (replace(r, seq=entry.seq) for r in rows if isinstance(r, StartPayload))
