"""``python -m benchmarks``: every measurement, as tables (or --json); see docs/performance.md."""

import argparse
import json
import os
import platform
import sys
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import commands, engine


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--offers", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    call = parser.parse_args()
    found = {
        "machine": f"{os.cpu_count()} cores, CPython {platform.python_version()}",
        "engine": engine.run(call.offers, call.rounds),
        "commands": commands.run(call.offers, call.rounds),
    }
    if call.json:
        print(json.dumps(found, indent=2))
    else:
        show(found, Console(width=120))
    return 0


def show(found: dict[str, Any], console: Console) -> None:
    """Print the figures; the ratios are what carries over to another machine."""
    console.print(found["machine"])
    table = Table(title="replay in memory: identical decisions, offers a second (CPU time)")
    for heading in ("cap", "load", "accepted", "engine", "naive SimPy", "heap loop", "times naive"):
        table.add_column(heading, justify="right")
    for row in found["engine"]["rows"]:
        speed, ratio = row["offers_per_second"], row["times_naive"]
        table.add_row(
            str(row["cap"]),
            f"{row['load']:g}",
            f"{row['accepted'] / row['offers']:.1%}",
            *(f"{speed[name] / 1e6:.3f} M" for name in ("engine", "naive", "heap")),
            f"{ratio['median']:.1f}  [{ratio['least']:.1f}, {ratio['most']:.1f}]",
        )
    console.print(table)
    for cap, added in found["engine"]["added_memory_mb"].items():
        console.print(f"cap {cap}: the replay adds {added:.0f} MB to its input")
    replay, compare = found["commands"]["replay"], found["commands"]["compare"]
    console.print(
        f"replay --json of {replay['offers']:,} offers in Parquet: {replay['command_s']:.2f} s; "
        f"the naive loop alone {replay['naive_loop_s']:.2f} s; "
        f"ratio {replay['times_naive']['median']:.1f} "
        f"[{replay['times_naive']['least']:.1f}, {replay['times_naive']['most']:.1f}]"
    )
    console.print(
        f"compare, one year, {compare['presets']} presets, {compare['replications']} "
        f"replications: {compare['seconds']:.1f} s"
    )
    slowest = max(found["commands"]["help_s"].items(), key=lambda each: each[1])
    console.print(f"slowest help page: {slowest[0]}, {slowest[1]:.2f} s")
    console.print("where a replay's CPU time goes:")
    for part, seconds in found["commands"]["profile_s"].items():
        console.print(f"  {part}: {seconds:.2f} s")


if __name__ == "__main__":
    sys.exit(main())
