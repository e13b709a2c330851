"""The process that runs one stranger's reward function, closed before it has seen its source.

Run by path: ``python -P -s -S -B reward_process.py PARENT BYTES``. Standard input and output carry
JSON, one value a line. The order is what makes it safe: modules are imported, namespaces entered,
the file system left, privileges dropped, limits set, the system call filter installed and seen to
work; only then does it say ``ready``, and only then is the source sent.

It needs nothing of this project, so nothing of this project has to be readable to it.
"""

import ctypes
import errno
import importlib
import json
import math
import numbers
import os
import random
import resource
import struct
import sys
import time
import types
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from signal import SIGKILL
from typing import Any

MODULES = (
    "bisect", "collections", "collections.abc", "copy", "datetime", "decimal", "difflib",
    "fractions", "functools", "heapq", "html", "itertools", "json", "math", "operator", "random",
    "re", "statistics", "string", "textwrap", "typing", "unicodedata", "zlib",
)  # fmt: skip
"""What a reward function may import. All are loaded beforehand: later no file can be opened."""
_LATE = ("_strptime", "_pylong", "encodings.ascii", "encodings.latin_1", "encodings.cp1252",
         "encodings.unicode_escape", "encodings.utf_16", "encodings.utf_8_sig")  # fmt: skip
"""What the standard library imports only when it is used."""

MOST_LINE = 64 << 20
"""Bytes of one line from the parent."""
LARGEST = 1e12
"""Magnitude of a reward. Times the largest weight, 1e6, its square still fits single precision."""
MOST_SAID = 200
"""Characters of an error that are passed on."""

ALLOWED_CALLS = {
    "read": (0, 63), "write": (1, 64), "munmap": (11, 215), "brk": (12, 214),
    "rt_sigprocmask": (14, 135), "rt_sigreturn": (15, 139), "sched_yield": (24, 124),
    "mremap": (25, 216), "madvise": (28, 233), "nanosleep": (35, 101), "getpid": (39, 172),
    "exit": (60, 93), "gettimeofday": (96, 169), "getrusage": (98, 165), "gettid": (186, 178),
    "futex": (202, 98), "restart_syscall": (219, 128), "clock_gettime": (228, 113),
    "clock_getres": (229, 114), "clock_nanosleep": (230, 115), "exit_group": (231, 94),
    "getrandom": (318, 278),
}  # fmt: skip
"""System calls let through: memory, clocks, randomness, the pipes, the end. Numbers of Linux, first
x86_64 (arch/x86/entry/syscalls/syscall_64.tbl), then aarch64 (uapi/asm-generic/unistd.h)."""
NOT_EXECUTABLE = {"mmap": (9, 222), "mprotect": (10, 226)}
"""Let through too, unless their third argument asks for executable memory."""
MACHINES = ("x86_64", "aarch64")
_ARCH = (0xC000003E, 0xC00000B7)  # AUDIT_ARCH_*, linux/audit.h
_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}

_LOAD, _EQUAL, _ANY_BIT, _RETURN = 0x20, 0x15, 0x45, 0x06  # linux/bpf_common.h
_NR, _ARCH_AT, _THIRD = 0, 4, 32  # offsets in struct seccomp_data, little endian
_ALLOW, _KILL, _REFUSE = 0x7FFF0000, 0x80000000, 0x00050000 | errno.EPERM  # linux/seccomp.h
_PROT_EXEC = 4
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP, _PR_SET_NO_NEW_PRIVS = 1, 4, 22, 38
_SPACES = {"mount": 1 << 17, "uts": 1 << 26, "ipc": 1 << 27, "pid": 1 << 29, "net": 1 << 30}
_NEW_USER = 1 << 28
_PRIVATE, _BARE, _DETACH = 1 << 14 | 1 << 18, 2 | 4 | 8, 2  # linux/mount.h
NOBODY = 65_534

_LIBC = ctypes.CDLL(None, use_errno=True)


