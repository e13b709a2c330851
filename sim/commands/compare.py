"""``sim compare``: presets in a scenario, with intervals."""

import argparse
import json
import os
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from shared.errors import InputError
from sim.cli import INTERRUPTED
from sim.comparison import Comparison, compared
from sim.console import print_comparison
from sim.experiment import Replication, World, replications
from sim.scenario import Scenario, read_scenario


def run(call: argparse.Namespace) -> int:
    """Compare; print the table or the document, write the results folder."""
    world = _world(call)
    if call.out:
        _prepare(call.out)
    asked = world.scenario.replications
    done, whole = _replicated(world, asked, call.processes or os.cpu_count() or 1)
    if not done:
        raise KeyboardInterrupt
    comparison = compared(world, asked, done)
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
    scenario = scenario.changed(replications=call.replications, seed=call.seed, days=call.days)
    path = call.offers or _named_offers(scenario, call.scenario)
    if path is None:
        return World(scenario, box)
    if call.days is not None:
        raise InputError("--days: not with an offers file, which is replayed whole")
    from sim.offers_file import read_offers

    return World(scenario, box, read_offers(path))


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


def _replicated(world: World, asked: int, processes: int) -> tuple[list[Replication], bool]:
    """The finished replications, and whether all of them were; Ctrl-C keeps what is finished."""
    done: list[Replication] = []
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    stderr = Console(stderr=True)
    with Progress(
        *columns, TimeRemainingColumn(), console=stderr, disable=not stderr.is_terminal,
        transient=True,
    ) as progress:  # fmt: skip
        task = progress.add_task("replications", total=asked)
        try:
            for replication in replications(world, asked, processes):
                done.append(replication)
                progress.advance(task)
        except KeyboardInterrupt:
            return done, False
    return done, True
