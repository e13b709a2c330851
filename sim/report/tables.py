"""The tables of the report: measures, differences, gates."""

from collections.abc import Iterator

from shared.decisions import Gate, Policy
from sim.comparison import Difference, silent_gates
from sim.measures import METRICS
from sim.output_analysis import Estimate
from sim.report.answer import served_as_they_come
from sim.report.findings import Findings
from sim.report.markup import Cell, Html, bullets, folded, heading, joined, paragraph, row, table
from sim.report.plots import gate_shares
from sim.report.words import (
    counted,
    gap_interval_of,
    gap_of,
    interval_of,
    listed,
    mean_of,
    verdict_of,
)

_SIDE_BY_SIDE = 3
"""Presets with a column each; more get a row each."""
_SHORT = 30
"""Rows of differences that are shown unfolded."""


def measures(findings: Findings) -> Html:
    """Every measure of every preset with its interval, and the differences from the first."""
    if len(findings.names) <= _SIDE_BY_SIDE:
        return _by_measure(findings)
    rows = [
        row(name, [_mean(found[metric], metric) for metric in METRICS])
        for name, found in findings.presets.items()
    ]
    caption = "Measures of each preset: mean, and its 95% interval"
    meaning = [f"{metric}: {meant}" for metric, meant in METRICS.items()]
    return joined([table(caption, ["preset", *METRICS], rows), bullets(meaning), _gaps(findings)])


def _by_measure(findings: Findings) -> Html:
    first, *others = findings.names
    rows = [
        row(
            metric,
            [_mean(findings.presets[name][metric], metric) for name in findings.names]
            + [_gap(gap) for gap in findings.differences if gap.metric == metric],
            small=METRICS[metric],
        )
        for metric in METRICS
    ]
    columns = ["measure", *findings.names, *(f"{first} less {other}" for other in others)]
    return table("Measures and differences: mean, and its 95% interval", columns, rows)


def _mean(found: Estimate | None, metric: str) -> Cell:
    key = None if found is None else found.mean
    return Cell(mean_of(found, metric), interval_of(found, metric), key)


def _gap(gap: Difference) -> Cell:
    found = gap.estimate
    key = None if found is None else found.mean
    kind = "sure" if verdict_of(found) in ("more", "less") else ""
    return Cell(gap_of(found, gap.metric), gap_interval_of(found, gap.metric), key, kind)


def _gaps(findings: Findings) -> Html:
    """The differences of many presets, a row each, folded when there are very many."""
    first = findings.names[0]
    rows = [
        row(gap.b, [Cell(gap.metric), _gap(gap), Cell(verdict_of(gap.estimate))])
        for gap in findings.differences
    ]
    caption = f"{first} less each other preset: mean difference, and its 95% interval"
    columns = ["preset", "measure", "difference", f"{first} has"]
    return folded(caption, table(caption, columns, rows), is_open=len(rows) <= _SHORT)


def gates(findings: Findings) -> Html:
    """How many offers each gate decided, and what the silent ones mean."""
    counts = findings.comparison.gates
    labels = [gate.label for gate in Gate]
    rows = []
    for name in findings.names:
        shares = gate_shares(counts[name])
        rows.append(row(name, [_count(counts[name][gate], shares[gate]) for gate in labels]))
    caption = "Offers that each gate decided: mean of a replication, and share of all"
    return joined(
        [
            paragraph(
                "An offer meets the gates from left to right; the first one that it fails "
                "refuses it, and one that fails none is accepted."
            ),
            table(caption, ["preset", *labels], rows),
            heading("Gates that never decided an offer"),
            bullets(list(silent(findings))) or paragraph("None: every gate decided some offers."),
            *_in_effect(findings),
        ]
    )


def _count(count: float, share: float) -> Cell:
    shown = f"{count:,.0f}" if count >= 100 or count == int(count) else f"{count:.1f}"
    return Cell(shown, f"{share:.1%}" if count else "", count, "" if count else "none")


def silent(findings: Findings) -> Iterator[str]:
    """One plain sentence for each gate that never decided, with the presets it stands in."""
    by_gate: dict[str, list[str]] = {}
    for name, counts in findings.comparison.gates.items():
        for gate in silent_gates(counts, findings.policies[name]):
            by_gate.setdefault(gate, []).append(name)
    for gate, names in by_gate.items():
        who = "every preset" if len(names) == len(findings.names) else listed(names)
        yield f"{gate} ({who}): {_meaning(findings, gate, names)}"


def _meaning(findings: Findings, gate: str, names: list[str]) -> str:
    policies = [findings.policies[name] for name in names]
    match gate:
        case "capacity":
            return "no offer ever met a full box; fewer slots may have been enough."
        case "time":
            return _time_meaning(findings, policies)
        case "priority":
            return _priority_meaning(findings, names, policies)
    return "every offer was one that the box declares it can train."


def _time_meaning(findings: Findings, policies: list[Policy]) -> str:
    limits = listed([f"{each:g}" for each in sorted({p.preset.time_limit_hours for p in policies})])
    hours, run = findings.first.workload.stream.hours, findings.first.number
    longest = f"; the longest of replication {run} asked for {hours.max():g}" if len(hours) else ""
    return (
        f"no offer was longer than allowed ({limits} hours){longest}. "
        "On this stream the gate could be left out."
    )


def _priority_meaning(findings: Findings, names: list[str], policies: list[Policy]) -> str:
    thresholds = listed(
        [f"{least:g}" for least in sorted({p.preset.threshold or 0 for p in policies})]
    )
    scores = [findings.first.decisions[name].priority for name in names]
    seen = [column for column in scores if len(column)]
    span = (
        f" (replication {findings.first.number} has priorities from "
        f"{min(column.min() for column in seen):.3f} to {max(column.max() for column in seen):.3f})"
        if seen
        else ""
    )
    return (
        f"every offer that reached it was over the threshold ({thresholds}){span}. "
        "On this stream the formula sorts nothing and the gate could be left out."
    )


def _in_effect(findings: Findings) -> list[Html]:
    plain = [name for name in findings.names if served_as_they_come(findings, name)]
    if not plain or len(plain) > _SIDE_BY_SIDE + 1:
        return []
    told = listed(
        [f"{name} on {counted(findings.policies[name].preset.cap, 'slot')}" for name in plain]
    )
    return [paragraph(f"In effect, on this stream, this is first come, first served: {told}.")]
