"""The supervisor on real launchers and stub workers: every job's end is entered, once, in time."""

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import live.job_watch
from live.clock import ManualClock
from live.daemon import take_in
from live.disk_need import Need, Owed, need_of, slot_of
from live.gpus import CpuSlots, GpuError, GpuProcess, Gpus
from live.job_files import (
    JOB,
    JobExit,
    JobSpec,
    ask_to_stop,
    exit_of,
    launcher_of,
    lock_held,
    read_record,
    stop_reason,
    write_atomic,
    write_record,
)
from live.job_settings import JobSettings
from live.launching import launcher_command, signal_launcher, wanted, write_job
from live.reaping import marked, reap
from live.rows import Submission, Training, job_dir
from live.storage_watch import StorageWatch
from live.supervisor import Supervisor
from live.training.record import TRAINING, TrainingRecord, write_training
from live.training.settings import TrainingSettings
from shared.decisions import Policy
from shared.errors import InputError
from shared.inputs import (
    GpuChanged,
    Input,
    JobEnded,
    OfferArrived,
    PolicyPut,
    StartRequested,
    StorageChanged,
)
from shared.ledger import LedgerEntry, Recorder
from shared.machine import Machine
from shared.offers import Offer
from shared.presets import ACCURACY_4, THROUGHPUT_24, Preset

T0 = 1_000_000
HOUR = 3_600_000
PATIENCE_S = 30.0
QUICK = JobSettings(
    worker_module="live.worker_stub",
    torchrun=False,
    processes=1,
    max_restarts=1,
    stop_grace_s=0.5,
    poll_s=0.02,
    kill_timeout_s=1.0,
    release_timeout_s=0.2,
    stable_s=0.0,
    health_every_s=0.02,
)


class Desk:
    """The daemon's part: one machine, its ledger, and who listens."""

    def __init__(self, preset: Preset = ACCURACY_4) -> None:
        self.clock = ManualClock(T0)
        self.recorder = Recorder(PolicyPut(Policy(preset)), T0)
        self.entries: list[LedgerEntry] = []
        self.extras: list[Any] = []
        self.listener: Callable[[LedgerEntry, list[Any]], None] = lambda *_: None

    @property
    def machine(self) -> Machine:
        return self.recorder.machine

    async def enter(self, entry: Input, *, extra: Any = ()) -> None:
        self.extras.append(extra)
        for made, answers in take_in(self.recorder, entry, self.clock.now_ms()):
            self.entries.append(made)
            self.listener(made, answers)

    async def start(self, task_id: str = "a", hours: float = 10.0) -> int:
        """Accept and start a task; the ledger seq of its start."""
        offer = Offer(task_id, "meta-llama/Llama-3.1-8B", "InstructTextTask", hours, 1, 8 * 10**9)
        await self.enter(OfferArrived(offer))
        await self.enter(StartRequested(task_id))
        return self.entries[-1].seq

    def told(self) -> list[tuple[object, ...]]:
        """What has been entered besides offers and starts."""
        told: list[tuple[object, ...]] = []
        for line in self.entries:
            match line.entry:
                case JobEnded(task_id, outcome, phase):
                    told.append((task_id, phase, outcome))
                case GpuChanged(gpu, healthy):
                    told.append((gpu, healthy))
        return told


class ScriptedGpus:
    """GPUs that say what a test has put here."""

    device = "cuda"

    def __init__(self) -> None:
        self.count = 8
        self.used: dict[int, int] = {}
        self.seen: dict[int, tuple[GpuProcess, ...]] = {}
        self.faults: dict[int, str] = {}
        self.wishes: dict[int, str] = {}
        self.mute = False

    def wants_reset(self, gpu: int) -> str | None:
        return self.wishes.get(gpu)

    def uuid(self, gpu: int) -> str | None:
        return f"GPU-{gpu}"

    def clear(self, gpu: int) -> str | None:
        return self.faults.pop(gpu, None)

    def name(self, gpu: int) -> str:
        return "H100"

    def memory_bytes(self, gpu: int) -> int:
        return 80 * 10**9

    def used_bytes(self, gpu: int) -> int:
        return self.used.get(gpu, 0)

    def processes(self, gpu: int) -> tuple[GpuProcess, ...]:
        return self.seen.get(gpu, ())

    def fault(self, gpu: int) -> str | None:
        if self.mute:
            raise GpuError("mute")
        return self.faults.get(gpu)


