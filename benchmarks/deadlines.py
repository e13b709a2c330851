"""``python -m benchmarks.deadlines``: simulated jobs against their deadlines, by the real schedule.

Each job has scripted times: steps with noise, drift and stalls, an evaluation or a save that is
slow once, a restart. A job is over when training, the final evaluation, the save and the hand-in
are. ``--adverse`` adds, one at a time, troubles at the very end, some past what the schedule
promises to withstand. Exits with 1 when a deadline is missed, or when more than 3% of the time
before the warning is unused on average.
"""

import argparse
import json
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from statistics import mean
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.deadline_jobs import Job, Outcome, drawn, simulated

MOST_UNUSED = 0.03
"""Of the time before the warning, on average."""


def _at_end(job: Job, **changed: Any) -> Job:
    return replace(job, stalls=(), slow=(), restart_at=None, **changed)


ADVERSE: dict[str, Callable[[Job], Job]] = {
    "nothing but noise": partial(_at_end, drift=1.0),
    "3 times slower from 98% on": partial(_at_end, drift=3.0, drift_at=0.98),
    "a stall of 2 minutes at 99%": lambda job: replace(_at_end(job), stalls=((0.99, 120),)),
    "a stall of 10 minutes at 99%": lambda job: replace(_at_end(job), stalls=((0.99, 600),)),
    "final evaluation 10 times slow": lambda job: replace(
        _at_end(job), slow=(("evaluation", -1, 10),)
    ),
    "final evaluation and save 10 times slow": lambda job: replace(
        _at_end(job), slow=(("evaluation", -1, 10), ("save", -1, 10))
    ),
    "final evaluation 30 times slow": lambda job: replace(
        _at_end(job), slow=(("evaluation", -1, 30),)
    ),
    "evaluations 5 times as long, the final one 10 times slow": lambda job: replace(
        _at_end(job), evaluation_s=5 * job.evaluation_s, slow=(("evaluation", -1, 10),)
    ),
    "hand-in 3 times its estimate": lambda job: replace(_at_end(job), finish_s=3 * job.told_s),
    "hand-in 10 times its estimate": lambda job: replace(_at_end(job), finish_s=10 * job.told_s),
    "killed at 97%, 5 minutes down": lambda job: replace(_at_end(job), restart_at=0.97, down_s=300),
}


def figures(outcomes: list[Outcome]) -> dict[str, Any]:
    """What is printed of a set of jobs."""
    unused = sorted(each.unused for each in outcomes)
    return {
        "jobs": len(outcomes),
        "steps": sum(each.steps for each in outcomes),
        "missed": sum(each.missed for each in outcomes),
        "late": sum(each.late for each in outcomes),
        "latest_share_of_margin": max(each.margin_used for each in outcomes),
        "without_final_evaluation": sum(not each.complete for each in outcomes),
        "unused": {
            "mean": mean(unused),
            "p95": unused[min(len(unused) - 1, int(len(unused) * 0.95))],
            "max": unused[-1],
        },
        "evaluating": mean(each.evaluating_s / each.job.warning_s for each in outcomes),
        "rate_of_last_step": mean(each.last_rate for each in outcomes),
    }


def run(jobs: int, seed: int, least_step_s: float = 0.05, *, adverse: bool = False) -> Any:
    """Simulate on every core; the same arguments give the same figures."""
    drawn_jobs = [drawn(seed, index, least_step_s) for index in range(jobs)]
    with ProcessPoolExecutor() as pool:
        found = figures(list(pool.map(simulated, drawn_jobs, chunksize=4)))
        found["seed"] = seed
        if adverse:
            found["adverse"] = {
                name: figures(list(pool.map(simulated, map(change, drawn_jobs), chunksize=4)))
                for name, change in ADVERSE.items()
            }
    return found


def show(found: dict[str, Any], console: Console) -> None:
    table = Table(title=f"jobs against deadlines, seed {found['seed']}")
    for heading in ("jobs", "missed", "past the warning", "of the margin", "unevaluated"):
        table.add_column(heading, justify="right")
    for heading in ("unused: mean", "p95", "max"):
        table.add_column(heading, justify="right")
    table.add_column("of them")
    for name, row in {"as drawn": found, **found.get("adverse", {})}.items():
        table.add_row(
            str(row["jobs"]), str(row["missed"]), str(row["late"]),
            f"{row['latest_share_of_margin']:.0%}", str(row["without_final_evaluation"]),
            *(f"{row['unused'][each]:.2%}" for each in ("mean", "p95", "max")), name,
        )  # fmt: skip
    console.print(table)


def main() -> int:
    """Simulate, print, judge."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.deadlines",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--least-step", type=float, default=0.05, help="seconds; default: 0.05")
    parser.add_argument("--adverse", action="store_true")
    parser.add_argument("--json", action="store_true")
    call = parser.parse_args()
    found = run(call.jobs, call.seed, call.least_step, adverse=call.adverse)
    if call.json:
        print(json.dumps(found, indent=2))
    else:
        show(found, Console(width=140))
    return 1 if found["missed"] or found["unused"]["mean"] > MOST_UNUSED else 0


if __name__ == "__main__":
    sys.exit(main())
