"""(b) Predicted against measured peak memory: ``python -m benchmarks.gpu_memory``.

Each plan as the planner makes it for the slot, held to the slot's memory; none may run out of it.
Two micro-batches a step, which is as much as accumulation ever needs, and a batch evaluated at the
end. Cases are named
WIDTH-RANK-TOKENS-GB, the most wanted first. ``error`` is of what the record says and what the
requirement means: predicted against what torch reserved and the context beside it.
"""

from dataclasses import replace
from typing import Any

from benchmarks.gpu_common import LONG_HOURS, OURS, SLOT_GB, parser, shape_of
from benchmarks.gpu_runs import begun, listed
from shared.plan import Plan, largest_plan
from shared.presets import ACCURACY_4

THIRD_GB = SLOT_GB / 3
BIG_GB = 130.0
"""Of a card that is bigger than a slot: there rank 2048 needs no 8-bit optimizer."""
ROWS = 32
WANTED = [
    ("8b", 128, 2048, SLOT_GB), ("8b", 128, 1400, THIRD_GB), ("8b", 2048, 2048, SLOT_GB),
    ("8b", 2048, 2048, BIG_GB), ("1b", 128, 2048, SLOT_GB), ("8b", 128, 8192, SLOT_GB),
    ("8b", 16, 512, THIRD_GB), ("1b", 2048, 2048, THIRD_GB), ("1b", 2048, 8192, SLOT_GB),
    ("8b", 16, 2048, SLOT_GB),
]  # fmt: skip
GRID = [
    (width, rank, tokens, gb)
    for width in ("1b", "8b")
    for rank in (16, 128, 2048)
    for tokens in (512, 2048, 8192)
    for gb in (SLOT_GB, THIRD_GB)
]


def planned(width: str, rank: int, tokens: int, gb: float) -> Plan | None:
    profile = replace(ACCURACY_4.profile, lora_r=rank, batch_size=ROWS, max_length=tokens)
    return largest_plan(
        shape_of(width), profile, gpus=1, gb_per_gpu=gb, longest_row=tokens, chunked_loss=True
    )


def settings_of(width: str, rank: int, tokens: int, gb: float) -> dict[str, Any]:
    plan = planned(width, rank, tokens, gb)
    at_once = min(ROWS, 2 * plan.micro_batch) if plan else 1
    return {"step": "ours", "width": width, "rank": rank, "row_tokens": tokens, "gb": gb,
            "rows": ROWS, "most_accumulation": 2, "rows_a_step": at_once, "warm_up": 1,
            "steps": 2, "evaluates": True, "trial": width == "tiny"}  # fmt: skip


def needs(settings: dict[str, Any]) -> tuple[str, ...]:
    """Packages of the case's plan, asked for before a process is begun in vain."""
    plan = planned(*(settings[name] for name in ("width", "rank", "row_tokens", "gb")))
    return (*OURS, "bitsandbytes") if plan and plan.optimizer == "adamw8bit" else OURS


def cases(trial: bool) -> list[tuple[str, dict[str, Any]]]:
    if trial:
        return [("tiny-8-32-80", settings_of("tiny", 8, 32, SLOT_GB))]
    first = WANTED[0]
    order = [*WANTED, *(each for each in GRID if each not in WANTED)]
    named = [("-".join([*map(str, each[:3]), f"{each[3]:.0f}"]), each) for each in order]
    compiled = {**settings_of(*first), "hours": LONG_HOURS}
    return [(f"{named[0][0]}-compiled", compiled),
            *((name, settings_of(*each)) for name, each in named)]  # fmt: skip


def main() -> int:
    call = parser(__doc__).parse_args()
    if call.list:
        return listed(cases(call.trial))
    bench = begun("memory", call, OURS)
    if bench is None:
        return 0
    for name, settings in cases(call.trial):
        if call.trial or settings["gb"] <= bench.card["total_gb"]:
            bench.case(name, settings, needs(settings))
    done = {name: each for name, each in bench.ran.items() if "failed" not in each}
    errors = {name: each["error"] for name, each in done.items() if "error" in each}
    ends = [end for each in bench.ran.values() for end in (each, each.get("evaluation", {}))]
    lacks = sum(end.get("failed") == "out of memory" for end in ends)
    largest = max(map(abs, errors.values()), default=None)
    bench.ended(largest_error=largest, out_of_memory=lacks, errors=errors)
    return int(lacks > 0)


if __name__ == "__main__":
    raise SystemExit(main())