class Bench:
    """A supervisor at its desk."""

    def __init__(self, root: Path, gpus: Gpus | None = None, preset: Preset = ACCURACY_4) -> None:
        self.root, self.gpus = root, gpus or CpuSlots(8)
        self.desk = Desk(preset)
        self.request: dict[str, object] = {"stub_seconds": 0.1, "model": "m"}
        self.settings = QUICK
        self.supervisor = self.open()

    def open(self) -> Supervisor:
        """A supervisor at this desk, which takes the place of the one before."""
        self.supervisor = Supervisor(
            self.desk,
            self.desk.clock,
            self.gpus,
            self.root,
            lambda _: wanted(self.request),
            self.settings,
        )
        self.desk.listener = self.supervisor.on_entry
        return self.supervisor

    def folder(self, seq: int) -> Path:
        return self.root / job_dir(seq)

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                await asyncio.sleep(0.01)

    async def running(self, seq: int) -> int:
        """Wait for a job to be at work; its launcher's pid."""
        await self.until((self.folder(seq) / "heartbeat").exists)
        record = launcher_of(self.folder(seq))
        assert record is not None
        return record.pid

    async def over(self) -> None:
        async with asyncio.timeout(PATIENCE_S):
            await self.supervisor.idle()


@pytest.fixture
def bench(tmp_path: Path) -> Any:
    made = Bench(tmp_path / "jobs")
    yield made
    clear(made.root)


@pytest.fixture
def gpu_bench(tmp_path: Path) -> Any:
    made = Bench(tmp_path / "jobs", ScriptedGpus())  # type: ignore[arg-type]
    yield made
    clear(made.root)


def clear(root: Path) -> None:
    for folder in root.iterdir():
        signal_launcher(folder, signal.SIGKILL)
        record = launcher_of(folder)
        assert not reap(folder, record.cgroup if record else None, patience_s=10.0)


def run(story: Coroutine[Any, Any, None]) -> None:
    asyncio.run(story)


def test_a_job_from_its_start_to_a_free_slot(bench: Bench) -> None:
    async def story() -> None:
        seq = await bench.desk.start("../../etc/passwd")
        await bench.over()
        assert bench.desk.told()[-1] == ("../../etc/passwd", "gone", "completed")
        assert bench.desk.machine.slots_in_use == 0
        assert [path.name for path in bench.root.iterdir()] == [job_dir(seq)]
        spec = read_record(bench.folder(seq), JOB, JobSpec)
        assert spec is not None
        assert (spec.deadline_ms - spec.started_ms, spec.warn_ms) == (
            10 * HOUR,
            spec.deadline_ms - 300_000,
        )
        assert (spec.model, spec.gpus, spec.memory_gb_per_gpu) == ("m", (0, 1), 80.0)
        assert not any(isinstance(row, Submission) for extra in bench.desk.extras for row in extra)

    run(story())


@pytest.mark.parametrize("broken", [False, True])
def test_what_the_training_came_to_goes_with_the_end(bench: Bench, broken: bool) -> None:
    """Of a job that fails too; a record that cannot be read costs nothing but itself."""
    record = TrainingRecord(model="m", steps=7, failure="it crashed")

    async def story() -> None:
        bench.request |= {"stub_seconds": 3600}
        seq = await bench.desk.start()
        await bench.running(seq)
        write_training(bench.folder(seq), record)
        if broken:
            (bench.folder(seq) / TRAINING).write_text('{"steps": ')
        bench.desk.clock.move_to(T0 + 11 * HOUR)
        await bench.over()
        assert bench.desk.told()[-1] == ("a", "gone", "failed")
        rows = [row for extra in bench.desk.extras for row in extra if isinstance(row, Training)]
        assert rows == ([] if broken else [Training("a", record.model_dump_json())])
        assert isinstance(bench.desk.entries[-1].entry, JobEnded)

    run(story())


def test_four_at_once(bench: Bench) -> None:
    async def story() -> None:
        bench.request["stub_seconds"] = 0.5
        for task_id in "abcd":
            await bench.desk.start(task_id)
        await bench.until(lambda: sum(map(lock_held, bench.root.iterdir())) == 4)
        assert [job.slot for job in bench.supervisor.status()] == [0, 1, 2, 3]
        await bench.over()
        ends = {told[0] for told in bench.desk.told() if told[1:] == ("gone", "completed")}
        assert ends == set("abcd")

    run(story())


