"""``sim verify``: decide a ledger again and compare every field."""

import argparse
import json
from dataclasses import asdict

from shared.errors import InputError
from sim.ledger_file import read_ledger
from sim.verify import verify


def run(call: argparse.Namespace) -> int:
    """Verify the ledger; 1 when a decision differs, with the first one shown."""
    try:
        verdict = verify(read_ledger(call.ledger))
    except InputError as wrong:
        named = str(wrong).startswith(str(call.ledger))
        raise wrong if named else InputError(f"{call.ledger}: {wrong}") from None
    if call.json:
        print(json.dumps({"agrees": verdict.difference is None, **asdict(verdict)}))
    elif verdict.difference is None:
        print(f"{verdict.entries} entries, {verdict.offers} offers: every decision is the same")
    else:
        print(f"differs at {verdict.difference}")
    return 0 if verdict.difference is None else 1
