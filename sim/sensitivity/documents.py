"""The studies as documents (JSON) and as tables for a person at a terminal."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table

from sim.console import gap_shown, shown
from sim.output_analysis import Estimate, estimate
from sim.report.words import number
from sim.sensitivity.cap_curve import CapCurve
from sim.sensitivity.indices import MorrisEffect, SobolIndex
from sim.sensitivity.one_at_a_time import FLIPS, IN_DOUBT, VANISHES, Bar, side_of
from sim.sensitivity.parameters import Parameter
from sim.sensitivity.study import CAP_METRICS, Question


def heading(question: Question) -> dict[str, Any]:
    """What every document about a difference begins with."""
    scenario = question.world.scenario
    begin_ms, end_ms = question.world.window_ms
    return {
        "scenario": scenario.name,
        "seed": scenario.seed,
        "days": (end_ms - begin_ms) / 86_400_000,
        "replications": question.replications,
        "quality_model": question.model,
        "metric": question.metric,
        "a": question.names[0],
        "b": question.names[1],
    }


def tornado_document(question: Question, bars: Sequence[Bar]) -> dict[str, Any]:
    """The document of a tornado."""
    return {
        **heading(question),
        "base": written(estimate(bars[0].base)),
        "parameters": [
            {
                **_range(bar.parameter),
                "value": _named(bar.parameter, bar.value),
                "at_low": written(bar.at_low),
                "at_high": written(bar.at_high),
                "high_less_low": written(bar.change),
                "swing": bar.swing,
                "answer": bar.answer,
            }
            for bar in bars
        ],
    }


def _range(each: Parameter) -> dict[str, Any]:
    return {
        "key": each.key,
        "label": each.label,
        "low": _named(each, each.low),
        "high": _named(each, each.high),
        "why": each.why,
    }


def _named(each: Parameter, value: float) -> float | str:
    told = each.shown(value)
    return value if told[:1].isdigit() or told[:1] == "-" else told


def written(found: Estimate | None) -> dict[str, float | None]:
    """An estimate as a document has it; nulls where nothing is known."""
    return asdict(found) if found else {"mean": None, "lo": None, "hi": None}


def tornado_table(question: Question, bars: Sequence[Bar]) -> Table:
    """The tornado, the widest swing first."""
    metric = question.metric
    at_base = gap_shown(estimate(bars[0].base), metric)
    table = Table(
        title=f"{_title(question)}: {at_base} as the scenario says",
        title_justify="left",
    )
    for name in ("parameter", "is", "low", "high", "at low", "at high", "swing", "answer"):
        right = name not in ("parameter", "answer")
        table.add_column(name, justify="right" if right else "left", no_wrap=True)
    for bar in bars:
        each = bar.parameter
        table.add_row(
            each.label, *map(each.shown, (_short(bar.value), each.low, each.high)),
            gap_shown(bar.at_low, metric), gap_shown(bar.at_high, metric),
            _gap(bar.swing, metric), bar.answer,
        )  # fmt: skip
    return table


def _gap(value: float, metric: str) -> str:
    return number(value, metric).replace("%", " pp")


def _short(value: float) -> float:
    return float(f"{value:.4g}") if abs(value) < 1000 else value


def _title(question: Question) -> str:
    a, b = question.names
    return (
        f"{question.world.scenario.name}: {question.metric}, {a} less {b}, under "
        f"{question.model}, {question.replications} replications, mean [95% interval]"
    )


def tornado_notes(question: Question, bars: Sequence[Bar]) -> list[str]:
    """Which parameters turn the answer round, and what cannot be told."""
    a, b = question.names
    side = side_of(estimate(bars[0].base))
    told = {1: f"{a} has more", -1: f"{b} has more", 0: "which has more is not known"}[side]
    lines = [f"as the scenario says {told} of {question.metric}"]
    for answer, words in _WORDS.items():
        found = [f"{bar.parameter.label} ({_where(bar)})" for bar in bars if bar.answer == answer]
        if found:
            lines.append(f"within their ranges {words}: {', '.join(found)}")
    if all(bar.answer not in _WORDS for bar in bars):
        lines.append("no parameter, varied alone within its range, changes that")
    if question.replications < 2:
        lines.append("one replication says nothing of how sure this is: no intervals")
    return lines


_WORDS = {
    FLIPS: "turn the answer round",
    VANISHES: "make the two the same in every replication",
    IN_DOUBT: "leave it in doubt",
}


def _where(bar: Bar) -> str:
    """At which ends the difference is on another side than as the scenario says."""
    side = side_of(estimate(bar.base))
    ends = ((bar.parameter.low, bar.at_low), (bar.parameter.high, bar.at_high))
    other = [bar.parameter.shown(value) for value, found in ends if side_of(found) != side]
    return f"at {' and '.join(other)}" if other else "at neither end"


def morris_document(question: Question, effects: Sequence[MorrisEffect]) -> dict[str, Any]:
    """The document of a screening."""
    return {
        **heading(question),
        "parameters": [
            {**_range(each.parameter), "mu_star": each.mu_star, "mu_star_half": each.half,
             "sigma": each.sigma}
            for each in effects
        ],
    }  # fmt: skip


def morris_table(question: Question, effects: Sequence[MorrisEffect]) -> Table:
    """The screening, the largest effect first."""
    table = Table(title=f"{_title(question)}: Morris", title_justify="left")
    for name in ("parameter", "low", "high", "mean effect +-", "sigma"):
        table.add_column(name, justify="left" if name == "parameter" else "right", no_wrap=True)
    for effect in effects:
        each, metric = effect.parameter, question.metric
        table.add_row(
            each.label, each.shown(each.low), each.shown(each.high),
            f"{_gap(effect.mu_star, metric)} +- {_gap(effect.half, metric)}",
            _gap(effect.sigma, metric),
        )  # fmt: skip
    return table


def sobol_document(question: Question, indices: Sequence[SobolIndex]) -> dict[str, Any]:
    """The document of Sobol' indices."""
    return {
        **heading(question),
        "parameters": [
            {**_range(each.parameter), "first": each.first, "first_half": each.first_half,
             "total": each.total, "total_half": each.total_half}
            for each in indices
        ],
    }  # fmt: skip


