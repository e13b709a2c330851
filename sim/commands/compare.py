"""``sim compare``: presets in a scenario, with intervals."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from sim.cli import INTERRUPTED
from sim.commands.world import prepare, world_of
from sim.comparison import Comparison, compared, revenue_difference
from sim.console import print_comparison
from sim.experiment import Replication, Replicator, World
from sim.output_analysis import Sequential

LEAST_FOR_PRECISION = 10
"""Replications before a sequential run looks for the first time (Law, section 9.4.1)."""
MOST_FOR_PRECISION = 1_000
"""Replications at most when --precision comes without --replications."""


def run(call: argparse.Namespace) -> int:
    """Compare; print the table or the document, write the results folder."""
    world = world_of(call, replications=_asked(call), precision=call.precision)
    if call.out:
        prepare(call.out)
    asked = world.scenario.replications
    done, stopped, whole = _replicated(world, call.processes or os.cpu_count() or 1)
    if not done:
        raise KeyboardInterrupt
    comparison = compared(world, asked, done, stopped)
    if call.out:
        from sim.results import write_numbers, write_results

        (write_results if whole else write_numbers)(comparison, call.out)
    _print(comparison, call, whole)
    if not whole:
        kept = f"; summary.json and replications.csv in {call.out} hold them" if call.out else ""
        print(f"sim: interrupted after {len(done)} of {asked} replications{kept}", file=sys.stderr)
    return 0 if whole else INTERRUPTED


def _print(comparison: Comparison, call: argparse.Namespace, whole: bool) -> None:
    if call.json:
        print(json.dumps(comparison.document()))
        return
    console = Console()
    if not console.is_terminal:
        console = Console(width=160)
    print_comparison(comparison, console)
    if call.out and whole:
        print(f"report: {call.out / 'report.html'}")


def _asked(call: argparse.Namespace) -> int | None:
    """The replications asked for; a precision asked for alone may take many."""
    if call.replications is None and call.precision is not None:
        return MOST_FOR_PRECISION
    return None if call.replications is None else int(call.replications)


def _replicated(world: World, processes: int) -> tuple[list[Replication], str, bool]:
    """The finished replications, why a sequential run stopped, and whether it was to the end.

    Ctrl-C keeps what is finished.
    """
    done: list[Replication] = []
    asked = world.scenario.replications
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    stderr = Console(stderr=True)
    with Progress(
        *columns, TimeRemainingColumn(), console=stderr, disable=not stderr.is_terminal,
        transient=True,
    ) as progress:  # fmt: skip
        task = progress.add_task("replications", total=asked)

        def finish(numbers: Sequence[int]) -> None:
            for replication in replicator.run(numbers):
                done.append(replication)
                progress.advance(task)

        try:
            with Replicator(world, min(processes, asked)) as replicator:
                stopped = _run(world, finish, done)
        except KeyboardInterrupt:
            return done, "", False
    return done, stopped, True


def _run(world: World, finish: Callable[[Sequence[int]], None], done: Sequence[Replication]) -> str:
    """Run all replications, or until the precision is reached; returns why it stopped."""
    asked, precision = world.scenario.replications, world.scenario.precision
    if precision is None or asked < 2:
        finish(range(asked))
        return ""

    def more(numbers: range) -> Sequence[float]:
        finish(numbers)
        return revenue_difference(done, world)[numbers.start :]

    rule = Sequential(precision, least=min(LEAST_FOR_PRECISION, asked), most=asked)
    return f"revenue_per_day, first preset less second: {rule.run(more).why}"
