"""``python -m benchmarks.soak``: kills the daemon again and again while offers and jobs go on.

Half of the deaths are at named points of the code, half at random moments. At the end every answer
that a client received must stand in the ledger once, no slot may have been given twice, every
started job must have run once and ended, and the simulator must agree with the whole ledger.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from random import Random
from statistics import median
from typing import Any

from live.faults import POINTS
from tests.e2e.live_checks import check_answers, check_jobs, check_slots
from tests.e2e.live_harness import Box, Market, wait_for

DAEMON_POINTS = [point for point in POINTS if not point.endswith("exit_record")]


def main() -> int:
    """Soak and print. Raises AssertionError with what did not hold."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--kills", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    call = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = soak(Path(folder) / "data", call.kills, call.seed)
    if call.json:
        print(json.dumps(found, indent=2))
    else:
        for name, value in found.items():
            print(f"{name}: {value}")
    return 0


def soak(data: Path, kills: int, seed: int) -> dict[str, Any]:
    """Kill so often, then examine everything; what was seen."""
    draw, box, ready = Random(seed), Box(data), []
    fsync = fsync_ms(data.parent)
    try:
        with Market(box, seed=seed) as market:
            for number in range(kills):
                took = _one_death(box, draw, number)
                ready += [] if took is None else [took]
            box.start()
            time.sleep(1.0)
        wait_for(lambda: not box.status()["slots_in_use"], "all slots to be free")
        box.stop()
        return {**_examined(box, market), "kills": kills, **_times(ready), "fsync_ms": fsync,
                "cores": os.cpu_count()}  # fmt: skip
    finally:
        box.clear()


def _one_death(box: Box, draw: Random, number: int) -> float | None:
    """Start, die; seconds until it was ready, None when it died before."""
    if number % 2:
        took = box.start()
        time.sleep(draw.uniform(0.05, 1.0))
    else:
        took = box.start(f"{draw.choice(DAEMON_POINTS)}:{draw.randint(1, 20)}")
        end = time.monotonic() + 3.0
        while took is not None and not box.dead() and time.monotonic() < end:
            time.sleep(0.02)
    box.kill()
    return took


def _examined(box: Box, market: Market) -> dict[str, Any]:
    assert not market.broken, market.broken
    ledger = box.ledger()
    check_answers(market.asked, ledger)
    check_slots(ledger)
    check_jobs(box.folders(), ledger, killed=set())
    box.verify()
    return {
        "requests": len(market.asked),
        "answered": sum(told.accepted is not None for told in market.asked),
        "ledger_entries": len(ledger),
        "jobs": len(box.folders()),
    }


def _times(ready: list[float]) -> dict[str, Any]:
    ordered = sorted(ready)
    return {
        "ready_s": {"median": median(ordered), "p99": ordered[int(0.99 * (len(ordered) - 1))],
                    "most": ordered[-1]},
    }  # fmt: skip


def fsync_ms(folder: Path, rounds: int = 200) -> dict[str, float]:
    """Milliseconds of a bare sync of 4 KB in this folder: median and 99th percentile."""
    path, times = folder / "sync", []
    with path.open("wb", buffering=0) as file:
        for _ in range(rounds):
            file.write(b"x" * 4096)
            begun = time.perf_counter()
            os.fsync(file.fileno())
            times.append((time.perf_counter() - begun) * 1e3)
    path.unlink()
    times.sort()
    return {"median": median(times), "p99": times[int(0.99 * rounds)]}


if __name__ == "__main__":
    sys.exit(main())
