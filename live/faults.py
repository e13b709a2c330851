"""Named points at which a test can have this process killed. In production nothing happens.

``FOUR_SLOT_FAULT=before_commit:3`` kills the process with SIGKILL when it comes to that point for
the third time.
"""

import os
import signal

from shared.errors import InputError

VARIABLE = "FOUR_SLOT_FAULT"
POINTS = tuple(
    f"{when}_{what}"
    for what in ("insert", "commit", "reply", "spawn", "exit_record")
    for when in ("before", "after")
)
"""Before and after: a ledger insert, its commit, an answer, a launch, a launcher's exit record."""

_armed: tuple[str, int] | None = None


def arm(text: str | None) -> None:
    """Set the point to die at, as ``point:count``; None disarms. Raises InputError."""
    global _armed
    if not text:
        _armed = None
        return
    point, _, times = text.partition(":")
    if point not in POINTS or not times.isdecimal() or int(times) < 1:
        allowed = f"POINT:COUNT, POINT one of {', '.join(POINTS)}, COUNT from 1"
        raise InputError(f"{VARIABLE}: found {text!r}, allowed is {allowed}")
    _armed = (point, int(times))


def reached(point: str) -> None:
    """The process has come to this point."""
    if _armed is not None and _armed[0] == point:
        _count_down(point)


def _count_down(point: str) -> None:
    global _armed
    assert _armed is not None
    _armed = (point, _armed[1] - 1)
    if _armed[1] == 0:
        os.kill(os.getpid(), signal.SIGKILL)


arm(os.environ.get(VARIABLE))
