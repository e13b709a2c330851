"""One attempt at a job: its processes started, watched, and killed to the last one."""

import os
import select
import signal
import subprocess
from contextlib import suppress
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from time import monotonic

from live.job_environment import worker_command, worker_environment
from live.job_files import (
    DEADLINE,
    HEARTBEAT,
    LOGS,
    RESULT,
    TMP,
    Fault,
    JobSpec,
    ask_to_stop,
    clear_tmp,
    steady_s,
    stop_reason,
)
from live.job_log import AttemptLog
from live.reaping import (
    Cgroup,
    boot_id,
    descendants,
    die_with_parent,
    kill_until_gone,
    marked,
)

LOOK_S = 0.2
"""How often an attempt looks at its files when nothing is printed and no signal comes."""
CHUNK = 65536


@dataclass(slots=True)
class Asked:
    """What signals have asked of the launcher. wake: readable when one has come."""

    stop: bool = False
    kill: bool = False
    wake: int = -1


@dataclass(frozen=True, slots=True)
class AttemptEnd:
    """How an attempt ended. fault: None when a result is in. return_code: None if it was killed."""

    fault: Fault | None
    return_code: int | None


@dataclass(slots=True)
class Attempt:
    """The processes of one try, from the first to the last.

    number: of the job, from 1. give_up_s: when a stop turns into a kill, monotonic seconds.
    """

    folder: Path
    spec: JobSpec
    number: int
    asked: Asked
    cgroup: Cgroup | None
    _main: int = -1
    _pipe: int = -1
    _return_code: int | None = None
    _began_s: float = field(default_factory=monotonic)
    _give_up_s: float | None = None
    _result_s: float | None = None
    _beat: tuple[int, float, float] = (0, 0.0, 0.0)

    def run(self) -> AttemptEnd:
        """Start, watch until the end, kill what is left. Raises OSError if it cannot start."""
        log = AttemptLog(self.folder / LOGS / f"attempt-{self.number}.log", self.spec.log_bytes)
        (self.folder / HEARTBEAT).unlink(missing_ok=True)
        clear_tmp(self.folder)  # a killed launcher's
        with suppress(OSError):  # libraries do with another place, or say that they cannot
            (self.folder / TMP).mkdir(mode=0o700)
        try:
            self._start()
            fault = self._watch(log)
            self._clear(log)
        finally:
            clear_tmp(self.folder)
            log.close()
            if self._pipe >= 0:
                os.close(self._pipe)
        if (self.folder / RESULT).exists():
            return AttemptEnd(None, self._return_code)
        if log.out_of_memory and fault in (None, "hang"):
            fault = "oom"  # one rank lacked memory, and the others waited for it in vain
        return AttemptEnd(fault or "crash", self._return_code)

    def _start(self) -> None:
        read, write = os.pipe()
        os.set_blocking(read, False)
        self._pipe = read
        launcher = os.getpid()

        def below() -> None:
            """In the child: in the job's cgroup, and gone when the launcher is."""
            die_with_parent()
            if os.getppid() != launcher:
                os._exit(1)
            if self.cgroup is not None:
                self.cgroup.enter()

        try:
            started = subprocess.Popen(  # noqa: S603 - a list of our own making, no shell
                worker_command(self.spec, self.folder),
                stdin=subprocess.DEVNULL,
                stdout=write,
                stderr=write,
                env=worker_environment(self.spec, self.folder, self.number),
                preexec_fn=below,
                start_new_session=True,
            )
        finally:
            os.close(write)
        self._main = started.pid
        started.returncode = 0  # reaped here with every other orphan, not by subprocess

    def _watch(self, log: AttemptLog) -> Fault | None:
        """Watch until the attempt is over; the fault, None when its main process has ended."""
        while True:
            self._listen(log)
            self._reap()
            if self._return_code is not None:
                return "stopped" if self._give_up_s is not None else None
            fault = self._look(monotonic())
            if fault is not None:
                return fault

    def _listen(self, log: AttemptLog) -> None:
        """Wait a moment for output or a signal, and take what came."""
        sources = [handle for handle in (self._pipe, self.asked.wake) if handle >= 0]
        ready, _, _ = select.select(sources, [], [], LOOK_S)
        if self.asked.wake in ready:
            with suppress(BlockingIOError):
                os.read(self.asked.wake, CHUNK)
        if self._pipe in ready:
            self._drain(log, most=16)

    def _drain(self, log: AttemptLog, most: int) -> None:
        """Take what was printed, a bounded number of chunks of it."""
        for _ in range(most):
            try:
                chunk = os.read(self._pipe, CHUNK)
            except BlockingIOError:
                return
            if not chunk:
                os.close(self._pipe)
                self._pipe = -1
                return
            log.write(chunk)

    def _reap(self) -> None:
        """Collect every child that has ended; orphans of the job are children too."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self._main:
                self._return_code = os.waitstatus_to_exitcode(status)

    def _look(self, now_s: float) -> Fault | None:
        """What the clock, the signals and the job's files say."""
        warn_in_s, kill_in_s = self._left_s()
        if self.asked.kill:
            return "stopped"
        if kill_in_s <= 0:
            return "deadline"
        self._stop_if_asked(now_s, warn_in_s, kill_in_s)
        if self._give_up_s is not None and now_s >= self._give_up_s:
            return "stopped"
        if self._overstays(now_s):
            return "hang"  # with its result in: it is killed, and the result counts
        return "hang" if self._silent_s(now_s) > self._patience_s() else None

    def _left_s(self) -> tuple[float, float]:
        """Seconds to the warning and to the deadline; infinite where there is none."""
        left = self.spec.time_left
        if left is None or left.boot_id != boot_id():
            return inf, inf
        now_s = steady_s()
        warn_s = inf if left.warn_s is None else left.warn_s
        return warn_s - now_s, (inf if left.kill_s is None else left.kill_s) - now_s

    def _stop_if_asked(self, now_s: float, warn_in_s: float, kill_in_s: float) -> None:
        """Pass a stop on, once. The warning's grace lasts to the deadline, any other's is short."""
        if self._give_up_s is not None:
            return
        if warn_in_s <= 0:
            with suppress(OSError):  # the signal reaches the worker without the file
                ask_to_stop(self.folder, f"{DEADLINE}: the job's time is nearly over")
        elif not self.asked.stop and stop_reason(self.folder) is None:
            return
        late = warn_in_s <= 0 and kill_in_s < inf
        self._give_up_s = now_s + (kill_in_s if late else self.spec.stop_grace_s)
        self.asked.stop = True
        with suppress(ProcessLookupError):
            os.kill(self._main, signal.SIGTERM)

    def _overstays(self, now_s: float) -> bool:
        """Whether the result has been in for longer than processes take to end."""
        if self._result_s is None and (self.folder / RESULT).exists():
            self._result_s = now_s
        return self._result_s is not None and now_s - self._result_s > self.spec.stop_grace_s

    def _silent_s(self, now_s: float) -> float:
        """Seconds since the last sign of life, seen on the monotonic clock."""
        try:
            beat = (self.folder / HEARTBEAT).stat().st_mtime_ns
        except OSError:
            return now_s - self._began_s
        if beat != self._beat[0]:
            self._beat = (beat, now_s, _asks_for_s(self.folder / HEARTBEAT))
        return now_s - self._beat[1]

    def _patience_s(self) -> float:
        """Seconds of silence that are allowed now; a heartbeat may ask for more until the next."""
        if self._beat[0] == 0:
            return self.spec.start_timeout_s
        return max(self.spec.heartbeat_timeout_s, self._beat[2])

    def _clear(self, log: AttemptLog) -> None:
        """Kill everything below and wait for it, however long it takes."""
        me = os.getpid()

        def alive() -> set[int]:
            self._reap()
            held = self.cgroup.pids() if self.cgroup else set()
            return (descendants(me) | marked(self.folder) | held) - {me}

        while True:
            if self.cgroup is not None:
                self.cgroup.kill()
            if not kill_until_gone(alive, patience_s=5.0):
                break
        self._reap()
        if self._pipe >= 0:
            self._drain(log, most=64)


def _asks_for_s(heartbeat: Path) -> float:
    """Seconds that the worker says its next beat may take, 0 when it says nothing."""
    try:
        return float(heartbeat.read_text() or 0)
    except (OSError, ValueError):
        return 0.0
