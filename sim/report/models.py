"""Income and ranking under every quality model: the summary table, and every measure folded."""

from collections.abc import Iterator

from sim.comparison import Comparison
from sim.report.answer import UNDER, unit
from sim.report.findings import Findings
from sim.report.markup import Cell, Html, bullets, folded, joined, paragraph, row, table
from sim.report.standing import JUDGED, REVENUE, leader
from sim.report.tables import SIDE_BY_SIDE, by_measure, by_preset, chance_cell, gap_cell, mean_cell
from sim.report.words import sentence, share_of
from sim.season import SEASON_METRICS


def by_model(findings: Findings) -> Html:
    """What each model supposes, income and ranks under each, and all measures behind a fold."""
    views = findings.comparison.by_model
    supposed = [
        f"{model}: {UNDER.get(model, '').removeprefix('if ').split(' (')[0]}" for model in views
    ]
    summary = _pairs(findings) if len(findings.names) <= SIDE_BY_SIDE else _many(findings)
    rest = [
        folded(f"Every measure under the {model} model", _measures(view))
        for model, view in list(views.items())[1:]
    ]
    return joined(
        [
            paragraph(
                "The same jobs, with their outcomes under each model; the first is the one that "
                "the answer starts from. Each supposes:"
            ),
            bullets(supposed),
            summary,
            *rest,
        ]
    )


def _titles(view: Comparison) -> dict[str, str]:
    return {**JUDGED, REVENUE: f"{JUDGED[REVENUE]}, {unit(view)}"}


def _pairs(findings: Findings) -> Html:
    """A row for each measure and model; presets beside each other."""
    first, *others = findings.names
    rows = [
        row(
            sentence(title),
            [
                Cell(model, kind="prose"),
                *(mean_cell(view.presets[name][metric], metric) for name in findings.names),
                *(gap_cell(view.difference(other, metric)) for other in others),
                *(chance_cell(view.difference(other, metric)) for other in others),
            ],
        )
        for metric, title in _titles(findings.comparison).items()
        for model, view in findings.comparison.by_model.items()
    ]
    columns = ["measure", "model", *findings.names]
    columns += [f"{first} less {other}" for other in others]
    columns += [f"P({first} > {other})" for other in others]
    return table("Income and ranking under each quality model", columns, rows, ("model",))


def _many(findings: Findings) -> Html:
    """A row for each model and preset."""
    rows = [
        row(name, [Cell(model, kind="prose"), *_cells(view, name)])
        for model, view in findings.comparison.by_model.items()
        for name in findings.names
    ]
    columns = ["preset", "model", *_titles(findings.comparison).values()]
    best = bullets(list(_best(findings.comparison)))
    caption = "Income and ranking of each preset under each quality model"
    made = folded(caption, table(caption, columns, rows, ("model",)), is_open=len(rows) <= 15)
    return joined([best, made])


def _cells(view: Comparison, name: str) -> Iterator[Cell]:
    for metric in JUDGED:
        yield mean_cell(view.presets[name][metric], metric)


def _best(comparison: Comparison) -> Iterator[str]:
    """Who leads under each model, and how often it does when replications are drawn again."""
    for model, view in comparison.by_model.items():
        found = {metric: leader(view, metric) for metric in JUDGED}
        told = [
            f"{words} {best.name}{_chance(view, best.sure)}"
            for metric, words in JUDGED.items()
            if (best := found[metric]) is not None
        ]
        if told:
            yield f"{model}, best: {', '.join(told)}."


def _chance(view: Comparison, sure: float) -> str:
    """The share of resamples in which it leads; one replication cannot say."""
    return f" (best in {share_of(sure, 0)} of resamples)" if len(view.done) > 1 else ""


def _measures(view: Comparison) -> Html:
    metrics = list(SEASON_METRICS)
    if len(view.names) <= SIDE_BY_SIDE:
        return by_measure(view, metrics)
    return by_preset(view, metrics)
