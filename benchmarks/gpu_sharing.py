"""(c) One job alone against three on one GPU: ``python -m benchmarks.gpu_sharing``.

The figure that presets of more slots than GPUs rest on: each of three is assumed to get a third.
"""

from benchmarks.gpu_common import begun, case, ended, parser, skipped, told

JOBS = 3


def main() -> int:
    call = parser(__doc__).parse_args()
    if skipped(call):
        return 0
    settings = {
        "step": "ours", "width": "tiny" if call.trial else "1b", "rank": 8 if call.trial else 128,
        "row_tokens": 32 if call.trial else 1024, "rows": 4, "steps": 5 if call.trial else 40,
        "gb": 80 / JOBS, "sharing": JOBS, "trial": call.trial,
    }  # fmt: skip
    alone = case(settings)
    together = [ended(each, settings) for each in [begun(settings) for _ in range(JOBS)]]
    speeds = [each.get("tokens_per_s", 0.0) for each in together]
    share = sum(speeds) / JOBS / alone["tokens_per_s"] if "tokens_per_s" in alone else None
    told(call, {"bench": "sharing", "share_of_each": share, "assumed": 1 / JOBS,
                "alone": alone, "together": together})  # fmt: skip
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