def test_the_warning_comes_with_the_margin_and_what_there_is_is_delivered(bench: Bench) -> None:
    async def story() -> None:
        bench.request["stub_seconds"] = 3600
        seq = await bench.desk.start()
        await bench.running(seq)
        deadline_ms = bench.desk.machine.jobs["a"].deadline_ms
        assert deadline_ms is not None
        bench.desk.clock.move_to(deadline_ms - 300_001)
        for _ in range(5):
            await asyncio.sleep(0.02)
        assert stop_reason(bench.folder(seq)) is None
        bench.desk.clock.move_to(deadline_ms - 300_000)
        await bench.over()
        assert bench.desk.told()[-1] == ("a", "gone", "completed")
        assert bench.desk.entries[-1].at_ms == deadline_ms - 300_000

    run(story())


def test_at_the_deadline_a_job_is_killed(bench: Bench) -> None:
    async def story() -> None:
        bench.settings = replace(QUICK, stop_grace_s=3600.0, margin_ms=1)
        bench.open()
        bench.request["behaviour"] = "ignore_sigterm"
        seq = await bench.desk.start()
        await bench.running(seq)
        bench.desk.clock.advance(10 * HOUR + 10)
        await bench.over()
        assert bench.desk.told() == [("a", "stopping", "failed"), ("a", "gone", "failed")]
        assert marked(bench.folder(seq)) == set()

    run(story())


def test_deadlines_that_are_not_enforced(bench: Bench) -> None:
    async def story() -> None:
        bench.settings = replace(QUICK, enforce_deadlines=False)
        bench.open()
        bench.request["stub_seconds"] = 0.5
        seq = await bench.desk.start()
        await bench.running(seq)
        bench.desk.clock.advance(99 * HOUR)
        await bench.over()
        assert bench.desk.told()[-1] == ("a", "gone", "completed")
        assert stop_reason(bench.folder(seq)) is None
        spec = read_record(bench.folder(seq), JOB, JobSpec)
        assert spec is not None
        assert spec.time_left is None

    run(story())


def test_a_killed_launcher_is_replaced_and_the_job_goes_on(bench: Bench) -> None:
    async def story() -> None:
        bench.request["behaviour"] = "orphans_too"
        seq = await bench.desk.start()
        pid = await bench.running(seq)
        await bench.until(lambda: len(marked(bench.folder(seq))) == 2)
        old = marked(bench.folder(seq))
        os.kill(pid, signal.SIGKILL)
        await bench.until(lambda: (launcher_of(bench.folder(seq)) or pid) != pid)
        await bench.until(lambda: (record(bench, seq).pid, record(bench, seq).attempt) != (pid, 1))
        assert not old & marked(bench.folder(seq))
        await bench.until(lambda: record(bench, seq).attempt == 2)
        os.kill(record(bench, seq).pid, signal.SIGKILL)
        await bench.over()
        assert bench.desk.told()[-1] == ("a", "gone", "failed")
        assert record(bench, seq).faults == ("crash", "crash")
        assert not (bench.folder(seq) / "tmp").exists()
        assert marked(bench.folder(seq)) == set()

    run(story())


def record(bench: Bench, seq: int) -> Any:
    found = launcher_of(bench.folder(seq))
    assert found is not None
    return found


def test_a_job_is_cancelled(bench: Bench) -> None:
    async def story() -> None:
        bench.request["stub_seconds"] = 3600
        await bench.running(await bench.desk.start())
        with pytest.raises(InputError, match="found 'b'"):
            bench.supervisor.cancel("b", "operator")
        bench.supervisor.cancel("a", "operator")
        await bench.over()
        assert bench.desk.told()[-1] == ("a", "gone", "cancelled")

    run(story())


