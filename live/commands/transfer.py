"""``live export``, ``live export-offers`` and ``live backup``."""

import argparse

from live.transfer import backup, export, export_offers


def run(call: argparse.Namespace) -> int:
    """Write the file and say what is in it."""
    if call.what == "backup":
        backup(call.ledger, call.out)
        print(f"{call.out}: a copy of {call.ledger}")
        return 0
    if call.what == "export":
        print(f"{call.out}: {export(call.ledger, call.out)} entries")
    else:
        print(f"{call.out}: {export_offers(call.ledger, call.out)} offers")
    return 0
