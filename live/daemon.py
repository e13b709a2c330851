"""The daemon: the one consumer of the shared machine. Durable first, then answered, then done.

Everything that waits is decided together and written in one transaction. When the disk refuses
it, nothing of it has happened: offers are refused, all else waits until it can be written.
"""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from time import perf_counter

from live import faults
from live.batch import Batch, check_writable, started_rows
from live.clock import Clock
from live.inbox import Entered, Inbox, Waiting
from live.ledger_store import LedgerStore, StorageError
from live.rows import Extra, StartPayload
from live.stamping import Handled, MachineView, fire_due, take_in
from shared.decisions import Decision, Gate, priority_of, reason_of
from shared.errors import FourSlotError
from shared.inputs import Input, OfferArrived
from shared.jobs import Answer
from shared.ledger import LedgerEntry, Recorder
from shared.machine import Saved

__all__ = ["RETRY_S", "Daemon", "DaemonStopped", "Handled", "Listener", "MachineView", "take_in"]

log = logging.getLogger(__name__)

RETRY_S = 1.0
"""While the ledger cannot be written, what waits is tried again this often, and at every offer."""

DISK_S = 0.003
"""So long the event loop stands still for a write. An assumption: ten times a good disk's sync."""

Listener = Callable[[LedgerEntry, list[Answer]], None]


class DaemonStopped(FourSlotError):
    """The daemon takes no more inputs; this one has not been handled."""


