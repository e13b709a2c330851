"""``live rehearse``: the real daemon on an offers file, in compressed time, then verified."""

import argparse
import asyncio
import json
import logging
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from live import logs
from live.clock import ScaledClock
from live.config import Config, policy_of, read_config
from live.rehearsal import Rehearsal, StageSet
from live.rehearsal_files import read_events, read_offer_lines
from live.service import Service, Setting
from live.supervisor import Supervisor
from shared.errors import InputError

log = logging.getLogger(__name__)

FINE, DOES_NOT_HOLD = 0, 1
FASTEST = 1e6
END_S = 5.0
"""Jobs of an interrupted rehearsal get so long to save and leave."""


def run(call: argparse.Namespace) -> int:
    """Rehearse, verify the ledger, print what came of it."""
    if not 0 < call.speed <= FASTEST:
        raise InputError(f"--speed: found {call.speed:g}, allowed is over 0 and at most 1000000")
    if call.ledger.exists():
        raise InputError(f"--ledger: {call.ledger}: exists; a rehearsal begins a new one")
    if _aside(call).exists():
        raise InputError(f"--ledger: {_aside(call)}: exists, of an earlier rehearsal; move it away")
    stage = StageSet()
    offers, events = read_offer_lines(call.offers), read_events(call.events, stage.count)
    config = read_config(call.config)
    logs.set_up(config.log)
    setting = _setting(call, config, stage, offers[0].received_at)

    async def play() -> dict[str, Any]:
        async with Service(setting).serving() as service, _no_job_left(service.supervisor):
            rehearsal = Rehearsal(service, stage, call.speed)
            return (await rehearsal.play(offers, events)).document()

    try:
        told = asyncio.run(play())
    except asyncio.CancelledError:  # SIGTERM
        raise KeyboardInterrupt from None
    told["verify"], told["divergence"] = _verified(call.ledger)
    _print(call, told)
    return FINE if _holds(told) else DOES_NOT_HOLD


@asynccontextmanager
async def _no_job_left(supervisor: Supervisor) -> AsyncIterator[None]:
    """While inside, SIGTERM interrupts as Ctrl-C does; a rehearsal that does not come to its end
    ends its jobs, which nobody would ever find again.
    """
    playing = asyncio.current_task()
    assert playing is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, playing.cancel)
    try:
        yield
    except BaseException:
        log.warning("interrupted: %d jobs are ended", len(supervisor.status()))
        await supervisor.end(END_S)
        raise


def _aside(call: argparse.Namespace) -> Path:
    """Where the rehearsal's jobs lie."""
    ledger: Path = call.ledger
    return ledger.with_name(f"{ledger.name}.run")


def _holds(told: dict[str, Any]) -> bool:
    """No divergence, an answer to every offer, a result of every accepted job that was not on a
    GPU which failed on cue.
    """
    if told["verify"] != FINE or told["unanswered"]:
        return False
    return bool(told["completed"] + told["failed"] == told["started"] and not told["lost"])


def _setting(call: argparse.Namespace, config: Config, stage: StageSet, begin_ms: int) -> Setting:
    folder = Path() if call.config is None else call.config.parent
    aside = _aside(call)
    http = config.http.model_copy(
        update={"host": "127.0.0.1", "port": 0, "auth": "none", "metrics_port": None,
                "enabled": True}
    )  # fmt: skip
    config = config.model_copy(
        update={
            "data": str(aside.absolute()),
            "http": http,
            "spool": config.spool.model_copy(update={"enabled": False}),
            "jobs": config.jobs.model_copy(update={"worker": call.worker}),
        }
    )
    jobs = replace(
        config.job_settings(systemd=False),
        enforce_deadlines=False,
        speed=call.speed,
        poll_s=0.1,
        health_every_s=0.2,
        storage_every_s=0.2,
        stable_s=0.5,
        processes=2 if call.worker == "train" else 1,
        start_timeout_s=300.0,
        heartbeat_timeout_s=120.0,
    )
    begin = begin_ms - 1
    return Setting(
        config,
        policy_of(config, folder),
        stage,
        jobs,
        clock=partial(_clock, call.speed),
        begin_ms=lambda: begin,
        need_bytes=stage.need_bytes,
        ledger=call.ledger.absolute(),
    )


def _clock(speed: float, start_ms: int) -> ScaledClock:
    return ScaledClock(speed, start_ms)


def _verified(ledger: Path) -> tuple[int, str | None]:
    """The simulator's verdict on the ledger: its exit code, and the first divergence."""
    call = [sys.executable, "-m", "sim", "verify", str(ledger), "--json"]
    done = subprocess.run(call, capture_output=True, text=True, check=False)  # noqa: S603 - a list
    if done.returncode == FINE:
        return FINE, None
    return done.returncode, (done.stdout or done.stderr).strip()


def _print(call: argparse.Namespace, told: dict[str, Any]) -> None:
    if call.json:
        print(json.dumps(told))
        return
    verdict = "agrees with the simulator" if told["verify"] == FINE else "DIVERGES"
    print(
        f"{told['offers']} offers: {told['accepted']} accepted, {told['refused']} refused, "
        f"{told['unanswered']} unanswered; answered in {told['answer_ms_median']:.1f} ms "
        f"(median), {told['answer_ms_p99']:.1f} ms (99th percentile)"
    )
    print(
        f"{told['started']} jobs started: {told['completed']} completed, {told['failed']} failed, "
        f"{told['past_deadline']} ended past their virtual deadline"
    )
    print(
        f"{told['on_failed_gpus']} accepted jobs were on a GPU that failed on cue; "
        f"{told['lost']} of the others have no result"
    )
    print(f"offers were sent at most {told['late_s_most']:.2f} s after their time")
    print(f"the ledger {verdict}: {call.ledger}")
    if told["divergence"]:
        print(told["divergence"])
