"""The desk: asks the consumer for a decision and sees to it that what was told is what holds.

The other end waits three seconds for an answer and takes silence for a refusal. When the
consumer has not answered by ``ANSWER_S``, the answer is a refusal, and it has to stay one:

- An offer that still waits is withdrawn; it has then never happened.
- One that is being written may turn out accepted. Its reservation, of which nobody was told, is
  given back at once (the job ends as ``cancelled``) instead of holding a slot until it lapses;
  only where a repeat of the offer was told the acceptance in time does it stand.
- Within the repeat window the machine would repeat the given-back acceptance. The desk answers
  such a repeat, and a start request for it, by a refusal.

After a crash in between, the reservation lapses by itself. A start request is never withdrawn,
for the other end asks once: it is answered by a refusal after ``START_S``, and the job runs if
the request can be written later.
"""

import asyncio
import logging
from collections import Counter, OrderedDict
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from live.inbox import Entered
from live.intake.consumer import Consumer, Refusals
from live.intake.protocol import WireStart
from live.rows import Row, StartPayload
from shared.decisions import Decision
from shared.errors import FourSlotError, InputError
from shared.inputs import JobEnded, OfferArrived, StartRequested
from shared.jobs import Answer, Effect
from shared.ledger import LedgerEntry
from shared.offers import Offer
from shared.units import hours_to_ms
from shared.wire import found

log = logging.getLogger(__name__)

ANSWER_S = 2.5
"""Seconds in which an offer is answered; the other end waits three."""
START_S = 8.0
"""Seconds in which a start request is answered; the other end waits ten."""
MOST_WAITING = 256
"""Requests that wait for the consumer at once; the next is refused unheard."""
MOST_REMEMBERED = 10_000

BUSY = "Not accepting: busy, too many requests at once"
LATE = "Not accepting: no decision in time"
GIVEN_BACK = "no accepted offer for this task"
STARTED = "Training started"
START_LATE = "The start request could not be written in time; it will be when it can"


@dataclass(frozen=True, slots=True)
class Told:
    """What the other end is told."""

    message: str
    accepted: bool


_Value = TypeVar("_Value")


class _Latest(OrderedDict[str, _Value]):
    """By task id, the latest ``MOST_REMEMBERED`` of them."""

    def keep(self, task_id: str, value: _Value) -> None:
        self[task_id] = value
        self.move_to_end(task_id)
        while len(self) > MOST_REMEMBERED:
            self.popitem(last=False)

    def discard(self, task_id: str) -> None:
        self.pop(task_id, None)


class _Memory(_Latest[None]):
    """Task ids."""

    def add(self, task_id: str) -> None:
        self.keep(task_id, None)


