"""Which GPUs may be used: their health, and whether a job's memory is released when it is gone.

Every change is entered into the daemon once. A GPU is out of service while there is a reason: a
fault the driver shows, a reset it asks for, the memory of a dead job (quarantine) or of nobody's
job. It comes back when there has been none for a while. Only a fault ends the job on it.
"""

import asyncio
import logging
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any, Protocol

from live.driver_thread import DriverThread
from live.gpus import GpuError, Gpus
from live.job_settings import JobSettings
from live.reaping import host_pids, job_of
from shared.decisions import Policy
from shared.errors import IllegalTransition
from shared.inputs import GpuChanged, Input
from shared.jobs import Job
from shared.units import GB

log = logging.getLogger(__name__)

SURE_ROUNDS = 2


class Box(Protocol):
    """The state of the box, to look at."""

    @property
    def policy(self) -> Policy:
        """The policy in force."""

    @property
    def jobs(self) -> dict[str, Job]:
        """Jobs that hold a slot, by task id."""

    @property
    def failed_gpus(self) -> frozenset[int]:
        """GPUs out of service."""

    @property
    def storage_full(self) -> bool:
        """Whether there is no room for another job."""


class Desk(Protocol):
    """Where inputs are entered: the daemon."""

    @property
    def machine(self) -> Box:
        """The state of the box."""

    async def enter(self, entry: Input, *, extra: Any = ()) -> Any:
        """Enter one input; returns once it is durable. Raises IllegalTransition."""


