"""(d) From the end of a job to the next one's first step: ``python -m benchmarks.gpu_turnaround``.

Real launchers, one after the other in one slot, on a model that is written once beforehand.
``exit_s``: from the first job's result to its last process gone. ``first_step_s``: from the next
one's launch to its first optimizer step done.
"""

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu_case import model_of
from benchmarks.gpu_common import parser, skipped, told
from live.job_files import JOB, RESULT, JobSpec, write_record
from live.training.loading import Source, tokenizer_of
from shared.presets import ACCURACY_4

LOOK_S = 0.01
PATIENCE_S = 900.0
RANK = 128
"""At the profile's own, one GPU would need the 8-bit optimizer: another library to load."""


def spec_of(model: Path, rows: Path, trial: bool) -> JobSpec:
    return JobSpec(
        task_id="bench", model=str(model), task_type="InstructTextTask", hours_to_complete=1.0,
        started_ms=0, deadline_ms=3_600_000, warn_ms=3_300_000, preset="accuracy_4", slot=0,
        gpus=(0,), device="cpu" if trial else "cuda", processes=1, memory_gb_per_gpu=80.0,
        profile=replace(ACCURACY_4.profile, lora_r=RANK), local_files=True,
        request={"dataset": str(rows), "dataset_type": "instruct", "steps": 4},
        training={"epochs": 1.0, "most_held_out": 4},
    )  # fmt: skip


def step_of(folder: Path) -> int:
    try:
        return int(json.loads((folder / "progress.json").read_text())["step"])
    except (OSError, ValueError):
        return 0


def job(folder: Path, spec: JobSpec) -> dict[str, float]:
    """Run one to its end; the moments of it, monotonic seconds."""
    folder.mkdir()
    write_record(folder, JOB, spec)
    found = {"launched": time.monotonic()}
    child = subprocess.Popen([sys.executable, "-m", "live.launcher", str(folder)])
    while child.poll() is None and time.monotonic() - found["launched"] < PATIENCE_S:
        if "first_step" not in found and step_of(folder) >= 1:
            found["first_step"] = time.monotonic()
        if "result" not in found and (folder / RESULT).exists():
            found["result"] = time.monotonic()
        time.sleep(LOOK_S)
    return {**found, "gone": time.monotonic()}


def main() -> int:
    call = parser(__doc__).parse_args()
    if skipped(call):
        return 0
    with tempfile.TemporaryDirectory() as place:
        told(call, {"bench": "turnaround", **measured(Path(place), call.trial)})
    return 0


def measured(place: Path, trial: bool) -> dict[str, Any]:
    device = torch.device("cpu") if trial else torch.device("cuda", 0)
    model = model_of({"width": "tiny" if trial else "8b"}, "sdpa", device)
    model.save_pretrained(place / "model")
    tokenizer_of(Source("", None)).save_pretrained(place / "model")
    del model
    rows = place / "rows.jsonl"
    row = json.dumps({"instruction": "say it again", "output": "again " * 40})
    rows.write_text("".join(f'{row[:-2]} {at}"}}\n' for at in range(400)))
    spec = spec_of(place / "model", rows, trial)
    first, second = (job(place / f"0000000{n}", spec) for n in (1, 2))
    if "first_step" not in second or "result" not in first:
        return {"failed": "a job did not train; see its log"}
    ends = first["gone"] - first["result"]
    begins = second["first_step"] - second["launched"]
    return {"exit_s": ends, "first_step_s": begins, "turnaround_s": ends + begins}


if __name__ == "__main__":
    raise SystemExit(main())