class Daemon:
    """Takes inputs, answers when they are durable, and tells who listens."""

    def __init__(
        self,
        recorder: Recorder,
        store: LedgerStore,
        clock: Clock,
        *,
        retry_s: float = RETRY_S,
    ) -> None:
        """On a recorder that stands where the store's ledger ends."""
        self._recorder, self._store, self._clock = recorder, store, clock
        self._retry_s = retry_s
        self._inbox = Inbox()
        self._listeners: list[Listener] = []
        self._behind: list[Listener] = []
        self._watchers: list[Callable[[float, int], None]] = []
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="ledger")
        self._alarm: asyncio.Task[None] | None = None
        self._alarm_ms: int | None = None
        self._failing = self._stopping = self._ended = False
        self._before: Saved | None = None
        self._done = asyncio.Event()

    @property
    def machine(self) -> MachineView:
        """The state of the box, to look at."""
        return self._recorder.machine

    def durable(self) -> MachineView:
        """A copy of the state as the ledger has it, without what is being written just now."""
        twin = self._recorder.machine.copy()
        if self._before is not None:
            twin.restore(self._before)
        return twin

    @property
    def storage_failing(self) -> bool:
        """Whether the ledger could not be written at the last try."""
        return self._failing

    @property
    def waiting(self) -> int:
        """Inputs that wait to be decided."""
        return len(self._inbox)

    def listen(self, callback: Listener, *, behind: bool = False) -> None:
        """Have every entry told, in ledger order, once it is durable. The callback must be quick;
        what it raises is logged and goes no further. behind: after those who wait were woken.
        """
        (self._behind if behind else self._listeners).append(callback)

    def watch_commits(self, callback: Callable[[float, int], None]) -> None:
        """Have every commit told: seconds it took, entries it wrote."""
        self._watchers.append(callback)

    async def enter(self, entry: Input, *, extra: Extra = ()) -> Entered:
        """Enter one input; returns once it and ``extra`` are durable. Raises what ``put`` raises
        and what becomes of it.
        """
        return await self.put(entry, extra=extra)

    def put(self, entry: Input, *, extra: Extra = ()) -> "asyncio.Future[Entered]":
        """Enter one input; done once it and ``extra`` are durable.

        An offer that cannot be written is answered by a refusal without a ledger entry; any other
        input waits until it can be. Raises InputError for text that no file can hold,
        IllegalTransition when the state does not allow it, DaemonStopped at the end.
        """
        check_writable(entry)
        return self._put(entry, extra)

    async def keep(self, extra: Extra) -> None:
        """Make rows durable that belong to no input. Raises StorageError, DaemonStopped."""
        await self._put(None, extra)

    def _put(self, entry: Input | None, extra: Extra) -> "asyncio.Future[Entered]":
        if self._stopping or self._ended:
            raise DaemonStopped("the daemon is stopping and takes nothing more")
        rows = extra if isinstance(extra, tuple) else (extra,)
        return self._inbox.put(entry, rows)

    async def run(self) -> None:
        """Serve until ``stop``. Raises LedgerConflict when something else wrote to the ledger."""
        try:
            self._inbox.ring()
            while True:
                await self._inbox.rung(self._retry_s if self._failing else None)
                await self._serve(self._inbox.take())
                await asyncio.sleep(0)  # who was told goes first, though more may wait already
                if self._stopping and (self._failing or not len(self._inbox)):
                    return
        finally:
            self._end()

    async def stop(self) -> None:
        """Take no more inputs, handle those that wait, and end ``run``.

        What cannot be written by then is answered with DaemonStopped.
        """
        self._stopping = True
        self._inbox.ring()
        await self._done.wait()

    def _end(self) -> None:
        self._ended = True
        self._arm(None)
        self._writer.shutdown(wait=True)
        while len(self._inbox):
            for waiting in self._inbox.take():
                waiting.outcome = DaemonStopped("the daemon stopped before this was handled")
                waiting.tell()
        self._done.set()

    # One batch.

    async def _serve(self, waiting: list[Waiting]) -> None:
        saved = self._recorder.save()
        self._before = saved[1]
        batch = self._decided(waiting)
        try:
            await self._commit(batch)
        except StorageError as why:
            self._recorder.restore(saved)
            self._refuse(batch, why)
        except BaseException as why:
            self._give_up(batch, why)
            raise
        else:
            self._before = None
            self._tell(batch)
        self._before = None
        self._arm(self._recorder.machine.next_timer())

    def _decided(self, waiting: list[Waiting]) -> Batch:
        """Decide each, in order, with the timers that are due before it or by now."""
        now_ms = self._clock.now_ms()
        batch = Batch(waiting)
        for each in waiting:
            try:
                self._decide(each, now_ms, batch)
            except FourSlotError as why:
                each.outcome = why
        batch.handled.extend(fire_due(self._recorder, now_ms))
        return batch

    def _decide(self, waiting: Waiting, now_ms: int, batch: Batch) -> None:
        batch.rows += [row for row in waiting.rows if not isinstance(row, StartPayload)]
        if waiting.entry is None:
            return
        for handled in take_in(self._recorder, waiting.entry, now_ms):
            batch.handled.append(handled)
        entry, answers = batch.handled[-1]
        waiting.outcome = Entered(entry, answers)
        batch.rows += started_rows(entry, answers, waiting.rows)

    async def _commit(self, batch: Batch) -> None:
        if not batch.handled and not batch.rows:
            return
        entries = [entry for entry, _ in batch.handled]
        begun = perf_counter()
        await _over(self._writer.submit(self._store.append, entries, batch.rows))
        took_s = perf_counter() - begun
        for watcher in self._watchers:
            watcher(took_s, len(entries))
        if self._failing:
            log.warning("the ledger can be written again")
        self._failing = False

    def _tell(self, batch: Batch) -> None:
        """What is durable is answered and carried out."""
        faults.reached("before_reply")
        for waiting in batch.waiting:
            waiting.tell()
        loop = asyncio.get_running_loop()
        loop.call_soon(faults.reached, "after_reply")
        _tell_all(self._listeners, batch.handled)
        loop.call_soon(_tell_all, self._behind, batch.handled)

    def _refuse(self, batch: Batch, why: StorageError) -> None:
        """Nothing of the batch has happened: refuse offers and rows, let all else wait."""
        if not self._failing:
            log.error("%s; offers are refused until it can be", why)
        self._failing = True
        back = []
        for waiting in batch.waiting:
            if isinstance(waiting.entry, OfferArrived):
                waiting.outcome = Entered(None, [self._unwritten(waiting.entry)])
                waiting.tell()
            elif waiting.entry is None:
                waiting.outcome = why
                waiting.tell()
            else:
                back.append(waiting)
        self._inbox.put_back(back)

    def _unwritten(self, entry: OfferArrived) -> Decision:
        """The answer to an offer while nothing can be written.

        A task that durably holds a slot hears its acceptance again; that is no new decision.
        """
        now_ms, offer, policy = self._clock.now_ms(), entry.offer, self._recorder.machine.policy
        job = self._recorder.machine.jobs.get(offer.task_id)
        if job is not None and not (job.state == "reserved" and job.lapses_ms <= now_ms):
            return replace(job.decision, at_ms=now_ms, repeat=True)
        priority = priority_of(offer, policy.preset)
        return Decision(
            at_ms=now_ms,
            task_id=offer.task_id,
            accepted=False,
            gate=Gate.STORAGE.label,
            reason=reason_of(Gate.STORAGE, offer, priority, policy),
            priority=priority,
            slot=None,
        )

    def _give_up(self, batch: Batch, why: BaseException) -> None:
        """The consumer ends in the middle of a batch: whether it is durable nobody may say."""
        for waiting in batch.waiting:
            waiting.outcome = DaemonStopped(f"the daemon ended while this was written: {why!r}")
            waiting.tell()

    # The timer.

    def _arm(self, due_ms: int | None) -> None:
        """Have the bell rung when the next reservation lapses."""
        if due_ms == self._alarm_ms:
            return
        if self._alarm is not None:
            self._alarm.cancel()
        self._alarm_ms = due_ms
        self._alarm = None if due_ms is None else asyncio.create_task(self._ring_at(due_ms))

    async def _ring_at(self, due_ms: int) -> None:
        await self._clock.sleep_until(due_ms)
        self._inbox.ring()


def _tell_all(listeners: list[Listener], handled: list[Handled]) -> None:
    for entry, answers in handled:
        for listener in listeners:
            try:
                listener(entry, answers)
            except Exception:
                log.exception("a listener failed at entry %d (%s)", entry.seq, entry.entry.kind)


async def _over(writing: "Future[None]") -> None:
    """Return when a write is over. Raises what it raises.

    Most disks are done before the event loop could look after anything else, so it stands still for
    a moment, which spares an answer two turns of it; a disk that stalls stops it no longer.
    """
    try:
        writing.result(DISK_S)
    except TimeoutError:
        await asyncio.wrap_future(writing)
