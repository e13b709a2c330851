"""``sim import-trace``: an offers file made of a recorded trace."""

import argparse

from sim.philly import import_philly


def run(call: argparse.Namespace) -> int:
    """Import the trace; say what came of it."""
    found = import_philly(call.file, call.out, call.cluster, call.limit)
    print(f"{call.out}: {found}")
    return 0
