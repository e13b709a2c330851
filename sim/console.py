"""What ``compare`` prints for a person at a terminal."""

from rich.console import Console
from rich.table import Table

from sim.comparison import Comparison, Difference
from sim.measures import METRICS, SHARES
from sim.output_analysis import Estimate

LOSSES = frozenset({"test_loss", "synth_loss"})
SMALL = frozenset({"mean_score", "revenue_per_day"})
MILLION = 1_000_000
_WIDEST = 4
"""Presets shown side by side; more are shown as one row each."""


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


def number(value: float, metric: str) -> str:
    """One number in the form that suits its measure."""
    if metric in SHARES:
        return f"{100 * value:.1f}%"
    if metric in LOSSES:
        return f"{value:.3f}"
    if abs(value) >= MILLION:
        return f"{value / MILLION:,.1f}M"
    if metric in SMALL and abs(value) < 100:
        return f"{value:.2f}"
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.1f}"


def print_comparison(comparison: Comparison, console: Console) -> None:
    """Print the measures, the differences and the gate audit."""
    console.print(_measures(comparison))
    console.print(_gates(comparison))
    for warning in comparison.warnings:
        console.print(f"note: {warning}", style="yellow", soft_wrap=True, markup=False)


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
    chosen = ("accepted", "acceptance_rate", "slot_utilisation", "gpu_hours")
    table = Table("preset", *chosen, title=_title(comparison), title_justify="left")
    for name, measures in comparison.presets.items():
        table.add_row(name, *(shown(measures[metric], metric) for metric in chosen))
    return table


def _gates(comparison: Comparison) -> Table:
    gates = comparison.gates
    kinds = list(next(iter(gates.values())))
    table = Table(
        "preset", *kinds, title="gates: mean offers decided by each", title_justify="left"
    )
    for name, counts in gates.items():
        table.add_row(name, *(number(counts[gate], gate) for gate in kinds))
    return table
