"""Verify a ledger: what production decided, decided again on SimPy's calendar.

Only what came from outside is taken from the ledger. When a reservation lapses is worked out
anew, and SimPy puts everything into the handling order, so a late timer or a wrong order of ties
shows as much as a wrong answer.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import groupby

import simpy

from shared.errors import FourSlotError, InputError
from shared.inputs import Input, TimerFired
from shared.ledger import Difference, LedgerEntry, difference, opened, refusal
from sim.engine.alarm import Alarm


@dataclass(frozen=True, slots=True)
class Verdict:
    """entries, offers: how many were compared. difference: the first one, None when they agree."""

    entries: int
    offers: int
    difference: Difference | None


class _Rerun:
    """The recorded inputs on SimPy's calendar, in front of a fresh machine."""

    def __init__(self, opening: LedgerEntry, rest: Iterable[LedgerEntry]) -> None:
        self.recorder = opened(opening)
        self.env = simpy.Environment(opening.at_ms)
        outside = (entry for entry in rest if not isinstance(entry.entry, TimerFired))
        self._groups = groupby(outside, key=lambda entry: entry.at_ms)
        self._open = 0
        self._made: list[LedgerEntry] = []
        self._timer: int | None = None

    @property
    def _now(self) -> int:
        return self.env.now  # type: ignore[return-value]

    def entries(self) -> Iterator[LedgerEntry]:
        """The ledger as it comes out this time. Raises what the machine raises."""
        yield self.recorder.opening
        self._load()
        while self.env.peek() != float("inf"):
            self.env.step()
            yield from self._made
            self._made.clear()
            if not self._open:
                self._load()

    def _load(self) -> None:
        """Put the inputs of the next recorded instant on the calendar, unless time went back."""
        at_ms, group = next(self._groups, (self._now, ()))
        if at_ms < self._now:
            self._groups = groupby(())
            return
        for entry in sorted(group, key=lambda entry: entry.entry.id):
            self._put(at_ms, entry.entry)
            self._open += 1

    def _put(self, at_ms: int, entry: Input) -> None:
        Alarm(self.env, partial(self._on_input, entry)).arm(entry.rank, at_ms - self._now)

    def _on_input(self, entry: Input, _: Alarm) -> None:
        now = self._now
        if isinstance(entry, TimerFired):
            if self.recorder.machine.next_timer() != now:
                return  # its reservation was started or cancelled meanwhile
        else:
            self._open -= 1
        self._made.append(self.recorder.handle(entry, now)[0])
        due = self.recorder.machine.next_timer()
        if due is not None and due != self._timer:
            self._put(due, TimerFired())
        self._timer = due


def verify(entries: Iterable[LedgerEntry]) -> Verdict:
    """Replay a ledger and compare every field of every entry.

    Raises InputError when the ledger is empty or does not begin with a policy.
    """
    recorded = list(entries)
    if not recorded:
        raise InputError("ledger: found no entry, allowed is a policy first")
    rerun = _Rerun(recorded[0], recorded[1:])
    found, compared = _first(recorded, rerun.entries())
    offers = sum(entry.entry.kind == "offer" for entry in recorded[:compared])
    return Verdict(compared, offers, found)


def _first(
    recorded: list[LedgerEntry], again: Iterator[LedgerEntry]
) -> tuple[Difference | None, int]:
    """The first difference, and how many entries were compared up to it.

    A ledger may end anywhere, a daemon's does: timers due after its last entry are not missing.
    """
    for at, old in enumerate(recorded, start=1):
        before = recorded[max(at - 2, 0)]
        try:
            found = _gone_back(before, old) or _part(old, next(again, None))
        except FourSlotError as why:
            found = refusal(old, why)
        if found:
            return found, at
    return None, len(recorded)


def _gone_back(before: LedgerEntry, this: LedgerEntry) -> Difference | None:
    if this.at_ms >= before.at_ms:
        return None
    what = f"at_ms: found {this.at_ms} after {before.at_ms}, time never goes back"
    return refusal(this, InputError(what))


def _part(old: LedgerEntry, new: LedgerEntry | None) -> Difference | None:
    if new is not None:
        return difference(old, new)
    return Difference(old.seq, old.at_ms, old.entry.kind, "kind", old.entry.kind, None)
