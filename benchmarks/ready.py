"""``python -m benchmarks.ready``: until a daemon is ready with a long ledger and 24 jobs.

The ledger is written by the shared machine; its last 24 jobs were started and hold their slots.
The first start launches them; the ones that are counted find them again after a kill.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

from benchmarks.fsync import fsync_ms, summary
from benchmarks.wanted import READY_S, verdict
from live.ledger_store import LedgerStore
from live.rows import JobFolder, Row, StartPayload, job_dir
from shared.decisions import Decision, Policy
from shared.inputs import Input, JobEnded, OfferArrived, PolicyPut, StartRequested, TimerFired
from shared.jobs import Effect
from shared.ledger import LedgerEntry, Recorder, dumps
from shared.offers import Offer
from shared.presets import THROUGHPUT_24
from tests.e2e.live_harness import Box, start_body

JOBS = THROUGHPUT_24.cap
APART_MS = 1_000
JOB_S = 600.0


class Past:
    """A ledger as a box that was always full would have it."""

    def __init__(self, entries: int) -> None:
        """Of about so many entries, up to now."""
        self._entries = entries
        self._now_ms = int(time.time() * 1000) - (entries + JOBS) * APART_MS
        self._recorder = Recorder(PolicyPut(Policy(THROUGHPUT_24)), self._now_ms)
        self._running: list[str] = []
        self.entries: list[LedgerEntry] = [self._recorder.opening]
        self.rows: list[Row] = []

    def write(self, path: Path) -> None:
        """Live through it, and put it into a ledger's file."""
        for task_id in _task_ids():
            accepted = self._offer(task_id)
            if accepted:
                self._start(task_id)
            if len(self._running) < JOBS:
                continue
            if len(self.entries) >= self._entries:
                break
            self._enter(JobEnded(self._running.pop(0)))
        store = LedgerStore(path)
        store.append(self.entries, self.rows)
        store.close()

    def _offer(self, task_id: str) -> bool:
        offer = Offer(task_id, "org/model-7b", "InstructTextTask", 8.0, 100_000, None)
        answer = self._enter(OfferArrived(offer, "http"))
        return isinstance(answer, Decision) and answer.accepted

    def _start(self, task_id: str) -> None:
        self._enter(StartRequested(task_id, "http"))
        seq = self.entries[-1].seq
        self._running.append(task_id)
        payload = dumps(start_body(task_id, JOB_S))
        self.rows += [JobFolder(seq, task_id, job_dir(seq)), StartPayload(task_id, payload, seq)]

    def _enter(self, entry: Input) -> Decision | Effect:
        self._now_ms += APART_MS
        while (due := self._recorder.machine.next_timer()) is not None and due <= self._now_ms:
            self.entries.append(self._recorder.handle(TimerFired(), due)[0])
        written, answers = self._recorder.handle(entry, self._now_ms)
        self.entries.append(written)
        return answers[-1]


def _task_ids() -> Iterator[str]:
    draw = Random(1)
    while True:
        yield str(UUID(int=draw.getrandbits(128), version=4))


def measured(folder: Path, entries: int, starts: int) -> dict[str, Any]:
    """Write the ledger, start and kill the daemon; seconds until it was ready, and of the CPU."""
    (folder / "data").mkdir()
    Past(entries).write(folder / "data" / "ledger.db")
    settings = {"POLICY__PRESET": THROUGHPUT_24.name, "POLICY__RESERVATION_TTL_MINUTES": "30"}
    box, took, cpu = Box(folder / "data", **settings), [], []
    before = fsync_ms(folder)
    try:
        for _ in range(starts + 1):
            ready_s = box.start()
            assert ready_s is not None, box.tail()
            took.append(ready_s)
            cpu.append(_cpu_s(box.pid))
            found = box.status()["slots_in_use"]
            assert found == JOBS, f"{found} jobs hold slots, there should be {JOBS}"
            time.sleep(2.0)  # of the first start: the jobs come up
            box.kill()
    finally:
        box.clear()
    return {
        "ledger_entries": box.replayed,
        "jobs": JOBS,
        "ready_s": summary(took[1:]),
        "cpu_s": summary(cpu[1:]),
        "load": os.getloadavg()[0],
        "fsync_ms": {"before": before, "after": fsync_ms(folder)},
    }


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> int:
    """Measure, print, 1 when the wanted figure is missed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ready", description=__doc__)
    parser.add_argument("--entries", type=int, default=150_000)
    parser.add_argument("--starts", type=int, default=5)
    call = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        found = measured(Path(folder), call.entries, call.starts)
    print(json.dumps(found, indent=2))
    return verdict({"ready, s": (found["ready_s"]["max"], READY_S)})


if __name__ == "__main__":
    sys.exit(main())