class GpuWatch:
    """Watches the box's GPUs for the supervisor.

    seen: name and bytes in use of each GPU at the last round; whoever wants to show them looks
    here, for the driver itself may never answer.
    """

    def __init__(self, desk: Desk, gpus: Gpus, settings: JobSettings) -> None:
        self._desk, self._gpus, self._settings = desk, gpus, settings
        self._faults: dict[int, str] = {}
        self._rounds: dict[int, int] = {}
        self._silent: dict[int, str] = {}
        self._tired: dict[int, str] = {}
        self._strange: dict[int, str] = {}
        self._strange_rounds: dict[int, int] = {}
        self._held: dict[int, dict[Path, str]] = {}
        self._well_since: dict[int, float] = {}
        self._owners: dict[tuple[int, int], str] = {}
        self._pids_tell = host_pids()
        self._driver = DriverThread()
        self.seen: dict[int, tuple[str, int]] = {}
        self._turn = asyncio.Lock()

    @property
    def count(self) -> int:
        """GPUs that are watched: those of the box that the policy describes."""
        return min(self._gpus.count, self._desk.machine.policy.preset.gpus)

    @property
    def reasons(self) -> dict[int, str]:
        """Why GPUs are out of service, by number."""
        held = {gpu: next(iter(jobs.values())) for gpu, jobs in dict(self._held).items() if jobs}
        return self._strange | self._tired | held | self._silent | self._faults

    def fault_of(self, gpus: tuple[int, ...]) -> str | None:
        """The driver's fault of any of these GPUs, which ends the job that runs on it.

        It must have stood for several rounds: one bad answer takes a GPU out, it ends no job.
        """
        sure = (gpu for gpu in gpus if self._rounds.get(gpu, 0) >= SURE_ROUNDS)
        return next((self._faults[gpu] for gpu in sure), None)

    async def look(self) -> None:
        """One round: health, owners of memory, and what has changed is entered."""
        async with self._turn:
            for gpu in range(self.count):
                await self._examine(gpu)
            for gpu in range(self.count):
                await self._settle(gpu)

    async def _examine(self, gpu: int) -> None:
        """Ask after one GPU; a driver that gives no answer is a reason, but no fault."""
        self._silent.pop(gpu, None)
        try:
            why = await self._driver.ask(partial(self._gpus.fault, gpu))
            if why is None:
                await self._driver.ask(partial(self._note_owners, gpu))
                name, used, wish = await self._driver.ask(partial(self._shown, gpu))
                self.seen[gpu] = name, used
                self._note_stranger(gpu, used)
                self._note_wish(gpu, wish)
        except GpuError as error:
            self.seen.pop(gpu, None)
            self._silent[gpu] = f"GPU {gpu}: {error}"
            return
        if why is None:
            self._faults.pop(gpu, None)
            self._rounds.pop(gpu, None)
        else:
            self._faults[gpu] = why
            self._rounds[gpu] = self._rounds.get(gpu, 0) + 1

    def _note_stranger(self, gpu: int, used: int) -> None:
        """Memory on a GPU that no started job holds is a stranger's, whoever its processes are.

        Their ids are never asked: in a container the driver tells the host's, which are nobody's
        here. On a GPU with a job nothing can be told of a stranger, and nothing is assumed.
        """
        if self._users(gpu) or used <= self._settings.idle_bytes:
            self._strange.pop(gpu, None)
            self._strange_rounds.pop(gpu, None)
            return
        self._strange_rounds[gpu] = self._strange_rounds.get(gpu, 0) + 1
        if self._strange_rounds[gpu] >= SURE_ROUNDS:
            self._strange[gpu] = f"GPU {gpu}: {used / GB:.1f} GB are held, and by no job"

    def _note_wish(self, gpu: int, why: str | None) -> None:
        """A GPU that waits for a reset takes no new job; the one that runs on it goes on."""
        if why is None:
            self._tired.pop(gpu, None)
        else:
            self._tired[gpu] = why

    def _users(self, gpu: int) -> int:
        """Started jobs that hold it."""
        jobs = self._desk.machine.jobs.values()
        return sum(gpu in job.gpus and job.state != "reserved" for job in jobs)

    async def clear(self, gpu: int) -> str | None:
        """Call a GPU well on an operator's word; the fault that was remembered, or None.

        Raises InputError, OSError, GpuError when the driver is silent.
        """
        return await self._driver.ask(partial(self._gpus.clear, gpu))

    def _shown(self, gpu: int) -> tuple[str, int, str | None]:
        gpus = self._gpus
        return gpus.name(gpu), gpus.used_bytes(gpu), gpus.wants_reset(gpu)

    def _note_owners(self, gpu: int) -> None:
        """Remember whose processes are there: of a dead one nothing else will tell."""
        seen = self._gpus.processes(gpu) if self._pids_tell else ()
        known = {key: job for key, job in self._owners.items() if key[0] != gpu}
        for process in seen:
            owner = job_of(process.pid) or self._owners.get((gpu, process.pid))
            if owner is not None:
                known[gpu, process.pid] = owner
        self._owners = known

    async def _settle(self, gpu: int) -> None:
        """Enter what has changed about one GPU, once."""
        out = gpu in self._desk.machine.failed_gpus
        if gpu in self.reasons:
            self._well_since.pop(gpu, None)
            if not out:
                await self._enter(gpu, healthy=False)
        elif out:
            if not await self._clean(gpu):
                self._well_since.pop(gpu, None)
                return
            since = self._well_since.setdefault(gpu, monotonic())
            if monotonic() - since >= self._settings.stable_s:
                await self._enter(gpu, healthy=True)

    async def _clean(self, gpu: int) -> bool:
        """Whether nothing is left on a GPU that nobody should be using."""
        busy = any(gpu in job.gpus for job in self._desk.machine.jobs.values())
        return busy or not await self._exceeds(gpu)

    async def _enter(self, gpu: int, *, healthy: bool) -> None:
        log.warning("GPU %d %s", gpu, "is back" if healthy else f"is out: {self.reasons[gpu]}")
        try:
            await self._desk.enter(GpuChanged(gpu, healthy=healthy))
        except IllegalTransition as why:
            log.error("GPU %d: %s", gpu, why)

    # Release.

    async def unreleased(self, folder: Path, gpus: tuple[int, ...], sharing: int) -> set[int]:
        """The GPUs on which this dead job still holds memory.

        On a GPU of its own nothing may be left; on a shared one, no process of this job, or, where
        process ids tell nothing, nothing once it is the last there. A GPU with a fault is not
        waited for: it is out of service until it is well and clean.
        """
        if self._gpus.device == "cpu":
            return set()
        return {
            gpu
            for gpu in gpus
            if gpu < self.count
            and gpu not in self._faults
            and (
                await self._listed(gpu, folder)
                or (self._alone(gpu, sharing) and await self._exceeds(gpu))
            )
        }

    def _alone(self, gpu: int, sharing: int) -> bool:
        """Whether all memory in use on a GPU is the one dead job's."""
        return sharing == 1 or (not self._pids_tell and self._users(gpu) <= 1)

    async def _listed(self, gpu: int, folder: Path) -> bool:
        """Whether the driver lists a process of this job; one that cannot be asked counts."""
        try:
            await self._driver.ask(partial(self._note_owners, gpu))
        except GpuError:
            return True
        return any(key[0] == gpu and job == str(folder) for key, job in self._owners.items())

    async def _exceeds(self, gpu: int) -> bool:
        try:
            used = await self._driver.ask(partial(self._gpus.used_bytes, gpu))
        except GpuError:
            return True
        return used > self._settings.idle_bytes

    async def quarantine(self, folder: Path, gpus: set[int]) -> None:
        """Hold exactly these GPUs out of service for this job's memory; none ends it."""
        async with self._turn:
            for gpu in range(self.count):
                held = self._held.setdefault(gpu, {})
                if gpu in gpus:
                    held.setdefault(folder, f"GPU {gpu}: memory of {folder.name} is not released")
                else:
                    held.pop(folder, None)
                await self._settle(gpu)
