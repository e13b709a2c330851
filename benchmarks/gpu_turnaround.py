"""(d) From the end of a job to the next one's first step: ``python -m benchmarks.gpu_turnaround``.

Real launchers, one after the other in one slot, on a model that is written once beforehand.
``exit_s``: from the first job's result to its last process gone. ``first_step_s``: from the next
one's launch to its first optimizer step done, of which ``imports_s`` are gone when it begins to
load. Of jobs that are trained eager, and of longer ones, whose layers are compiled: the first of
those compiles, the second finds most of it done.
"""

import json
import os
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.gpu_common import LONG_HOURS, OURS, SHORT_HOURS, parser
from benchmarks.gpu_runs import LAST_WORDS, Bench, Child, Found, begun, case_command, module
from shared.presets import ACCURACY_4

LOOK_S = 0.01
ESTIMATE_S, TRIAL_S = 170.0, 1.0
HOURS = {"eager": SHORT_HOURS, "compiled": LONG_HOURS}
STOP_S = 15.0
"""From the signal that kills a job below its launcher to the launcher's own death."""
RANK = 128
"""At the profile's own, one GPU would need the 8-bit optimizer: another library to load."""
ROWS, HELD_OUT = 132, 4
"""Four steps of the profile's batch: what comes after the first only ends the job."""


def spec_of(model: Path, rows: Path, trial: bool, hours: float = SHORT_HOURS) -> Any:
    from live.job_files import JobSpec

    return JobSpec(
        task_id="bench", model=str(model), task_type="InstructTextTask", hours_to_complete=hours,
        started_ms=0, deadline_ms=3_600_000, warn_ms=3_300_000, preset="accuracy_4", slot=0,
        gpus=(0,), device="cpu" if trial else "cuda", processes=1, memory_gb_per_gpu=80.0,
        profile=replace(ACCURACY_4.profile, lora_r=RANK), local_files=True, max_restarts=0,
        request={"dataset": str(rows), "dataset_type": "instruct", "steps": 4},
        training={"epochs": 1.0, "most_held_out": HELD_OUT},
    )  # fmt: skip


def progress_of(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / "progress.json").read_text()))
    except (OSError, ValueError):
        return {}


def look(folder: Path, at_s: dict[str, float]) -> None:
    """Note what has come about since the last look."""
    told = progress_of(folder)
    now = {"loading": bool(told), "first_step": told.get("step", 0) >= 1,
           "result": (folder / "result.json").exists()}  # fmt: skip
    for name, there in now.items():
        if there:
            at_s.setdefault(name, time.monotonic())


def job(folder: Path, spec: Any, until_s: float) -> dict[str, Any]:
    """Run one to its end; the moments of it, monotonic seconds, or why it has them not all."""
    from live.job_files import JOB, write_record

    folder.mkdir()
    write_record(folder, JOB, spec)
    at_s = {"launched": time.monotonic()}
    child = Child.begun(module("live.launcher", str(folder)))
    try:
        while child.process.poll() is None and time.monotonic() < until_s:
            look(folder, at_s)
            time.sleep(LOOK_S)
        late = child.process.poll() is None
        look(folder, at_s)
    finally:
        stop(child)
    found: dict[str, Any] = {**at_s, "gone": time.monotonic()}
    _, errors = child.said()
    if late or not {"first_step", "result"} <= at_s.keys():
        why = "killed: out of time" if late else "a job did not train"
        return {**found, "failed": why, "last_words": last_words(folder, errors)}
    return found


def stop(child: Child) -> None:
    """End a job: its launcher kills what is below it, which no process group holds."""
    with suppress(ProcessLookupError, subprocess.TimeoutExpired):
        if child.process.poll() is None:
            os.kill(child.process.pid, signal.SIGUSR2)
            child.process.wait(STOP_S)
    child.kill()


def last_words(folder: Path, errors: str) -> dict[str, str]:
    """The ends of what a job wrote: its logs, its records, its launcher's errors."""
    written = [*sorted((folder / "logs").glob("*.log")), folder / "result.json",
               folder / "exit.json"]  # fmt: skip
    found = {each.name: each.read_text(errors="replace") for each in written if each.exists()}
    found["launcher"] = errors
    return {name: text[-LAST_WORDS:] for name, text in found.items() if text}


def model_in(place: Path, width: str, trial: bool, until_s: float) -> Found:
    """Have the model written, once; what came of it."""
    if (place / "model" / "tokenizer_config.json").exists():  # it is written last
        return {"saved": True}
    asked = {"step": "save", "width": width, "into": str(place / "model"), "trial": trial}
    return Child.begun(case_command(asked)).found(until_s - time.monotonic())


def measured(bench: Bench, place: Path, width: str, hours: float) -> Found:
    trial, until_s = bool(bench.call.trial), time.monotonic() + bench.limit_s(ESTIMATE_S)
    saved = model_in(place, width, trial, until_s)
    if "saved" not in saved:
        return {**saved, "at": "writing the model"}
    rows = place / "rows.jsonl"
    row = json.dumps({"instruction": "say it again", "output": "again " * 40})
    rows.write_text("".join(f'{row[:-2]} {at}"}}\n' for at in range(ROWS)))
    spec = spec_of(place / "model", rows, trial, hours)
    found = []
    for at in ("first", "second"):
        # Gone before the next one: two jobs' checkpoints may be more than the disk holds.
        with tempfile.TemporaryDirectory(dir=place) as jobs:
            found.append(job(Path(jobs) / "00000001", spec, until_s))
        if "failed" in found[-1] and not (found[1:] and "first_step" in found[-1]):
            return {**found[-1], "at": f"the {at} job"}
    return between(*found)


def between(first: Found, second: Found) -> Found:
    ends = first["gone"] - first["result"]
    begins = second["first_step"] - second["launched"]
    return {"exit_s": ends, "imports_s": second["loading"] - second["launched"],
            "first_step_s": begins, "turnaround_s": ends + begins,
            "first_jobs_first_step_s": first["first_step"] - first["launched"],
            "jobs_s": [each["gone"] - each["launched"] for each in (first, second)]}  # fmt: skip


def cases(trial: bool) -> list[tuple[str, str, float]]:
    """Name, width, hours of the jobs."""
    width = "tiny" if trial else "8b"
    kinds = ["eager"] if trial else HOURS
    return [(f"{width}-{RANK}-{kind}", width, HOURS[kind]) for kind in kinds]


def main() -> int:
    call = parser(__doc__).parse_args()
    needs_s = TRIAL_S if call.trial else ESTIMATE_S
    if call.list:
        for name, _, _ in cases(call.trial):
            print(f"{name}  {needs_s:.0f} s")
        return 0
    bench = begun("turnaround", call, OURS)
    if bench is None:
        return 0
    with tempfile.TemporaryDirectory() as place:
        for name, width, hours in cases(call.trial):
            if bench.begins(name, needs_s):
                bench.told_case(name, measured(bench, Path(place), width, hours))
    took = {name: each["turnaround_s"] for name, each in bench.ran.items() if "exit_s" in each}
    bench.ended(turnaround_s=took)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
