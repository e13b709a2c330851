"""The daemon: durable before answered, timers at their own time, one consumer in order."""

import asyncio
import gc
import sqlite3
import threading
from contextlib import asynccontextmanager, closing
from dataclasses import replace

import pytest

from live.clock import ManualClock
from live.daemon import Daemon, DaemonStopped
from live.ledger_store import LedgerConflict
from live.recovery import open_ledger
from live.rows import JobFolder, Nonce, StartPayload, Submission
from shared.decisions import Policy
from shared.errors import IllegalTransition, InputError
from shared.inputs import (
    GpuChanged,
    JobEnded,
    OfferArrived,
    OperatorAsked,
    PolicyPut,
    StartRequested,
    TimerFired,
)
from shared.ledger import LedgerEntry
from shared.offers import Offer
from shared.presets import ACCURACY_4, MAXIMUM_2
from sim.ledger_file import read_ledger
from sim.verify import verify

START = 1_700_000_000_000
TTL_MS = 60_000
HUNG_S = 20
"""A test that waits for what never comes fails after this; none is near it."""
POLICY = Policy(ACCURACY_4, reservation_ttl_ms=TTL_MS)


def offer(task_id="a", hours=10.0):
    return OfferArrived(Offer(task_id, "meta-llama/Llama-3.1-8B", "ChatTask", hours), "v")


class Bench:
    """A daemon under a clock moved by hand, and what its listener heard."""

    def __init__(self, path, policy):
        self.path = path
        opened = open_ledger(path, policy, START)
        self.store, self.clock = opened.store, ManualClock(max(START, opened.last_ms))
        self.daemon = Daemon(opened.recorder, opened.store, self.clock, retry_s=0.001)
        self.heard = []
        self.daemon.listen(lambda entry, answers: self.heard.append((entry, answers)))

    async def heard_of(self, kind):
        while all(entry.entry.kind != kind for entry, _ in self.heard):
            await asyncio.sleep(0)

    def on_disk(self):
        with closing(sqlite3.connect(f"file:{self.path}?mode=ro", uri=True)) as connection:
            return [seq for (seq,) in connection.execute("SELECT seq FROM ledger ORDER BY seq")]


@asynccontextmanager
async def running(path, policy=POLICY):
    bench = Bench(path, policy)
    task = asyncio.create_task(bench.daemon.run())
    try:
        yield bench
    finally:
        await bench.daemon.stop()
        bench.store.close()
        await task


def with_daemon(path, test, policy=POLICY):
    """Run a test against a daemon; then its ledger must verify. Returns the ledger."""

    async def main():
        async with running(path, policy) as bench:
            await test(bench)

    asyncio.run(asyncio.wait_for(main(), HUNG_S))
    entries = list(read_ledger(path))
    assert verify(entries).difference is None
    return entries


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ledger.db"


def test_an_offer_is_on_disk_when_it_is_answered(path):
    async def test(bench):
        entered = await bench.daemon.enter(offer())
        assert bench.on_disk() == [1, 2]
        assert bench.heard == [(entered.entry, entered.answers)]
        assert (entered.entry.seq, entered.entry.at_ms) == (2, START)
        assert entered.answers[0].accepted
        assert bench.daemon.machine.slots_in_use == 1

    entries = with_daemon(path, test)
    assert [entry.entry for entry in entries] == [PolicyPut(POLICY), offer()]


def test_nothing_is_answered_or_told_before_it_is_durable(path):
    async def test(bench):
        begun, go = threading.Event(), threading.Event()
        append = bench.store.append

        def slow(entries, rows):
            begun.set()
            assert go.wait(10)
            append(entries, rows)

        bench.store.append = slow
        asked = asyncio.create_task(bench.daemon.enter(offer()))
        await asyncio.to_thread(begun.wait, 10)
        for _ in range(20):
            await asyncio.sleep(0)
        assert not asked.done()
        assert bench.heard == []
        late = asyncio.create_task(bench.daemon.enter(offer("b")))
        go.set()
        assert (await asked).entry.seq == 2
        assert (await late).entry.seq == 3

    with_daemon(path, test)