def test_a_disk_that_is_full_delays_the_launch(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = iter([True] * 4)

    def full(*arguments: Any) -> None:
        if next(failures, False):
            raise OSError(28, "No space left on device")
        write_job(*arguments)

    monkeypatch.setattr(live.job_watch, "write_job", full)

    async def story() -> None:
        seq = await bench.desk.start()
        await bench.over()
        assert bench.desk.told()[-1] == ("a", "gone", "completed")
        assert record(bench, seq).attempt == 1
        assert next(failures, None) is None

    run(story())


# A new daemon.


def test_a_new_supervisor_adopts_the_same_processes(bench: Bench) -> None:
    async def story() -> None:
        bench.request["stub_seconds"] = 3600
        seq = await bench.desk.start()
        pid = await bench.running(seq)
        workers = marked(bench.folder(seq))
        await bench.supervisor.close()
        assert lock_held(bench.folder(seq))
        after = bench.open()
        assert after.recover({"a": seq, "b": 99}) == ["a"]
        await bench.until(lambda: after.status())
        assert after.status()[0].launcher == record(bench, seq)
        assert (record(bench, seq).pid, marked(bench.folder(seq))) == (pid, workers)
        ask_to_stop(bench.folder(seq), "operator")
        await bench.over()
        assert bench.desk.told()[-1] == ("a", "gone", "completed")
        assert record(bench, seq).attempt == 1

    run(story())


def test_an_interrupted_job_is_taken_up_by_the_next_supervisor(bench: Bench) -> None:
    async def story() -> None:
        bench.request["stub_seconds"] = 3600
        seq = await bench.desk.start()
        await bench.running(seq)
        await bench.supervisor.close(interrupt=True)
        await bench.until(lambda: not lock_held(bench.folder(seq)))
        assert exit_of(bench.folder(seq)) is None
        shorten(bench.folder(seq))
        bench.open().recover({"a": seq})
        await bench.over()
        assert bench.desk.told()[-1] == ("a", "gone", "completed")
        assert record(bench, seq).faults == ("stopped",)

    run(story())


def shorten(folder: Path) -> None:
    spec = read_record(folder, JOB, JobSpec)
    assert spec is not None
    write_record(folder, JOB, spec.model_copy(update={"request": {"stub_seconds": 0.1}}))


def test_a_job_that_ended_meanwhile_is_not_launched_again(bench: Bench) -> None:
    async def story() -> None:
        bench.desk.listener = lambda *_: None
        seq = await bench.desk.start()
        bench.folder(seq).mkdir()
        end = JobExit(outcome="cancelled", reason="", attempts=3, ended_ms=1)
        write_record(bench.folder(seq), "exit.json", end)
        bench.open().recover({"a": seq})
        ended = []
        bench.desk.listener = lambda *_: ended.append(bench.supervisor.ended_ms("a"))
        await bench.over()
        assert bench.desk.told()[-1] == ("a", "gone", "cancelled")
        assert launcher_of(bench.folder(seq)) is None
        assert ended == [1]
        assert bench.supervisor.ended_ms("a") is None

    run(story())


def test_a_folder_of_another_ledger_s_job_is_set_aside(bench: Bench) -> None:
    """After a backup was put back its seqs are given out again: a result of then is none of now."""

    async def story() -> None:
        first = await bench.desk.start("a")
        await bench.over()
        assert bench.desk.told()[-1] == ("a", "gone", "completed")
        bench.desk = Desk()
        bench.desk.clock.move_to(T0 + HOUR)
        bench.open()
        seq = await bench.desk.start("b")
        assert seq == first
        await bench.over()
        assert bench.desk.told()[-1] == ("b", "gone", "completed")
        aside = read_record(bench.folder(seq).with_name(f"{job_dir(seq)}.stale-1"), JOB, JobSpec)
        assert aside is not None
        assert aside.task_id == "a"

    run(story())


def test_the_processes_of_another_ledger_s_job_are_ended(bench: Bench) -> None:
    async def story() -> None:
        bench.request["stub_seconds"] = 3600
        seq = await bench.desk.start("a")
        pid = await bench.running(seq)
        await bench.supervisor.close()
        bench.desk, bench.request["stub_seconds"] = Desk(), 0.1
        bench.desk.clock.move_to(T0 + HOUR)
        bench.open()
        assert await bench.desk.start("b") == seq
        await bench.over()
        assert bench.desk.told()[-1] == ("b", "gone", "completed")
        assert not Path(f"/proc/{pid}/cmdline").exists() or not lock_held(bench.folder(seq))

    run(story())


def test_a_clock_that_jumps_between_two_daemons_ends_no_job(bench: Bench) -> None:
    async def story() -> None:
        bench.request["stub_seconds"] = 3600
        seq = await bench.desk.start()
        pid = await bench.running(seq)
        await bench.supervisor.close()
        bench.desk.clock.advance(11 * HOUR)  # as a wall clock set ahead looks to the next daemon
        bench.open().recover({"a": seq})
        await asyncio.sleep(0.3)
        assert record(bench, seq).pid == pid
        assert stop_reason(bench.folder(seq)) is None
        bench.supervisor.cancel("a", "enough")
        await bench.over()

    run(story())


def test_room_is_kept_for_what_was_accepted_and_has_not_started(tmp_path: Path) -> None:
    watch = StorageWatch(Desk(), tmp_path, lambda: 70, free_bytes=lambda _: 100)
    assert watch.room([]) is True
    assert watch.room([Owed(Need(0, 31))]) is False
    assert watch.room([Owed(Need(8, 8))]) is True
    assert watch.room([Owed(Need(16, 8))]) is None


def test_an_acceptance_has_the_disk_looked_at_at_once(bench: Bench) -> None:
    async def story() -> None:
        bench.settings = replace(QUICK, storage_every_s=3600.0)
        bench.open().storage_watch = StorageWatch(
            bench.desk, bench.root, lambda: 70, free_bytes=lambda _: 100
        )
        watching = asyncio.create_task(bench.supervisor.run())
        await asyncio.sleep(0.1)
        offer = Offer("a", "meta-llama/Llama-3.1-8B", "InstructTextTask", 1.0, 1, 8 * 10**9)
        await bench.desk.enter(OfferArrived(offer))
        await bench.until(lambda: bench.desk.machine.storage_full)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)

    run(story())


