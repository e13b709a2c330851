"""Whole commands, imports and all, timed from outside the process."""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.engine import offers, timed
from benchmarks.naive import naive_simpy
from shared.decisions import Policy
from shared.presets import preset_named
from sim.engine.gates import static_columns
from sim.offers_file import write_offers

SCENARIO = "name: a year\ndays: 365\nwarm_up_days: 1\nreplications: 8\nseed: 1\n"
_NAMES = ("compare", "replay", "generate", "import-trace", "verify", "score", "schema")


def wall(arguments: list[str]) -> float:
    """Seconds from start to end of one command."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-m", "sim", *arguments], check=True, capture_output=True)
    return time.perf_counter() - begin


def replay_against_naive(count: int, rounds: int) -> dict[str, Any]:
    """``replay --json`` of a Parquet file, beside the naive program's loop alone."""
    stream = offers(count, 4.0)
    policy = Policy(preset_named("accuracy_4"))
    _, scores = static_columns(stream, policy)
    lists = (stream.at_ms, stream.train_ms, stream.hours, scores)
    columns = [column.tolist() for column in lists]
    command, loop = [], []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "offers.parquet"
        write_offers(stream, path)
        for _ in range(rounds):
            command.append(wall(["replay", str(path), "--preset", "accuracy_4", "--json"]))
            begin = time.perf_counter()
            naive_simpy(*columns, cap=4, limit=72.0, threshold=0.70)  # type: ignore[arg-type]
            loop.append(time.perf_counter() - begin)
    ratios = [naive / whole for naive, whole in zip(loop, command, strict=True)]
    return {
        "offers": count,
        "command_s": median(command),
        "naive_loop_s": median(loop),
        "times_naive": {"median": median(ratios), "least": min(ratios), "most": max(ratios)},
    }


def compare_a_year(replications: int) -> dict[str, Any]:
    """``compare`` of one year of generated offers, two presets, on every core."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "year.yaml"
        path.write_text(SCENARIO, encoding="utf-8")
        took = wall(["compare", str(path), "--replications", str(replications), "--json"])
    return {"replications": replications, "presets": 2, "seconds": took, "cores": os.cpu_count()}


def help_pages(rounds: int) -> dict[str, float]:
    """Median seconds of each command's ``--help``."""
    calls = [["--help"], *([name, "--help"] for name in _NAMES)]
    return {" ".join(call): median(wall(call) for _ in range(rounds)) for call in calls}


def profile(count: int) -> dict[str, float]:
    """Where the time of a replay goes: CPU seconds of each part."""
    from sim.engine.replay import _admitted, replay_plain
    from sim.engine.workload import Workload

    stream = offers(count, 4.0)
    policy = Policy(preset_named("accuracy_4"))
    workload = Workload(stream)
    whole, _ = timed(lambda: replay_plain(workload, policy))
    gates, (static, _) = timed(lambda: static_columns(stream, policy))
    passing = static == 0
    at_ms, hold_ms = stream.at_ms[passing], stream.train_ms[passing]
    events, _ = timed(lambda: _admitted(at_ms, hold_ms, policy.preset.cap))
    lists, _ = timed(lambda: (at_ms.tolist(), hold_ms.tolist()))
    return {
        "whole replay": whole,
        "static gates by column": gates,
        "columns to lists": lists,
        "SimPy's events and their callbacks": events - lists,
        "result columns": whole - gates - events,
    }


def run(count: int, rounds: int) -> dict[str, Any]:
    """All of it."""
    return {
        "replay": replay_against_naive(count // 2, rounds),
        "compare": compare_a_year(8),
        "help_s": help_pages(rounds),
        "profile_s": profile(count),
    }


if __name__ == "__main__":
    print(json.dumps(run(1_000_000, 3), indent=2))
