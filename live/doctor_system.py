"""The doctor on the operating system: clock, cgroup, systemd, files."""

import ctypes
import os
import resource
from collections.abc import Iterator
from pathlib import Path

from live.doctor_lines import Check, Line, Scene, fault, hint, ok, warning
from live.launching import scopes_can_be_had
from live.reaping import Cgroup

_TIMEX_BYTES = 256
_STATUS_AT = 40
"""Of ``struct timex`` on 64-bit Linux: modes, offset, freq, maxerror, esterror, then status."""
_UNSYNCHRONISED = 0x40
FEWEST_FILES = 2_200
"""Twice the connections that are served at once, and the jobs' files."""
SYSTEMD = Path("/run/systemd/system")


def _clock(scene: Scene) -> Iterator[Line]:
    """Deadlines and the age of a signature go by it."""
    synchronised = clock_synchronised()
    remedy = "switch on NTP (timedatectl set-ntp true, or chrony)"
    if synchronised:
        yield ok("clock", "synchronised")
    elif synchronised is None:
        yield warning("clock", "the kernel does not tell whether it is synchronised", remedy)
    elif scene.config.http.enabled and scene.config.http.auth == "fiber":
        found = "not synchronised: signatures over 120 s off are refused"
        yield fault("clock", found, remedy)
    else:
        yield warning("clock", "not synchronised: deadlines may be off", remedy)


def clock_synchronised() -> bool | None:
    """Whether the kernel counts its clock as synchronised; None where it does not say."""
    about = ctypes.create_string_buffer(_TIMEX_BYTES)  # modes 0: nothing is set
    try:
        if ctypes.CDLL(None, use_errno=True).adjtimex(about) < 0:
            return None
    except AttributeError:
        return None
    status = ctypes.c_int.from_buffer(about, _STATUS_AT).value
    return not status & _UNSYNCHRONISED


def _cgroup(_: Scene) -> Iterator[Line]:
    made = Cgroup.make(f"doctor-{os.getpid()}")
    if made is None:
        remedy = "run under the unit in deploy/ (Delegate=yes); the daemon's own may differ"
        yield hint("cgroup", "none can be made here; jobs are reaped by subreaper, marker", remedy)
        return
    made.remove()
    yield ok("cgroup", f"version 2, made and removed below {made.folder.parent}")


def _systemd(_: Scene) -> Iterator[Line]:
    if not SYSTEMD.is_dir():
        yield hint("systemd", "not running: launchers get a session of their own")
    elif not scopes_can_be_had():
        remedy = "loginctl enable-linger for the daemon's user, and systemd-run installed"
        yield hint("systemd", "no scopes here; KillMode=process in the unit keeps the jobs", remedy)
    else:
        yield ok("systemd", "systemd-run gives each job of a unit a scope of its own")


def _files(_: Scene) -> Iterator[Line]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    told = "no limit" if soft == resource.RLIM_INFINITY else f"{soft} (at most {hard})"
    if soft != resource.RLIM_INFINITY and soft < FEWEST_FILES:
        remedy = f"LimitNOFILE={FEWEST_FILES} or more in the unit, or ulimit -n"
        yield warning("open files", f"{told}: fewer connections are served at once", remedy)
    else:
        yield ok("open files", told)


CHECKS: dict[str, Check] = {
    "clock": _clock,
    "cgroup": _cgroup,
    "systemd": _systemd,
    "open files": _files,
}
