"""``live drain``, ``live resume`` and ``live cancel``: asked of the running daemon."""

import argparse

from live.admin import ask
from live.config import read_config


def run(call: argparse.Namespace) -> int:
    """Ask, and say what came of it."""
    folder = read_config(call.config).data_folder
    if call.ask == "cancel":
        ask(folder, {"ask": "cancel", "task_id": call.task_id})
        print(f"task {call.task_id} was asked to save and stop")
        return 0
    told = ask(folder, {"ask": call.ask})
    state = "draining: no more offers are accepted" if told["draining"] else "accepting offers"
    print(f"{state}; {told['jobs']} jobs hold slots")
    return 0