def filter_program(machine: str) -> list[tuple[int, int, int, int]]:
    """The system call filter as BPF (code, jump if true, jump if false, constant).

    An allow-list: whatever is not on it fails with EPERM, and a call of another architecture's
    table ends the process. Raises OSError for a machine whose table is not known.
    """
    if machine not in MACHINES:
        raise OSError(errno.ENOSYS, f"no system call filter for {machine}")
    at = MACHINES.index(machine)
    steps = [(_LOAD, 0, 0, _ARCH_AT), (_EQUAL, 1, 0, _ARCH[at]), (_RETURN, 0, 0, _KILL)]
    steps.append((_LOAD, 0, 0, _NR))
    for both in NOT_EXECUTABLE.values():
        steps += [(_EQUAL, 0, 4, both[at]), (_LOAD, 0, 0, _THIRD), (_ANY_BIT, 0, 1, _PROT_EXEC)]
        steps += [(_RETURN, 0, 0, _REFUSE), (_RETURN, 0, 0, _ALLOW)]
    for both in ALLOWED_CALLS.values():
        steps += [(_EQUAL, 0, 1, both[at]), (_RETURN, 0, 0, _ALLOW)]
    return [*steps, (_RETURN, 0, 0, _REFUSE)]


def _done(result: int) -> None:
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def _prctl(option: int, value: int, pointer: Any = None) -> None:
    zero = ctypes.c_ulong(0)
    _done(_LIBC.prctl(option, ctypes.c_ulong(value), pointer or zero, zero, zero))


def _filter_calls() -> None:
    """Install the filter and see it work. Raises OSError when it cannot be, or does not."""
    program = filter_program(os.uname().machine)
    steps = ctypes.create_string_buffer(b"".join(struct.pack("@HBBI", *step) for step in program))
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    whole = struct.pack("@HP", len(program), ctypes.addressof(steps))  # struct sock_fprog
    _prctl(_PR_SET_SECCOMP, 2, ctypes.create_string_buffer(whole))
    try:
        os.pipe()
    except OSError as refused:
        if refused.errno == errno.EPERM:  # EMFILE would be the limit's word, not the filter's
            return
    raise OSError(errno.ENOSYS, "the system call filter is not in force")


def _enter_spaces() -> list[str]:
    """Namespaces of its own, as many as the kernel grants; which ones it got."""
    flags = sum(_SPACES.values())
    if os.geteuid() == 0:
        if _LIBC.unshare(flags) == 0:
            return list(_SPACES)
        with suppress(OSError):
            _become_nobody()
    user, group = os.getuid(), os.getgid()
    if _LIBC.unshare(_NEW_USER | flags):
        return []
    maps = {"setgroups": "deny", "uid_map": f"{NOBODY} {user} 1", "gid_map": f"{NOBODY} {group} 1"}
    with suppress(OSError):
        _prctl(_PR_SET_DUMPABLE, 1)  # else these files are root's
        for name, text in maps.items():
            Path(f"/proc/self/{name}").write_text(text)
    return ["user", *_SPACES]


def _become_nobody() -> None:
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)


def _go_below(answers: int) -> None:
    """Fork into the new process namespace; this process then only waits for the other's end."""
    below = os.fork()
    if below:
        os.closerange(0, answers + 1)
        _, status = os.waitpid(below, 0)
        os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


def _leave_files() -> None:
    """An empty, full file system as root, all others unmounted. Raises OSError."""
    _done(_LIBC.mount(b"none", b"/", None, ctypes.c_ulong(_PRIVATE), None))
    data = b"size=4k,nr_inodes=1,mode=000"
    _done(_LIBC.mount(b"none", b"/tmp", b"tmpfs", ctypes.c_ulong(_BARE), data))
    os.chdir("/tmp")  # noqa: S108
    _done(_LIBC.syscall(ctypes.c_long(_PIVOT_ROOT[os.uname().machine]), b".", b"."))
    _done(_LIBC.umount2(b".", _DETACH))


def _drop_privileges() -> None:
    """Become nobody where this still is root, and give up every capability. Raises OSError."""
    if os.geteuid() == 0:
        _become_nobody()
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # _LINUX_CAPABILITY_VERSION_3, this process
    _done(_LIBC.capset(header, (ctypes.c_uint32 * 6)()))
    _prctl(_PR_SET_DUMPABLE, 0)


def _limit(memory_bytes: int) -> None:
    """Address space as told; no new file, no byte of any, no process, no core."""
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    for what in ("NOFILE", "FSIZE", "NPROC", "CORE", "MEMLOCK", "MSGQUEUE"):
        resource.setrlimit(getattr(resource, f"RLIMIT_{what}"), (0, 0))


