"""(a) Tokens a second and utilisation of the worker's step, beside plain transformers and peft.

``python -m benchmarks.gpu_throughput``: 1B and 8B widths, ranks 16, 128 and 2048, rows of 2,048
tokens. ``ratio`` is ours over plain with as many rows at once as fit both. ``compiled``, at rank
128: ours as jobs of two hours and more are trained.
"""

from typing import Any

from benchmarks.gpu_common import case, parser, skipped, told

GRID = [(width, rank) for width in ("1b", "8b") for rank in (16, 128, 2048)]
ROWS = (8, 4, 2, 1)
COMPILED_RANK, LONG_HOURS = 128, 6.0


def most_rows(settings: dict[str, Any]) -> dict[str, Any]:
    """The case with the most rows at once that fit."""
    found: dict[str, Any] = {}
    for rows in ROWS:
        found = case({**settings, "rows": rows})
        if found.get("failed") != "out of memory":
            return found
    return found


def main() -> int:
    call = parser(__doc__).parse_args()
    if skipped(call):
        return 0
    grid = [("tiny", 8)] if call.trial else GRID
    size = {"row_tokens": 32 if call.trial else 2048, "steps": 3 if call.trial else 10}
    rows = []
    for width, rank in grid:
        settings = {"width": width, "rank": rank, "trial": call.trial, **size}
        ours = case({**settings, "step": "ours", "rows": 4 if call.trial else 8})
        long = {"hours": LONG_HOURS, "step": "ours", "rows": 8}
        compiled = case({**settings, **long}) if rank == COMPILED_RANK else None
        plain = most_rows({**settings, "step": "plain"})
        both = "tokens_per_s" in ours and "tokens_per_s" in plain
        ratio = ours["tokens_per_s"] / plain["tokens_per_s"] if both else None
        found = {"ratio": ratio, "ours": ours, "compiled": compiled, "plain": plain}
        rows.append({"width": width, "rank": rank, **found})
    told(call, {"bench": "throughput", "cases": rows})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
