"""The strategy document's claims: a verdict for each under each quality model, and why."""

from collections import Counter
from collections.abc import Iterator, Sequence

from sim.claims import ClaimVerdict, Verdict
from sim.comparison import Comparison
from sim.report.findings import Findings
from sim.report.markup import Cell, Html, bullets, folded, joined, paragraph, row, table
from sim.report.words import listed

MARKS: dict[Verdict, str] = {
    "holds": "\u2713",
    "fails": "\u2717",
    "assumed": "=",
    "cannot judge": "?",
}
"""A sign beside each verdict: it is told without the colour too."""
ORDER = {verdict: float(place) for place, verdict in enumerate(MARKS)}

MEANT: dict[Verdict, str] = {
    "holds": "the whole 95% interval meets the claim",
    "fails": "no number of the interval does",
    "assumed": "the model takes the claim as its input, so it confirms nothing",
    "cannot judge": "the interval straddles the claim, or what is needed is missing",
}


def claims(findings: Findings) -> Html:
    """The matrix of verdicts; beneath it, folded, what was observed and why."""
    verdicts = findings.comparison.claims
    counts = bullets([f"{model}: {told}" for model, told in counted_verdicts(findings.comparison)])
    why = table(
        "What was observed, and why the verdict is what it is",
        ["claim", "model", "verdict", "why"],
        [_reason(each, models) for each, models in alike(verdicts)],
        ("model", "why"),
    )
    return joined(
        [
            paragraph("Every number that the strategy document asserts, judged by each model."),
            bullets([f"{MARKS[each]} {each}: {meant}" for each, meant in MEANT.items()]),
            _matrix(findings.comparison),
            counts,
            folded("What was observed, and why", why),
        ]
    )


def _matrix(comparison: Comparison) -> Html:
    by_claim: dict[str, list[ClaimVerdict]] = {}
    for each in comparison.claims:
        by_claim.setdefault(each.id, []).append(each)
    rows = [
        row(claim, [_verdict(each) for each in found], small=found[0].claim)
        for claim, found in by_claim.items()
    ]
    caption = "Verdict on each claim under each quality model"
    return table(caption, ["claim", *comparison.models], rows, comparison.models)


def _verdict(each: ClaimVerdict) -> Cell:
    kind = f"verdict {each.verdict.replace(' ', '-')}"
    return Cell(f"{MARKS[each.verdict]} {each.verdict}", key=ORDER[each.verdict], kind=kind)


def _reason(each: ClaimVerdict, models: Sequence[str]) -> Html:
    cells = [Cell(listed(list(models)), kind="prose"), _verdict(each), Cell(each.why, kind="prose")]
    return row(each.id, cells)


def alike(verdicts: Sequence[ClaimVerdict]) -> Iterator[tuple[ClaimVerdict, list[str]]]:
    """One verdict for the models that give the same on the same grounds, with their names."""
    models: dict[tuple[str, str, str], list[ClaimVerdict]] = {}
    for each in verdicts:
        models.setdefault((each.id, each.verdict, each.why), []).append(each)
    for found in models.values():
        yield found[0], [each.quality_model for each in found]


def counted_verdicts(comparison: Comparison) -> Iterator[tuple[str, str]]:
    """Each model, and how many of the claims have which verdict under it."""
    for model in comparison.models:
        counts = Counter(each.verdict for each in comparison.claims if each.quality_model == model)
        yield model, listed([f"{counts[verdict]} {words}" for verdict, words in _COUNTED.items()
                             if counts[verdict]])  # fmt: skip


_COUNTED: dict[Verdict, str] = {
    "holds": "hold",
    "fails": "fail",
    "assumed": "assumed",
    "cannot judge": "cannot be judged",
}