@pytest.mark.parametrize("broken", [False, True])
def test_a_job_that_was_never_launched_is_launched(bench: Bench, broken: bool) -> None:
    async def story() -> None:
        bench.desk.listener = lambda *_: None
        seq = await bench.desk.start()
        if broken:
            bench.folder(seq).mkdir()
            write_atomic(bench.folder(seq) / JOB, "{")
        bench.open().recover({"a": seq})
        await bench.over()
        assert bench.desk.told()[-1] == ("a", "gone", "completed")

    run(story())


@pytest.mark.parametrize("why", ["stopping", "late"])
def test_a_job_without_a_launcher_that_is_past_its_time_is_failed(bench: Bench, why: str) -> None:
    async def story() -> None:
        bench.desk.listener = lambda *_: None
        seq = await bench.desk.start()
        if why == "late":
            bench.desk.clock.advance(10 * HOUR - 100_000)  # after the warning
        else:
            await bench.desk.enter(JobEnded("a", phase="stopping"))
        bench.open().recover({"a": seq})
        await bench.over()
        assert bench.desk.told()[-1] == ("a", "gone", "failed")
        assert not bench.folder(seq).exists()

    run(story())


# GPUs.


def test_memory_that_is_not_released_quarantines_the_gpu_until_it_is(gpu_bench: Bench) -> None:
    gpus: Any = gpu_bench.gpus

    async def story() -> None:
        watch = asyncio.create_task(gpu_bench.supervisor.run())
        gpus.used = {1: 5 * 10**9}
        await gpu_bench.desk.start()
        await gpu_bench.until(lambda: (1, False) in gpu_bench.desk.told())
        assert gpu_bench.desk.machine.jobs["a"].state == "stopping"
        assert gpu_bench.desk.machine.failed_gpus == {1}
        gpus.used = {}
        await gpu_bench.over()
        await gpu_bench.until(lambda: not gpu_bench.desk.machine.failed_gpus)
        told = [("a", "stopping", "completed"), (1, False), ("a", "gone", "completed"), (1, True)]
        assert gpu_bench.desk.told() == told
        watch.cancel()

    run(story())


