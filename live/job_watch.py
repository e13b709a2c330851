"""One job as the supervisor sees it, from its launch to the moment its slot is free."""

import asyncio
import logging
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from time import monotonic
from typing import Literal

from live.clock import Clock
from live.gpu_watch import Desk, GpuWatch
from live.job_files import (
    CANCELLED,
    DEADLINE,
    EXIT,
    GPU_FAILED,
    JOB,
    RESULT,
    STOP,
    JobSpec,
    ask_to_stop,
    clear_tmp,
    exit_of,
    launcher_of,
    lock_held,
    read_record,
    result_of,
    steady_s,
    stop_reason,
    sync_folder,
)
from live.job_settings import JobSettings
from live.launching import ended, signal_launcher, spawn, write_job
from live.reaping import boot_id, leftovers, reap
from live.rows import Submission, Training
from live.training.record import training_of
from shared.errors import IllegalTransition, InputError
from shared.inputs import JobEnded, Outcome

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Tools:
    """What every job's watch works with. scope: whether a launcher gets a systemd scope now."""

    desk: Desk
    clock: Clock
    settings: JobSettings
    gpus: GpuWatch
    scope: Callable[[], bool]


class JobWatch:
    """Tends one job: launches it, sees to its deadline, and enters its end."""

    def __init__(self, folder: Path, spec: JobSpec, tools: Tools) -> None:
        """folder: absolute; ``spec`` is written into it at every launch."""
        self.folder, self.spec, self._tools = folder, spec, tools
        self._launches = 0
        self._child: int | None = None
        self._spawned_s = 0.0
        self._kill_s: float | None = None
        self._gpu_failed = False
        self._ending = self._complained = False

    @property
    def task_id(self) -> str:
        """Whose job it is."""
        return self.spec.task_id

    async def tend(self) -> None:
        """Until the slot is free. A job whose launcher lives is adopted, not launched again."""
        await self._adopt_spec()
        while not await self._is_dead():
            await asyncio.sleep(self._tools.settings.poll_s)
        await asyncio.to_thread(clear_tmp, self.folder)  # a killed launcher left it
        quarantined = await self._until_released()
        await self._enter("gone", (*self._submission(), *self._training()))
        if quarantined:
            await self._tools.gpus.quarantine(self.folder, set())

    def cancel(self, reason: str) -> None:
        """Ask the job to save and stop; its outcome is ``cancelled``. Raises OSError."""
        self._stop(f"{CANCELLED}: {reason}")

    def interrupt(self) -> None:
        """Have the job save and leave, to be taken up again by another supervisor."""
        signal_launcher(self.folder, signal.SIGTERM)

    async def end(self, patience_s: float) -> None:
        """End it for good, its watch being over: it saves and leaves, and what is still there after
        so long, or when this is cancelled, is killed.
        """
        until_s = monotonic() + patience_s
        try:
            while self._alive() and monotonic() < until_s:
                self.interrupt()  # again and again: a launcher may just begin
                await asyncio.sleep(self._tools.settings.poll_s)
        finally:
            if self._child is not None:
                with suppress(ProcessLookupError):
                    os.kill(self._child, signal.SIGKILL)
            signal_launcher(self.folder, signal.SIGKILL)
            record = launcher_of(self.folder)
            if left := reap(self.folder, record.cgroup if record else None, patience_s=5.0):
                log.error("job %s: processes %s cannot be killed", self.folder.name, sorted(left))

    async def _adopt_spec(self) -> None:
        """What an earlier daemon wrote of this very job stays in force."""
        try:
            found = read_record(self.folder, JOB, JobSpec)
        except InputError as why:
            log.error("%s; it is written anew", why)
            return
        if found is None:
            return
        if (found.task_id, found.started_ms) == (self.spec.task_id, self.spec.started_ms):
            # A restart of the machine may have numbered the GPUs anew; in one boot nothing does.
            self.spec = found.model_copy(update={"gpu_uuids": self.spec.gpu_uuids})
        else:
            await self._set_aside(found)

    async def _set_aside(self, found: JobSpec) -> None:
        """A ledger that was put back numbers its jobs again: what lies here is another one's.

        Its processes end, its folder is kept under another name.
        """
        record = launcher_of(self.folder)
        while lock_held(self.folder):
            signal_launcher(self.folder, signal.SIGKILL)
            await asyncio.sleep(self._tools.settings.poll_s)
        cgroup = record.cgroup if record else None
        while await asyncio.to_thread(reap, self.folder, cgroup, patience_s=5.0):
            await asyncio.sleep(self._tools.settings.poll_s)
        aside = next(
            path
            for number in count(1)
            if not (path := self.folder.with_name(f"{self.folder.name}.stale-{number}")).exists()
        )
        log.error("job %s: its folder is of task %s, which the ledger does not know there; it is "
                  "kept as %s", self.folder.name, found.task_id, aside.name)  # fmt: skip
        self.folder.rename(aside)
        sync_folder(self.folder.parent)

    # While it lives.

    async def _is_dead(self) -> bool:
        """One look; whether nothing of the job lives and nothing of it will be started again."""
        self._see_to_time()
        if self._alive():
            await self._say_stopping()
            return False
        if await self._something_left():
            return False
        if (self.folder / EXIT).exists() or not self._may_launch():
            return True
        self._launch()
        return False

    def _alive(self) -> bool:
        """Whether a launcher lives, or one that was just started may still take the lock."""
        exited = self._child is not None and ended(self._child)
        if exited:
            self._child = None
        if lock_held(self.folder):
            return True
        late = monotonic() - self._spawned_s > self._tools.settings.launch_timeout_s
        return self._child is not None and not late

    def _may_launch(self) -> bool:
        """Whether another launcher is worth starting. What was asked to stop is judged as it is."""
        if (self.folder / RESULT).exists() or (self.folder / STOP).exists():
            return False
        job = self._tools.desk.machine.jobs.get(self.task_id)
        return (
            job is not None
            and job.state == "running"
            and not self._ending
            and self._launches <= self.spec.max_restarts + 1
            and not self._past("warn")
        )

    def _launch(self) -> None:
        self._launches += 1
        self._spawned_s = monotonic()
        now_ms = self._tools.clock.now_ms()
        try:
            write_job(self.folder, self.spec, now_ms, self._tools.settings)
            # A scope that cannot be made must not cost the job: the next launch goes without.
            scope = self._launches == 1 and self._tools.scope()
            self._child = spawn(self.folder, scope=scope)
        except OSError as why:
            self._launches -= 1
            if not self._complained:
                log.error("job %s cannot be launched yet: %s", self.folder.name, why)
            self._complained = True

    async def _something_left(self) -> bool:
        """Kill what a dead launcher left; whether something is still there."""
        record = launcher_of(self.folder)
        cgroup = record.cgroup if record else None
        if not await asyncio.to_thread(leftovers, self.folder, cgroup):
            return False
        await self._say_stopping()
        log.warning("job %s: its launcher is gone, killing what it left", self.folder.name)
        return bool(await asyncio.to_thread(reap, self.folder, cgroup, patience_s=5.0))

    # Time.

    def _past(self, what: Literal["warn", "deadline"]) -> bool:
        """Whether the warning or the deadline has come.

        By the clock that nobody can move, as long as the machine is up: the daemon's own is set
        anew at every start of it.
        """
        if not self._tools.settings.enforce_deadlines:
            return False
        spec, left = self.spec, self.spec.time_left
        if left is not None and left.boot_id == boot_id():
            at_s = left.warn_s if what == "warn" else left.kill_s
            return at_s is not None and steady_s() >= at_s
        return self._tools.clock.now_ms() >= (spec.warn_ms if what == "warn" else spec.deadline_ms)

    def _see_to_time(self) -> None:
        """Warn before the deadline, kill at it, and kill what runs on a GPU that failed."""
        fault = self._tools.gpus.fault_of(self.spec.gpus)
        if fault is not None and not self._gpu_failed:
            self._gpu_failed = True
            self._stop(f"{GPU_FAILED}: {fault}")
        if self._gpu_failed or self._past("deadline"):
            self._kill()
        elif self._past("warn") and stop_reason(self.folder) is None:
            self._stop(f"{DEADLINE}: the job's time is nearly over")

    def _stop(self, reason: str) -> None:
        try:
            if self.folder.exists():
                ask_to_stop(self.folder, reason)
        except OSError as why:
            log.error("job %s: %s; the signal has to do", self.folder.name, why)
        signal_launcher(self.folder, signal.SIGTERM)

    def _kill(self) -> None:
        """Have the launcher kill everything; when it does not, kill it: the rest is reaped."""
        self._ending = True
        now_s = monotonic()
        if self._kill_s is None:
            self._kill_s = now_s
        hung = now_s - self._kill_s > self._tools.settings.kill_timeout_s
        signal_launcher(self.folder, signal.SIGKILL if hung else signal.SIGUSR2)

    # The end.

    def _outcome(self) -> Outcome:
        end, result = exit_of(self.folder), result_of(self.folder)
        known = end.outcome if end else (result.outcome if result else None)
        if known == "completed" or known == "cancelled":
            return known
        if self._gpu_failed or (stop_reason(self.folder) or "").startswith(GPU_FAILED):
            return "gpu_failed"
        cancelled = (stop_reason(self.folder) or "").startswith(CANCELLED)
        return "cancelled" if cancelled else "failed"

    def _submission(self) -> tuple[Submission, ...]:
        """What the market may be told of: a repository, never a folder of this machine."""
        result = result_of(self.folder)
        sent = result.submission if result and self._outcome() == "completed" else None
        return (Submission(self.task_id, sent),) if sent and not Path(sent).is_absolute() else ()

    def _training(self) -> tuple[Training, ...]:
        """What the training came to, however far it got."""
        record = training_of(self.folder)
        return () if record is None else (Training(self.task_id, record.model_dump_json()),)

    async def _say_stopping(self) -> None:
        """Processes live on though the result is in, or the deadline is."""
        job = self._tools.desk.machine.jobs.get(self.task_id)
        over = self._ending or (self.folder / RESULT).exists() or (self.folder / EXIT).exists()
        if over and job is not None and job.state == "running":
            await self._enter("stopping")

    async def _enter(self, phase: str, extra: tuple[Submission | Training, ...] = ()) -> None:
        entry = JobEnded(self.task_id, self._outcome(), "gone" if phase == "gone" else "stopping")
        try:
            await self._tools.desk.enter(entry, extra=extra)
        except IllegalTransition as why:
            log.error("job %s: %s", self.folder.name, why)

    async def _until_released(self) -> bool:
        """Wait for the memory of its GPUs, and quarantine those that do not give it back in time;
        whether there were any.
        """
        began_s = monotonic()
        gpus, settings = self._tools.gpus, self._tools.settings
        quarantined = False
        while left := await gpus.unreleased(self.folder, self.spec.gpus, self.spec.sharing):
            self._ending = True
            await self._say_stopping()
            if monotonic() - began_s > settings.release_timeout_s:
                await gpus.quarantine(self.folder, left)
                quarantined = True
            await asyncio.sleep(settings.poll_s)
        return quarantined
