"""Running the daemon in the foreground: signals, systemd, and the jobs at the end."""

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
from collections.abc import Awaitable
from pathlib import Path

from live.job_files import write_atomic
from live.passing import PassingError
from live.service import Service
from shared.errors import FourSlotError
from shared.inputs import OperatorAsked

log = logging.getLogger(__name__)

SIGNALS = (signal.SIGINT, signal.SIGTERM)


async def run(service: Service) -> None:
    """Serve until SIGINT or SIGTERM, then end as configured. Raises what ended the consumer, and
    PassingError when another part died: systemd starts a daemon that is whole.
    """
    asked = _Asked()
    async with service.serving():
        await _take_back_drain(service)
        _keep_what_is_here()
        _notify("READY=1")
        log.info("ready: %s", _told(service))
        await _first(asked.once.wait(), service.consumer, service.guard.broken.wait())
        _notify("STOPPING=1")
        if not service.consumer.done() and not service.guard.broken.is_set():
            await _wind_up(service, asked)
    if (why := _ended_by(service)) is not None:
        raise why


def _keep_what_is_here() -> None:
    """Tell the garbage collector that what a start has made stays: going through all of it again
    and again would hold up an answer for tens of milliseconds.
    """
    gc.collect()
    gc.freeze()


def _ended_by(service: Service) -> BaseException | None:
    consumer = service.consumer
    if consumer.done() and not consumer.cancelled() and (why := consumer.exception()) is not None:
        return why
    return PassingError(service.guard.why) if service.guard.broken.is_set() else None


class _Asked:
    """Signals that came: ``once`` after the first, ``twice`` after the second."""

    def __init__(self) -> None:
        self.once, self.twice = asyncio.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()
        for sign in SIGNALS:
            loop.add_signal_handler(sign, self._came)

    def _came(self) -> None:
        (self.twice if self.once.is_set() else self.once).set()


async def _wind_up(service: Service, asked: _Asked) -> None:
    """Do with the running jobs what the configuration says, and say so."""
    jobs, mode = len(service.supervisor.status()), service.setting.config.jobs.on_stop
    match mode if jobs else "nothing":
        case "finish":
            await _finish(service, asked, jobs)
        case "interrupt":
            log.warning("stopping: %d jobs save and leave, the next start takes them up", jobs)
            await service.supervisor.close(interrupt=True)
        case "hand_over":
            log.warning("stopping: %d jobs go on alone, the next start finds them again", jobs)
        case _:
            log.warning("stopping: no job is running")


async def _finish(service: Service, asked: _Asked, jobs: int) -> None:
    """Accept nothing more, wait for the jobs; a second signal hands them over instead."""
    log.warning("stopping: waiting for %d jobs; once more to leave them running", jobs)
    if not service.daemon.machine.draining:
        write_atomic(_drained_by_stop(service), "")
        await _first(service.daemon.enter(OperatorAsked("drain")), asked.twice.wait())
    await _first(service.supervisor.idle(), asked.twice.wait())
    with contextlib.suppress(FourSlotError):
        await _take_back_drain(service)


def _drained_by_stop(service: Service) -> Path:
    """The file that is there while a stop, and not the operator, keeps the daemon from accepting.

    It outlives a kill, so the next start accepts again.
    """
    return service.setting.config.data_folder / "drained-by-stop"


async def _take_back_drain(service: Service) -> None:
    """Accept again, if it was a stop that drained. Raises DaemonStopped."""
    path = _drained_by_stop(service)
    if path.exists():
        if service.daemon.machine.draining:
            await service.daemon.enter(OperatorAsked("resume"))
        path.unlink(missing_ok=True)


async def _first(*waits: Awaitable[object]) -> None:
    """Until one of them is over; those that were made here are cancelled then."""
    made: list[asyncio.Future[object]] = [asyncio.ensure_future(each) for each in waits]
    await asyncio.wait(made, return_when=asyncio.FIRST_COMPLETED)
    for task, given in zip(made, waits, strict=True):
        if task is not given:
            task.cancel()


def _told(service: Service) -> str:
    policy, opened = service.daemon.machine.policy, service.opened
    where = "no http" if service.http is None else f"http://{service.http.host}:{service.http.port}"
    return (
        f"preset {policy.preset.name}, {policy.preset.cap} slots on {service.setting.gpus.device}, "
        f"{where}, {opened.replayed} ledger entries, {len(opened.started)} jobs found again"
    )


def _notify(state: str) -> None:
    """Tell systemd, where it has asked to be told (Type=notify)."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    address = "\0" + path[1:] if path.startswith("@") else path
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as to:
            to.sendto(state.encode(), address)
    except OSError as why:
        log.warning("systemd cannot be told: %s", why)
