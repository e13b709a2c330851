"""``sim compare``: presets in a scenario, with intervals."""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from shared.errors import InputError
from sim.cli import INTERRUPTED
from sim.comparison import Comparison, compared, revenue_difference
from sim.console import print_comparison
from sim.experiment import Replication, Replicator, World
from sim.output_analysis import Sequential
from sim.scenario import Scenario, read_scenario
from sim.season import calibration_of

LEAST_FOR_PRECISION = 10
"""Replications before a sequential run looks for the first time (Law, section 9.4.1)."""
MOST_FOR_PRECISION = 1_000
"""Replications at most when --precision comes without --replications."""


def run(call: argparse.Namespace) -> int:
    """Compare; print the table or the document, write the results folder."""
    world = _world(call)
    if call.out:
        _prepare(call.out)
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


def _world(call: argparse.Namespace) -> World:
    scenario, box = read_scenario(call.scenario)
    if call.calibration is not None:  # a path of the caller's, not one beside the scenario
        scenario = scenario.calibrated_by(str(call.calibration.absolute()))
    scenario = scenario.changed(
        replications=_asked(call), seed=call.seed, days=call.days, precision=call.precision
    )
    calibration = calibration_of(scenario.market, call.scenario.parent)
    path = call.offers or _named_offers(scenario, call.scenario)
    if path is None:
        return World(scenario, box, calibration=calibration)
    if call.days is not None:
        raise InputError("--days: not with an offers file, which is replayed whole")
    from sim.offers_file import read_offers

    return World(scenario, box, read_offers(path), calibration)


def _asked(call: argparse.Namespace) -> int | None:
    """The replications asked for; a precision asked for alone may take many."""
    if call.replications is None and call.precision is not None:
        return MOST_FOR_PRECISION
    return None if call.replications is None else int(call.replications)


def _named_offers(scenario: Scenario, scenario_path: Path) -> Path | None:
    """The offers file that the scenario itself names, beside it."""
    named = getattr(scenario.arrivals, "path", None)
    return None if named is None else scenario_path.parent / str(named)


def _prepare(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as why:
        reason = (why.strerror or str(why)).lower()
        raise InputError(f"--out: {out}: cannot be made: {reason}") from None


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
