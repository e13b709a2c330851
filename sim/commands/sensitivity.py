"""``sim sensitivity``: what the answer of a comparison depends on."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from shared.errors import InputError
from sim.commands.world import prepare, world_of
from sim.experiment import World
from sim.measures import METRICS
from sim.quality import models_of
from sim.sensitivity import documents
from sim.sensitivity.indices import morris_evaluations, sobol_evaluations
from sim.sensitivity.seasons import Season, Seasons, Unit
from sim.sensitivity.study import (
    Question,
    caps_of,
    known_model,
    morris_of,
    sobol_of,
    tornado_of,
)

if TYPE_CHECKING:
    from sim.report.drawing import Plot

REPLICATIONS = {"tornado": 10, "caps": 20, "morris": 5, "sobol": 5}
"""Of every scenario without --replications; the scenario's own number where that is less."""
TRAJECTORIES, SAMPLES = 10, 64


@dataclass(frozen=True)
class Study:
    """What a method found: the document, the tables and lines for a person, perhaps a picture."""

    document: dict[str, Any]
    tables: Sequence[Table]
    notes: Sequence[str]
    plots: Sequence["Plot"] = ()


def run(call: argparse.Namespace) -> int:
    """Study the scenario; print tables or the document, write the folder."""
    world = world_of(call, replications=call.replications)
    _check(call)
    if call.out:
        prepare(call.out)
    asked = call.replications or min(REPLICATIONS[call.method], world.scenario.replications)
    with Seasons(world, call.processes or os.cpu_count() or 1) as seasons:
        study = _studied(call, world, asked, seasons)
    document = {"method": call.method, **study.document}
    if call.out:
        _write(study, document, call.out)
    _print(study, document, call)
    return 0


def _check(call: argparse.Namespace) -> None:
    """Complain of options that do not fit. Raises InputError naming the option."""
    if call.metric is not None and call.metric not in METRICS:
        raise InputError(f"--metric: found {call.metric}, allowed is {', '.join(METRICS)}")
    if call.method == "caps" and call.metric is not None:
        raise InputError("--metric: not with caps, which shows revenue and first places")
    if call.samples is not None and call.method not in ("morris", "sobol"):
        raise InputError(f"--samples: not with {call.method}, which draws none")
    power = call.samples is None or not call.samples & (call.samples - 1)
    if call.method == "sobol" and not power:
        raise InputError(f"--samples: found {call.samples}, allowed with sobol is a power of 2")


def _studied(call: argparse.Namespace, world: World, asked: int, seasons: Seasons) -> Study:
    if call.method == "caps":
        return _caps(call, world, asked, seasons)
    model = known_model(world, call.quality_model)
    question = Question(world, model, call.metric or "revenue_per_day", asked)
    return {"tornado": _tornado, "morris": _morris, "sobol": _sobol}[call.method](
        call, question, seasons
    )


def _tornado(call: argparse.Namespace, question: Question, seasons: Seasons) -> Study:
    bars = tornado_of(question, lambda units: _run(seasons, units))
    plots = []
    if call.out:
        from sim.sensitivity.plots import tornado_plot  # here: plots are slow to import

        plots = [tornado_plot(question, bars)]
    return Study(
        documents.tornado_document(question, bars),
        [documents.tornado_table(question, bars)],
        documents.tornado_notes(question, bars),
        plots,
    )


def _morris(call: argparse.Namespace, question: Question, seasons: Seasons) -> Study:
    drawn = call.samples or TRAJECTORIES
    _announce("morris", morris_evaluations(len(question.parameters), drawn), question.replications)
    effects = morris_of(question, lambda units: _run(seasons, units), drawn)
    return Study(
        documents.morris_document(question, effects),
        [documents.morris_table(question, effects)],
        ["mean effect: of a step over the whole range; sigma: its spread, from interactions"],
    )


def _sobol(call: argparse.Namespace, question: Question, seasons: Seasons) -> Study:
    drawn = call.samples or SAMPLES
    _announce("sobol", sobol_evaluations(len(question.parameters), drawn), question.replications)
    indices = sobol_of(question, lambda units: _run(seasons, units), drawn)
    return Study(
        documents.sobol_document(question, indices),
        [documents.sobol_table(question, indices)],
        ["shares of the variance of the mean difference when all parameters vary at once"],
    )


def _announce(method: str, evaluations: int, replications: int) -> None:
    seasons = evaluations * replications
    print(
        f"sim: {method}: {evaluations:,} evaluations of {replications} replications, "
        f"{seasons:,} in all",
        file=sys.stderr,
    )


def _caps(call: argparse.Namespace, world: World, asked: int, seasons: Seasons) -> Study:
    models = list(models_of(world.scenario.market.quality, world.calibration))
    if call.quality_model is not None:
        models = [known_model(world, call.quality_model)]
    curves = caps_of(world, models, asked, lambda units: _run(seasons, units))
    name, plots = world.scenario.name, []
    if call.out:
        from sim.sensitivity.plots import caps_plot  # here: as above

        plots = [caps_plot(curves)]
    return Study(
        {"scenario": name, "seed": world.scenario.seed, "replications": asked,
         "by_quality_model": documents.caps_document(curves)},
        [documents.caps_table(f"{name}: {model}, {asked} replications, mean [95% interval]", curve)
         for model, curve in curves.items()],
        [line for model, curve in curves.items() for line in documents.caps_notes(model, curve)],
        plots,
    )  # fmt: skip


def _run(seasons: Seasons, units: Sequence[Unit]) -> list[Season]:
    """Run the units with a progress bar on a terminal."""
    stderr = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(
        *columns, TimeRemainingColumn(), console=stderr, disable=not stderr.is_terminal,
        transient=True,
    ) as progress:  # fmt: skip
        task = progress.add_task("replications", total=len(units))
        return seasons.of(units, lambda: progress.advance(task))


def _write(study: Study, document: dict[str, Any], out: Path) -> None:
    from sim.files import written_whole

    with written_whole(out / "sensitivity.json") as aside:
        aside.write_text(json.dumps(document, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    for plot in study.plots:
        from sim.report.drawing import save_png

        with written_whole(out / f"{plot.name}.png") as aside:
            save_png(plot, aside)


def _print(study: Study, document: dict[str, Any], call: argparse.Namespace) -> None:
    if call.json:
        print(json.dumps(document, allow_nan=False))
        return
    console = Console()
    if not console.is_terminal:
        console = Console(width=180)
    for table in study.tables:
        console.print(table)
    for note in study.notes:
        console.print(f"note: {note}", style="yellow", soft_wrap=True, markup=False)
