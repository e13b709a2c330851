"""``live status``: what the running daemon is at."""

import argparse
import json
from typing import Any

from live.admin import ask
from live.config import read_config

Json = dict[str, Any]


def run(call: argparse.Namespace) -> int:
    """Ask the daemon and print it."""
    told = ask(read_config(call.config).data_folder, {"ask": "status"})
    if call.json:
        print(json.dumps(told))
    else:
        _print(told)
    return 0


def _print(told: Json) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        console = Console(width=140)
    columns = ("slot", "GPUs", "state", "task", "deadline in", "step", "loss")
    slots = Table(*columns, title=_headline(told), title_justify="left")
    for slot in told["slots"]:
        slots.add_row(*_slot(slot))
    console.print(slots)
    gpus = Table("GPU", "name", "health", "memory used", title="GPUs", title_justify="left")
    for gpu in told["gpus"]:
        health = "healthy" if gpu["healthy"] else f"out: {gpu.get('reason', 'not known why')}"
        used = f"{gpu['used_gb']:.1f} GB" if "used_gb" in gpu else ""
        gpus.add_row(str(gpu["gpu"]), gpu.get("name", ""), health, used)
    console.print(gpus)


def _headline(told: Json) -> str:
    states = [name.replace("_", " ") for name in ("draining", "storage_full", "ledger_failing")
              if told[name]]  # fmt: skip
    accepting = ", ".join(states) or "accepting"
    where = told["http"] or "no http"
    return (
        f"{told['preset']}: {told['slots_in_use']}/{told['cap']} slots in use, {accepting}, {where}"
    )


def _slot(slot: Json) -> list[str]:
    gpus = ",".join(map(str, slot["gpus"]))
    progress = slot.get("progress") or {}
    left = _left(slot["slack_s"]) if "slack_s" in slot else ""
    loss = progress.get("loss")
    return [
        str(slot["slot"]) + ("*" if slot.get("earlier_layout") else ""),
        gpus,
        slot["state"],
        slot.get("task_id", ""),
        left,
        f"{progress['step']}/{progress['of']}" if progress else "",
        "" if loss is None else f"{loss:.3f}",
    ]


def _left(seconds: float) -> str:
    sign, whole = ("-" if seconds < 0 else ""), abs(round(seconds))
    return f"{sign}{whole // 3600}:{whole % 3600 // 60:02d}:{whole % 60:02d}"
