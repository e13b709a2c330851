"""``sim calibrate``: a calibration file of what a live ledger's jobs came to."""

import argparse
import json

from rich.console import Console
from rich.table import Table

from shared.errors import InputError
from sim.calibrate import Calibrated, calibrate
from sim.files import check_outputs, written_whole
from sim.finished_jobs import finished_jobs


def run(call: argparse.Namespace) -> int:
    """Write the file; print what it was made of. Raises InputError, then nothing is written."""
    check_outputs([call.out], [call.ledger])
    found = finished_jobs(call.ledger)
    try:
        made = calibrate(found, int(call.least))
    except InputError as wrong:
        raise InputError(f"{call.ledger}: {wrong}") from None
    with written_whole(call.out) as aside:
        text = json.dumps(made.calibration, indent=1, ensure_ascii=False)
        aside.write_text(f"{text}\n", encoding="utf-8")
    if call.json:
        print(json.dumps({"out": str(call.out), **made.summary}))
    else:
        _print(call, made)
    return 0


def _print(call: argparse.Namespace, made: Calibrated) -> None:
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    console.print(_slots(made))
    for line in _told(made):
        console.print(line, markup=False, highlight=False)
    print(f"calibration: {call.out}")


def _slots(made: Calibrated) -> Table:
    title = "mean [95% interval]"
    table = Table("task type", title=title, title_justify="left")
    for name in ("GPUs", "outcomes", "success", "test ratio", "tokens/s of one GPU, by size"):
        table.add_column(name, justify="right")
    for task_type, entry in made.calibration["task_types"].items():
        for slot in entry["slots"]:
            speeds = "; ".join(
                f"from {one['params_from'] / 1e9:g}B {one['mean']:,.0f}"
                for one in slot["tokens_per_second"]
            )
            table.add_row(
                "all together" if task_type == "*" else task_type,
                f"{slot['gpus']:.4g}",
                str(slot["outcomes"]),
                _shown(slot["success"], "rate"),
                _shown(slot["test_ratio"], "mean"),
                speeds or "-",
            )
    return table


def _shown(found: dict[str, float], key: str) -> str:
    return f"{found[key]:.3f} [{found['lo']:.3f}, {found['hi']:.3f}]"


def _told(made: Calibrated) -> list[str]:
    """What was counted and what was not, in words."""
    told, service = made.summary, made.calibration["service"]
    counted = (
        f"{told['outcomes']} outcomes: {told['handed_in']} handed in on time, {told['late']} late, "
        f"{told['failed']} failed; {told['with_a_ratio']} with losses, "
        f"{told['beat_the_base']} beat the base model"
    )
    uncounted = (
        f"not counted: {told['cancelled']} cancelled, {told['gpu_failed']} lost their GPU, "
        f"{told['still_open']} that still run or began while one of those did"
    )
    lines = [
        counted,
        uncounted,
        f"a job keeps its slot for {_shown(service['fraction'], 'mean')} of its hours",
    ]
    if told["setup_minutes"] is not None:
        lines.append(f"loading and finishing take {told['setup_minutes']:.3g} minutes (median)")
    lines += [
        f"too few: {'all together' if each['task_type'] == '*' else each['task_type']} in slots of "
        f"{each['gpus']:.4g} GPUs, {each['outcomes']} outcomes, {each['losses']} with losses"
        for each in told["too_few"]
    ]
    if told["without_record"]:
        lines.append(f"{told['without_record']} outcomes have no training record")
    return lines