def test_all_that_waits_is_one_transaction_at_one_instant(path):
    async def test(bench):
        commits = []
        bench.daemon.watch_commits(lambda seconds, entries: commits.append(entries))
        names = [f"{number * 7 % 32:02}" for number in range(32)]
        await asyncio.gather(*(bench.daemon.enter(offer(name)) for name in names))
        assert commits == [32]

    _, *offers = with_daemon(path, test)
    assert [entry.entry.offer.task_id for entry in offers] == [f"{n:02}" for n in range(32)]
    assert {entry.at_ms for entry in offers} == {START}


def test_more_than_a_transaction_holds_is_several(path):
    async def test(bench):
        commits = []
        bench.daemon.watch_commits(lambda seconds, entries: commits.append(entries))
        await asyncio.gather(*(bench.daemon.enter(offer(f"{n:04}")) for n in range(600)))
        assert commits == [256, 256, 88]
        assert bench.daemon.waiting == 0

    with_daemon(path, test)


def test_the_same_offer_many_times_at_once_is_one_decision(path):
    async def test(bench):
        entered = await asyncio.gather(*(bench.daemon.enter(offer()) for _ in range(32)))
        answers = [each.answers[0] for each in entered]
        assert [answer.repeat for answer in answers].count(False) == 1
        assert {replace(answer, repeat=False) for answer in answers} == {
            replace(answers[0], repeat=False)
        }
        assert bench.daemon.machine.slots_in_use == 1

    with_daemon(path, test)


# Timers.


def test_a_timer_fires_by_itself_at_exactly_its_time(path):
    async def test(bench):
        await bench.daemon.enter(offer())
        bench.clock.advance(TTL_MS - 1)
        await bench.daemon.enter(offer("b"))
        assert bench.daemon.machine.slots_in_use == 2
        bench.clock.advance(5_000)
        await bench.heard_of("timer")
        assert bench.daemon.machine.slots_in_use == 1
        assert bench.daemon.machine.next_timer() == START + 2 * TTL_MS - 1

    *_, last = with_daemon(path, test)
    assert (last.entry, last.at_ms) == (TimerFired(), START + TTL_MS)


def test_a_late_wake_fires_first_and_stamps_afterwards(path):
    async def test(bench):
        for name in "abcd":
            await bench.daemon.enter(offer(name))
            bench.clock.advance(10)
        bench.clock._now_ms = START + TTL_MS + 25  # nobody was woken: the loop was busy
        entered = await bench.daemon.enter(offer("e"))
        assert (entered.answers[0].slot, entered.entry.at_ms) == (0, START + TTL_MS + 25)

    entries = with_daemon(path, test)
    after = [(entry.entry.kind, entry.at_ms - START - TTL_MS) for entry in entries[5:]]
    assert after == [("timer", 0), ("timer", 10), ("timer", 20), ("offer", 25)]


def test_a_timer_left_over_from_before_a_restart(path):
    async def accepts(bench):
        await bench.daemon.enter(offer())

    async def later(bench):
        bench.clock._now_ms += 10 * TTL_MS
        await bench.heard_of("timer")

    with_daemon(path, accepts)
    *_, last = with_daemon(path, later)
    assert last.at_ms == START + TTL_MS


def test_a_started_job_lapses_no_more(path):
    async def test(bench):
        await bench.daemon.enter(offer())
        bench.clock.advance(1)
        await bench.daemon.enter(StartRequested("a", "v"))
        assert bench.daemon._alarm is None
        bench.clock.advance(10 * TTL_MS)
        await bench.daemon.enter(JobEnded("a"))

    kinds = [entry.entry.kind for entry in with_daemon(path, test)]
    assert kinds == ["policy", "offer", "start", "ended"]


# Stamps and order.


def test_an_input_that_would_sort_before_the_last_gets_the_next_millisecond(path):
    async def test(bench):
        inputs = (offer("b"), offer("a"), StartRequested("b", "v"), offer("0"))
        entered = [await bench.daemon.enter(entry) for entry in inputs]
        assert [each.entry.at_ms - START for each in entered] == [0, 1, 2, 2]
        bench.clock.advance(1)
        assert (await bench.daemon.enter(offer("9"))).entry.at_ms == START + 2

    with_daemon(path, test)


