"""(b) Predicted against measured peak memory: ``python -m benchmarks.gpu_memory``.

Each plan as the planner makes it for the slot; none may run out of memory.
"""

from benchmarks.gpu_common import case, parser, skipped, told

GRID = [
    (width, rank, tokens, gb)
    for width in ("1b", "8b")
    for rank in (16, 128, 2048)
    for tokens in (512, 2048, 8192)
    for gb in (80.0, 80 / 3)
]


def main() -> int:
    call = parser(__doc__).parse_args()
    if skipped(call):
        return 0
    rows = []
    for width, rank, tokens, gb in [("tiny", 8, 32, 80.0)] if call.trial else GRID:
        found = case({
            "step": "ours", "width": width, "rank": rank, "row_tokens": tokens, "gb": gb,
            "rows": 32, "steps": 2, "trial": call.trial, "sharing": round(80 / gb),
        })  # fmt: skip
        predicted, measured = found.get("predicted_gb"), found.get("measured_gb")
        if predicted and measured:
            found["error"] = predicted / measured - 1
        rows.append(found)
    errors = [abs(each["error"]) for each in rows if "error" in each]
    lacks = sum(each.get("failed") == "out of memory" for each in rows)
    told(call, {"bench": "memory", "largest_error": max(errors, default=None),
                "out_of_memory": lacks, "cases": rows})  # fmt: skip
    return int(lacks > 0)


if __name__ == "__main__":
    raise SystemExit(main())
