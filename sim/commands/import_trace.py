"""``sim import-trace``: an offers file made of a recorded trace."""

import argparse
from datetime import UTC, datetime

from sim.files import check_outputs
from sim.philly import import_philly


def run(call: argparse.Namespace) -> int:
    """Import the trace; say what came of it."""
    check_outputs([call.out], [call.file])
    found = import_philly(call.file, call.out, call.cluster, call.limit)
    first, last = (datetime.fromtimestamp(ms / 1000, UTC) for ms in (found.first_ms, found.last_ms))
    print(
        f"{call.out}: {found.offers} offers from {first:%Y-%m-%d} to {last:%Y-%m-%d}, of "
        f"{found.rows} rows; {found.repeated_rows} rows repeat another one and are kept"
    )
    return 0