class Desk:
    """Offers and start requests of everybody who waits for an answer."""

    def __init__(
        self,
        consumer: Consumer,
        *,
        answer_s: float = ANSWER_S,
        start_s: float = START_S,
        most_waiting: int = MOST_WAITING,
        reserved: Mapping[str, Offer] | None = None,
        unledgered: Refusals = lambda _: None,
    ) -> None:
        """In front of the one consumer. reserved: accepted offers whose start has yet to come.
        unledgered: told of every offer that is refused without a ledger entry, by ``UNLEDGERED``.
        """
        self._unledgered = unledgered
        self._consumer = consumer
        self._answer_s, self._start_s, self._most_waiting = answer_s, start_s, most_waiting
        self._waiting = 0
        self._asking: Counter[str] = Counter()
        self._starting: Counter[str] = Counter()
        self._untold: set[str] = set()
        self._withdrawn, self._given_back = _Memory(), _Memory()
        self._accepted: _Latest[Offer] = _Latest(reserved or {})
        self._behind: set[asyncio.Task[None]] = set()
        consumer.listen(self._heard)

    async def offer(self, offer: Offer, source: str, rows: tuple[Row, ...] = ()) -> Told:
        """Have an offer decided and answered in time. Raises InputError."""
        if self._waiting >= self._most_waiting:
            self._unledgered("busy")
            await self.keep(rows)
            return Told(BUSY, accepted=False)
        task_id = offer.task_id
        self._asking[task_id] += 1
        self._waiting += 1
        try:
            told = await self._in_time(OfferArrived(offer, source), rows)
            if told.message == LATE:
                self._unledgered("late")
            return told
        except InputError:
            raise
        except FourSlotError as why:
            return Told(f"Not accepting: {why}", accepted=False)
        finally:
            self._waiting -= 1
            self._left(task_id)

    async def _in_time(self, arrived: OfferArrived, rows: tuple[Row, ...]) -> Told:
        task_id = arrived.offer.task_id
        entered = await _within(self._answer_s, self._consumer.put(arrived, extra=rows))
        if entered is None:
            self._withdrawn.add(task_id)
            if rows:  # the offer has not happened, that its nonce was used has
                self._run_behind(self._consumer.keep(rows))
            log.warning("task %s: no decision within %s s", task_id, self._answer_s)
            return Told(LATE, accepted=False)
        decision = entered.answers[-1]
        assert isinstance(decision, Decision)
        if entered.entry is None and not decision.accepted:
            self._unledgered("unwritten")
        if decision.accepted and task_id in self._given_back:
            return Told(LATE, accepted=False)
        self._untold.discard(task_id)
        return Told(decision.reason, decision.accepted)

    def _left(self, task_id: str) -> None:
        """One who asked for this task asks no longer."""
        self._asking[task_id] -= 1
        if self._asking[task_id] <= 0:
            del self._asking[task_id]
            if task_id in self._untold:
                self._untold.discard(task_id)
                self._give_back(task_id)

    def _heard(self, entry: LedgerEntry, answers: list[Answer]) -> None:
        """A decision is durable; those who asked for it learn of it a moment later."""
        if not isinstance(entry.entry, OfferArrived):
            return
        decision = answers[-1]
        assert isinstance(decision, Decision)
        task_id = decision.task_id
        if decision.repeat:
            return
        self._given_back.discard(task_id)
        if decision.accepted:
            self._accepted.keep(task_id, entry.entry.offer)
        if decision.accepted and task_id in self._asking:
            self._untold.add(task_id)
        elif decision.accepted and task_id in self._withdrawn:
            self._give_back(task_id)
        self._withdrawn.discard(task_id)

    def _give_back(self, task_id: str) -> None:
        job = self._consumer.machine.jobs.get(task_id)
        if job is None or job.state != "reserved" or task_id in self._starting:
            return
        self._given_back.add(task_id)
        log.warning("task %s: accepted too late to be told, its slot is given back", task_id)
        self._run_behind(self._cancel(task_id))

    async def _cancel(self, task_id: str) -> None:
        await self._consumer.enter(JobEnded(task_id, outcome="cancelled"))

    async def start(self, start: WireStart, source: str, rows: tuple[Row, ...] = ()) -> Told:
        """Have a job started and answered in time. Raises InputError."""
        task_id = start.task_id
        if task_id in self._given_back or self._waiting >= self._most_waiting:
            await self.keep(rows)
            return Told(GIVEN_BACK if task_id in self._given_back else BUSY, accepted=False)
        other = self._differs(start, source)
        if other is not None:
            log.warning("task %s: start refused: %s", task_id, other)
            await self.keep(rows)
            return Told(other, accepted=False)
        row = StartPayload(task_id, start.payload)
        entered = self._consumer.enter(StartRequested(task_id, source), extra=(row, *rows))
        entering = asyncio.ensure_future(entered)
        self._starting[task_id] += 1
        self._waiting += 1
        entering.add_done_callback(lambda _: self._started(task_id))
        done, _ = await asyncio.wait({entering}, timeout=self._start_s)
        if not done:
            entering.add_done_callback(_log_failure)
            log.warning("task %s: its start is not written within %s s", task_id, self._start_s)
            return Told(START_LATE, accepted=False)
        return _start_answer(entering)

    def _differs(self, start: WireStart, source: str) -> str | None:
        """Why the start is not of the job that was decided on, or None.

        Another model may not fit, fewer hours end before the deadline that the job would run to.
        More hours do no harm: the offer's hold. What the machine refuses itself is left to it.
        """
        offer = self._accepted.get(start.task_id)
        job = self._consumer.machine.jobs.get(start.task_id)
        if offer is None or job is None or (job.state, job.source) != ("reserved", source):
            return None
        if start.model not in (None, offer.model):
            return f"model: found {found(start.model)}, the accepted offer has {found(offer.model)}"
        asked, decided = start.hours_to_complete, offer.hours_to_complete
        if asked is None or hours_to_ms(asked) == hours_to_ms(decided):
            return None
        said = f"hours_to_complete: found {asked!r}, the accepted offer has {decided!r}"
        if asked < decided:
            return said
        log.warning("task %s: started, the offer's hours hold: %s", start.task_id, said)
        return None

    def _started(self, task_id: str) -> None:
        self._waiting -= 1
        self._starting[task_id] -= 1
        if self._starting[task_id] <= 0:
            del self._starting[task_id]

    async def keep(self, rows: tuple[Row, ...]) -> None:
        """Make rows durable that go with no input, as far as that goes in time."""
        if rows:
            await asyncio.wait(
                {self._run_behind(self._consumer.keep(rows))}, timeout=self._answer_s
            )

    def _run_behind(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._behind.add(task)
        task.add_done_callback(self._behind.discard)
        task.add_done_callback(_log_failure)
        return task


async def _within(seconds: float, entering: asyncio.Future[Entered]) -> Entered | None:
    """What became of an input, or None when that took too long: then it is withdrawn."""
    try:
        async with asyncio.timeout(seconds):
            return await entering
    except TimeoutError:  # its answer may have come in the same turn of the loop
        return entering.result() if entering.done() and not entering.cancelled() else None


def _start_answer(entering: asyncio.Future[Entered]) -> Told:
    try:
        effect = entering.result().answers[-1]
    except InputError:
        raise
    except FourSlotError as why:
        return Told(f"Not started: {why}", accepted=False)
    assert isinstance(effect, Effect)
    if effect.effect == "started":
        return Told(STARTED, accepted=True)
    return Told(effect.reason or effect.effect, accepted=False)


def _log_failure(task: asyncio.Future[Any]) -> None:
    if not task.cancelled() and (why := task.exception()) is not None:
        log.warning("not written: %s", why)
