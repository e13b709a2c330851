"""Full disks, failing writes and power cuts: nothing is acknowledged that is not durable."""

import asyncio
import runpy
import shutil
from pathlib import Path

import pytest

from live.clock import ManualClock
from live.daemon import Daemon
from live.ledger_store import StorageError
from live.passing import PassingError
from live.recovery import open_ledger
from live.rows import Nonce
from shared.decisions import Policy
from shared.inputs import JobEnded, OfferArrived, OperatorAsked, StartRequested
from shared.offers import Offer
from shared.presets import ACCURACY_4
from sim.ledger_file import read_ledger
from sim.verify import verify

DISK = runpy.run_path(str(Path(__file__).with_name("faulty_disk.py")))
START = 1_700_000_000_000
HUNG_S = 20
"""A run that waits for what never comes fails after this; none is near it."""
POLICY = Policy(ACCURACY_4, reservation_ttl_ms=60_000)


def offer(task_id):
    return OfferArrived(Offer(task_id, "meta-llama/Llama-3.1-8B", "ChatTask", 10.0), "v")


@pytest.fixture
def disk():
    vfs = DISK["FaultyDisk"]()
    yield vfs
    vfs.unregister()


class Run:
    """A daemon on a disk, and what it acknowledged and refused."""

    def __init__(self, path, vfs):
        self.path = path
        self.opened = open_ledger(path, POLICY, START, vfs=vfs)
        self.clock = ManualClock(START)
        self.daemon = Daemon(self.opened.recorder, self.opened.store, self.clock, retry_s=0.0005)
        self.acknowledged, self.refused, self.heard, self.images = [], [], [], []
        self.daemon.listen(lambda entry, answers: self.heard.append(entry))

    def go(self):
        asyncio.run(asyncio.wait_for(self._go(), HUNG_S))

    async def _go(self):
        task = asyncio.create_task(self.daemon.run())
        for name in "abcdef":
            await self.offered(name)
            self.clock.advance(7)
        for name in [*self.daemon.machine.jobs][:2]:
            await self.entered(StartRequested(name, "v"))
        self.clock.advance(7)
        await asyncio.gather(*(self.offered(f"g{number}") for number in range(5)))
        self.clock.advance(60_000)
        await self.entered(OperatorAsked("drain"))
        for name in [*self.daemon.machine.jobs]:
            await self.entered(JobEnded(name, "completed"))
        await self.entered(OperatorAsked("resume"))
        self.clock.advance(100)
        assert (await self.offered("last")).answers[0].accepted
        await self.daemon.stop()
        await task
        self.opened.store.close()

    async def entered(self, entry):
        entered = await self.daemon.enter(entry)
        self.acknowledged.append(entered.entry)
        return entered

    async def offered(self, name):
        """Offer until it is decided; a refusal for storage leaves no trace."""
        for _ in range(50):
            entered = await self.daemon.enter(offer(name))
            if entered.entry is not None:
                self.acknowledged.append(entered.entry)
                return entered
            (answer,) = entered.answers
            assert (answer.accepted, answer.gate, answer.slot) == (False, "storage", None)
            assert answer.reason == POLICY.preset.messages.storage
            assert name not in self.daemon.machine.jobs
            assert self.daemon.storage_failing
            self.refused.append(name)
            self.keep_image(name)
        raise AssertionError("service never resumed")

    def keep_image(self, name):
        """The files as a kill would leave them now."""
        folder = self.path.parent / f"killed{len(self.images)}"
        folder.mkdir()
        for file in self.path.parent.glob("ledger.db*"):
            if file.suffix != ".lock":
                shutil.copy(file, folder / file.name)
        self.images.append((folder / "ledger.db", name))

    def check(self):
        entries = list(read_ledger(self.path))
        assert verify(entries).difference is None
        assert self.heard == entries[1:]
        assert all(entry in entries for entry in self.acknowledged)


@pytest.fixture
def changes(tmp_path, disk):
    """How many changes of a file the run makes when nothing fails, after its opening."""
    (tmp_path / "sound").mkdir()
    run = Run(tmp_path / "sound" / "ledger.db", DISK["NAME"])
    opened = disk.changes
    run.go()
    run.check()
    assert run.refused == []
    return disk.changes - opened


