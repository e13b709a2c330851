"""The tables of the report: measures, differences, gates."""

from collections.abc import Iterator
from math import isfinite

from shared.decisions import Gate, Policy
from sim.comparison import Comparison, Difference, silent_gates
from sim.measures import METRICS
from sim.output_analysis import Estimate
from sim.report.findings import Findings
from sim.report.markup import Cell, Html, bullets, folded, heading, joined, paragraph, row, table
from sim.report.plots import gate_shares
from sim.report.standing import JUDGED
from sim.report.words import (
    counted,
    gap_interval_of,
    gap_of,
    interval_of,
    listed,
    mean_of,
)

SIDE_BY_SIDE = 3
"""Presets with a column each; more get a row each."""
_SHORT = 30
"""Rows of differences that are shown unfolded."""
_SIGNIFICANT = 0.05


def measures(findings: Findings) -> Html:
    """Every measure of every preset with its interval, and the differences from the first."""
    view, metrics = findings.comparison, list(METRICS)
    told = paragraph(
        f"Outcomes under the {view.models[0]} model. A difference in bold is sure: p under "
        f"{_SIGNIFICANT:g} in the paired test, corrected for the number of presets (Holm)."
    )
    if len(view.names) <= SIDE_BY_SIDE:
        return joined([told, by_measure(view, metrics)])
    meaning = [f"{metric}: {meant}" for metric, meant in METRICS.items()]
    return joined(
        [
            told,
            by_preset(view, metrics),
            folded("What the measures mean", bullets(meaning)),
            _gaps(findings),
        ]
    )


def by_preset(view: Comparison, metrics: list[str]) -> Html:
    """A row for each preset."""
    metrics = [*JUDGED, *(metric for metric in metrics if metric not in JUDGED)]
    rows = [
        row(name, [mean_cell(found[metric], metric) for metric in metrics])
        for name, found in view.presets.items()
    ]
    caption = "Measures of each preset: mean, and its 95% interval"
    return table(caption, ["preset", *metrics], rows)


def by_measure(view: Comparison, metrics: list[str]) -> Html:
    """A row for each measure; the presets, their differences and who has more beside each other."""
    first, *others = view.names
    rows = [
        row(
            metric,
            [mean_cell(view.presets[name][metric], metric) for name in view.names]
            + [gap_cell(view.difference(other, metric)) for other in others]
            + [chance_cell(view.difference(other, metric)) for other in others],
            small=METRICS[metric],
        )
        for metric in metrics
    ]
    columns = ["measure", *view.names, *(f"{first} less {other}" for other in others)]
    columns += [f"P({first} > {other})" for other in others]
    return table("Measures and differences: mean, and its 95% interval", columns, rows)


def mean_cell(found: Estimate | None, metric: str) -> Cell:
    """A mean with its interval."""
    key = None if found is None else found.mean
    return Cell(mean_of(found, metric), interval_of(found, metric), key)


def gap_cell(gap: Difference) -> Cell:
    """A difference with its interval, in bold where it is sure."""
    found = gap.estimate
    key = None if found is None else found.mean
    kind = "sure" if gap.p_adjusted < _SIGNIFICANT else ""
    return Cell(gap_of(found, gap.metric), gap_interval_of(found, gap.metric), key, kind)


def chance_cell(gap: Difference) -> Cell:
    """The probability that the first preset has more."""
    found = gap.a_over_b
    if found is not None and gap.estimate is not None and not _apart(gap.estimate):
        return Cell("always equal", kind="none")
    key = None if found is None else found.mean
    return Cell(mean_of(found, _RATE), interval_of(found, _RATE), key)


def _apart(gap: Estimate) -> bool:
    """Whether the presets differ in any replication, as far as the difference tells."""
    return bool(gap.mean or gap.lo or gap.hi)


_RATE = "success_rate"
"""A measure that is written as a probability is."""


def _gaps(findings: Findings) -> Html:
    """The differences of many presets, a row each, folded when there are very many."""
    first = findings.names[0]
    rows = [
        row(gap.b, [Cell(gap.metric), gap_cell(gap), chance_cell(gap), _p(gap)])
        for gap in findings.differences
    ]
    caption = f"{first} less each other preset: mean difference, and its 95% interval"
    columns = ["preset", "measure", "difference", f"P({first} has more)", "p (Holm)"]
    return folded(caption, table(caption, columns, rows), is_open=len(rows) <= _SHORT)


def _p(gap: Difference) -> Cell:
    """An adjusted p value as people write it."""
    if not isfinite(gap.p_adjusted):
        return Cell("not known")
    told = "< 0.001" if gap.p_adjusted < 0.001 else f"{gap.p_adjusted:.3f}"
    return Cell(told, key=gap.p_adjusted)


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


def served_as_they_come(findings: Findings, name: str) -> bool:
    """Whether a free slot was all that an offer needed."""
    counts = findings.comparison.gates[name]
    return not (counts["time"] or counts["priority"] or counts["unsupported"])


def _in_effect(findings: Findings) -> list[Html]:
    plain = [name for name in findings.names if served_as_they_come(findings, name)]
    if not plain or len(plain) > SIDE_BY_SIDE + 1:
        return []
    told = listed(
        [f"{name} on {counted(findings.policies[name].preset.cap, 'slot')}" for name in plain]
    )
    return [paragraph(f"In effect, on this stream, this is first come, first served: {told}.")]
