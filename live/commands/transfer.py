"""``live export``, ``export-offers``, ``export-training`` and ``backup``."""

import argparse

from live.transfer import backup, export, export_offers, export_training


def run(call: argparse.Namespace) -> int:
    """Write the file and say what is in it."""
    if call.what == "backup":
        backup(call.ledger, call.out)
        print(f"{call.out}: a copy of {call.ledger}")
        return 0
    if call.what == "export":
        print(f"{call.out}: {export(call.ledger, call.out)} entries")
    elif call.what == "export-training":
        print(f"{call.out}: {export_training(call.ledger, call.out)} trainings")
    else:
        print(f"{call.out}: {export_offers(call.ledger, call.out)} offers")
    return 0
