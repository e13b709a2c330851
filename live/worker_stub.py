"""A worker that trains nothing: for rehearsals of decisions, for soaks, and to misbehave on demand.

The start request may say ``stub_seconds`` (how long the work takes) and ``behaviour``, one of those
below. Only a daemon configured for this module ever runs it.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from time import monotonic, sleep

from live.job_files import OUTPUT, JobResult
from live.worker_files import GO_ON, INTERRUPT, WorkerFiles, opened, rank_of_process
from shared.errors import InputError

STEP_S = 0.05
FOREVER_S = 3600.0


def _seconds(files: WorkerFiles) -> float:
    told = files.spec.request.get("stub_seconds", 1.0)
    return float(told) if isinstance(told, int | float) and 0 <= told <= FOREVER_S else 1.0


def _work(files: WorkerFiles) -> int:
    """Beat for so long, or until asked to stop; then deliver."""
    until = monotonic() + _seconds(files)
    steps = max(1, round(_seconds(files) / STEP_S))
    step = 0
    while monotonic() < until and files.asked() == GO_ON:
        files.beat()
        step += 1
        files.progress(min(step, steps), steps, None, "training")
        sleep(STEP_S)
    if files.asked() == INTERRUPT:
        return 1
    adapter = files.folder / OUTPUT
    adapter.mkdir(exist_ok=True)
    result = JobResult(outcome="completed", submission=str(adapter), steps=step, model="none")
    files.deliver(result)
    return 0


def _oom(_: WorkerFiles) -> int:
    sys.stderr.write("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB\n")
    return 1


def _crash(files: WorkerFiles) -> int:
    files.beat()
    os.kill(os.getpid(), signal.SIGSEGV)
    return 1


def _crash_once(files: WorkerFiles) -> int:
    return _crash(files) if os.environ["FOUR_SLOT_ATTEMPT"] == "1" else _work(files)


def _hang(files: WorkerFiles) -> int:
    files.beat()
    sleep(FOREVER_S)
    return 0


def _ignore_sigterm(files: WorkerFiles) -> int:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    until = monotonic() + FOREVER_S
    while monotonic() < until:
        files.beat()
        sleep(STEP_S)
    return 0


def _orphan(files: WorkerFiles, environment: dict[str, str] | None) -> None:
    """A grandchild in a session of its own that heeds no SIGTERM, its parent dead.

    Its command line ends in the job's folder, by which a test can tell it.
    """
    code = (
        "import os, signal, time\n"
        "if os.fork(): os._exit(0)\n"
        "os.setsid(); signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        f"time.sleep({FOREVER_S})"
    )
    command = [sys.executable, "-c", code, str(files.folder)]
    subprocess.run(command, check=True, env=environment)  # noqa: S603


def _orphans(files: WorkerFiles) -> int:
    """Leave one that bears the job's marker and one that has thrown it away; then deliver."""
    _orphan(files, None)
    _orphan(files, {})
    return _work(files)


def _orphans_too(files: WorkerFiles) -> int:
    """Leave orphans and never end."""
    _orphan(files, None)
    return _ignore_sigterm(files)


def _linger(files: WorkerFiles) -> int:
    """Deliver, and then not end."""
    _work(files)
    return _ignore_sigterm(files)


BEHAVIOURS: dict[str, Callable[[WorkerFiles], int]] = {
    "work": _work,
    "oom": _oom,
    "crash": _crash,
    "crash_once": _crash_once,
    "hang": _hang,
    "ignore_sigterm": _ignore_sigterm,
    "orphans": _orphans,
    "orphans_too": _orphans_too,
    "linger": _linger,
}


def main(argv: list[str]) -> int:
    """``python -m live.worker_stub JOBDIR``."""
    try:
        files = opened(argv, rank_of_process())
    except InputError as why:
        sys.stderr.write(f"{why}\n")
        return 2
    name = files.spec.request.get("behaviour", "work")
    if name not in BEHAVIOURS:
        sys.stderr.write(f"behaviour: found {name!r}, allowed is one of {', '.join(BEHAVIOURS)}\n")
        return 2
    return BEHAVIOURS[name](files)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
