"""What every worker needs of its job folder, without torch: heartbeat, progress, stop, result."""

import os
import signal
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic

from live.job_files import (
    HEARTBEAT,
    JOB,
    PROGRESS,
    RESULT,
    JobResult,
    JobSpec,
    Progress,
    lock_held,
    read_record,
    steady_s,
    stop_reason,
    write_atomic,
    write_record,
)
from live.reaping import boot_id, die_with_parent
from shared.errors import InputError

GIVEN_UP = "given-up"
BEAT_S = 1.0
"""The heartbeat is touched at most so often."""
GO_ON, INTERRUPT, FINISH = 0, 1, 2
"""What is asked of a worker: nothing; save and leave, to be taken up again; save and deliver."""


@dataclass(slots=True)
class WorkerFiles:
    """The job folder as one rank sees it. Only rank 0 writes."""

    folder: Path
    spec: JobSpec
    rank: int = 0
    signalled: bool = False
    _beat_s: float = field(default=float("-inf"))

    def beat(self, next_within_s: float = 0.0) -> None:
        """Show life. next_within_s: how long the next beat may take, where that is long."""
        now_s = monotonic()
        if self.rank or (now_s - self._beat_s < BEAT_S and not next_within_s):
            return
        self._beat_s = float("-inf") if next_within_s else now_s
        (self.folder / HEARTBEAT).write_text(f"{next_within_s:g}" if next_within_s else "")

    def progress(self, step: int, of: int, loss: float | None, phase: str) -> None:
        """Say where the work is. Raises OSError."""
        if not self.rank:
            done = Progress(step=step, of=of, loss=loss, phase=phase)
            scratch = self.folder / f".{PROGRESS}"
            scratch.write_text(done.model_dump_json() + "\n")  # not synced: it is only news
            scratch.replace(self.folder / PROGRESS)

    def asked(self) -> int:
        """GO_ON, INTERRUPT or FINISH. The deadline's warning asks to finish."""
        enough = stop_reason(self.folder) is not None or self.given_up() is not None
        if enough or self.left_s() <= 0:
            return FINISH
        return INTERRUPT if self.signalled else GO_ON

    def give_up(self, why: str) -> None:
        """From any rank: it is no use to train on, so hand in what there is. Raises OSError."""
        write_atomic(self.folder / GIVEN_UP, why + "\n")

    def given_up(self) -> str | None:
        """Why a rank gave up, or None."""
        try:
            return (self.folder / GIVEN_UP).read_text(encoding="utf-8").strip()
        except OSError:
            return None

    def left_s(self) -> float:
        """Seconds until the warning before the deadline; infinite where there is none."""
        left = self.spec.time_left
        if left is None or left.warn_s is None or left.boot_id != boot_id():
            return float("inf")
        return left.warn_s - steady_s()

    def deliver(self, result: JobResult) -> None:
        """Write the result, after which the job is judged. Raises OSError."""
        if not self.rank:
            write_record(self.folder, RESULT, result)


def opened(argv: list[str], rank: int) -> WorkerFiles:
    """The job of the command line; from here on SIGTERM asks, and the parent's death kills.

    Raises InputError when there is no such job, or no launcher that owns it.
    """
    if len(argv) != 1:
        raise InputError(f"found {len(argv)} arguments, allowed is one job folder")
    die_with_parent()
    folder = Path(argv[0])
    if not lock_held(folder):  # the launcher died before the line above
        raise InputError(f"{folder}: found no launcher, a worker is only started by one")
    spec = read_record(folder, JOB, JobSpec)
    if spec is None:
        raise InputError(f"{folder / JOB}: found no file, allowed is a job of the supervisor's")
    files = WorkerFiles(folder, spec, rank)

    def on_signal(*_: object) -> None:
        files.signalled = True

    signal.signal(signal.SIGTERM, on_signal)
    return files


def rank_of_process() -> int:
    """This process's rank, as torchrun tells it; 0 when there is only one."""
    return int(os.environ.get("RANK", "0"))
