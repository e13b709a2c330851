"""The spool folder: a plain source of offers, one JSON file each, so that no subnet is needed.

A file is taken in hand (renamed under an id of its own) before its offer is entered, and that id
stands in the ledger as the offer's source. So a file found in hand after a crash was decided if
and only if the ledger has an offer from its source, however long ago: the answer is that one.

An offer may bring ``"start": {...}``, its start request; once accepted, it starts at once.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass

from live.intake.consumer import Consumer
from live.intake.desk import STARTED
from live.intake.protocol import (
    WireOffer,
    WireStart,
    kind_of,
    known_task_id,
    offer_from,
    read_object,
    start_from,
)
from live.intake.spool_files import SpoolFiles, TakenFile, check_name
from live.rows import StartPayload
from shared.decisions import Decision
from shared.errors import FourSlotError, InputError
from shared.inputs import OfferArrived, StartRequested
from shared.jobs import Effect
from shared.ledger import Json
from shared.ledger_wire import parse_ledger_line
from shared.wire import NotJson, found

log = logging.getLogger(__name__)

POLL_S = 0.5
PATIENCE = 6
"""A file that is no JSON is refused when it has stayed the same for so many looks."""
SOURCE = "spool:"

LedgerLines = Callable[[], Iterable[tuple[int, int, str]]]
"""The ledger's entries, as ``LedgerStore.lines`` gives them: seq, at_ms, line."""


@dataclass(frozen=True, slots=True)
class SpoolOffer:
    """What a file holds."""

    fields: Json
    wire: WireOffer
    start: WireStart | None


