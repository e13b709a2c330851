"""How the ranks of a job end when one of them cannot go on: all of them, within seconds.

The failed one goes without the interpreter's own end, in which NCCL may wait for the others as long
as a collective may. Those may be inside a collective, where no signal handler of Python's runs and
torchrun's patience is all there is: so each has a thread that looks for a failed rank's file.
"""

import os
import sys
import threading
import traceback
from contextlib import suppress
from pathlib import Path
from time import sleep
from typing import NoReturn

from live.worker_files import WorkerFiles

LOOK_S = 0.5
GRACE_S = 5.0
"""What a rank is given to say what it has met itself, once another has failed. There is nothing to
save: a checkpoint takes all ranks, and one that was begun is no checkpoint yet."""
FAILED = 1


def _name(rank: int | str) -> str:
    """Of a failed rank's file; one of an attempt before this says nothing."""
    return f"failed-{os.environ.get('FOUR_SLOT_ATTEMPT', '0')}-{rank}"


def fail(files: WorkerFiles) -> NoReturn:
    """End this rank at once, for the exception at hand, and let the others know."""
    traceback.print_exc()
    with suppress(OSError):
        (files.folder / _name(files.rank)).touch()
    leave()


def leave() -> NoReturn:
    """End the process, whatever its other threads, its destructors or the GPU are waiting for."""
    for each in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            each.flush()
    os._exit(FAILED)


def end_with_others(files: WorkerFiles) -> None:
    """From here on this process ends soon after another rank of this attempt has failed."""
    if files.spec.processes > 1:
        grace_s = min(GRACE_S, files.spec.stop_grace_s)
        thread = threading.Thread(
            target=_watch, args=(files.folder, _name(files.rank), grace_s), daemon=True
        )
        thread.start()


def _watch(folder: Path, own: str, grace_s: float) -> None:
    while all(each.name == own for each in folder.glob(_name("*"))):
        sleep(LOOK_S)
    sleep(grace_s)
    sys.stderr.write("another rank has failed: this one ends\n")
    leave()