def test_a_gpu_that_fails_ends_its_job_and_comes_back_when_it_is_well(gpu_bench: Bench) -> None:
    gpus: Any = gpu_bench.gpus

    async def story() -> None:
        watch = asyncio.create_task(gpu_bench.supervisor.run())
        gpu_bench.request["behaviour"] = "ignore_sigterm"
        first = await gpu_bench.desk.start("a")
        other = await gpu_bench.desk.start("b")
        await gpu_bench.running(first)
        await gpu_bench.running(other)
        gpus.faults = {0: "GPU 0: Xid 79"}
        await gpu_bench.until(lambda: "a" not in gpu_bench.desk.machine.jobs)
        assert gpu_bench.desk.told() == [
            (0, False), ("a", "stopping", "gpu_failed"), ("a", "gone", "gpu_failed"),
        ]  # fmt: skip
        assert lock_held(gpu_bench.folder(other))
        gpus.faults, gpus.used = {}, {0: 2 * 10**9}
        await asyncio.sleep(0.2)
        assert gpu_bench.desk.machine.failed_gpus == {0}  # well, but not clean
        gpus.used = {}
        await gpu_bench.until(lambda: not gpu_bench.desk.machine.failed_gpus)
        watch.cancel()
        await gpu_bench.supervisor.close()

    run(story())


def test_a_gpu_that_waits_for_a_reset_takes_no_job_and_ends_none(gpu_bench: Bench) -> None:
    gpus: Any = gpu_bench.gpus

    async def story() -> None:
        watch = asyncio.create_task(gpu_bench.supervisor.run())
        gpu_bench.request["stub_seconds"] = 3600
        seq = await gpu_bench.desk.start()
        await gpu_bench.running(seq)
        gpus.wishes = {1: "GPU 1: memory: a row waits for a reset to be remapped"}
        await gpu_bench.until(lambda: gpu_bench.desk.machine.failed_gpus == {1})
        await asyncio.sleep(0.3)
        assert lock_held(gpu_bench.folder(seq))
        assert stop_reason(gpu_bench.folder(seq)) is None
        assert "waits for a reset" in gpu_bench.supervisor.gpu_watch.reasons[1]
        gpus.wishes = {}
        await gpu_bench.until(lambda: not gpu_bench.desk.machine.failed_gpus)
        watch.cancel()
        gpu_bench.supervisor.cancel("a", "enough")
        await gpu_bench.over()

    run(story())


def test_a_gpu_on_which_a_stranger_holds_memory_is_out_until_it_is_clean(gpu_bench: Bench) -> None:
    gpus: Any = gpu_bench.gpus
    held = gpu_bench.supervisor.gpu_watch

    async def story() -> None:
        gpus.used = {2: 70 * 10**9, 3: 10**9}
        await held.look()
        gpus.used = {3: 10**9}
        await held.look()
        assert gpu_bench.desk.told() == []  # one look is too few, and so much is always held
        gpus.used = {2: 70 * 10**9}
        await held.look()
        await held.look()
        assert gpu_bench.desk.told() == [(2, False)]
        assert held.reasons == {2: "GPU 2: 70.0 GB are held, and by no job"}
        gpus.used = {}
        await held.look()
        assert gpu_bench.desk.told() == [(2, False), (2, True)]

    run(story())


def test_a_running_job_s_memory_is_its_own_whoever_its_processes_are(gpu_bench: Bench) -> None:
    """In a container the driver tells the ids of the host, which are nobody's here."""
    gpus: Any = gpu_bench.gpus

    async def story() -> None:
        watch = asyncio.create_task(gpu_bench.supervisor.run())
        gpu_bench.request["stub_seconds"] = 3600
        seq = await gpu_bench.desk.start()
        await gpu_bench.running(seq)
        gpus.used = {0: 70 * 10**9, 1: 70 * 10**9}
        gpus.seen = {0: (GpuProcess(4_000_000, None),), 1: (GpuProcess(4_000_001, None),)}
        await asyncio.sleep(0.3)
        assert gpu_bench.desk.told() == []
        gpus.used, gpus.seen = {}, {}
        gpu_bench.supervisor.cancel("a", "enough")
        await gpu_bench.over()
        assert {told[0] for told in gpu_bench.desk.told()} == {"a"}
        watch.cancel()

    run(story())


def test_a_reserved_slot_s_gpu_is_nobody_s_yet(gpu_bench: Bench) -> None:
    gpus: Any = gpu_bench.gpus

    async def story() -> None:
        offer = Offer("a", "meta-llama/Llama-3.1-8B", "InstructTextTask", 1.0, 1, 8 * 10**9)
        await gpu_bench.desk.enter(OfferArrived(offer))
        gpus.used = {0: 70 * 10**9}
        for _ in range(2):
            await gpu_bench.supervisor.gpu_watch.look()
        assert gpu_bench.desk.told() == [(0, False)]

    run(story())


