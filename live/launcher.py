"""The launcher: one small process a job, which outlives the daemon and owns all below it.

``python -m live.launcher JOBDIR``. It takes the job's lock before anything else, so a job is never
run twice; starts the worker, again after a fault while attempts are left; and writes ``exit.json``
when everything below it is dead. SIGTERM alone interrupts the job (it can be taken up again from
its last checkpoint, no exit is written); SIGTERM beside a ``stop`` file ends it; SIGUSR2 kills it.
"""

import os
import signal
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from time import sleep, time

from live import faults
from live.attempt import Asked, Attempt, AttemptEnd
from live.job_files import (
    CANCELLED,
    EXIT,
    JOB,
    LAUNCHER,
    LOGS,
    Fault,
    JobBusy,
    JobExit,
    JobSpec,
    LauncherRecord,
    exit_of,
    launcher_lock,
    launcher_of,
    read_record,
    result_of,
    stop_reason,
    write_record,
)
from live.reaping import (
    Cgroup,
    become_subreaper,
    boot_id,
    lose_privilege_of_memory,
    reap,
    start_ticks,
)
from shared.errors import InputError

DONE, BAD_JOB, BUSY, ENDED, INTERRUPTED = 0, 2, 3, 4, 5
"""Exit codes. The job is judged by its files; these are for whoever calls by hand."""

_FAULTS: dict[Fault, str] = {
    "oom": "out of memory",
    "hang": "no heartbeat",
    "crash": "the worker ended without a result",
    "stopped": "stopped without a result",
    "deadline": "no result at the deadline",
}


@dataclass(slots=True)
class Launcher:
    """Runs one job to its end. codes: the return codes of this launcher's attempts."""

    folder: Path
    spec: JobSpec
    asked: Asked
    attempt: int = 0
    faults: list[Fault] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)
    cgroup: Cgroup | None = None

    def run(self) -> JobExit | None:
        """Try until there is an end; None when the job was only interrupted. Raises OSError."""
        self._take_over(launcher_of(self.folder))
        name = f"{self.folder.name}-{os.getpid()}"
        self.cgroup = Cgroup.make(name) if self.spec.cgroup else None
        try:
            self._record()
            end = self._end()
            while end is None and not self.asked.stop:
                self._try()
                end = self._end()
            return end
        finally:
            if self.cgroup is not None:
                self.cgroup.remove()

    def _take_over(self, before: LauncherRecord | None) -> None:
        """Go on counting where a launcher of this job stopped, and clear what it left."""
        reap(self.folder, before.cgroup if before else None, patience_s=30.0)
        if before is not None:
            self.attempt = before.attempt
            self.faults = list(before.faults)
            missing = before.attempt - len(before.faults)
            self.faults += ["crash"] * missing  # it died in an attempt of its own

    def _try(self) -> None:
        self.attempt += 1
        self._record()
        try:
            end = Attempt(self.folder, self.spec, self.attempt, self.asked, self.cgroup).run()
        except OSError as why:
            self._note(f"attempt {self.attempt} cannot start: {why}")
            end = AttemptEnd("crash", None)
        if end.fault is not None:
            self.faults.append(end.fault)
        if end.return_code is not None:
            self.codes.append(end.return_code)
        self._record()

    def _end(self) -> JobExit | None:
        """The job's end, if it has come: a result, a stop, or no attempt left."""
        result, asked_why = result_of(self.folder), stop_reason(self.folder)
        if result is not None and not (asked_why or "").startswith(CANCELLED):
            return self._exit(result.outcome, result.reason)
        if asked_why is not None:
            cancelled = asked_why.startswith(CANCELLED)
            return self._exit("cancelled" if cancelled else "failed", asked_why)
        last = self.faults[-1] if self.faults else None
        if last == "deadline" or (last is not None and self.asked.kill):
            return self._exit("failed", _FAULTS[last])
        counted = [fault for fault in self.faults if fault != "stopped"]
        if last is not None and counted and len(counted) > self.spec.max_restarts:
            return self._exit("failed", f"{_FAULTS[counted[-1]]}, attempt {self.attempt}")
        return None

    def _exit(self, outcome: str, reason: str) -> JobExit:
        return JobExit.model_validate(
            {
                "outcome": outcome,
                "reason": reason,
                "attempts": self.attempt,
                "ended_ms": int(time() * 1000),
                "return_codes": tuple(self.codes),
                "faults": tuple(self.faults),
            }
        )

    def _record(self) -> None:
        ticks = start_ticks(os.getpid())
        record = LauncherRecord(
            pid=os.getpid(),
            start_ticks=ticks or 0,
            boot_id=boot_id(),
            launched_ms=int(time() * 1000),
            attempt=self.attempt,
            cgroup=str(self.cgroup.folder) if self.cgroup else None,
            faults=tuple(self.faults),
        )
        _write_until_done(self.folder, LAUNCHER, record)

    def _note(self, line: str) -> None:
        """A line into the launcher's own log, which is its standard error."""
        with suppress(OSError):
            sys.stderr.write(f"launcher {self.folder}: {line}\n")


def _write_until_done(folder: Path, name: str, record: LauncherRecord | JobExit) -> None:
    """Write a record; on a full disk wait for room, for without it the end would be lost."""
    while True:
        try:
            return write_record(folder, name, record)
        except OSError:
            sleep(1.0)


def _listen() -> Asked:
    """Turn signals into flags, and wake whoever waits."""
    read, write = os.pipe()
    for handle in (read, write):
        os.set_blocking(handle, False)
    asked = Asked(wake=read)

    def on_signal(number: int, _: object) -> None:
        asked.stop = True
        asked.kill |= number == signal.SIGUSR2

    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2):
        signal.signal(number, on_signal)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    return asked


def _job(folder: Path) -> JobSpec:
    spec = read_record(folder, JOB, JobSpec)
    if spec is None:
        raise InputError(f"{folder / JOB}: found no file, allowed is a job of the supervisor's")
    return spec


def launch(folder: Path) -> int:
    """Run the job of this folder to its end; an exit code.

    Raises InputError when there is no such job.
    """
    asked = _listen()
    try:
        with launcher_lock(folder):
            if exit_of(folder) is not None:
                return ENDED
            become_subreaper()
            os.chdir(folder)
            (folder / LOGS).mkdir(exist_ok=True)
            end = Launcher(folder, _job(folder), asked).run()
            if end is None:
                return INTERRUPTED
            faults.reached("before_exit_record")
            _write_until_done(folder, EXIT, end)
            faults.reached("after_exit_record")
            return DONE
    except FileNotFoundError as why:
        raise InputError(f"{folder}: {why.strerror}: {why.filename}") from None
    except JobBusy as why:
        sys.stderr.write(f"{why}\n")
        return BUSY


def main(argv: list[str]) -> int:
    """``python -m live.launcher JOBDIR``."""
    if len(argv) != 1:
        sys.stderr.write("usage: python -m live.launcher JOBDIR\n")
        return BAD_JOB
    with suppress(OSError):  # a leader already when the supervisor made the session
        os.setsid()
    os.umask(0o077)
    lose_privilege_of_memory()
    try:
        return launch(Path(argv[0]).resolve())
    except InputError as why:
        sys.stderr.write(f"{why}\n")
        return BAD_JOB


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
