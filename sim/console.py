"""What ``compare`` prints for a person at a terminal."""

from rich.console import Console
from rich.table import Table

from sim.comparison import Comparison, Difference
from sim.measures import METRICS
from sim.output_analysis import Estimate
from sim.report.answer import answer
from sim.report.claims_tables import counted_verdicts
from sim.report.standing import JUDGED, leader, question
from sim.report.words import number

_WIDEST = 4
"""Presets shown side by side; more are shown as one row each."""
_CHOSEN = ("accepted", "slot_utilisation", *JUDGED)
"""Measures of presets that are shown as one row each."""


def shown(found: Estimate | None, metric: str) -> str:
    """A mean with its interval, as people write it; a dash where nothing is known."""
    if found is None:
        return "-"
    if found.lo is None or found.hi is None:
        return number(found.mean, metric)
    return f"{number(found.mean, metric)}  [{number(found.lo, metric)}, {number(found.hi, metric)}]"


def gap_shown(found: Estimate | None, metric: str) -> str:
    """A difference with its interval; that of two shares is in percentage points."""
    return shown(found, metric).replace("%", " pp")


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Print the measures, the gate audit, the other quality models, the answer and the notes."""
    console.print(_measures(comparison))
    console.print(_gates(comparison))
    if len(comparison.models) > 1:
        console.print(_models(comparison))
    for paragraph in told(comparison):
        console.print(paragraph, markup=False, highlight=False)
    for warning in comparison.warnings:
        console.print(f"note: {warning}", style="yellow", soft_wrap=True, markup=False)


def told(comparison: Comparison) -> list[str]:
    """The answer, the claims' verdicts and why a sequential run ended, in the report's words."""
    found = answer(comparison)
    verdicts = "; ".join(f"{model} {counts}" for model, counts in counted_verdicts(comparison))
    stopped = [f"stopped: {comparison.stopped}"] if comparison.stopped else []
    return [
        found.short,
        " ".join([found.setting, *found.primary]),
        *found.others,
        " ".join(found.depends),
        f"Claims: {verdicts}.",
        *stopped,
    ]


def _title(comparison: Comparison) -> str:
    return (
        f"{comparison.world.scenario.name}: {len(comparison.done)} replications, "
        "mean [95% interval]"
    )


def _measures(comparison: Comparison) -> Table:
    names = comparison.names
    if len(names) > _WIDEST:
        return _one_row_each(comparison)
    table = Table(title=_title(comparison), title_justify="left")
    table.add_column("measure", no_wrap=True)
    for name in names:
        table.add_column(name, justify="right")
    for other in names[1:]:
        table.add_column(f"{names[0]} less {other}", justify="right")
    presets, gaps = comparison.presets, _by_metric(comparison.differences)
    for metric in METRICS:
        values = [shown(presets[name][metric], metric) for name in names]
        table.add_row(
            metric, *values, *(gap_shown(gap.estimate, metric) for gap in gaps.get(metric, []))
        )
    return table


def _by_metric(gaps: list[Difference]) -> dict[str, list[Difference]]:
    found: dict[str, list[Difference]] = {}
    for gap in gaps:
        found.setdefault(gap.metric, []).append(gap)
    return found


def _one_row_each(comparison: Comparison) -> Table:
    table = Table("preset", *_CHOSEN, title=_title(comparison), title_justify="left")
    for name, measures in comparison.presets.items():
        table.add_row(name, *(shown(measures[metric], metric) for metric in _CHOSEN))
    return table


def _models(comparison: Comparison) -> Table:
    """Income and ranks under each quality model."""
    title = "under each quality model: mean [95% interval]"
    table = Table("model", "preset", *JUDGED, title=title, title_justify="left")
    for model, view in comparison.by_model.items():
        for name in _told_of(comparison):
            found = view.presets[name]
            table.add_row(model, name, *(shown(found[metric], metric) for metric in JUDGED))
    return table


def _told_of(comparison: Comparison) -> list[str]:
    """All presets, or of very many those that lead anywhere and those with 4 and 24 slots."""
    if len(comparison.names) <= _WIDEST:
        return comparison.names
    best = [leader(view, metric) for view in comparison.by_model.values() for metric in JUDGED]
    chosen = {found.name for found in best if found} | set(question(comparison) or ())
    return [name for name in comparison.names if name in chosen]


def _gates(comparison: Comparison) -> Table:
    gates = comparison.gates
    kinds = list(next(iter(gates.values())))
    table = Table(
        "preset", *kinds, title="gates: mean offers decided by each", title_justify="left"
    )
    for name, counts in gates.items():
        table.add_row(name, *(number(counts[gate], gate) for gate in kinds))
    return table