def sobol_table(question: Question, indices: Sequence[SobolIndex]) -> Table:
    """The indices, the largest total first."""
    table = Table(title=f"{_title(question)}: Sobol'", title_justify="left")
    for name in ("parameter", "low", "high", "alone +-", "with interactions +-"):
        table.add_column(name, justify="left" if name == "parameter" else "right", no_wrap=True)
    for index in indices:
        each = index.parameter
        table.add_row(
            each.label, each.shown(each.low), each.shown(each.high),
            f"{index.first:.2f} +- {index.first_half:.2f}",
            f"{index.total:.2f} +- {index.total_half:.2f}",
        )  # fmt: skip
    return table


def caps_document(curves: Mapping[str, CapCurve]) -> dict[str, Any]:
    """The curves over caps, by quality model."""
    return {
        model: {
            "caps": [
                {"cap": point.cap, **{key: written(found) for key, found in point.measures.items()}}
                for point in curve.points
            ],
            "best": {key: asdict(best) for key, best in curve.best.items()},
        }
        for model, curve in curves.items()
    }


def caps_table(title: str, curve: CapCurve) -> Table:
    """One quality model's curve."""
    table = Table(title=title, title_justify="left")
    for name in ("cap", *CAP_METRICS):
        table.add_column(name, justify="right", no_wrap=True)
    for point in curve.points:
        table.add_row(str(point.cap), *(shown(point.measures[key], key) for key in CAP_METRICS))
    return table


def caps_notes(model: str, curve: CapCurve) -> list[str]:
    """The best cap of each measure, and which others may be as good."""
    return [
        f"{model}: the highest mean {metric} is at cap {best.cap}"
        + (
            f"; not told apart from it: {', '.join(map(str, best.rivals))}"
            if best.rivals
            else ", told apart from every other cap"
        )
        + f" (highest in {best.confidence:.0%} of resamples)"
        for metric, best in curve.best.items()
    ]
