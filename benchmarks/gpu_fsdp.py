"""(e) FSDP2 over two GPUs beside DDP, of the same case: ``python -m benchmarks.gpu_fsdp``.

The 8B width at ranks and rows of which one fits either way and the others only in shares. Each is
run as the planner has it for the pair and, forced, the other way; one that does not fit says so.
"""

import json
from typing import Any

from benchmarks.gpu_common import OURS, SLOT_GB, parser
from benchmarks.gpu_runs import Settings, begun, listed, module

GRID = [("8b", 128, 2048), ("8b", 2048, 2048), ("8b", 2048, 8192)]
WAYS = ("fsdp2", "ddp")
RANKS = 2


def pair_command(settings: Settings) -> list[str]:
    """One case on two ranks."""
    return module(
        "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1",
        f"--nproc-per-node={RANKS}", "-m", "benchmarks.gpu_case", json.dumps(settings),
    )  # fmt: skip


def cases(trial: bool) -> list[tuple[str, dict[str, Any]]]:
    return [
        (f"{width}-{rank}-{tokens}-{way}",
         {"step": "ours", "width": width, "rank": rank, "row_tokens": tokens, "rows": 8,
          "rows_a_step": 8, "gpus": RANKS, "steps": 4, "gb": SLOT_GB, "parallel": way,
          "trial": trial})
        for width, rank, tokens in ([("tiny", 8, 32)] if trial else GRID)
        for way in WAYS
    ]  # fmt: skip


def main() -> int:
    call = parser(__doc__).parse_args()
    if call.list:
        return listed(cases(call.trial))
    bench = begun("fsdp", call, OURS, needed=RANKS)
    if bench is None:
        return 0
    for name, settings in cases(call.trial):
        bench.case(name, settings, OURS, pair_command)
    rates = {name: each["tokens_per_s"] for name, each in bench.ran.items() if "hfu" in each}
    bench.ended(tokens_per_s=rates)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
