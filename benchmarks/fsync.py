"""What one durable write costs on a disk, without any of our code: 4 KiB appended, fsync."""

import os
import threading
import time
from pathlib import Path
from statistics import median
from types import TracebackType

Summary = dict[str, float | int]


def summary(values: list[float], digits: int = 3) -> Summary:
    """How many, the median, the 99th percentile and the most of these."""
    ordered = sorted(values)
    if not ordered:
        return {"count": 0}
    return {
        "count": len(ordered),
        "median": round(median(ordered), digits),
        "p99": round(ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))], digits),
        "max": round(ordered[-1], digits),
    }


class Probe:
    """Writes and syncs a file of its own in a folder; milliseconds of each."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "fsync.probe"
        self.took_ms: list[float] = []

    def once(self) -> None:
        """One write and its fsync."""
        handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(handle, b"x" * 4096)
            begun = time.perf_counter()
            os.fsync(handle)
            self.took_ms.append((time.perf_counter() - begun) * 1000)
        finally:
            os.close(handle)

    def clear(self) -> None:
        """Remove the file."""
        self._path.unlink(missing_ok=True)


def fsync_ms(folder: Path, times: int = 300) -> Summary:
    """Milliseconds of an fsync while nobody else of ours writes."""
    probe = Probe(folder)
    for _ in range(times):
        probe.once()
    probe.clear()
    return summary(probe.took_ms)


class FsyncBeside:
    """Probes a few times a second while something else goes on."""

    def __init__(self, folder: Path, every_s: float = 0.2) -> None:
        self._probe, self._every_s, self._over = Probe(folder), every_s, threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._over.wait(self._every_s):
            self._probe.once()

    def __enter__(self) -> "FsyncBeside":
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        why: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()
        self._probe.clear()

    @property
    def found(self) -> Summary:
        """Milliseconds of the probes so far."""
        return summary(self._probe.took_ms)
