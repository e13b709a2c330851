"""(a) Tokens a second and utilisation of the worker's step, beside plain transformers and peft.

``python -m benchmarks.gpu_throughput``: 1B and 8B widths, ranks 16, 128 and 2048, rows of 2,048
tokens, the most wanted first. Cases are named WIDTH-RANK-ROWS-STEP. ROWS: ``full``, or ``mixed``:
lengths as of real data, at most 2,048, of which tokens are counted without padding. STEP:
``compiled``, as jobs of an hour and more are trained; ``eager``, as shorter ones; ``plain``, with
as many rows at once as fit. The summary's ratios are over plain.
"""

from typing import Any

from benchmarks.gpu_common import LONG_HOURS, OURS, PLAIN, SLOT_GB, parser
from benchmarks.gpu_runs import Bench, begun, listed

EVERY, SHORT = ("compiled", "plain", "eager"), ("eager", "plain")
ORDER = [
    ("8b", 128, "full", EVERY), ("8b", 128, "mixed", EVERY), ("8b", 2048, "full", SHORT),
    ("1b", 128, "full", EVERY), ("8b", 16, "full", SHORT), ("1b", 16, "full", SHORT),
    ("1b", 2048, "full", SHORT),
]  # fmt: skip
TRIAL = [("tiny", 8, "full", SHORT), ("tiny", 8, "mixed", SHORT)]
TOKENS, MOST_ROWS = 2048, (8, 4, 2, 1)
PROFILE_ROWS = 32
"""Of the preset: mixed rows come so many a step, that there is something to pack or to pad."""


def settings_of(width: str, rank: int, rows: str, step: str) -> dict[str, Any]:
    trial, mixed = width == "tiny", rows == "mixed"
    found = {"step": "plain" if step == "plain" else "ours", "width": width, "rank": rank,
             "row_tokens": 32 if trial else TOKENS, "lengths": rows, "gb": SLOT_GB,
             "or_card": True, "trial": trial}  # fmt: skip
    if step == "plain":
        steps = {"steps": 3 if trial else 16 if mixed else 6}
        return {**found, **steps, "most_rows": MOST_ROWS, "rows_a_step": MOST_ROWS[0]}
    count = 4 if trial else PROFILE_ROWS if mixed else MOST_ROWS[0]
    found |= {"rows": count, "rows_a_step": count, "steps": 4 if trial else 6}
    return {**found, "hours": LONG_HOURS} if step == "compiled" else found


def cases(trial: bool) -> list[tuple[str, dict[str, Any]]]:
    return [
        (f"{width}-{rank}-{rows}-{step}", settings_of(width, rank, rows, step))
        for width, rank, rows, steps in (TRIAL if trial else ORDER)
        for step in steps
    ]


def ratios(bench: Bench) -> dict[str, float]:
    """Tokens a second of each of our steps over the plain one's, where both are known."""
    found = {}
    for name, each in bench.ran.items():
        rows, _, step = name.rpartition("-")
        beside = bench.ran.get(f"{rows}-plain", {})
        if step != "plain" and "tokens_per_s" in each and "tokens_per_s" in beside:
            found[name] = each["tokens_per_s"] / beside["tokens_per_s"]
    return found


def main() -> int:
    call = parser(__doc__).parse_args()
    if call.list:
        return listed(cases(call.trial))
    bench = begun("throughput", call, PLAIN)
    if bench is None:
        return 0
    for name, settings in cases(call.trial):
        bench.case(name, settings, PLAIN if settings["step"] == "plain" else OURS)
    rates = {name: each["tokens_per_s"] for name, each in bench.ran.items() if "hfu" in each}
    hfu = {name: each["hfu"] for name, each in bench.ran.items() if "hfu" in each}
    bench.ended(ratios=ratios(bench), tokens_per_s=rates, hfu=hfu)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
