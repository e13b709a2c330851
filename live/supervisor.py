"""The supervisor: runs what the machine says is started, and tells it what has become of it.

It lives in the daemon; the jobs do not. When the daemon dies they go on under their launchers, and
the next supervisor finds them again by their folders.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from live.clock import Clock
from live.daemon import DaemonStopped
from live.disk_need import CPU_JOB_BYTES, DiskNeeds, next_job_bytes, slot_of
from live.gpu_watch import Desk, GpuWatch
from live.gpus import Gpus
from live.job_files import (
    PROGRESS,
    JobExit,
    LauncherRecord,
    Progress,
    exit_of,
    launcher_of,
    read_record,
)
from live.job_settings import JobSettings
from live.job_watch import JobWatch, Tools
from live.launching import Wanted, WantedOf, spec_of, under_systemd
from live.rows import job_dir
from live.storage_watch import StorageWatch
from shared.decisions import Decision
from shared.errors import InputError
from shared.inputs import OfferArrived, StartRequested
from shared.jobs import Answer, Effect, Job
from shared.layout import MOST_SLOTS
from shared.ledger import LedgerEntry
from shared.presets import Preset

log = logging.getLogger(__name__)

AGAIN_S = 5.0
"""After an error of its own, a watch begins anew in so long."""


@dataclass(frozen=True, slots=True)
class JobStatus:
    """A job as an operator is shown it. slack_ms: to the deadline, negative when it is past."""

    task_id: str
    seq: int
    folder: Path
    slot: int
    gpus: tuple[int, ...]
    deadline_ms: int
    slack_ms: int
    launcher: LauncherRecord | None
    progress: Progress | None
    exit: JobExit | None


class Supervisor:
    """Runs and watches the jobs of one box."""

    def __init__(
        self,
        desk: Desk,
        clock: Clock,
        gpus: Gpus,
        root: Path,
        wanted_of: WantedOf,
        settings: JobSettings | None = None,
        *,
        need_bytes: Callable[[], int] | None = None,
    ) -> None:
        """root: the folder of the job folders; it is made when it is not there.

        wanted_of: what the start of a task asked for. need_bytes: disk that any job may need; None
        goes by the models. Raises OSError.
        """
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.settings = settings or JobSettings()
        self._root = root.resolve()
        self._desk, self._clock, self._gpus = desk, clock, gpus
        self._wanted_of = wanted_of
        self.gpu_watch = GpuWatch(desk, gpus, self.settings)
        flat = need_bytes or (None if gpus.device == "cuda" else lambda: CPU_JOB_BYTES)
        self.storage_watch = StorageWatch(desk, self._root, flat or self._need_bytes)
        self._disk_needs = DiskNeeds(wanted_of, flat)
        self._tools = Tools(desk, clock, self.settings, self.gpu_watch, self._scope)
        self._jobs: dict[int, JobWatch] = {}
        self._taken: set[int] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._look_now = asyncio.Event()
        self._closed = False

    # What the daemon calls.

    def on_entry(self, entry: LedgerEntry, answers: Sequence[Answer]) -> None:
        """Launch what this durable entry started. A listener of the daemon's; needs the loop."""
        if isinstance(entry.entry, OfferArrived):
            if any(isinstance(each, Decision) and each.accepted for each in answers):
                told = entry.entry.offer
                asked = Wanted(told.model, told.task_type, told.model_params_count)
                self._disk_needs.note(told.task_id, asked)
                self._look_now.set()  # before the next offer counts on the same room
            return
        if not isinstance(entry.entry, StartRequested):
            return
        for answer in answers:
            if isinstance(answer, Effect) and answer.effect == "started":
                job = self._desk.machine.jobs.get(entry.entry.task_id)
                if job is not None:
                    self._take(entry.seq, job)

    def recover(self, started: Mapping[str, int]) -> list[str]:
        """Find again the jobs that hold a slot; the task ids taken up.

        started: the ledger seq of their start, by task id. Those whose launcher lives are adopted,
        the end of those that are over is entered, the others are launched again from their last
        checkpoint while time and attempts are left.
        """
        jobs = self._desk.machine.jobs
        found = [task_id for task_id in started if task_id in jobs]
        for task_id in found:
            if jobs[task_id].state in ("running", "stopping"):
                self._take(started[task_id], jobs[task_id])
        return found

    async def run(self) -> None:
        """Watch GPUs and storage until cancelled. The jobs are watched without it."""
        async with asyncio.TaskGroup() as watches:
            watches.create_task(_rounds(self.gpu_watch.look, self.settings.health_every_s))
            watches.create_task(
                _rounds(self._look_at_storage, self.settings.storage_every_s, self._look_now)
            )

    async def close(self, *, interrupt: bool = False) -> None:
        """Stop watching. Jobs go on without the daemon; ``interrupt`` has them save and leave, to
        be taken up again by the next supervisor. What is started from now on is left to that one.
        """
        self._closed = True
        if interrupt:
            for job in self._jobs.values():
                job.interrupt()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def end(self, patience_s: float) -> None:
        """Stop watching and leave no process of any job behind: what has not saved and left within
        so long is killed.
        """
        await self.close(interrupt=True)
        await asyncio.gather(*(job.end(patience_s) for job in self._jobs.values()))

    def cancel(self, task_id: str, reason: str) -> None:
        """Ask a job to save and stop. Raises InputError when there is none, OSError."""
        for job in self._jobs.values():
            if job.task_id == task_id:
                return job.cancel(reason)
        raise InputError(f"task_id: found {task_id!r}, allowed is the task of a running job")

    def status(self) -> list[JobStatus]:
        """The jobs that are watched, in the order they were started."""
        return [self._status(seq, job) for seq, job in sorted(self._jobs.items())]

    def ended_ms(self, task_id: str) -> int | None:
        """When the job of this task ended, by its launcher (UTC ms); None where it does not say."""
        for job in self._jobs.values():
            if job.task_id == task_id:
                end = exit_of(job.folder)
                return end.ended_ms or None if end else None
        return None

    async def idle(self) -> None:
        """Return once no job is watched any longer."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    # Within.

    def _take(self, seq: int, job: Job) -> None:
        if seq in self._taken or self._closed:
            return
        if len(self._taken) >= 2 * MOST_SLOTS:  # the machine never lets it come to this
            log.error("job %d: too many jobs are watched, it is not launched", seq)
            return
        self._taken.add(seq)
        preset = self._desk.machine.policy.preset
        task = asyncio.create_task(self._tend(seq, job, preset), name=f"job {seq}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _tend(self, seq: int, job: Job, preset: Preset) -> None:
        """Tend a job to its end, come what may: a slot must never be held by an error."""
        while True:
            try:
                await self._watch(seq, job, preset).tend()
            except DaemonStopped:
                return
            except Exception:
                log.exception("job %d: its watch failed and begins anew", seq)
                await asyncio.sleep(AGAIN_S)
            else:
                del self._jobs[seq]
                self._taken.remove(seq)
                return

    def _watch(self, seq: int, job: Job, preset: Preset) -> JobWatch:
        if seq not in self._jobs:
            asked = self._wanted_of(job.decision.task_id)
            spec = spec_of(job, preset, asked, self.settings, self._gpus)
            self._jobs[seq] = JobWatch(self._root / job_dir(seq), spec, self._tools)
        return self._jobs[seq]

    async def _look_at_storage(self) -> None:
        machine = self._desk.machine
        most, processes = self.settings.training.most_model_bytes, self.settings.processes
        slot = slot_of(machine.policy, processes, most)
        running = {job.task_id: (job.spec, job.folder) for job in self._jobs.values()}
        await self.storage_watch.look(self._disk_needs.owed(machine.jobs, slot, running))

    def _scope(self) -> bool:
        """Asked at each launch: after a boot the user's manager may come up later than this."""
        return self.settings.systemd and under_systemd()

    def _need_bytes(self) -> int:
        most, processes = self.settings.training.most_model_bytes, self.settings.processes
        return next_job_bytes(self._desk.machine.policy, processes, most)

    def _status(self, seq: int, job: JobWatch) -> JobStatus:
        try:
            progress = read_record(job.folder, PROGRESS, Progress)
        except InputError:
            progress = None
        deadline_ms = job.spec.deadline_ms
        return JobStatus(
            task_id=job.task_id,
            seq=seq,
            folder=job.folder,
            slot=job.spec.slot,
            gpus=job.spec.gpus,
            deadline_ms=deadline_ms,
            slack_ms=deadline_ms - self._clock.now_ms(),
            launcher=launcher_of(job.folder),
            progress=progress,
            exit=exit_of(job.folder),
        )


async def _rounds(
    look: Callable[[], Awaitable[None]], every_s: float, now: asyncio.Event | None = None
) -> None:
    """Look again and again, or when told to; an error ends no watch but that of a daemon that has
    stopped.
    """
    now = now or asyncio.Event()
    while True:
        now.clear()
        try:
            await look()
        except DaemonStopped:
            return
        except Exception:
            log.exception("a watch failed and goes on")
        with suppress(TimeoutError):
            async with asyncio.timeout(every_s):
                await now.wait()
