"""``python -m benchmarks.soak``: the real daemon killed a thousand times, and what must still hold.

Clients offer tasks and start what is accepted while the daemon is killed: at random, while it
starts, at every named point, and together with a launcher. At the end every answer that was
received is compared with the ledger, and every job with its folder. See docs/reliability.md.
"""

import argparse
import json
import os
import platform
import signal
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

from benchmarks import slow_sockets
from benchmarks.fsync import FsyncBeside, fsync_ms, summary
from benchmarks.wanted import READY_S, SLOW_P99_MS, verdict
from live.faults import POINTS
from live.job_files import EXIT, JOB, RESULT, JobSpec, launcher_of, lock_held, read_record
from live.launching import signal_launcher
from shared.errors import FourSlotError
from tests.e2e.live_checks import check_answers, check_jobs, check_slots
from tests.e2e.live_harness import Box, Market, wait_for

RANDOM, STARTING, LAUNCHER = "random", "while starting", "with a launcher"
KINDS = (*POINTS, *[RANDOM] * 8, *[STARTING] * 3, *[LAUNCHER] * 3)
"""A third each, about: named points, random moments, and special ones."""
POINT_S = 8.0
"""A named point that is not reached in so long is given up, and the daemon killed anyhow."""


class Watcher:
    """Looks at the job folders all the while: who launched what, and on which GPUs."""

    def __init__(self, box: Box) -> None:
        self._box, self._over = box, threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run)
        self._gpus: dict[str, tuple[int, ...]] = {}
        self.launchers: dict[str, set[int]] = defaultdict(set)
        self.over: set[str] = set()
        self.faults: list[str] = []

    def __enter__(self) -> "Watcher":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(0.05):
            try:
                self.look()
            except Exception as why:
                self.faults.append(f"the watcher failed: {why!r}")

    def look(self) -> dict[str, int]:
        """The folders whose launcher lives, with its pid."""
        with self._lock:
            live: dict[str, int] = {}
            for folder in self._box.folders():
                if folder.name in self.over:
                    continue
                record = launcher_of(folder)
                if not lock_held(folder):
                    if (folder / EXIT).exists() or (folder / RESULT).exists():
                        self.over.add(folder.name)
                elif record is not None:
                    self._see(folder, record.pid, live)
            return live

    def _see(self, folder: Path, pid: int, live: dict[str, int]) -> None:
        self.launchers[folder.name].add(pid)
        if folder.name not in self._gpus:
            spec = read_record(folder, JOB, JobSpec)
            assert spec is not None
            self._gpus[folder.name] = spec.gpus
        mine = set(self._gpus[folder.name])
        for other in live:
            both = mine & set(self._gpus[other])
            if both and lock_held(folder.with_name(other)) and lock_held(folder):
                self.faults.append(f"{other} and {folder.name} run on GPUs {both} at once")
        live[folder.name] = pid


