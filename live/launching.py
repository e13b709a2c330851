"""Starting a launcher so that it outlives the daemon, and reaching one that lives."""

import os
import shutil
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from live import faults
from live.gpus import Gpus
from live.job_environment import passed
from live.job_files import (
    JOB,
    LAUNCHER_LOG,
    JobSpec,
    TimeLeft,
    launcher_of,
    steady_s,
    sync_folder,
    write_record,
)
from live.job_settings import JobSettings
from live.reaping import boot_id, send
from shared.jobs import Job
from shared.presets import Preset
from shared.units import MS_PER_SECOND, hours_to_ms

_SYSTEMD = Path("/run/systemd/system")
_RUNTIME = Path("/run/user")


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a start request asks for. request: the request whole, as it came. params: of the model,
    as the offer told them.
    """

    model: str = ""
    task_type: str = ""
    params: int | None = None
    request: Mapping[str, Any] = field(default_factory=dict)


WantedOf = Callable[[str], Wanted]
"""What the start of this task asked for."""


def wanted(request: Mapping[str, Any]) -> Wanted:
    """Read a start request's own words: ``model`` and ``task_type``, where they are text."""
    words = [request.get(key) for key in ("model", "task_type")]
    model, task_type = (word if isinstance(word, str) else "" for word in words)
    return Wanted(model, task_type, request=request)


def spec_of(job: Job, preset: Preset, asked: Wanted, settings: JobSettings, gpus: Gpus) -> JobSpec:
    """The job as its worker needs it. ``job`` must have been started. gpus: of the box."""
    assert job.deadline_ms is not None
    started_ms = job.deadline_ms - hours_to_ms(job.hours_to_complete)
    return JobSpec(
        task_id=job.decision.task_id,
        model=asked.model,
        task_type=asked.task_type,
        hours_to_complete=job.hours_to_complete,
        started_ms=started_ms,
        deadline_ms=job.deadline_ms,
        warn_ms=settings.warn_ms(started_ms, job.deadline_ms),
        preset=preset.name,
        slot=job.slot,
        gpus=job.gpus,
        gpu_uuids=_uuids(job.gpus, gpus),
        device=gpus.device,
        processes=settings.processes or len(job.gpus),
        memory_gb_per_gpu=preset.layout.memory_gb_per_gpu,
        sharing=round(1 / preset.layout.gpu_share),
        profile=preset.profile,
        request=dict(asked.request),
        worker_module=settings.worker_module,
        torchrun=settings.torchrun,
        max_restarts=settings.max_restarts,
        heartbeat_timeout_s=settings.heartbeat_timeout_s,
        start_timeout_s=settings.start_timeout_s,
        stop_grace_s=settings.stop_grace_s,
        checkpoint_every=settings.checkpoint_every,
        log_bytes=settings.log_bytes,
        cgroup=settings.cgroup,
        local_files=settings.local_files,
        training=settings.training,
    )


def _uuids(numbers: tuple[int, ...], gpus: Gpus) -> tuple[str, ...]:
    """UUIDs of these GPUs; none unless each has one, for CUDA takes no mixture."""
    found = [gpus.uuid(number) if number < gpus.count else None for number in numbers]
    known = tuple(uuid for uuid in found if uuid is not None)
    return known if len(known) == len(numbers) else ()


def write_job(folder: Path, spec: JobSpec, now_ms: int, settings: JobSettings) -> None:
    """Write the folder and its ``job.json``.

    With the time left from now, or from when it was first told since the machine is up: a clock
    that was moved since then moves no deadline. Raises OSError.
    """
    made = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if made:
        sync_folder(folder.parent)
    left = spec.time_left
    if not settings.enforce_deadlines:
        left = None
    elif left is None or left.boot_id != boot_id():
        per_ms = 1 / MS_PER_SECOND / settings.speed
        warn_s, kill_s = (
            steady_s() + (at_ms - now_ms) * per_ms for at_ms in (spec.warn_ms, spec.deadline_ms)
        )
        left = TimeLeft(boot_id=boot_id(), warn_s=warn_s, kill_s=kill_s)
    write_record(folder, JOB, spec.model_copy(update={"time_left": left}))


def under_systemd(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this process is a systemd unit, whose jobs can have scopes beside it."""
    return "INVOCATION_ID" in environment and scopes_can_be_had(environment)


def scopes_can_be_had(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether this user can have systemd scopes: root, or one whose own manager runs. A system user
    has one only with lingering switched on.
    """
    if not (_SYSTEMD.is_dir() and _systemd_run()):
        return False
    manager = _runtime_folder(environment) / "systemd" / "private"
    return os.geteuid() == 0 or os.access(manager, os.W_OK)


def _runtime_folder(environment: Mapping[str, str]) -> Path:
    """Where the user's own manager is reached; a system service is not told."""
    told = environment.get("XDG_RUNTIME_DIR")
    return Path(told) if told else _RUNTIME / str(os.geteuid())


def _systemd_run() -> str | None:
    return shutil.which("systemd-run")


def launcher_command(folder: Path, *, scope: bool) -> list[str]:
    """The argument list of a launcher; ``scope`` gives it a systemd scope of its own."""
    plain = [sys.executable, "-m", "live.launcher", str(folder)]
    if not scope:
        return plain
    # The time makes the name of a second launch another one.
    unit = f"--unit=four-slot-job-{folder.name}-{int(steady_s() * 1000)}"
    user = [] if os.geteuid() == 0 else ["--user"]
    head = [_systemd_run() or "systemd-run", *user, "--scope", "--quiet", "--collect", unit]
    return [*head, "--property=Delegate=yes", "--", *plain]


def spawn(folder: Path, *, scope: bool = False) -> int:
    """Start a launcher in a session of its own; its pid. Raises OSError.

    It sees nothing of the daemon's environment but what the list allows.
    """
    faults.reached("before_spawn")
    command = launcher_command(folder, scope=scope)
    environment = passed(os.environ)
    if scope:
        environment["XDG_RUNTIME_DIR"] = str(_runtime_folder(os.environ))
    for name in (faults.VARIABLE, *(("DBUS_SESSION_BUS_ADDRESS",) if scope else ())):
        if name in os.environ:
            environment[name] = os.environ[name]
    log = os.open(
        folder / LAUNCHER_LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600
    )
    try:
        pid = os.posix_spawn(
            command[0],
            command,
            environment,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, log, 1),
                (os.POSIX_SPAWN_DUP2, log, 2),
            ],
            setsid=True,
            setsigmask=(),
        )
    finally:
        os.close(log)
    faults.reached("after_spawn")
    return pid


def ended(pid: int) -> bool:
    """Whether a process that we started has ended; it is collected then."""
    with suppress(ChildProcessError):
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    return True


def signal_launcher(folder: Path, sign: int) -> bool:
    """Signal the launcher of a job, if it is still the process it was; whether it was there."""
    record = launcher_of(folder)
    if record is None or record.boot_id != boot_id():
        return False
    return send(record.pid, record.start_ticks, sign)
