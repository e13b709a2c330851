"""The results folder of a comparison, each file there whole or not at all."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from sim.comparison import Comparison
from sim.decisions_file import write_decisions_table
from sim.experiment import Replication
from sim.files import written_whole
from sim.measures import METRICS

if TYPE_CHECKING:
    from sim.report.drawing import Plot
    from sim.report.findings import Findings


def write_numbers(comparison: Comparison, out: Path) -> None:
    """Write the summary and the replications, which takes no time to speak of.

    ``out`` exists. Raises InputError when nothing can be written there.
    """
    _write_text(
        json.dumps(comparison.document(), indent=2, allow_nan=False) + "\n", out / "summary.json"
    )
    _write_text(replications_csv(comparison), out / "replications.csv")


def write_results(comparison: Comparison, out: Path) -> None:
    """Write the numbers, the first replication's decisions, the plots and the report.

    ``out`` exists. Raises InputError when nothing can be written there.
    """
    from sim.report.findings import findings_of  # here: plots are slow to import
    from sim.report.page import page, sections_of

    write_numbers(comparison, out)
    findings = findings_of(comparison)
    _write_decisions(findings, out / "decisions.parquet")
    sections = sections_of(findings)
    for section in sections:
        for plot in section.plots:
            _write_plot(plot, out / f"{plot.name}.png")
    _write_text(page(findings, sections), out / "report.html")


def replications_csv(comparison: Comparison) -> str:
    """One row a replication, quality model and preset: all measures, and each gate's count."""
    rows = [
        _row(replication, model, name)
        for replication in comparison.done
        for model in comparison.models
        for name in comparison.names
    ]
    return str(pd.DataFrame(rows).to_csv(index=False, lineterminator="\n"))


def _row(replication: Replication, model: str, name: str) -> dict[str, str | float]:
    gates = {f"gate_{gate}": count for gate, count in replication.gates[name].items()}
    return {
        "replication": replication.number,
        "quality_model": model,
        "preset": name,
        **{metric: replication.measures[model][name][metric] for metric in METRICS},
        **gates,
    }


def _write_decisions(findings: "Findings", path: Path) -> None:
    first = findings.first
    by_preset = {name: (findings.policies[name], first.decisions[name]) for name in findings.names}
    write_decisions_table(first.workload.stream, by_preset, path)


def _write_text(content: str, path: Path) -> None:
    with written_whole(path) as aside:
        aside.write_text(content, encoding="utf-8", newline="\n")


def _write_plot(plot: "Plot", path: Path) -> None:
    from sim.report.drawing import save_png

    with written_whole(path) as aside:
        save_png(plot, aside)
