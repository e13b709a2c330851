"""Opening a ledger: replayed through a fresh machine, which must agree with it byte for byte.

What comes out is a recorder that stands where the ledger ends. Which processes are really there
is the supervisor's to find out.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from live.ledger_store import LedgerStore, Line
from live.quick_lines import quickly_read, same_line
from live.stamping import take_in
from shared.decisions import Decision, Policy
from shared.errors import FourSlotError, IllegalTransition, InputError
from shared.inputs import Input, OfferArrived, PolicyPut
from shared.jobs import Answer, Effect
from shared.ledger import (
    Difference,
    LedgerEntry,
    Recorder,
    answer_json,
    difference,
    opened,
    refusal,
)
from shared.ledger_wire import parse_ledger_line
from shared.offers import Offer


@dataclass(slots=True)
class Replayed:
    """A ledger that agreed.

    entries: how many it has. last_ms: the time of the last one. started: of the jobs that hold a
    slot and were started, the ledger seq of the start, by task id. offers: those that were accepted
    and whose jobs hold a slot, by task id.
    """

    recorder: Recorder
    entries: int
    last_ms: int
    started: dict[str, int] = field(default_factory=dict)
    offers: dict[str, Offer] = field(default_factory=dict)


@dataclass(slots=True)
class Opened:
    """A ledger that is ready for the daemon.

    last_ms: no clock of this daemon may begin before it. replayed: entries found; 0 when new.
    policy_put: whether another policy than the ledger's was entered. started, offers: as in
    ``Replayed``.
    """

    store: LedgerStore
    recorder: Recorder
    last_ms: int
    replayed: int
    started: dict[str, int]
    policy_put: bool
    offers: dict[str, Offer] = field(default_factory=dict)

    @property
    def reserved(self) -> dict[str, Offer]:
        """Offers that were accepted and not started yet, by task id."""
        return {task_id: offer for task_id, offer in self.offers.items()
                if task_id not in self.started}  # fmt: skip


def open_ledger(path: Path, policy: Policy, now_ms: int, *, vfs: str | None = None) -> Opened:
    """Open or begin a ledger under this policy.

    now_ms: what the clock says (UTC ms); when the ledger is ahead of it, the ledger counts. vfs:
    the SQLite VFS to go through, for tests. Raises InputError when the file is no ledger, does not
    agree with its replay, is in use, or holds a box that the policy does not fit; StorageError.
    """
    store = LedgerStore(path, vfs=vfs)
    try:
        found = replayed(store)
        if found is None:
            return _begun(store, policy, now_ms)
        return _continued(store, found, policy, now_ms)
    except BaseException:
        store.close()
        raise


def _begun(store: LedgerStore, policy: Policy, now_ms: int) -> Opened:
    recorder = Recorder(PolicyPut(policy), now_ms)
    store.append([recorder.opening])
    return Opened(store, recorder, now_ms, 0, {}, policy_put=True)


def _continued(store: LedgerStore, found: Replayed, policy: Policy, now_ms: int) -> Opened:
    recorder, last_ms = found.recorder, found.last_ms
    changed = recorder.machine.policy != policy
    if changed:
        try:
            handled = list(take_in(recorder, PolicyPut(policy), now_ms))
        except IllegalTransition as why:
            raise InputError(f"{store.path}: the policy cannot be put in force: {why}") from None
        store.append([entry for entry, _ in handled])
        last_ms = handled[-1][0].at_ms
        for entry, answers in handled:
            keep_offers(found.offers, entry.entry, answers)
    return Opened(store, recorder, last_ms, found.entries, found.started, changed, found.offers)


def replayed(store: LedgerStore) -> Replayed | None:
    """Replay a store's ledger; None when it is empty.

    Raises InputError naming the first entry that cannot be read or that the machine does not
    agree with.
    """
    return replayed_lines(store.lines(), store.path)


def replayed_lines(lines: Iterable[Line], where: Path) -> Replayed | None:
    """``replayed`` of lines from anywhere; ``where`` is named in what is raised."""
    replay: Replayed | None = None
    for seq, at_ms, line in lines:
        try:
            _check_row(seq, at_ms, line)
            if replay is None:
                replay, found = _first(line)
            else:
                found = _next(replay, line)
        except InputError as wrong:
            raise InputError(f"{where}:{seq}: {wrong}") from None
        if found:
            raise InputError(f"{where}: the ledger does not agree with its replay: {found}")
        replay.entries += 1
        replay.last_ms = at_ms
    if replay is not None:  # the machine went on by itself, its recorder follows
        replay.recorder.restore((replay.entries, replay.recorder.machine.save()))
    return replay


def _check_row(seq: object, at_ms: object, line: object) -> None:
    if not isinstance(line, str) or not line.startswith(f'{{"seq":{seq},"at_ms":{at_ms},'):
        raise InputError("line: its seq and at_ms are not the row's")


def _first(line: str) -> tuple[Replayed, Difference | None]:
    recorded = parse_ledger_line(line)
    recorder = opened(recorded)
    return Replayed(recorder, 0, recorded.at_ms), difference(recorded, recorder.opening)


def _next(replay: Replayed, line: str) -> Difference | None:
    """Handle one recorded input again; the difference, or None."""
    quick, seq = quickly_read(line), replay.entries + 1
    read = quick or parse_ledger_line(line)
    entry, at_ms = read.entry, read.at_ms
    try:
        answers = replay.recorder.machine.handle([entry], now=at_ms)
    except FourSlotError as why:
        return refusal(parse_ledger_line(line), why)
    _keep(replay, seq, entry, answers)
    if quick and same_line(line, quick, seq, answers):
        return None
    now = LedgerEntry(seq, at_ms, entry, tuple(answer_json(answer) for answer in answers))
    return difference(parse_ledger_line(line), now)


def _keep(replay: Replayed, seq: int, entry: Input, answers: list[Answer]) -> None:
    """What a start has to know besides the machine's state."""
    keep_offers(replay.offers, entry, answers)
    if isinstance(entry, OfferArrived):
        return
    for answer in answers:
        if isinstance(answer, Effect) and answer.task_id is not None:
            if answer.effect == "started":
                replay.started[answer.task_id] = seq
            elif answer.effect == "released":
                replay.started.pop(answer.task_id, None)


def keep_offers(offers: dict[str, Offer], entry: Input, answers: list[Answer]) -> None:
    """Keep up to date what was offered of each job that holds a slot, by task id.

    To look for it in the ledger would be to read all of it, once a job.
    """
    for answer in answers:
        if isinstance(answer, Decision):
            if answer.accepted and not answer.repeat and isinstance(entry, OfferArrived):
                offers[answer.task_id] = entry.offer
        elif answer.effect in ("released", "lapsed") and answer.task_id is not None:
            offers.pop(answer.task_id, None)