def _load_modules() -> None:
    """Everything a function may import, and what that would import or read later."""
    for name in MODULES:
        importlib.import_module(name)
    for name in _LATE:
        with suppress(ImportError):
            importlib.import_module(name)
    time.localtime()  # reads the time zone once
    warnings.simplefilter("ignore")
    os.environ.clear()
    sys.path.clear()


def _own_channel() -> int:
    """Keep the answers' pipe to itself; what is printed goes nowhere. The pipe's descriptor."""
    answers = os.dup(1)
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    os.closerange(answers + 1, 65_536)
    return answers


def _close_jail(parent: int, memory_bytes: int, answers: int) -> list[str]:
    """Shut this process in. What holds, by name. Raises OSError when the filter cannot be had."""
    _load_modules()
    _prctl(_PR_SET_PDEATHSIG, SIGKILL)
    held = _enter_spaces()
    if "pid" in held:
        _go_below(answers)
    if "mount" in held:
        with suppress(OSError):
            _leave_files()
            held.append("no files")
    with suppress(OSError):
        _drop_privileges()
        held.append("no privileges")
    _prctl(_PR_SET_PDEATHSIG, SIGKILL)  # again: a change of user forgets it
    if os.getppid() not in (0, parent):  # it died before that; 0: outside this namespace
        os._exit(1)
    _limit(memory_bytes)
    _filter_calls()
    return [*held, "limits", "system calls"]


def _load(source: str, name: str) -> Callable[..., object]:
    """Run the source and take the function of that name out of it. Raises whatever it raises."""
    module = types.ModuleType("reward")
    exec(compile(source, "reward", "exec"), module.__dict__)  # noqa: S102
    return module.__dict__[name]  # type: ignore[no-any-return]


def _values(function: Callable[..., object], asked: dict[str, Any]) -> list[float]:
    """One call of the function. Raises whatever it raises; ValueError for a wrong result."""
    values = function(*asked["arguments"], **asked["keywords"])
    if not isinstance(values, (list, tuple)) or len(values) != asked["count"]:
        size = f" of {len(values)}" if isinstance(values, (list, tuple)) else ""
        raise ValueError(f"returned {type(values).__name__}{size}, not a number a completion")
    return [_number(value) for value in values]


def _number(value: Any) -> float:
    if not isinstance(value, numbers.Number):
        raise ValueError(f"returned {type(value).__name__}, not a number")
    number = float(value)  # type: ignore[arg-type]
    if not math.isfinite(number) or abs(number) > LARGEST:
        raise ValueError(f"returned {number!r}, not a finite number up to {LARGEST:g}")
    return number


def _said(why: BaseException) -> str:
    try:
        return f"{type(why).__name__}: {why}"[:MOST_SAID]
    except BaseException:  # its own __str__ failed
        return "an error that cannot be shown"


def _serve(answers: int) -> None:
    """Answer line after line until the parent closes its end: the source first, then calls."""
    function: Callable[..., object] | None = None
    random.seed(0)  # here, since a fork seeds it anew
    while line := sys.stdin.buffer.readline(MOST_LINE + 1):
        answer: dict[str, Any] = {}
        try:
            asked = json.loads(line)
            answer["call"] = asked.get("call")
            if function is None:
                function = _load(asked["source"], asked["name"])
            else:
                answer["values"] = _values(function, asked)
        except BaseException as why:  # SystemExit and MemoryError too
            answer = {"call": answer.get("call"), "error": _said(why)}
        _send(answers, answer)


def _send(answers: int, answer: dict[str, Any]) -> None:
    left = memoryview(json.dumps(answer).encode() + b"\n")
    while left:
        left = left[os.write(answers, left) :]


def main(argv: list[str]) -> None:
    """Close the jail, say so, serve. Never returns to the interpreter's own end."""
    answers = _own_channel()
    try:
        held = _close_jail(int(argv[0]), int(argv[1]), answers)
    except OSError as why:
        _send(answers, {"refused": f"{why}"})
        os._exit(1)
    _send(answers, {"ready": held})
    with suppress(BaseException):
        _serve(answers)
    os._exit(0)


if __name__ == "__main__":
    main(sys.argv[1:])
