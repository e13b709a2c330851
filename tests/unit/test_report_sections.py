"""The sections of the report: each shows what the comparison holds."""

import io
import re

import numpy as np
import pytest
from rich.console import Console

from sim.claims import CLAIMS, contradictions
from sim.comparison import compared
from sim.console import print_comparison
from sim.experiment import World, replications
from sim.report.advantage import advantage_plot
from sim.report.caps import caps_plot, curves
from sim.report.claims_tables import MARKS, alike, counted_verdicts
from sim.report.findings import findings_of
from sim.report.income_plots import income_plot, ranks_plot
from sim.report.mechanism import compute_of, mechanism
from sim.report.page import sections_of
from sim.report.parameters import parameters_of
from sim.report.standing import FIRST_PLACE, JUDGED, REVENUE
from sim.scenario import parse_scenario

STOPPED = "the interval is narrow enough"


def findings(count=3, **content):
    content = {"name": "trial", "days": 4, "replications": count, **content}
    world = World(parse_scenario(content, "trial"))
    return findings_of(compared(world, count, list(replications(world, count, 1)), STOPPED))


@pytest.fixture(scope="module")
def pair():
    return findings()


@pytest.fixture(scope="module")
def sweep():
    return findings(presets=[{"base": "accuracy_4", "name": f"cap_{cap}", "cap": cap}
                             for cap in (1, 4, 8, 12, 24)])  # fmt: skip


@pytest.fixture(scope="module")
def sections(pair):
    return {section.key: section.content for section in sections_of(pair)}


def rows_of(html):
    """The cells of every row, by its head and in order."""
    found = re.findall(r'<tr><th scope="row">(.*?)</th>(.*?)</tr>', html)
    plain = [(re.sub(r" ?<small>.*?</small>", "", head), cells) for head, cells in found]
    return [(head, re.findall(r"<td[^>]*>(.*?)</td>", cells)) for head, cells in plain]


def test_sections_stand_in_the_order_of_the_question(pair, sweep):
    keys = [section.key for section in sections_of(pair)]
    assert keys == ["answer", "comparison", "models", "claims", "contradictions", "break-even",
                    "time", "gates", "assumptions"]  # fmt: skip
    assert "caps" in [section.key for section in sections_of(sweep)]


def test_the_comparison_has_the_probability_of_more(pair, sections):
    cells = dict(rows_of(sections["comparison"]))
    gap = pair.comparison.difference("throughput_24", "accepted")
    assert cells["accepted"][-1].startswith(f"{100 * gap.a_over_b.mean:.1f}%")
    assert cells["offers"][-1] == "always equal"


def test_income_and_ranks_stand_under_every_model(pair, sections):
    found = [(head, cells[0]) for head, cells in rows_of(sections["models"])]
    for model in pair.comparison.models:
        assert ("Revenue a day, tokens", model) in found
        assert ("First place", model) in found
        assert ("Mean rank percentile", model) in found
    for model in pair.comparison.models[1:]:
        assert f"Every measure under the {model} model" in sections["models"]


def test_a_sweep_has_a_row_for_each_preset_and_model(sweep):
    content = {section.key: section.content for section in sections_of(sweep)}["models"]
    found = {(head, cells[0]) for head, cells in rows_of(content) if len(cells) == 1 + len(JUDGED)}
    assert found == {(name, model) for name in sweep.names for model in sweep.comparison.models}
    assert "best: revenue a day" in content


def test_every_claim_has_a_verdict_under_every_model(pair, sections):
    comparison = pair.comparison
    matrix = dict(rows_of(sections["claims"])[: len(CLAIMS)])
    assert list(matrix) == [claim.id for claim in CLAIMS]
    for row in comparison.claims:
        told = matrix[row.id][comparison.models.index(row.quality_model)]
        assert told == f"{MARKS[row.verdict]} {row.verdict}"


def test_every_reason_is_told_once(pair, sections):
    merged = list(alike(pair.comparison.claims))
    assert sum(len(models) for _, models in merged) == len(pair.comparison.claims)
    reasons = rows_of(sections["claims"])[len(CLAIMS) :]
    assert len(reasons) == len(merged)
    memory = [cells for head, cells in reasons if head == "memory"]
    assert [cells[0] for cells in memory] == ["physical, claims and neutral"]


def test_verdicts_are_counted(pair):
    for _, counts in counted_verdicts(pair.comparison):
        assert sum(int(number) for number in re.findall(r"\d+", counts)) == len(CLAIMS)


def test_contradictions_are_all_there(sections):
    assert sections["contradictions"].count("<li>") == len(contradictions()) == 3