def test_a_clock_behind_the_ledger_does_not_turn_it_back(path):
    async def test(bench):
        bench.clock._now_ms = START - 1_000_000
        assert (await bench.daemon.enter(offer())).entry.at_ms == START

    with_daemon(path, test)


def test_reports_keep_the_order_they_came_in(path):
    """Sorted by id, the repair would come after the failure that followed it."""

    async def test(bench):
        await bench.daemon.enter(GpuChanged(0, healthy=False))
        changes = [GpuChanged(0, healthy=True), GpuChanged(0, healthy=False)]
        drains = [OperatorAsked("resume"), OperatorAsked("drain")]
        await asyncio.gather(*(bench.daemon.enter(entry) for entry in (*changes, *drains)))
        assert bench.daemon.machine.failed_gpus == {0}
        assert bench.daemon.machine.draining

    with_daemon(path, test)


def test_an_end_makes_room_for_the_offer_that_came_before_it(path):
    async def test(bench):
        for name in "abcd":
            await bench.daemon.enter(offer(name))
        asked = [offer("e"), JobEnded("a", "cancelled")]
        entered, _ = await asyncio.gather(*(bench.daemon.enter(entry) for entry in asked))
        assert entered.answers[0].slot == 0

    with_daemon(path, test)


def test_a_policy_is_put_while_jobs_run(path):
    async def test(bench):
        await bench.daemon.enter(offer())
        await bench.daemon.enter(PolicyPut(Policy(MAXIMUM_2)))
        assert bench.daemon.machine.policy.preset == MAXIMUM_2

    with_daemon(path, test)


# What is refused.


def test_an_illegal_input_is_its_callers_alone(path):
    async def test(bench):
        asked = [offer("a"), JobEnded("nobody"), GpuChanged(99, healthy=False), offer("b")]
        first, second, third, last = await asyncio.gather(
            *(bench.daemon.enter(entry) for entry in asked), return_exceptions=True
        )
        assert isinstance(second, IllegalTransition)
        assert isinstance(third, IllegalTransition)
        assert (first.entry.seq, last.entry.seq) == (2, 3)
        with pytest.raises(IllegalTransition):
            await bench.daemon.enter(JobEnded("nobody"))
        assert bench.on_disk() == [1, 2, 3]

    with_daemon(path, test)


@pytest.mark.parametrize("entry", [offer("\ud800"), offer(hours=float("nan"))])
def test_what_no_file_can_hold_is_refused(path, entry):
    async def test(bench):
        with pytest.raises(InputError, match="offer: found"):
            await bench.daemon.enter(entry)
        assert (await bench.daemon.enter(offer("é\x00\n\u2028"))).entry.seq == 2

    with_daemon(path, test)


def test_a_request_whose_sender_went_away_is_dropped_a_report_is_not(path):
    async def test(bench):
        await bench.daemon.enter(offer("a"))
        entries = (
            offer("b"), StartRequested("a", "v"), OperatorAsked("drain"),
            GpuChanged(7, healthy=False), offer("c"),
        )  # fmt: skip
        asked = [asyncio.create_task(bench.daemon.enter(entry)) for entry in entries]
        await asyncio.sleep(0)
        for task in asked[:4]:
            task.cancel()
        assert (await asked[4]).answers[0].gate == "accepted"

    kinds = [entry.entry.kind for entry in with_daemon(path, test)]
    assert kinds == ["policy", "offer", "gpu", "offer"]


# Listeners, rows, the end.


def test_a_listener_that_fails_is_logged_and_harms_nobody(path, caplog):
    async def test(bench):
        def broken(entry, answers):
            raise RuntimeError("broken listener")

        heard = []
        bench.daemon.listen(broken)
        bench.daemon.listen(lambda entry, answers: heard.append(entry.seq))
        await bench.daemon.enter(offer("a"))
        await bench.daemon.enter(offer("b"))
        assert heard == [2, 3] == [entry.seq for entry, _ in bench.heard]

    with_daemon(path, test)
    assert "a listener failed at entry 2 (offer)" in caplog.text