def test_a_job_is_told_its_gpus_by_their_uuids(gpu_bench: Bench) -> None:
    gpus: Any = gpu_bench.gpus

    async def story() -> None:
        gpus.uuid = lambda gpu: f"GPU-{gpu}" if gpu < 2 else None
        specs = []
        for task_id in "ab":
            seq = await gpu_bench.desk.start(task_id)
            await gpu_bench.running(seq)
            specs.append(read_record(gpu_bench.folder(seq), JOB, JobSpec))
        await gpu_bench.over()
        assert [spec and spec.gpu_uuids for spec in specs] == [("GPU-0", "GPU-1"), ()]

    run(story())


def test_a_driver_that_gives_no_answer_takes_gpus_out_but_ends_no_job(gpu_bench: Bench) -> None:
    gpus: Any = gpu_bench.gpus

    async def story() -> None:
        gpu_bench.request["stub_seconds"] = 3600
        seq = await gpu_bench.desk.start()
        await gpu_bench.running(seq)
        gpus.mute = True
        for _ in range(4):
            await gpu_bench.supervisor.gpu_watch.look()
        assert gpu_bench.desk.machine.failed_gpus == set(range(8))
        assert gpu_bench.supervisor.gpu_watch.fault_of((0, 1)) is None
        gpus.mute = False
        await gpu_bench.supervisor.gpu_watch.look()
        assert gpu_bench.desk.machine.failed_gpus == set()
        assert lock_held(gpu_bench.folder(seq))
        assert len(gpu_bench.desk.told()) == 16
        await gpu_bench.supervisor.close()

    run(story())


def test_on_a_shared_gpu_only_the_slot_s_own_processes_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpus = ScriptedGpus()
    monkeypatch.setattr("live.gpu_watch.host_pids", lambda: True)
    bench = Bench(tmp_path / "jobs", gpus, THROUGHPUT_24)  # type: ignore[arg-type]
    mine, other = bench.root / "00000001", bench.root / "00000002"
    alive = {7: str(mine), 8: str(other)}
    monkeypatch.setattr("live.gpu_watch.job_of", alive.get)
    gpus.used = {0: 60 * 10**9}
    gpus.seen = {0: (GpuProcess(7, 10**10), GpuProcess(8, None))}

    async def story() -> None:
        watch = bench.supervisor.gpu_watch
        await watch.look()
        alive.pop(7)  # dead, and still listed by the driver
        assert await watch.unreleased(mine, (0,), 3) == {0}
        gpus.seen = {0: (GpuProcess(8, None),)}
        assert await watch.unreleased(mine, (0,), 3) == set()
        assert await watch.unreleased(other, (0,), 3) == {0}
        assert await watch.unreleased(mine, (0,), 1) == {0}  # alone, all of it counts

    run(story())


def test_in_a_container_a_number_of_the_driver_s_is_no_process_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Process 7 of the host is another job's, though one of mine has that number in here."""
    gpus = ScriptedGpus()
    monkeypatch.setattr("live.gpu_watch.host_pids", lambda: False)
    bench = Bench(tmp_path / "jobs", gpus, THROUGHPUT_24)  # type: ignore[arg-type]
    mine = bench.root / "00000001"
    monkeypatch.setattr("live.gpu_watch.job_of", {7: str(mine)}.get)
    gpus.used = {0: 60 * 10**9}
    gpus.seen = {0: (GpuProcess(7, 10**10),)}

    async def story() -> None:
        for number in range(9):  # the first and the last on GPU 0
            await bench.desk.start(str(number))
        watch = bench.supervisor.gpu_watch
        await watch.look()
        assert await watch.unreleased(mine, (0,), 3) == set()
        await bench.desk.enter(JobEnded("8", "completed"))
        assert await watch.unreleased(mine, (0,), 3) == {0}  # it was alone there
        gpus.used = {}
        assert await watch.unreleased(mine, (0,), 3) == set()
        await bench.supervisor.close()

    bench.desk.listener = lambda *_: None
    run(story())


# Storage.


