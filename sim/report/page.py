"""The report: one HTML file that opens without a network.

A section is a function of the findings; what the report grows by, is one more in ``SECTIONS``.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from string import Template

from sim.claims import contradictions
from sim.report.advantage import advantage, advantage_plot
from sim.report.answer import answer
from sim.report.assumptions import assumptions
from sim.report.caps import caps, caps_plot
from sim.report.claims_tables import claims
from sim.report.drawing import Plot, inline_svg
from sim.report.findings import Findings
from sim.report.income_plots import income_plot, ranks_plot
from sim.report.markup import Html, bullets, heading, joined, paragraph, text
from sim.report.mechanism import mechanism
from sim.report.models import by_model
from sim.report.plots import gates_plot, measures_plot
from sim.report.tables import gates, measures
from sim.report.time_plots import gantt_plot, slots_plot


@dataclass(frozen=True)
class Section:
    """A part of the page. plots: drawn in it, and written as files too, by their names."""

    key: str
    title: str
    content: Html
    plots: Sequence[Plot] = ()


def _answer(findings: Findings) -> Section:
    found = answer(findings.comparison)
    told = [
        paragraph(found.short, "answer"),
        paragraph(" ".join([found.setting, *found.primary])),
        bullets(found.others),
        paragraph(" ".join(found.depends)),
    ]
    why = mechanism(findings)
    if why:
        told.append(heading("Why"))
    for model, steps in why.items():
        told += [heading(f"Under the {model} model", 4), bullets(steps)]
    return Section("answer", "The answer", joined(told))


def _comparison(findings: Findings) -> Section:
    return Section("comparison", "Comparison", measures(findings), [measures_plot(findings)])


def _models(findings: Findings) -> Section:
    plots = [income_plot(findings), ranks_plot(findings)]
    return Section("models", "Income and ranking by model", by_model(findings), plots)


def _claims(findings: Findings) -> Section:
    return Section("claims", "The document's claims", claims(findings))


def _contradictions(_findings: Findings) -> Section:
    told = paragraph("Where the strategy document's own numbers exclude each other:")
    return Section("contradictions", "Contradictions in the document",
                   joined([told, bullets(contradictions())]))  # fmt: skip


def _break_even(findings: Findings) -> Section | None:
    if not findings.comparison.advantages:
        return None
    return Section("break-even", "Break-even", advantage(findings), [advantage_plot(findings)])


def _caps(findings: Findings) -> Section | None:
    if not findings.caps:
        return None
    return Section("caps", "The best cap", caps(findings), [caps_plot(findings)])


def _over_time(findings: Findings) -> Section:
    told = paragraph("One replication as it happened. Presets meet the same offers.")
    return Section("time", "Slots over time", told, [gantt_plot(findings), slots_plot(findings)])


def _gates(findings: Findings) -> Section:
    return Section("gates", "Gate audit", gates(findings), [gates_plot(findings)])


def _assumptions(findings: Findings) -> Section:
    return Section("assumptions", "Assumptions", assumptions(findings))


SECTIONS: Sequence[Callable[[Findings], Section | None]] = (
    _answer,
    _comparison,
    _models,
    _claims,
    _contradictions,
    _break_even,
    _caps,
    _over_time,
    _gates,
    _assumptions,
)
"""The report, from top to bottom; None where the findings have nothing for a section."""


def sections_of(findings: Findings) -> list[Section]:
    """Every section that the findings give something for, made."""
    return [section for make in SECTIONS if (section := make(findings)) is not None]


def page(findings: Findings, sections: Sequence[Section]) -> str:
    """The whole page."""
    scenario = findings.comparison.world.scenario
    return Template(_part("report.html")).substitute(
        title=text(scenario.name),
        description=paragraph(scenario.description, "lead") if scenario.description else "",
        contents="".join(
            f'<li><a href="#{section.key}">{text(section.title)}</a></li>' for section in sections
        ),
        sections=joined(_section(section) for section in sections),
        style=_part("report.css"),
        script=_part("report.js"),
    )


def _section(section: Section) -> Html:
    figures = joined(_figure(plot) for plot in section.plots)
    return Html(
        f'<section id="{section.key}" aria-labelledby="{section.key}-title">\n'
        f'<h2 id="{section.key}-title">{text(section.title)}</h2>\n'
        f"{section.content}\n{figures}\n</section>"
    )


def _figure(plot: Plot) -> Html:
    return Html(
        f'<figure id="plot-{plot.name}"><h3>{text(plot.title)}</h3>\n'
        f'<div class="plot" role="img" aria-label="{text(plot.alt)}" tabindex="0">\n'
        f"{inline_svg(plot)}\n</div>\n<figcaption>{text(plot.caption)}</figcaption></figure>"
    )


def _part(name: str) -> str:
    return (files("sim.report") / name).read_text(encoding="utf-8")
