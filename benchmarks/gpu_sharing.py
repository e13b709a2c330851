"""(c) One job alone against three on one GPU: ``python -m benchmarks.gpu_sharing``.

The figure that presets of more slots than GPUs rest on: each of three is assumed to get a third.
At the 8B width with rows of 1,400 tokens, what a slot of 26.7 GB holds at rank 128, and at the 1B
width, whose step is too short to fill a GPU. The three meet before the first step that counts.
"""

import tempfile
from contextlib import ExitStack
from time import monotonic
from typing import Any

from benchmarks.gpu_common import OURS, SLOT_GB, estimate_s, parser
from benchmarks.gpu_runs import Bench, Child, begun, case_command, listed

JOBS = 3
SIZES = [("8b", 128, 1400, 4, 10), ("1b", 128, 1024, 4, 40)]
"""Width, rank, tokens of a row, rows and steps."""


def settings_of(width: str, rank: int, tokens: int, rows: int, steps: int) -> dict[str, Any]:
    return {"step": "ours", "width": width, "rank": rank, "row_tokens": tokens, "rows": rows,
            "rows_a_step": rows, "steps": steps, "gb": SLOT_GB / JOBS,
            "trial": width == "tiny"}  # fmt: skip


def cases(trial: bool) -> list[tuple[str, dict[str, Any]]]:
    found = []
    for size in [("tiny", 8, 32, 4, 5)] if trial else SIZES:
        name, alone = "-".join(map(str, size[:3])), settings_of(*size)
        found += [(f"{name}-alone", alone), (f"{name}-together", {**alone, "jobs": JOBS})]
    return found


def together(bench: Bench, name: str, settings: dict[str, Any]) -> dict[str, Any] | None:
    """Three at once; None where there is no time for it."""
    needs_s, began_s = estimate_s(settings), monotonic()
    if not bench.begins(name, needs_s):
        return None
    limit_s = bench.limit_s(needs_s)
    with tempfile.TemporaryDirectory() as gate, ExitStack() as held:
        asked = {**settings, "gate": gate, "of": JOBS, "peak_flops": bench.peak_tflops * 1e12}
        children = [Child.begun(case_command({**asked, "as": str(at)})) for at in range(JOBS)]
        for each in children:
            held.callback(each.kill)  # whatever happens here, none stays
        each_found = [each.found(limit_s - (monotonic() - began_s)) for each in children]
    rates = [each.get("tokens_per_s", 0.0) for each in each_found]
    found = {**settings, "jobs_found": each_found, "tokens_per_s": sum(rates),
             "of_each": rates, "took_s": monotonic() - began_s}  # fmt: skip
    wrong = [each["failed"] for each in each_found if "failed" in each]
    return bench.told_case(name, {**found, "failed": "; ".join(wrong)} if wrong else found)


def main() -> int:
    call = parser(__doc__).parse_args()
    if call.list:
        return listed(cases(call.trial))
    bench = begun("sharing", call, OURS)
    if bench is None:
        return 0
    for name, settings in cases(call.trial):
        if "jobs" in settings:
            together(bench, name, settings)
        else:
            bench.case(name, settings, OURS)
    bench.ended(share_of_each=shares(bench), assumed=1 / JOBS)
    return 0


def shares(bench: Bench) -> dict[str, float]:
    """What each of three got of what one has alone."""
    found = {}
    for name, each in bench.ran.items():
        alone = bench.ran.get(name.replace("-together", "-alone"), {})
        if "jobs" in each and "failed" not in each and "tokens_per_s" in alone:
            found[name] = each["tokens_per_s"] / JOBS / alone["tokens_per_s"]
    return found


if __name__ == "__main__":
    raise SystemExit(main())