def test_dots_are_the_replications(pair):
    figure = income_plot(pair).figure
    for place, (model, view) in enumerate(pair.comparison.by_model.items()):
        earned, gaps = figure.axes[2 * place : 2 * place + 2]
        assert earned.get_title(loc="left").startswith(model)
        assert earned.lines[0].get_xdata().tolist() == view.values("accuracy_4", REVENUE)
        less = np.subtract(*(view.values(name, REVENUE) for name in view.names))
        assert gaps.lines[0].get_xdata().tolist() == less.tolist()
    ranks = ranks_plot(pair).figure.axes
    assert ranks[0].lines[0].get_xdata().tolist() == pair.comparison.values(
        "accuracy_4", FIRST_PLACE
    )


def test_the_break_even_plot_marks_the_crossing(pair):
    found = pair.comparison.advantages[0]
    figure = advantage_plot(pair).figure
    drawn = figure.axes[0].lines[0]
    assert drawn.get_xdata().tolist() == list(found.lower)
    assert drawn.get_ydata().tolist() == [gap.mean for gap in found.gap]
    marks = [line.get_xdata()[0] for axes in figure.axes for line in axes.lines
             if line.get_marker() == "D"]  # fmt: skip
    value = found.break_even.value
    assert marks == ([] if value is None else [value.mean, value.mean])


def test_the_cap_curve_marks_the_best_cap(sweep):
    figure = caps_plot(sweep).figure
    for place, curve in enumerate(curves(sweep).values()):
        axes = figure.axes[2 * place]
        assert axes.lines[0].get_xdata().tolist() == [1, 4, 8, 12, 24]
        best = [line.get_xdata()[0] for line in axes.lines if line.get_marker() == "D"]
        assert best == [curve.best[REVENUE].cap]
    content = {section.key: section.content for section in sections_of(sweep)}["caps"]
    assert len(rows_of(content)) == len(JUDGED) * len(sweep.comparison.models)


def test_every_parameter_of_the_market_is_shown(pair, sections):
    shown = dict(rows_of(sections["assumptions"]))
    keys = [each.key for each in parameters_of(pair.comparison)]
    assert len(keys) == len(set(keys))
    assert set(keys) <= set(shown)
    for key, assumed in (
        ("market.quality.physical.hfu", True),
        ("market.quality.physical.peak_tflops", False),
        ("market.field.miners", True),
        ("market.emission_per_day", True),
    ):
        assert ("assumed" in shown[key]) == assumed


def test_the_assumptions_tell_of_the_warm_up_and_the_stop(sections):
    assert f"It stopped: {STOPPED}." in sections["assumptions"]
    assert re.search(r"settle within \d+ hours|slots in use", sections["assumptions"])


def test_the_mechanism_is_computed(pair):
    told = mechanism(pair)
    jobs = [pair.presets[name]["jobs_completed"].mean for name in pair.names]
    assert f"throughput_24 completes {jobs[1] / jobs[0]:.3g} times the jobs" in told["physical"][0]
    four, many = (compute_of(pair, name) for name in pair.names)
    both, here, there = np.intersect1d(four.offer, many.offer, return_indices=True)
    assert (four.gpus == 2.0).all()
    assert (many.gpus >= 1 / 3 - 1e-9).all()
    step = next(each for each in told["physical"] if "that both took" in each)
    assert f"On the {len(both)} jobs" in step
    assert f"2.00 GPUs against {many.gpus[there].mean():.2f}" in step
    had = np.exp(np.log(2.0 / many.gpus[there]).mean())
    trained = np.exp(np.log(four.tokens[here] / many.tokens[there]).mean())
    assert f"{had:.3g} times as much; a GPU trained {trained / had:.3g} times" in step
    assert any("earns nothing: its mean score is" in each for each in told["claims"])
    assert not any("tokens" in each for each in told["neutral"])


def test_presets_that_are_alike_have_a_mechanism_without_nonsense():
    presets = ["accuracy_4", {"base": "accuracy_4", "name": "again"}]
    steps = mechanism(findings(2, presets=presets)).values()
    told = " ".join(step for each in steps for step in each)
    assert "1 times the jobs" in told
    assert "nan" not in told


def test_the_console_has_the_answer_in_the_same_words(pair, sections):
    out = io.StringIO()
    print_comparison(pair.comparison, Console(file=out, width=160))
    printed = " ".join(out.getvalue().split())
    short = re.findall(r'<p class="answer">(.*?)</p>', sections["answer"])[0]
    assert short in printed
    assert "Claims: physical" in printed
    assert f"stopped: {STOPPED}" in printed
    for model in pair.comparison.models:
        assert re.search(rf"│ {model} +│ accuracy_4 +│", out.getvalue())
    assert max(len(line) for line in out.getvalue().splitlines() if "note" not in line) <= 160


def test_the_console_of_a_sweep_stays_short(sweep):
    out = io.StringIO()
    print_comparison(sweep.comparison, Console(file=out, width=160))
    assert "revenue_per_day" in out.getvalue()
    assert all(f"│ {name} " in out.getvalue() for name in sweep.names)