def test_no_entry_is_kept_once_it_is_told(path):
    def kept():
        return sum(type(found) is LedgerEntry for found in gc.get_objects())

    async def main():
        bench = Bench(path, POLICY)
        bench.daemon._listeners.clear()
        task = asyncio.create_task(bench.daemon.run())
        before = kept()
        for number in range(300):
            bench.clock.advance(TTL_MS)
            await bench.daemon.enter(offer(f"{number}"))
        more = kept() - before
        await bench.daemon.stop()
        await task
        bench.store.close()
        return more

    assert asyncio.run(main()) <= 3
    assert len(list(read_ledger(path))) == 600


def test_what_a_start_brought_is_kept_with_it(path):
    async def test(bench):
        payload = StartPayload("a", '{"whole":"é"}')
        await bench.daemon.enter(StartRequested("a", "v"), extra=payload)
        assert bench.store.start_payload("a") is None
        assert bench.store.job_folder("a") is None
        await bench.daemon.enter(offer("a"))
        nonce = Nonce("key", "n", START + 5)
        entered = await bench.daemon.enter(StartRequested("a", "v"), extra=(payload, nonce))
        assert bench.store.start_payload("a") == '{"whole":"é"}'
        seq = entered.entry.seq
        assert bench.store.job_folder("a") == JobFolder(seq, "a", f"{seq:08d}")
        assert list(bench.store.nonces()) == [nonce]

    with_daemon(path, test)


def test_rows_of_their_own_are_kept_without_an_entry(path):
    async def test(bench):
        await bench.daemon.keep(Submission("a", '"repo"'))
        await bench.daemon.keep(Submission("a", '"other"'))
        assert bench.store.submission("a") == '"other"'
        assert bench.on_disk() == [1]

    with_daemon(path, test)


def test_stopping_handles_what_waits_and_takes_no_more(path):
    async def main():
        async with running(path) as bench:
            asked = asyncio.create_task(bench.daemon.enter(offer()))
            await asyncio.sleep(0)
            stopping = asyncio.create_task(bench.daemon.stop())
            assert (await asked).entry.seq == 2
            await stopping
            with pytest.raises(DaemonStopped):
                await bench.daemon.enter(offer("b"))

    asyncio.run(main())
    assert len(list(read_ledger(path))) == 2


def test_another_writer_ends_the_daemon_and_the_caller_hears_of_it(path):
    async def main():
        bench = Bench(path, POLICY)
        task = asyncio.create_task(bench.daemon.run())
        with closing(sqlite3.connect(path)) as other:
            other.execute("INSERT INTO ledger VALUES (2, 0, '')")
            other.commit()
        with pytest.raises(DaemonStopped, match="entry 2 is already there"):
            await bench.daemon.enter(offer())
        with pytest.raises(LedgerConflict):
            await task
        assert bench.heard == []
        with pytest.raises(DaemonStopped):
            await bench.daemon.enter(offer())
        bench.store.close()

    asyncio.run(main())


def test_whoever_waits_when_the_daemon_is_cancelled_hears_of_it(path):
    async def main():
        bench = Bench(path, POLICY)
        begun, go = threading.Event(), threading.Event()
        append = bench.store.append

        def slow(entries, rows):
            begun.set()
            go.wait(10)
            append(entries, rows)

        bench.store.append = slow
        task = asyncio.create_task(bench.daemon.run())
        first = asyncio.create_task(bench.daemon.enter(offer("a")))
        await asyncio.to_thread(begun.wait, 10)
        second = asyncio.create_task(bench.daemon.enter(offer("b")))
        await asyncio.sleep(0)
        go.set()
        task.cancel()
        told = await asyncio.gather(first, second, task, return_exceptions=True)
        assert [type(each) for each in told[:2]] == [DaemonStopped] * 2
        assert isinstance(told[2], asyncio.CancelledError)
        assert bench.on_disk() == [1, 2], "what was begun was finished"
        bench.store.close()

    asyncio.run(main())
