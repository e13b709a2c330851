"""The composition root: every part of the daemon, put together, started and stopped in order."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from live.admin import AdminSocket
from live.clock import Clock, SystemClock, wall_ms
from live.config import Config
from live.daemon import Daemon
from live.gpus import CpuSlots, Device, Gpus
from live.guard import Guard
from live.intake.app import Intake, intake_app
from live.intake.desk import Desk
from live.intake.nonces import Nonces
from live.intake.protocol import dialect_named
from live.intake.serve import Serving, serve
from live.intake.signatures import Auth, Open, Signed, need_loopback
from live.intake.spool import Spool
from live.intake.spool_files import SpoolFiles
from live.job_settings import JobSettings
from live.launching import Wanted, wanted
from live.ledger_store import LedgerStore
from live.logs import DecisionLog
from live.metrics import Metrics, metrics_app
from live.operating import Operator
from live.recovery import Opened, keep_offers, open_ledger
from live.supervisor import Supervisor
from shared.decisions import Policy
from shared.errors import InputError
from shared.inputs import GpuChanged
from shared.jobs import Answer
from shared.ledger import LedgerEntry

log = logging.getLogger(__name__)

LEDGER = "ledger.db"
JOBS = "jobs"
GPU_ROUND_S = 15.0
CLOCK_ROUND_S = 60.0
CLOCK_OFF_MS = 2_000

ClockAt = Callable[[int], Clock]
"""Makes the clock, which may not begin before this time (UTC ms): the ledger's last entry."""


def system_clock(at_least_ms: int) -> Clock:
    """Production's clock."""
    return SystemClock(at_least_ms=at_least_ms)


@dataclass(frozen=True, slots=True)
class Setting:
    """What a daemon is made of. A rehearsal brings its own clock and settings of jobs.

    begin_ms: when a new ledger begins, UTC ms. need_bytes: disk that one more job may need; None
    takes the preset's. ledger: its file; None is the one in the data folder.
    """

    config: Config
    policy: Policy
    gpus: Gpus
    jobs: JobSettings
    clock: ClockAt = system_clock
    begin_ms: Callable[[], int] = wall_ms
    need_bytes: Callable[[], int] | None = None
    ledger: Path | None = None


