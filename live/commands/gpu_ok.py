"""``live gpu-ok``: forget why a GPU was taken out, with the daemon running or without."""

import argparse

from live.admin import ask
from live.config import read_config
from live.doctor_files import lock_held
from live.kept_faults import KeptFaults
from live.service import LEDGER


def run(call: argparse.Namespace) -> int:
    """Ask the daemon where one runs, else change the file; say what was forgotten."""
    folder = read_config(call.config).data_folder
    if lock_held(folder / f"{LEDGER}.lock"):
        reason = ask(folder, {"ask": "gpu_ok", "gpu": call.gpu})["reason"]
    else:
        kept = KeptFaults(folder)
        reason = kept.clear(kept.key_of(call.gpu))
    print(f"GPU {call.gpu}: forgotten: {reason or 'nothing, no fault was remembered'}")
    return 0
