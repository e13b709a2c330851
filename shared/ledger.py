"""The ledger: every input and what was decided on it, in handling order.

It is the truth. The same inputs, fed to a fresh machine, must give the same decisions byte for
byte; ``first_difference`` is that check.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from typing import Any

from shared.decisions import Decision
from shared.errors import FourSlotError, InputError
from shared.inputs import Input, PolicyPut
from shared.jobs import Answer
from shared.machine import Machine, Saved

Json = dict[str, Any]
_ENCODER = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, allow_nan=False)


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """One line: the input whole, and the decisions as they were written.

    seq: counts from 1. at_ms: the time it was entered at. decisions: one object an answer.
    """

    seq: int
    at_ms: int
    entry: Input
    decisions: tuple[Json, ...]


@dataclass(frozen=True, slots=True)
class Difference:
    """The first place where a replay and a ledger part.

    field: the decision's field, or ``input`` when the machine does not take the input at all.
    """

    seq: int
    at_ms: int
    kind: str
    field: str
    recorded: Any
    replayed: Any

    def __str__(self) -> str:
        """Write it out in one line."""
        return (
            f"entry {self.seq} ({self.kind} at {self.at_ms}): {self.field}: "
            f"ledger has {dumps(self.recorded)}, replay gives {dumps(self.replayed)}"
        )


def dumps(value: object) -> str:
    """The canonical JSON of a value: no spaces, keys as given, floats as their shortest form."""
    return _ENCODER.encode(value)


def answer_json(answer: Answer) -> Json:
    """An answer as it is written: of a decision all fields, of an effect those with a value."""
    written = {name: getattr(answer, name) for name in _names(type(answer))}  # type: ignore[arg-type]
    if isinstance(answer, Decision):
        return written
    return {name: value for name, value in written.items() if value is not None}


def input_json(entry: Input) -> Json:
    """An input as it is written. Sets become sorted lists."""
    return _plain(entry)  # type: ignore[no-any-return]


@cache
def _names(kind: type) -> tuple[str, ...]:
    """The fields of a dataclass; ``asdict`` copies deep and takes ten times as long."""
    return tuple(field.name for field in fields(kind))


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, str | int | float):
        return value
    if is_dataclass(value):
        return {name: _plain(getattr(value, name)) for name in _names(type(value))}  # type: ignore[arg-type]
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, frozenset):
        return sorted(value)
    return [_plain(part) for part in value]


def entry_line(entry: LedgerEntry) -> str:
    """One ledger line, without the line end."""
    return dumps(
        {
            "seq": entry.seq,
            "at_ms": entry.at_ms,
            "kind": entry.entry.kind,
            "input": input_json(entry.entry),
            "decisions": list(entry.decisions),
        }
    )


class Recorder:
    """A machine and its ledger: what is handled is recorded, in one step."""

    def __init__(self, policy: PolicyPut, at_ms: int) -> None:
        """A fresh machine under this policy; its ledger begins with it."""
        self.machine = Machine(policy.policy, now=at_ms)
        self._seq = 1
        self.opening = LedgerEntry(1, at_ms, policy, ())

    def handle(self, entry: Input, now: int) -> tuple[LedgerEntry, list[Answer]]:
        """Handle one input; returns its ledger entry and the answers.

        Raises what ``Machine.handle`` raises; then nothing was recorded.
        """
        answers = self.machine.handle([entry], now=now)
        self._seq += 1
        written = tuple(answer_json(answer) for answer in answers)
        return LedgerEntry(self._seq, now, entry, written), answers

    def save(self) -> tuple[int, Saved]:
        """Where the recorder stands, to come back to until the next ``save``."""
        return self._seq, self.machine.save()

    def restore(self, saved: tuple[int, Saved]) -> None:
        """What was recorded since that ``save`` has not happened: it could not be kept."""
        self._seq, machine = saved
        self.machine.restore(machine)


def difference(recorded: LedgerEntry, now: LedgerEntry) -> Difference | None:
    """Where a recorded entry and its replay part first, field by field, or None."""

    def part(field: str, old: Any, new: Any) -> Difference:
        return Difference(recorded.seq, recorded.at_ms, recorded.entry.kind, field, old, new)

    if entry_line(recorded) == entry_line(now):
        return None
    if recorded.entry.kind != now.entry.kind:
        return part("kind", recorded.entry.kind, now.entry.kind)
    for field in ("at_ms", "seq"):
        if getattr(recorded, field) != getattr(now, field):
            return part(field, getattr(recorded, field), getattr(now, field))
    if recorded.entry != now.entry:
        return part("input", input_json(recorded.entry), input_json(now.entry))
    for old, new in zip(recorded.decisions, now.decisions, strict=False):
        for key in (*old, *new):
            if key not in old or key not in new or dumps(old[key]) != dumps(new[key]):
                return part(key, old.get(key), new.get(key))
    return part("decisions", list(recorded.decisions), list(now.decisions))


def refusal(recorded: LedgerEntry, why: FourSlotError) -> Difference:
    """The difference that an input makes which the machine does not take at all."""
    kind, decided = recorded.entry.kind, list(recorded.decisions)
    return Difference(recorded.seq, recorded.at_ms, kind, "input", decided, str(why))


def first_difference(entries: Iterable[LedgerEntry]) -> Difference | None:
    """Replay a ledger through a fresh machine; the first difference, or None when there is none.

    Raises InputError when it does not begin with a policy.
    """
    recorder: Recorder | None = None
    for entry in entries:
        if recorder is None:
            recorder = opened(entry)
            continue
        try:
            now, _ = recorder.handle(entry.entry, entry.at_ms)
        except FourSlotError as why:
            return refusal(entry, why)
        found = difference(entry, now)
        if found:
            return found
    return None


def opened(entry: LedgerEntry) -> Recorder:
    """The machine a ledger's first entry puts in place. Raises InputError if it is no policy."""
    if not isinstance(entry.entry, PolicyPut):
        raise InputError(f"entry {entry.seq}: found {entry.entry.kind}, allowed is policy first")
    if entry.decisions:
        raise InputError(f"entry {entry.seq}: found decisions, the first policy decides nothing")
    return Recorder(entry.entry, entry.at_ms)