class Soak:
    """One run: rounds of start, work and kill on one data folder."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.draw = Random(seed)
        self.box = Box(folder / "data")
        self.market = Market(self.box, seed)
        self.watcher = Watcher(self.box)
        self.killed: set[str] = set()
        self.kills: Counter[str] = Counter()
        self.missed: Counter[str] = Counter()
        self.ready: list[tuple[float, int]] = []
        self.found_again = 0
        self._before: dict[str, int] = {}

    def rounds(self, kinds: list[str]) -> None:
        """Kill once for each of these."""
        for kind in kinds:
            if kind in POINTS:
                self._at_point(kind)
            elif kind == STARTING:
                self._while_starting()
            else:
                self._at_random(with_launcher=kind == LAUNCHER)
            self._before = self.watcher.look()
            self.kills[kind] += 1
            for broken in (self.market.broken, self.watcher.faults):
                assert not broken, broken

    def _at_random(self, *, with_launcher: bool) -> None:
        self._begin()
        time.sleep(self.draw.uniform(0, 1.0))
        if with_launcher:
            self._kill_launcher()
        self.box.kill()

    def _kill_launcher(self) -> None:
        end = time.monotonic() + POINT_S
        while not (live := self.watcher.look().keys() - self.killed):  # each at most once
            if time.monotonic() > end:
                self.missed[LAUNCHER] += 1
                return
            time.sleep(0.01)
        name = self.draw.choice(sorted(live))
        self.killed.add(name)
        signal_launcher(self.box.data / "jobs" / name, signal.SIGKILL)

    def _while_starting(self) -> None:
        with self.box.starting():
            time.sleep(self.draw.uniform(0, 0.8))
            self.box.kill()

    def _at_point(self, point: str) -> None:
        launched = "spawn" in point or "exit" in point
        times = 1 if launched else self.draw.randint(1, 8)
        over = set(self.watcher.over)
        self._begin(f"{point}:{times}")
        end = time.monotonic() + POINT_S
        while not self.box.dead():
            if "exit" in point and self.watcher.over - over:  # its launcher came to the point
                break
            if time.monotonic() > end:
                self.missed[point] += 1
                break
            time.sleep(0.005)
        if self.box.kill() != -signal.SIGKILL:
            raise AssertionError(f"the daemon ended by itself: {self.box.tail()}")

    def _begin(self, fault: str | None = None) -> None:
        took = self.box.start(fault)
        if took is None:
            assert fault is not None, self.box.tail()
            return
        self.ready.append((took, self.box.replayed))
        with suppress(FourSlotError, OSError):  # it may die of its fault meanwhile
            self._find_again()

    def _find_again(self) -> None:
        """Who ran when the daemon was killed still runs, and the new one knows it."""
        for name, pid in self._before.items():
            folder = self.box.data / "jobs" / name
            wait_for(lambda folder=folder: self._known(folder), f"{name} is not found again", 10)
            record = launcher_of(folder)
            if name in self.killed or not lock_held(folder):
                continue
            assert record is not None
            assert record.pid == pid, f"{name} had launcher {pid}, has {record.pid}"
            self.found_again += 1

    def _known(self, folder: Path) -> bool:
        slots = self.box.status()["slots"]
        return str(folder) in {slot.get("folder") for slot in slots} or not lock_held(folder)

    def settle(self) -> None:
        """Start once more and let everything end, then stop."""
        self._begin()
        self.market.__exit__()
        wait_for(lambda: self.box.status()["slots_in_use"] == 0, "every slot empty again")
        assert self.box.stop() == 0, self.box.tail()

    def check(self) -> dict[str, Any]:
        """Everything that must hold; the figures."""
        ledger = self.box.ledger()
        check_answers(self.market.asked, ledger)
        check_slots(ledger)
        check_jobs(self.box.folders(), ledger, self.killed)
        doubled = {name: pids for name, pids in self.watcher.launchers.items()
                   if len(pids) > 1 and name not in self.killed}  # fmt: skip
        assert not doubled, doubled
        self.box.verify()
        return self.figures(ledger)

    def figures(self, ledger: list[dict[str, Any]]) -> dict[str, Any]:
        """What was measured and counted."""
        asked = self.market.asked
        took = [took for took, _ in self.ready]
        return {
            "kills": dict(sorted(self.kills.items())),
            "kills_in_all": self.kills.total(),
            "points_not_reached": dict(self.missed),
            "requests": len(asked),
            "answers_received": sum(each.accepted is not None for each in asked),
            "requests_without_answer": sum(each.accepted is None for each in asked),
            "refused_without_entry": sum(
                each.accepted is False and not each.sure for each in asked
            ),
            "ledger_entries": len(ledger),
            "jobs": len(self.box.folders()),
            "launchers_killed": len(self.killed),
            "jobs_found_again": self.found_again,
            "ready_s": summary(took),
            "ready_s_by_ledger": _by_ledger(self.ready),
        }


def _by_ledger(ready: list[tuple[float, int]]) -> list[dict[str, Any]]:
    """Time to ready over the run, in four parts, with the entries that were replayed."""
    part = max(1, -(-len(ready) // 4))
    return [
        {
            "ledger_entries": max(entries for _, entries in some),
            **summary([took for took, _ in some]),
        }
        for some in (ready[at : at + part] for at in range(0, len(ready), part))
    ]


def plan(kills: int, seed: int) -> list[str]:
    """What to kill at, in random order, every kind as often as its share."""
    kinds = [KINDS[number % len(KINDS)] for number in range(kills)]
    Random(seed).shuffle(kinds)
    return kinds


def soak(folder: Path, kinds: list[str], seed: int) -> dict[str, Any]:
    """Kill at each of these in turn. Raises AssertionError with what does not hold."""
    run = Soak(folder, seed)
    try:
        with run.watcher, run.market:
            run.rounds(kinds)
            run.settle()
        return run.check()
    finally:
        run.box.clear()


def main() -> int:
    """Run it and print the figures; 1 when a wanted one is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--kills", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="an empty folder on the disk to use")
    parser.add_argument("--out", type=Path, help="write the figures there too (JSON)")
    call = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        folder = call.folder or Path(scratch)
        before, begun = fsync_ms(folder), time.monotonic()
        with FsyncBeside(folder, 1.0) as beside:
            found = soak(folder, plan(call.kills, call.seed), call.seed)
        found |= {
            "machine": f"{os.cpu_count()} cores, CPython {platform.python_version()}",
            "seed": call.seed,
            "minutes": round((time.monotonic() - begun) / 60, 1),
            "fsync_ms": {"before": before, "during": beside.found, "after": fsync_ms(folder)},
            "slow_sockets": slow_sockets.measured(folder),
        }
    text = json.dumps(found, indent=2)
    if call.out is not None:
        call.out.write_text(text + "\n", encoding="utf-8")
    print(text)
    slow = found["slow_sockets"]["answer_ms"]["p99"]
    return verdict(
        {
            "ready, s": (found["ready_s"]["max"], READY_S),
            "p99 with slow sockets, ms": (slow, SLOW_P99_MS),
        }
    )


if __name__ == "__main__":
    sys.exit(main())