class Spool:
    """Decides what lies in the folder, one file after another."""

    def __init__(
        self,
        files: SpoolFiles,
        consumer: Consumer,
        now_ms: Callable[[], int],
        ledger: LedgerLines = tuple,
        *,
        patience: int = PATIENCE,
    ) -> None:
        """ledger: where the answers are that a crash has kept from being written."""
        self._files, self._consumer, self._now_ms = files, consumer, now_ms
        self._ledger, self._patience = ledger, patience
        self._seen: dict[str, tuple[tuple[int, ...], int]] = {}
        self._stuck: set[str] = set()
        self._unwritten: list[tuple[TakenFile, Json]] = []

    async def run(self, stop: asyncio.Event, poll_s: float = POLL_S) -> None:
        """Serve until ``stop`` is set."""
        recovered = False
        while not stop.is_set():
            try:
                if not recovered:
                    await self.recover()
                    recovered = True
                await self.sweep()
            except (OSError, FourSlotError) as why:
                recovered = False  # something may have been left in hand
                log.warning("%s: %s; tried again", self._files.root, why)
            try:
                async with asyncio.timeout(poll_s):
                    await stop.wait()
            except TimeoutError:
                pass

    async def recover(self) -> None:
        """Answer the files that an earlier run has left in hand. Raises OSError."""
        left = self._files.taken()
        if not left:
            return
        decided = _recorded(self._ledger, {one.id for one in left})
        for taken in left:
            try:
                offer = self._parse(self._files.read_taken(taken))
            except InputError as why:
                self._files.refuse_taken(taken, str(why))
                continue
            await self._decide(taken, offer, decided.get(taken.id) or _Recorded())

    async def sweep(self) -> None:
        """Look once. Raises OSError, and FourSlotError when the daemon takes nothing."""
        unwritten, self._unwritten = self._unwritten, []
        for taken, answer in unwritten:
            await self._answer(taken, answer)
        waiting = self._files.waiting()
        self._stuck &= set(waiting)
        self._seen = {name: seen for name, seen in self._seen.items() if name in waiting}
        for name in waiting:
            if name not in self._stuck:
                await self._look(name)

    async def _look(self, name: str) -> None:
        try:
            mark = self._files.mark(name)
            check_name(name)
            offer = self._parse(self._files.read(name))
        except FileNotFoundError:
            return
        except NotJson as why:
            if self._settled(name, mark):
                self._refuse(name, why)
            return
        except InputError as why:
            self._refuse(name, why)
            return
        taken = self._files.take(name)
        # between reading and taking, another may have come under the same name
        if not self._same(taken, offer):
            self._files.refuse_taken(taken, "found a file that changed while it was read")
            return
        await self._decide(taken, offer, _Recorded())

    def _same(self, taken: TakenFile, offer: SpoolOffer) -> bool:
        try:
            return read_object(self._files.read_taken(taken)) == offer.fields
        except InputError:
            return False

    def _settled(self, name: str, mark: tuple[int, ...]) -> bool:
        """Whether a file that is no JSON stays what it is: it may still be being written."""
        before, looks = self._seen.get(name, (mark, 0))
        looks = looks + 1 if before == mark else 1
        self._seen[name] = (mark, looks)
        return looks >= self._patience

    def _refuse(self, name: str, why: InputError) -> None:
        try:
            self._files.refuse_waiting(name, str(why))
        except OSError as fault:  # stays where it is; looked at again when the daemon starts anew
            self._stuck.add(name)
            log.warning("%s: %s, and cannot be moved: %s", ascii(name), why, fault.strerror)

    def _parse(self, body: bytes) -> SpoolOffer:
        fields = read_object(body)
        wire = offer_from(_with_known_id(fields), self._now_ms())
        told = fields.get("start")
        if told is None:
            return SpoolOffer(fields, wire, None)
        if not isinstance(told, dict):
            raise InputError(f"start: found {found(told)}, allowed is an object")
        told = _with_known_id(told)
        offer = wire.offer
        implied = {
            "task_id": offer.task_id,
            "model": offer.model,
            "hours_to_complete": offer.hours_to_complete,
        }
        for key, value in implied.items():
            if told.get(key, value) != value:
                raise InputError(f"start.{key}: found {found(told[key])}, the offer says otherwise")
        try:
            start = start_from({**implied, **told}, kind_of(offer.task_type), offer.task_id)
        except InputError as why:
            raise InputError(f"start.{why}") from None
        return SpoolOffer(fields, wire, start)

    async def _decide(self, taken: TakenFile, offer: SpoolOffer, before: "_Recorded") -> None:
        """Have a file's offer decided and started, unless it was before; write the answer."""
        source = SOURCE + taken.id
        decision = before.decision or await self._entered(offer, source)
        answer: Json = {"offer": offer.fields, "answer": _told(decision)}
        if decision.accepted and offer.start is not None:
            answer["start"] = before.start or await self._start(
                offer.start, self._owner(source, offer)
            )
        await self._answer(taken, answer)

    def _owner(self, source: str, offer: SpoolOffer) -> str:
        """Whose the offer is: an earlier file's, where that brought no start."""
        job = self._consumer.machine.jobs.get(offer.wire.offer.task_id)
        return job.source if job is not None and job.source.startswith(SOURCE) else source

    async def _entered(self, offer: SpoolOffer, source: str) -> Decision:
        """The decision, once it is durable: a file can wait for that."""
        while True:
            entered = await self._consumer.enter(OfferArrived(offer.wire.offer, source))
            if entered.entry is not None:
                decision = entered.answers[-1]
                assert isinstance(decision, Decision)
                return decision
            await asyncio.sleep(POLL_S)

    async def _start(self, start: WireStart, source: str) -> Json:
        entry = StartRequested(start.task_id, source)
        row = StartPayload(start.task_id, start.payload)
        effect = (await self._consumer.enter(entry, extra=row)).answers[-1]
        assert isinstance(effect, Effect)
        return _start_told(effect.effect, effect.reason)

    async def _answer(self, taken: TakenFile, answer: Json) -> None:
        try:
            await asyncio.to_thread(self._files.answer, taken, answer)
        except OSError as why:
            log.warning("%s: its answer cannot be written: %s", taken.name, why.strerror)
            self._unwritten.append((taken, answer))


@dataclass(slots=True)
class _Recorded:
    """What the ledger has of one taking: the decision, and what its start request did."""

    decision: Decision | None = None
    start: Json | None = None


def _with_known_id(fields: Json) -> Json:
    return {key: known_task_id(value) if key == "task_id" else value
            for key, value in fields.items()}  # fmt: skip


def _told(decision: Decision) -> Json:
    told = asdict(decision)
    return {"message": told.pop("reason"), **told}


def _start_told(effect: str, reason: str | None) -> Json:
    if effect == "started":
        return {"message": STARTED, "accepted": True}
    return {"message": reason or effect, "accepted": False}


def _recorded(ledger: LedgerLines, ids: set[str]) -> dict[str, _Recorded]:
    """What the ledger has of these takings."""
    known: dict[str, _Recorded] = {}
    for _, _, line in ledger():
        if f'"source":"{SOURCE}' not in line:
            continue
        entry = parse_ledger_line(line)
        id_ = getattr(entry.entry, "source", "").removeprefix(SOURCE)
        if id_ not in ids:
            continue
        mine, told = known.setdefault(id_, _Recorded()), entry.decisions[-1]
        if isinstance(entry.entry, OfferArrived):
            mine.decision = Decision(**told)
        else:
            mine.start = _start_told(told["effect"], told.get("reason"))
    return known