@pytest.mark.parametrize("how", ["full", "ioerr", "torn"])
@pytest.mark.parametrize("width", [1, 4])
def test_every_write_of_a_run_may_fail(tmp_path, disk, changes, how, width):
    disk.how = how
    refused = 0
    for at in range(changes):
        folder = tmp_path / str(at)
        folder.mkdir()
        run = Run(folder / "ledger.db", DISK["NAME"])
        disk.fails = range(disk.changes + at, disk.changes + at + width)
        run.go()
        disk.fails = range(0)
        run.check()
        assert not run.daemon.storage_failing
        refused += len(run.refused)
        for image, name in run.images:
            found = [e for e in read_ledger(image) if e.entry.kind == "offer"]
            assert width > 1 or name not in [e.entry.offer.task_id for e in found]
    assert refused >= 5
    assert {"write", "sync"} <= set(disk.failed)


@pytest.mark.parametrize("torn", [False, True])
def test_a_power_cut_at_every_sync_loses_nothing_acknowledged(tmp_path, disk, torn):
    cuts = []

    def cut(disk):
        folder = tmp_path / f"cut{len(cuts)}"
        folder.mkdir()
        disk.image(folder, torn)
        cuts.append((folder / "ledger.db", [entry.seq for entry in run.acknowledged]))

    run = Run(tmp_path / "ledger.db", DISK["NAME"])
    disk.before_sync = cut
    run.go()
    cut(disk)
    run.check()
    whole = list(read_ledger(run.path))
    assert len(cuts) > 15
    assert len(cuts[-1][1]) > 15
    for image, acknowledged in cuts:
        opened = open_ledger(image, POLICY, START)
        opened.store.close()
        entries = list(read_ledger(image))
        assert entries == whole[: len(entries)]
        assert set(acknowledged) <= {entry.seq for entry in entries}


def test_while_nothing_can_be_written(tmp_path, disk):
    """Offers are refused, an accepted task hears its acceptance, all else waits."""

    async def main():
        run = Run(tmp_path / "ledger.db", DISK["NAME"])
        daemon = run.daemon
        task = asyncio.create_task(daemon.run())
        accepted = (await run.entered(offer("a"))).answers[0]
        disk.fails = range(disk.changes, 10**9)
        waits = asyncio.create_task(daemon.enter(OperatorAsked("drain")))
        (refused,) = (await daemon.enter(offer("b"))).answers
        assert (refused.gate, refused.repeat) == ("storage", False)
        run.clock.advance(5)
        entered = await daemon.enter(offer("a"))
        assert entered.entry is None
        assert (entered.answers[0].slot, entered.answers[0].repeat) == (accepted.slot, True)
        assert entered.answers[0].at_ms == START + 5
        with pytest.raises(StorageError, match="cannot be written"):
            await daemon.keep(Nonce("k", "n", START))
        run.clock.advance(60_000)
        lapsed = (await daemon.enter(offer("a"))).answers[0]
        assert lapsed.gate == "storage", "its reservation has lapsed by now"
        assert daemon.storage_failing
        assert not waits.done()
        disk.fails = range(0)
        drained = await waits
        assert drained.answers[0].effect == "draining"
        assert not daemon.storage_failing
        await daemon.stop()
        await task
        run.opened.store.close()
        return list(read_ledger(run.path))

    entries = asyncio.run(main())
    assert verify(entries).difference is None
    assert [entry.entry.kind for entry in entries] == ["policy", "offer", "timer", "operator"]
    assert entries[2].at_ms == START + 60_000


def test_a_daemon_on_a_dead_disk_can_be_stopped(tmp_path, disk):
    async def main():
        run = Run(tmp_path / "ledger.db", DISK["NAME"])
        task = asyncio.create_task(run.daemon.run())
        disk.fails = range(disk.changes, 10**9)
        waits = asyncio.create_task(run.daemon.enter(OperatorAsked("drain")))
        while not run.daemon.storage_failing:
            await asyncio.sleep(0)
        await run.daemon.stop()
        await task
        run.opened.store.close()
        return await asyncio.gather(waits, return_exceptions=True)

    (told,) = asyncio.run(main())
    assert "stopped before this was handled" in str(told)


def test_a_new_ledger_that_cannot_be_written(tmp_path, disk):
    disk.how = "full"
    disk.fails = range(10**9)
    with pytest.raises(PassingError, match="cannot be opened now"):
        open_ledger(tmp_path / "ledger.db", POLICY, START, vfs=DISK["NAME"])
    disk.fails = range(0)
    open_ledger(tmp_path / "ledger.db", POLICY, START, vfs=DISK["NAME"]).store.close()
