"""Whether measured figures are those that are wanted; a benchmark that misses one exits with 1."""

import sys
from collections.abc import Mapping

MEDIAN_MS, P99_MS = 2.0, 20.0
"""An answer to an offer, at 100 a second."""
READY_S = 3.0
"""From the daemon's start to its first answer, at most."""
SLOW_P99_MS = 250.0
"""An answer while 500 sockets drip."""

Figures = Mapping[str, tuple[float, float]]
"""By name, what was measured and what is wanted at most."""


def verdict(figures: Figures) -> int:
    """0, or 1 with a line on stderr for each figure that is missed."""
    missed = {name: pair for name, pair in figures.items() if not pair[0] <= pair[1]}
    for name, (found, most) in missed.items():
        print(f"missed: {name}: found {found:g}, wanted at most {most:g}", file=sys.stderr)
    return 1 if missed else 0