class Service:
    """One daemon, from its ledger to its sockets. Use ``serving``."""

    def __init__(self, setting: Setting) -> None:
        """Open the ledger and put the parts together. Raises InputError, StorageError, OSError."""
        self.setting, config = setting, setting.config
        folder = config.data_folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.opened: Opened = open_ledger(
            setting.ledger or folder / LEDGER, setting.policy, setting.begin_ms()
        )
        self.store: LedgerStore = self.opened.store
        try:
            self.clock = setting.clock(self.opened.last_ms)
            self.daemon = Daemon(self.opened.recorder, self.store, self.clock)
            self._compose(folder)
        except BaseException:
            self.store.close()
            raise
        self.guard = Guard()
        self.http: Serving | None = None
        self.metrics_http: Serving | None = None

    def _compose(self, folder: Path) -> None:
        setting, daemon, now_ms = self.setting, self.daemon, self.clock.now_ms
        self.supervisor = Supervisor(
            daemon, self.clock, setting.gpus, folder / JOBS, self._wanted, setting.jobs,
            need_bytes=setting.need_bytes,
        )  # fmt: skip
        self.metrics = Metrics(
            daemon.machine, now_ms, lambda: daemon.storage_failing, self._ended_ms
        )
        self.metrics.on_device(setting.gpus.device)
        self.desk = Desk(
            daemon, reserved=self.opened.reserved, unledgered=self.metrics.on_unledgered
        )
        self.decision_log = DecisionLog(daemon.machine)
        self._offers = dict(self.opened.offers)
        for listener in (self._hold, self.metrics.on_entry):
            daemon.listen(listener)
        for listener in (self.decision_log.on_entry, self.supervisor.on_entry):
            daemon.listen(listener, behind=True)
        daemon.watch_commits(self.metrics.on_commit)
        # The other end stamps by the wall clock; ours may have been moved since the start.
        self._signed_ms = wall_ms if isinstance(self.clock, SystemClock) else now_ms
        intake = Intake(
            self.desk, self._auth(), now_ms, self.store.submission,
            dialect_named(setting.config.http.protocol), signed_ms=self._signed_ms,
        )  # fmt: skip
        self.app = intake_app(intake, self.metrics.on_request)
        operator = Operator(daemon, self.supervisor, setting.gpus, self.clock, lambda: self.http)
        self.operator = operator.commands
        self.admin = AdminSocket(folder, self.operator)

    def _auth(self) -> Auth:
        http = self.setting.config.http
        if http.auth == "none":
            if http.enabled:
                need_loopback(http.host, "http.host")
            return Open()
        nonces = Nonces(self.store.nonces())
        since_ms = self._signed_ms() if self.opened.replayed else 0
        return Signed(http.hotkey, http.validators, http.min_stake, nonces, since_ms=since_ms)

    def _wanted(self, task_id: str) -> Wanted:
        """What the start asked for; model and task type as they were offered and accepted."""
        payload = self.store.start_payload(task_id)
        asked = Wanted() if payload is None else wanted(json.loads(payload))
        offer = self._offers.get(task_id)
        if offer is None:
            return asked
        return replace(
            asked, model=offer.model, task_type=offer.task_type, params=offer.model_params_count
        )

    def _hold(self, entry: LedgerEntry, answers: list[Answer]) -> None:
        keep_offers(self._offers, entry.entry, answers)

    def _ended_ms(self, task_id: str) -> int | None:
        """When a job ended, on the daemon's clock; its launcher tells it by the wall clock."""
        if not isinstance(self.clock, SystemClock):
            return None
        told = self.supervisor.ended_ms(task_id)
        return None if told is None else told - self.clock.behind_wall_ms()

    # Its life.

    @asynccontextmanager
    async def serving(self) -> AsyncIterator["Service"]:
        """Serve while inside. Raises InputError when an address cannot be had."""
        stop = asyncio.Event()
        async with AsyncExitStack() as stack:
            stack.callback(self.store.close)
            stack.callback(self.decision_log.flush)
            consumer = asyncio.create_task(self.daemon.run(), name="consumer")
            stack.push_async_callback(self._end, consumer)
            await self._count_gpus()
            self.supervisor.recover(self.opened.started)
            stack.push_async_callback(self.supervisor.close)
            side = [asyncio.create_task(work, name=name) for name, work in self._side_work(stop)]
            stack.push_async_callback(_cancelled, side)
            self.guard.watch(side, stop)
            await self.admin.open()
            stack.push_async_callback(self.admin.close)
            stack.callback(stop.set)
            for task in await self._open_ports(stop):
                stack.push_async_callback(_finished, task)
                self.guard.watch([task], stop, endless=True)
            stack.callback(stop.set)
            self.consumer = consumer
            yield self

    async def _end(self, consumer: "asyncio.Task[None]") -> None:
        await self.daemon.stop()
        await asyncio.gather(consumer, return_exceptions=True)

    async def _open_ports(self, stop: asyncio.Event) -> "list[asyncio.Task[None]]":
        http = self.setting.config.http
        tasks = []
        if http.enabled:
            self.http = await serve(self.app, http.host, http.port, stop)
            self.http.task.set_name("http server")
            log.info("taking offers at http://%s:%d", self.http.host, self.http.port)
            tasks.append(self.http.task)
        if http.metrics_port is not None:
            metrics = metrics_app(self.metrics)
            self.metrics_http = await serve(metrics, "127.0.0.1", http.metrics_port, stop)
            self.metrics_http.task.set_name("metrics server")
            tasks.append(self.metrics_http.task)
        return tasks

    def _side_work(self, stop: asyncio.Event) -> list[tuple[str, Any]]:
        config = self.setting.config
        # Made first: a folder that cannot be made must leave nothing begun behind.
        files = SpoolFiles(config.spool_folder) if config.spool.enabled else None
        work: list[tuple[str, Any]] = [
            ("watches", self.supervisor.run()),
            ("gpu metrics", self._measure_gpus()),
            ("clock", self._compare_clocks()),
        ]
        if files is not None:
            spool = Spool(files, self.daemon, self.clock.now_ms, self.store.lines)
            work.append(("spool", spool.run(stop, config.spool.poll_s)))
        return work

    async def _count_gpus(self) -> None:
        """GPUs that the preset counts on and the box does not have are out of service."""
        machine, gpus = self.daemon.machine, self.setting.gpus
        if isinstance(gpus, CpuSlots) and gpus.why:
            log.warning("jobs run on %d CPU slots: %s", gpus.count, gpus.why)
        for gpu in range(gpus.count, machine.policy.preset.gpus):
            if gpu not in machine.failed_gpus:
                log.warning("GPU %d: this box has no such GPU, its slots are out of service", gpu)
                await self.daemon.enter(GpuChanged(gpu, healthy=False))

    async def _measure_gpus(self) -> None:
        while self.setting.gpus.device == "cuda":
            for gpu, (_, used) in self.supervisor.gpu_watch.seen.items():
                self.metrics.on_gpu(gpu, used)
            await asyncio.sleep(GPU_ROUND_S)

    async def _compare_clocks(self) -> None:
        """Say so once when the wall clock has been moved: deadlines go by the steady clock."""
        told = 0
        while isinstance(self.clock, SystemClock):
            off = self.clock.behind_wall_ms()
            if abs(off - told) > CLOCK_OFF_MS:
                log.warning("the wall clock was moved by %+.1f s; deadlines stay", off / 1000)
                told = off
            await asyncio.sleep(CLOCK_ROUND_S)


async def _cancelled(tasks: "list[asyncio.Task[None]]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)  # what fails is told when it fails


async def _finished(task: "asyncio.Task[None]") -> None:
    await asyncio.gather(task, return_exceptions=True)


def setting_of(config: Config, policy: Policy, gpus: Gpus) -> Setting:
    """Production's setting. Raises InputError where the configuration cannot be used."""
    http = config.http
    if http.enabled and http.auth == "none":
        need_loopback(http.host, "http.host")
    if not http.enabled and not config.spool.enabled:
        raise InputError("spool.enabled: found false, allowed without http is true: no offers else")
    need_processes(config, policy, gpus.device)
    return Setting(config, policy, gpus, config.job_settings())


def need_processes(config: Config, policy: Policy, device: Device) -> None:
    """A rank needs a GPU of its own. Raises InputError where a slot has fewer than ranks."""
    ranks, most = config.jobs.processes, len(policy.preset.layout.gpus[0])
    if device == "cuda" and ranks is not None and ranks > most:
        raise InputError(
            f"jobs.processes: found {ranks}, allowed with preset {policy.preset.name} is 1 to "
            f"{most}: a slot has no more GPUs"
        )
