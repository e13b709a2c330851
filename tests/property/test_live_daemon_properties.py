"""The daemon under any interleaving of inputs and crashes: what was acknowledged stays, once."""

import asyncio
import tempfile
from collections import Counter
from pathlib import Path
from unittest.mock import patch

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from live import faults
from live.clock import ManualClock
from live.daemon import Daemon, DaemonStopped
from live.recovery import open_ledger
from live.rows import StartPayload
from shared.decisions import Policy
from shared.errors import IllegalTransition
from shared.inputs import (
    GpuChanged,
    JobEnded,
    OfferArrived,
    OperatorAsked,
    PolicyPut,
    StartRequested,
    StorageChanged,
)
from shared.offers import Offer
from shared.presets import ACCURACY_4, MAXIMUM_2
from sim.ledger_file import read_ledger
from sim.verify import verify

START = 1_700_000_000_000
POLICIES = (
    Policy(ACCURACY_4, reservation_ttl_ms=500, repeat_window_ms=100),
    Policy(MAXIMUM_2, reservation_ttl_ms=40, repeat_window_ms=0),
)
tasks = st.sampled_from("abcdefg")
inputs = st.one_of(
    tasks.map(lambda task_id: OfferArrived(Offer(task_id, "m/llama", "ChatTask", 10.0), "v")),
    tasks.map(lambda task_id: StartRequested(task_id, "v")),
    tasks.map(lambda task_id: JobEnded(task_id)),
    tasks.map(lambda task_id: JobEnded(task_id, phase="stopping")),
    st.builds(GpuChanged, st.integers(0, 8), healthy=st.booleans()),
    st.sampled_from(("drain", "resume", "resume")).map(OperatorAsked),
    st.booleans().map(lambda available: StorageChanged(available=available)),
    st.sampled_from(POLICIES).map(PolicyPut),
)
points = st.sampled_from([point for point in faults.POINTS if "spawn" not in point])
steps = st.lists(
    st.tuples(
        st.sampled_from((0, 0, 1, 39, 40, 600)),
        st.lists(inputs, min_size=1, max_size=6),
        st.one_of(st.none(), st.none(), st.none(), points),
    ),
    max_size=10,
)


class Crash(BaseException):
    """The process is gone."""


class History:
    """What went in, and what came back from it."""

    def __init__(self, path):
        self.path = path
        self.now_ms = START
        self.sent = Counter()
        self.acknowledged = {}
        self.told = []

    async def life(self, moves):
        """One daemon, until it crashes or the moves are done. Returns the moves left."""
        opened = open_ledger(self.path, POLICIES[0], self.now_ms)
        self.check()
        clock = ManualClock(max(self.now_ms, opened.last_ms))
        daemon = Daemon(opened.recorder, opened.store, clock)
        daemon.listen(lambda entry, answers: self.told.append(entry))
        run = asyncio.create_task(daemon.run())
        while moves:
            (wait, entries, crash), *moves = moves
            clock.advance(wait)
            self.now_ms = clock.now_ms()
            await self.move(daemon, run, entries, crash)
            if run.done():
                break
        else:
            await daemon.stop()
        await asyncio.gather(run, return_exceptions=True)
        opened.store.close()
        return moves

    async def move(self, daemon, run, entries, crash):
        def reached(point):
            if point == crash:
                raise Crash

        with patch.object(faults, "reached", reached):
            asked = [asyncio.ensure_future(self.ask(daemon, entry)) for entry in entries]
            done = asyncio.gather(*asked, return_exceptions=True)
            await asyncio.wait([done, run], return_when="FIRST_COMPLETED")
            for one in asked:
                one.cancel()
            await asyncio.gather(done, return_exceptions=True)

    async def ask(self, daemon, entry):
        self.sent[entry] += 1
        extra = StartPayload(entry.task_id, "{}") if isinstance(entry, StartRequested) else ()
        try:
            entered = await daemon.enter(entry, extra=extra)
        except (IllegalTransition, DaemonStopped):
            return
        assert self.acknowledged.setdefault(entered.entry.seq, entered.entry) is entered.entry

    def check(self):
        """Nothing acknowledged or told is lost, nothing is there twice."""
        entries = list(read_ledger(self.path))
        by_seq = {entry.seq: entry for entry in entries}
        assert all(by_seq[seq] == entry for seq, entry in self.acknowledged.items())
        assert all(by_seq[entry.seq] == entry for entry in self.told)
        assert [entry.seq for entry in self.told] == sorted({entry.seq for entry in self.told})
        written = Counter(e.entry for e in entries if e.entry.kind not in ("policy", "timer"))
        assert all(self.sent[entry] >= times for entry, times in written.items())
        assert verify(entries).difference is None


def start_rows(path):
    opened = open_ledger(path, POLICIES[0], START)
    rows = list(opened.store._reader.execute("SELECT seq FROM starts ORDER BY seq"))
    jobs = list(opened.store._reader.execute("SELECT seq FROM jobs ORDER BY seq"))
    opened.store.close()
    assert rows == jobs
    return [seq for (seq,) in rows]


@given(steps)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_no_acknowledged_decision_is_lost_or_doubled(moves):
    with tempfile.TemporaryDirectory() as folder:
        history = History(Path(folder) / "ledger.db")
        left = asyncio.run(history.life(moves))
        while left:
            left = asyncio.run(history.life(left))
        history.check()
        entries = list(read_ledger(history.path))
        started = [
            entry.seq
            for entry in entries
            for answer in entry.decisions
            if entry.entry.kind == "start" and answer["effect"] == "started"
        ]
        assert start_rows(history.path) == started