def test_storage_is_entered_once_and_not_at_every_wobble(tmp_path: Path) -> None:
    desk = Desk()
    free = [1000]
    watch = StorageWatch(desk, tmp_path, lambda: 1000, free_bytes=lambda _: free[0])
    (tmp_path / "job").mkdir()

    async def story() -> None:
        for free[0] in (1000, 999, 1001, 998, 1001, 1199, 1200, 5000, 1199, 1001):
            await watch.look([])
        assert [line.entry for line in desk.entries] == [
            StorageChanged(available=False),
            StorageChanged(available=True),
        ]
        free[0] = 1999
        await watch.look([Owed(Need(0, 1000), tmp_path / "job")])  # which still wants its 1000
        assert desk.machine.storage_full

    run(story())


def test_room_is_kept_by_the_models_that_were_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A reserved job by its offer; a running one by its own, less what it and its model wrote."""
    seen: list[list[Owed]] = []

    async def look(self: StorageWatch, owed: list[Owed]) -> None:
        seen.append(owed)

    monkeypatch.setattr(StorageWatch, "look", look)
    gpus: Any = ScriptedGpus()
    bench = Bench(tmp_path / "jobs", gpus)
    bench.settings = replace(
        QUICK, training=TrainingSettings(models=str(tmp_path / "models")), storage_every_s=0.05
    )

    async def story() -> None:
        bench.open()
        bench.request |= {"stub_seconds": 3600, "model": "meta-llama/Llama-3.1-8B"}
        seq = await bench.desk.start("a")
        await bench.running(seq)
        offer = Offer("b", "mistralai/Mixtral-8x7B-v0.1", "InstructTextTask", 1.0, 1)
        await bench.desk.enter(OfferArrived(offer))
        watching = asyncio.create_task(bench.supervisor.run())
        await bench.until(lambda: seen)
        (small, large), slot = seen[-1], slot_of(bench.desk.machine.policy, 1, 200 * 10**9)
        assert small.folder == bench.folder(seq)
        told = "meta-llama/Llama-3.1-8B", 8 * 10**9, "InstructTextTask"
        assert small.need == need_of(*told, slot)
        assert large.need == need_of(offer.model, None, offer.task_type, slot)
        assert large.need.model > 90 * 10**9
        assert small.left() > small.need.model
        for at in small.model_at:  # it is there whole, or half of it under another name
            at.mkdir(parents=True)
        with (small.model_at[1] / "weights").open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, 10**6)
        assert small.left() <= small.need.total - 10**6
        watching.cancel()
        bench.supervisor.cancel("a", "enough")
        await bench.over()

    run(story())


def test_a_scope_is_asked_for_at_each_launch_and_a_launch_that_failed_goes_without(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool] = []

    def spawn(_: Path, *, scope: bool) -> int:
        asked.append(scope)
        return os.spawnv(os.P_NOWAIT, sys.executable, [sys.executable, "-c", ""])

    async def story() -> None:
        bench.settings = replace(QUICK, max_restarts=0)
        bench.open()
        monkeypatch.setattr("live.supervisor.under_systemd", lambda: True)  # it came up later
        monkeypatch.setattr(live.job_watch, "spawn", spawn)
        await bench.desk.start()
        await bench.over()
        assert asked == [True, False]

    run(story())


def test_a_launcher_s_command_is_a_list(tmp_path: Path) -> None:
    folder = tmp_path / "00000007"
    plain = [sys.executable, "-m", "live.launcher", str(folder)]
    assert launcher_command(folder, scope=False) == plain
    scoped = launcher_command(folder, scope=True)
    assert Path(scoped[0]).name == "systemd-run"
    assert "--scope" in scoped
    assert scoped[scoped.index("--") + 1 :] == plain


@pytest.mark.parametrize(("name", "value"), [("poll_s", 0), ("margin_ms", -1)])
def test_settings_are_checked(name: str, value: float) -> None:
    with pytest.raises(InputError, match=name):
        replace(QUICK, **{name: value})


def test_the_warning_never_takes_more_than_a_quarter_of_a_job() -> None:
    assert JobSettings().warn_ms(0, 10 * HOUR) == 10 * HOUR - 300_000
    assert JobSettings().warn_ms(0, 60_000) == 45_000
    assert JobSettings(margin_ms=0).warn_ms(0, 10 * HOUR) == 10 * HOUR - 20_000
    assert JobSettings(margin_ms=0, speed=10.0).warn_ms(0, 10 * HOUR) == 10 * HOUR - 200_000
