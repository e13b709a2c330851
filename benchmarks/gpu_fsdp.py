"""(e) FSDP2 over two GPUs beside DDP: ``python -m benchmarks.gpu_fsdp``.

The 8B width at a rank that only fits in shares, and one that fits either way.
"""

import json
import subprocess
import sys
from typing import Any

from benchmarks.gpu_common import CASE_S, parser, skipped, told

GRID = [("8b", 128, 2048), ("8b", 2048, 2048), ("8b", 2048, 8192)]


def pair(settings: dict[str, Any]) -> dict[str, Any]:
    """One case on two ranks."""
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr=127.0.0.1",
         "--nproc-per-node=2", "-m", "benchmarks.gpu_case", json.dumps(settings)],
        capture_output=True, text=True, timeout=CASE_S, check=False,
    )  # fmt: skip
    if done.returncode == 0:
        return {**settings, **json.loads(done.stdout.splitlines()[-1])}
    lack = "OutOfMemoryError" in done.stderr
    return {**settings, "failed": "out of memory" if lack else done.stderr[-300:]}


def main() -> int:
    call = parser(__doc__).parse_args()
    if skipped(call, needed=2):
        return 0
    rows = [
        pair({"step": "ours", "width": width, "rank": rank, "row_tokens": tokens, "rows": 32,
              "gpus": 2, "steps": 5, "trial": call.trial})
        for width, rank, tokens in ([("tiny", 8, 32)] if call.trial else GRID)
    ]  # fmt: skip
    told(call, {"bench": "fsdp", "cases": rows})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
