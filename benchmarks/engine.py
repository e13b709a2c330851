"""The engine against a naive SimPy program and a bare heap loop, side by side.

All three decide the same offers, in turn, several times over; their decision columns are compared
each time, and a run with one difference is an error. Figures are medians; the ratio is taken
round by round, so that a machine whose speed drifts does not distort it.
"""

import gc
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.naive import heap_loop, naive_simpy
from shared.decisions import Policy
from shared.presets import preset_named
from sim.engine.eventful import run_columns
from sim.engine.gates import static_columns
from sim.engine.workload import Workload
from sim.stream import Labels, OfferStream

MEAN_HOURS = 5.0
LOADS = {4: (2.0, 4.0, 8.0), 24: (12.0, 24.0, 48.0)}
"""Offered load in slots' worth of work, by cap: half full, full, twice full."""
PRESET_OF_CAP = {4: "accuracy_4", 24: "throughput_24"}
LONG_SHARE = 0.03
"""Share of offers over the time limit, so that a static gate refuses some."""


def offers(count: int, load: float, seed: int = 1) -> OfferStream:
    """Poisson arrivals and lognormal training times, every load in slots' worth of work."""
    random = np.random.default_rng(seed)
    gaps = random.exponential(MEAN_HOURS * 3.6e6 / load, count)
    # distinct milliseconds: the naive program has no rule for ties
    at_ms = np.cumsum(np.maximum(gaps, 1).astype(np.int64)) * 2
    train_ms = random.lognormal(np.log(MEAN_HOURS) - 0.32, 0.8, count) * 3.6e6
    hours = np.where(random.random(count) < LONG_SHARE, 80.0, 10.0)
    families = ("meta-llama/Llama-3.1-8B", "Qwen/Qwen2.5-7B", "google/gemma-2-9b")
    types = ("InstructTextTask", "DpoTask", "GrpoTask")
    unknown = np.full(count, -1, dtype=np.int64)
    return OfferStream(
        at_ms=at_ms,
        task_id=pa.array([f"{number:012d}" for number in range(count)]),
        model=Labels(random.integers(0, 3, count).astype(np.int32), families),
        task_type=Labels(random.integers(0, 3, count).astype(np.int32), types),
        hours=hours,
        ds_size=unknown,
        params=unknown,
        train_ms=train_ms.astype(np.int64) * 2 + 1,
    )


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds of CPU time of this process, and what the work gave."""
    gc.collect()
    begin = time.process_time()
    result = work()
    return time.process_time() - begin, result


def measure(count: int, cap: int, load: float, rounds: int) -> dict[str, Any]:
    """Median offers per second of each, and the ratios to the naive program."""
    stream = offers(count, load)
    policy = Policy(preset_named(PRESET_OF_CAP[cap]))
    _, scores = static_columns(stream, policy)
    assert policy.preset.threshold is not None
    columns = (
        stream.at_ms.tolist(),
        stream.train_ms.tolist(),
        stream.hours.tolist(),
        scores.tolist(),
        cap,
        policy.preset.time_limit_hours,
        policy.preset.threshold,
    )
    workload = Workload(stream)
    seconds: dict[str, list[float]] = {"engine": [], "naive": [], "heap": []}
    for _ in range(rounds):
        took, decisions = timed(lambda: run_columns(workload, policy))
        seconds["engine"].append(took)
        expected = (
            decisions.gate.tolist(),
            decisions.priority.tolist(),
            decisions.slot.tolist(),
        )
        for name, program in (("naive", naive_simpy), ("heap", heap_loop)):
            took, found = timed(lambda program=program: program(*columns))
            seconds[name].append(took)
            if tuple(found) != expected:
                raise SystemExit(f"{name} decides otherwise at cap {cap}, load {load}")
    ratios = [
        naive / engine for naive, engine in zip(seconds["naive"], seconds["engine"], strict=True)
    ]
    return {
        "cap": cap,
        "load": load,
        "offers": count,
        "accepted": int((np.asarray(expected[0]) == 0).sum()),
        "offers_per_second": {
            name: count / statistics.median(found) for name, found in seconds.items()
        },
        "times_naive": {
            "median": statistics.median(ratios),
            "least": min(ratios),
            "most": max(ratios),
        },
    }


def added_memory_mb(count: int, cap: int, load: float) -> float:
    """Megabytes (10**6) that a replay adds, at its peak, to a process holding its input."""
    program = (
        "from benchmarks.engine import *\n"
        f"stream = offers({count}, {load})\n"
        f"policy = Policy(preset_named(PRESET_OF_CAP[{cap}]))\n"
        "run_columns(Workload(offers(1000, 4.0)), policy)\n"
        "gc.collect()\n"
        "forget_peak()\n"
        "before = status_kib('VmRSS')\n"
        "result = run_columns(Workload(stream), policy)\n"
        "print(status_kib('VmHWM') - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    )
    return int(done.stdout) * 1024 / 1e6


def forget_peak() -> None:
    """Let this process's peak resident set be counted anew from here (Linux)."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def status_kib(key: str) -> int:
    """One figure of this process's memory, in KiB (Linux)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))


def run(count: int, rounds: int) -> dict[str, Any]:
    """All caps and loads."""
    rows = [measure(count, cap, load, rounds) for cap, loads in LOADS.items() for load in loads]
    memory = {cap: added_memory_mb(count, cap, loads[1]) for cap, loads in LOADS.items()}
    return {"rows": rows, "added_memory_mb": memory}
