"""Finding and killing every process of a job, on Linux, with the means that the system allows.

A killed torchrun leaves its workers alive, each in a session of its own, so no process group holds
them all. Three nets, from the surest: a cgroup of the job's own where one can be made; the process
tree below a subreaper; the marker in the environment, which still finds what a killed launcher
left.
"""

import ctypes
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep

from live.job_files import MARKER

PROC = Path("/proc")
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_LIBC = ctypes.CDLL(None, use_errno=True)
_HOST_NAMESPACE = "pid:[4026531836]"
"""The kernel's number of its first namespace, PROC_PID_INIT_INO."""
_ZOMBIE = (b"Z", b"X")
CGROUP_PREFIX = "four-slot-"
"""How the cgroups of jobs begin; no other is ever killed, whatever a file says."""


def _prctl(option: int, value: int) -> None:
    if _LIBC.prctl(option, value, 0, 0, 0):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def become_subreaper() -> None:
    """Orphans of this process's descendants become its children. Raises OSError."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(sign: int = signal.SIGKILL) -> None:
    """Have the kernel send this process ``sign`` when its parent dies. Raises OSError."""
    _prctl(_PR_SET_PDEATHSIG, sign)


def lose_privilege_of_memory(score: Path = PROC / "self/oom_score_adj") -> None:
    """Be killed for memory as soon as any other process: what spares the daemon is inherited."""
    with suppress(OSError, ValueError):
        if int(score.read_text()) < 0:
            score.write_text("0")


def boot_id() -> str:
    """What tells this boot of the machine from any other."""
    return (PROC / "sys/kernel/random/boot_id").read_text().strip()


@dataclass(frozen=True, slots=True)
class _Stat:
    state: bytes
    parent: int
    start_ticks: int


def _stat(pid: int) -> _Stat | None:
    try:
        text = (PROC / str(pid) / "stat").read_bytes()
    except OSError:
        return None
    fields = text[text.rindex(b")") + 2 :].split()  # the name may hold spaces and brackets
    return _Stat(fields[0], int(fields[1]), int(fields[19]))


def start_ticks(pid: int) -> int | None:
    """When a process began, in the kernel's ticks since boot; None where it is gone."""
    stat = _stat(pid)
    return None if stat is None or stat.state in _ZOMBIE else stat.start_ticks


def _pids() -> Iterator[int]:
    for entry in os.scandir(PROC):
        if entry.name.isdigit():
            yield int(entry.name)


def descendants(ancestor: int) -> set[int]:
    """Every living process below one, without it."""
    children: dict[int, list[int]] = {}
    living = set()
    for pid in _pids():
        stat = _stat(pid)
        if stat is not None:
            children.setdefault(stat.parent, []).append(pid)
            if stat.state not in _ZOMBIE:
                living.add(pid)
    below: set[int] = set()
    waiting = [ancestor]
    while waiting:
        found = [pid for pid in children.get(waiting.pop(), ()) if pid not in below]
        below.update(found)
        waiting += found
    return below & living


def job_of(pid: int) -> str | None:
    """The job folder that a process bears as its marker, or None."""
    try:
        variables = (PROC / str(pid) / "environ").read_bytes()
    except OSError:
        return None
    name = os.fsencode(MARKER) + b"="
    for variable in variables.split(b"\0"):
        if variable.startswith(name):
            return os.fsdecode(variable[len(name) :])
    return None


def host_pids() -> bool:
    """Whether process ids here are the host's, as the driver of the GPUs tells them. In a container
    that has its own, a number of the driver's may be another process's here.
    """
    try:
        return str((PROC / "self/ns/pid").readlink()) == _HOST_NAMESPACE
    except OSError:
        return False


def marked(folder: Path) -> set[int]:
    """Every living process that bears the marker of this job folder."""
    name = str(folder)
    return {pid for pid in _pids() if job_of(pid) == name and start_ticks(pid) is not None}


def send(pid: int, ticks: int, sign: int) -> bool:
    """Signal a process if it is still the one that began at ``ticks``; whether it was there."""
    try:
        handle = os.pidfd_open(pid)
    except (ProcessLookupError, PermissionError):
        return False
    try:
        if start_ticks(pid) != ticks:
            return False
        signal.pidfd_send_signal(handle, sign)
    except ProcessLookupError:
        return False
    finally:
        os.close(handle)
    return True


def kill_until_gone(find: Callable[[], set[int]], *, patience_s: float) -> set[int]:
    """SIGKILL what ``find`` finds until it finds nothing; returns what is left after that long."""
    until = monotonic() + patience_s
    while True:
        left = find()
        if not left or monotonic() > until:
            return left
        for pid in left:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        sleep(0.01)


class Cgroup:
    """One cgroup (version 2) of one job: whatever is born in it stays in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def recorded(cls, folder: str | None) -> "Cgroup | None":
        """The one that a launcher wrote down, if it is one of ours."""
        known = folder is not None and Path(folder).name.startswith(CGROUP_PREFIX)
        return cls(Path(folder)) if folder is not None and known else None

    @classmethod
    def make(cls, name: str) -> "Cgroup | None":
        """A new one below our own; None where the system does not allow it."""
        own = _own_cgroup()
        if own is None:
            return None
        made = cls(own / (CGROUP_PREFIX + name))
        try:
            made.folder.mkdir()
        except OSError:
            return None
        if os.access(made.folder / "cgroup.kill", os.W_OK):
            return made
        made.remove()
        return None

    def enter(self) -> None:
        """Move this process into it. Raises OSError."""
        (self.folder / "cgroup.procs").write_text("0")

    def pids(self) -> set[int]:
        """The living processes in it and below it."""
        found: set[int] = set()
        with suppress(OSError):
            for procs in self.folder.rglob("cgroup.procs"):
                found |= {int(pid) for pid in procs.read_text().split()}
        return {pid for pid in found if start_ticks(pid) is not None}

    def kill(self) -> None:
        """SIGKILL everything in it, at once."""
        with suppress(OSError):
            (self.folder / "cgroup.kill").write_text("1")

    def remove(self) -> None:
        """Remove it, once it is empty."""
        with suppress(OSError):
            self.folder.rmdir()


def _own_cgroup() -> Path | None:
    """The folder of the version 2 cgroup this process is in, or None."""
    try:
        lines = (PROC / "self/cgroup").read_text().splitlines()
        mounts = (PROC / "self/mountinfo").read_text().splitlines()
    except OSError:
        return None
    inside = next((line[3:] for line in lines if line.startswith("0::")), None)
    mount = next((line.split()[4] for line in mounts if " - cgroup2 " in line), None)
    if inside is None or mount is None:
        return None
    return Path(mount) / inside.lstrip("/")


def leftovers(folder: Path, cgroup: str | None) -> set[int]:
    """What lives of a job whose launcher may be dead: by its cgroup and by its marker."""
    group = Cgroup.recorded(cgroup)
    return (group.pids() if group else set()) | marked(folder)


def reap(folder: Path, cgroup: str | None, *, patience_s: float) -> set[int]:
    """Kill what lives of a job without its launcher; returns what is left after that long."""
    group = Cgroup.recorded(cgroup)
    if group is not None:
        group.kill()
    left = kill_until_gone(lambda: leftovers(folder, cgroup), patience_s=patience_s)
    if group is not None and not left:
        group.remove()
    return left
