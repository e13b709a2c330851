"""What the numbers rest on: how they were made, every parameter, every preset's policy."""

from collections.abc import Iterator
from typing import Any

from shared.box import BoxDeclaration
from shared.priority import Formula, Tables, TimeAndSize, WeightedSum, WeightedTerms
from shared.units import MS_PER_DAY, MS_PER_HOUR
from sim.report.findings import Findings
from sim.report.markup import Cell, Html, bullets, heading, joined, paragraph, row, table
from sim.report.parameters import parameters_of
from sim.report.words import counted


def assumptions(findings: Findings) -> Html:
    """How the numbers were made, and everything that they depend on."""
    return joined(
        [
            bullets(list(_how(findings))),
            heading("The presets"),
            _presets(findings),
            bullets(_tables_told(findings)),
            heading("The scenario"),
            _counted(findings),
            _scenario(findings),
        ]
    )


def _how(findings: Findings) -> Iterator[str]:
    comparison = findings.comparison
    world, done = comparison.world, len(comparison.done)
    begin, end = world.window_ms
    asked = "" if done == comparison.asked else f", at most {comparison.asked} asked for"
    yield f"{counted(done, 'replication')}{asked}, random seed {world.scenario.seed}."
    if comparison.stopped:
        yield "The run went on until its precision was reached or all replications were run."
        yield f"It stopped: {comparison.stopped}."
    yield (
        f"Each counts {(end - begin) / MS_PER_DAY:.4g} days; a warm-up before them "
        f"({world.scenario.warm_up_days:g} days) is run but not counted."
    )
    yield from _warm_up(findings)
    yield (
        "All presets meet the same offers with the same luck in each replication, so their "
        "differences are taken replication by replication and are surer than the means alone."
    )
    yield (
        "An interval holds the true mean of this model with 95% confidence (Student's t over the "
        "replications, or a bootstrap where t does not fit). It covers chance in the model, not "
        "whether the assumptions below are right."
    )
    yield (
        "A probability that one preset has more than another is the share of replications in which "
        "it has, with Wilson's interval; a tie is no win."
    )
    yield (
        "A job keeps its slot as long on a small slot as on a large one (the service parameters "
        "below). What comes of it in that time is the quality model's part."
    )
    yield from comparison.interval_warnings
    yield _box_told(world.box)


def _warm_up(findings: Findings) -> Iterator[str]:
    """Whether the slots had filled up when counting began."""
    complaints = findings.comparison.warm_up_warnings
    if complaints:
        yield from complaints
        return
    hours = [found.hours for found in findings.comparison.settling.values()]
    if hours:
        warm_up = findings.comparison.world.warm_up_ms / MS_PER_HOUR
        yield (
            f"The slots in use settle within {max(hours)} hours (MSER-5 on the mean of the "
            f"replications), which the warm-up of {warm_up:g} "
            "hours covers."
        )


def _box_told(box: BoxDeclaration) -> str:
    told = []
    if box.task_types is not None:
        told.append(f"task types {', '.join(sorted(box.task_types))}")
    if box.shortest_row is not None:
        told.append(f"models of which a row of {box.shortest_row:,} tokens fits a slot")
    return f"The box declares: {'; '.join(told)}." if told else "The box declares no limits."


def _presets(findings: Findings) -> Html:
    rows = []
    for name, policy in findings.policies.items():
        preset, layout = policy.preset, policy.preset.layout
        each = layout.gpus_per_slot
        cells = [
            Cell(str(preset.cap), key=preset.cap),
            Cell(f"{each:g}" if each >= 1 else f"1/{round(1 / each)}", key=each),
            Cell(f"{layout.memory_gb:.4g} GB", key=layout.memory_gb),
            Cell(f"{preset.time_limit_hours:g} h", key=preset.time_limit_hours),
            _threshold(preset.threshold),
            Cell(formula_told(preset.formula), kind="prose"),
        ]
        rows.append(row(name, cells))
    columns = [
        "preset",
        "cap",
        "GPUs a slot",
        "memory a slot",
        "longest job",
        "accepts",
        "priority",
    ]
    return table("What each preset does", columns, rows, ("priority",))


def _threshold(threshold: float | None) -> Cell:
    if threshold is None:
        return Cell("every priority")
    return Cell(f"priority over {threshold:g}", key=threshold)


def formula_told(formula: Formula) -> str:
    """The priority formula in words."""
    match formula:
        case WeightedTerms() | WeightedSum():
            return (
                f"{formula.weight:g} x (task weight + family performance + task success) + bonus "
                f"{formula.bonus:g} + hardware bonus {formula.hardware_bonus:g}, at most "
                f"{formula.ceiling:g}"
            )
        case TimeAndSize():
            return (
                f"{formula.weight:g} x (task weight + family performance + task success) + "
                f"{formula.time_weight:g} / hours to complete + {formula.size_weight:g} x "
                f"{formula.size_cap_b:g} / billions of parameters (at most {formula.size_weight:g})"
                f" + bonus {formula.bonus:g}, at least {formula.floor:g}"
            )


def _tables_told(findings: Findings) -> list[str]:
    """What the formulas look up, once where all presets share it."""
    told: dict[str, list[str]] = {}
    for name, policy in findings.policies.items():
        told.setdefault(_looked_up(policy.preset.tables), []).append(name)
    if len(told) == 1:
        return list(told)
    return [f"{', '.join(names)}: {found}" for found, names in told.items()]


def _looked_up(tables: Tables) -> str:
    def span(values: Any, default: float) -> str:
        known = [*values.values(), default]
        return f"{min(known):g} to {max(known):g}" if min(known) < max(known) else f"{default:g}"

    return (
        f"Looked up by task type and model family: task weight "
        f"{span(tables.task_weight, tables.default_task_weight)}, family performance "
        f"{span(tables.family_performance, tables.default_family_performance)}, task success "
        f"{span(tables.task_success, tables.default_task_success)}."
    )


def _counted(findings: Findings) -> Html:
    found = parameters_of(findings.comparison)
    assumed = sum(each.assumed for each in found)
    return paragraph(
        f"{assumed} of {len(found)} parameters are marked as assumed: no public source gives them. "
        "The market's rules themselves are its validator's, published."
    )


def _scenario(findings: Findings) -> Html:
    rows = [
        row(
            each.key,
            [
                Cell(each.value, kind="prose"),
                Cell("as shipped" if each.shipped else "set here"),
                Cell("assumed" if each.assumed else "", kind="assumed"),
                Cell(each.meaning, kind="prose"),
            ],
        )
        for each in parameters_of(findings.comparison)
    ]
    columns = ["parameter", "value", "origin", "assumed", "what it is"]
    return table("Every parameter of the scenario", columns, rows, ("value", "what it is"))
