"""The job folder: the seam between supervisor, launcher and worker.

One folder a job, named by a ledger number, never by a stranger's text. Whatever another process
reads is written whole: into a temporary file, synced, renamed, the folder synced. That a launcher
lives is told by the lock it holds, not by a number that may be somebody else's by now.
"""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import CLOCK_BOOTTIME, clock_gettime, monotonic, sleep
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from live.training.settings import TrainingSettings
from shared.errors import FourSlotError, InputError
from shared.profiles import TrainingProfile
from shared.wire import found

JOB = "job.json"
LOCK = "launcher.lock"
LAUNCHER = "launcher.json"
HEARTBEAT = "heartbeat"
PROGRESS = "progress.json"
STOP = "stop"
RESULT = "result.json"
EXIT = "exit.json"
LOGS = "logs"
OUTPUT = "output"
LAUNCHER_LOG = "launcher.log"
TMP = "tmp"
"""Temporary files of the job's processes, here while one of them lives."""
MARKER = "FOUR_SLOT_JOB"
"""The environment variable that every process of a job bears; its value is the job's folder."""

CANCELLED, DEADLINE, GPU_FAILED = "cancelled", "deadline", "gpu_failed"
"""How the reasons of a stop begin; the first and the last make the job's outcome so."""

LOCK_PATIENCE_S = 1.0
"""How long a launcher tries for the lock: those who only ask hold it for an instant."""

Seconds = Annotated[float, Field(gt=0)]
Fault = Literal["oom", "hang", "crash", "stopped", "deadline"]
_Model = TypeVar("_Model", bound=BaseModel)


