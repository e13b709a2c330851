"""``sim score``: the market's rules applied to a table of results."""

import argparse

from sim.market.results_table import score_command


def run(call: argparse.Namespace) -> int:
    """Score the table; print it."""
    return score_command(call.results, call.now, call.json)