class JobBusy(FourSlotError):
    """A launcher of this job lives already."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class TimeLeft(_Record):
    """When the job has to stop, on a clock that nobody can move.

    warn_s, kill_s: on ``steady_s``'s clock, in the boot ``boot_id``. None means no limit.
    """

    boot_id: str
    warn_s: float | None = None
    kill_s: float | None = None


class JobSpec(_Record):
    """What is to be trained, on what, until when. Written by the supervisor alone.

    hours_to_complete: as offered. started_ms, warn_ms, deadline_ms: UTC epoch ms on the
    daemon's clock; ``time_left`` is what launcher and worker obey. memory_gb_per_gpu: GB of
    10**9 bytes of each GPU that the job may use; sharing: slots on one GPU. gpu_uuids: of
    ``gpus``, by which CUDA finds them whatever its numbering; none where the driver tells none.
    processes: ranks. request: the start request whole. torchrun: False runs the worker module
    as one plain process. max_restarts: tries after the first. heartbeat_timeout_s: silence that
    counts as a hang, unless the heartbeat itself asks for more; start_timeout_s: the same until
    the first beat. stop_grace_s: from the signal to the kill. checkpoint_every: steps.
    log_bytes: of one log file; four older ones are kept. local_files: whether the request may
    name a model folder and a data file of this machine. training: how it is trained and handed
    in.
    """

    task_id: str
    model: str
    task_type: str
    hours_to_complete: float
    started_ms: int
    deadline_ms: int
    warn_ms: int
    preset: str
    slot: Annotated[int, Field(ge=0)]
    gpus: tuple[int, ...]
    gpu_uuids: tuple[str, ...] = ()
    device: Literal["cuda", "cpu"]
    processes: Annotated[int, Field(ge=1)]
    memory_gb_per_gpu: float
    sharing: Annotated[int, Field(ge=1)] = 1
    profile: TrainingProfile
    request: dict[str, Any] = Field(default_factory=dict)
    worker_module: Annotated[str, Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$")] = "live.worker"
    torchrun: bool = True
    max_restarts: Annotated[int, Field(ge=0)] = 2
    heartbeat_timeout_s: Seconds = 25.0
    start_timeout_s: Seconds = 120.0
    stop_grace_s: Seconds = 20.0
    checkpoint_every: Annotated[int, Field(ge=1)] = 50
    log_bytes: Annotated[int, Field(ge=4096)] = 20_000_000
    cgroup: bool = True
    local_files: bool = False
    training: TrainingSettings = TrainingSettings()
    time_left: TimeLeft | None = None


class LauncherRecord(_Record):
    """Who runs the job. launched_ms: UTC epoch ms. attempt: of the job, from 1; 0 before the first.

    start_ticks, boot_id: with the pid, what no other process can share. cgroup: its folder.
    faults: how the attempts before this one ended.
    """

    pid: int
    start_ticks: int
    boot_id: str
    launched_ms: int
    attempt: int = 0
    cgroup: str | None = None
    faults: tuple[Fault, ...] = ()


class JobResult(_Record):
    """What the worker achieved; written once, by its rank 0. The job is judged by this file.

    submission: the folder or repository of the trained adapter. losses: of each step.
    resumed_from: the step that a checkpoint was taken up at. model, why: what was really trained,
    where that is not what was asked for.
    """

    outcome: Literal["completed", "failed"]
    reason: str = ""
    submission: str | None = None
    losses: tuple[float, ...] = ()
    steps: int = 0
    resumed_from: int | None = None
    model: str = ""
    why: str = ""


class JobExit(_Record):
    """How the job ended; written last by its launcher, when everything below it is dead.

    ended_ms: UTC epoch ms. return_codes, faults: one an attempt of this launcher, of the job.
    """

    outcome: Literal["completed", "failed", "cancelled"]
    reason: str
    attempts: int
    ended_ms: int
    return_codes: tuple[int, ...] = ()
    faults: tuple[Fault, ...] = ()


class Progress(_Record):
    """Where the worker is. phase: ``loading``, ``training``, ``saving`` or ``done``."""

    step: int
    of: int
    loss: float | None
    phase: str


def steady_s() -> float:
    """Seconds since boot, through suspend too: what ``TimeLeft`` is counted in."""
    return clock_gettime(CLOCK_BOOTTIME)


def write_atomic(path: Path, text: str) -> None:
    """Write a file so that a reader, or a power loss, meets the old one or the new one whole.

    Raises OSError.
    """
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with scratch.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable. Raises OSError."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_record(folder: Path, name: str, record: BaseModel) -> None:
    """Write a record into its file of the job folder. Raises OSError."""
    write_atomic(folder / name, record.model_dump_json(indent=1) + "\n")


def read_record(folder: Path, name: str, kind: type[_Model]) -> _Model | None:
    """Read a record, None where there is none.

    Raises InputError of one line naming file and key when it is not what it should be.
    """
    path = folder / name
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as why:
        raise InputError(f"{path}: cannot be read: {why.strerror}") from None
    try:
        return kind.model_validate_json(text)
    except ValidationError as error:
        raise InputError(f"{path}: {_first_fault(error)}") from None


def _first_fault(error: ValidationError) -> str:
    fault = error.errors(include_url=False, include_context=False)[0]
    key = ".".join(str(part) for part in fault["loc"]) or "file"
    return f"{key}: found {found(fault['input'])}, {fault['msg'].splitlines()[0].lower()}"


def result_of(folder: Path) -> JobResult | None:
    """What the worker achieved, or None. A file that cannot be read counts as a failed result."""
    try:
        return read_record(folder, RESULT, JobResult)
    except InputError as why:
        return JobResult(outcome="failed", reason=str(why))


def exit_of(folder: Path) -> JobExit | None:
    """How the job ended, or None. A file that cannot be read counts as a failed job."""
    try:
        return read_record(folder, EXIT, JobExit)
    except InputError as why:
        return JobExit(outcome="failed", reason=str(why), attempts=0, ended_ms=0)


def launcher_of(folder: Path) -> LauncherRecord | None:
    """Who ran the job last, or None where that was never written or cannot be read."""
    with suppress(InputError):
        return read_record(folder, LAUNCHER, LauncherRecord)
    return None


def ask_to_stop(folder: Path, reason: str) -> None:
    """Ask the job to save and stop; the first reason stays. Raises OSError."""
    if not (folder / STOP).exists():
        write_atomic(folder / STOP, reason + "\n")


def stop_reason(folder: Path) -> str | None:
    """Why the job was asked to stop, or None when it was not."""
    try:
        text = (folder / STOP).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return text.strip() or "asked to stop"


def clear_tmp(folder: Path) -> None:
    """Remove the job's temporary files, as far as that goes."""
    shutil.rmtree(folder / TMP, ignore_errors=True)


@contextmanager
def launcher_lock(folder: Path) -> Iterator[None]:
    """Hold the job: one launcher at a time. Raises JobBusy when another has it."""
    handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        _lock(handle, folder)
        yield
    finally:
        os.close(handle)


def _lock(handle: int, folder: Path) -> None:
    until = monotonic() + LOCK_PATIENCE_S
    while True:
        try:
            return fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if monotonic() > until:
                raise JobBusy(f"{folder}: a launcher of this job lives already") from None
            sleep(0.02)


def lock_held(folder: Path) -> bool:
    """Whether a launcher of this job lives."""
    try:
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False
