"""Claims about what the simulation measures: judged by the whole 95% interval."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from sim.claims.document import (
    POSITIVE,
    RATES,
    SUCCESS,
    SYNTH_LOSS_REDUCTION,
    TEST_LOSS_REDUCTION,
    Claimed,
)
from sim.claims.evidence import Evidence, Finding, Unjudgeable, Verdict
from sim.output_analysis import Estimate, fitted

RATE = (0.0, 1.0)


def percent(value: float) -> str:
    """A share as a percentage.

    >>> percent(0.125)
    '12.5%'
    """
    return f"{100 * value:.1f}%"


def plain(value: float) -> str:
    """A number with four significant digits."""
    return f"{value:,.4g}"


@dataclass(frozen=True, slots=True)
class Part:
    """One half of a claim: what was measured of what, and what was claimed of it."""

    label: str
    found: Estimate | None
    claimed: Claimed
    written: Callable[[float], str] = percent

    @property
    def verdict(self) -> Verdict:
        """Holds or fails only when the whole interval says so."""
        if self.found is None or self.found.lo is None or self.found.hi is None:
            return "cannot judge"
        if self.claimed.contains(self.found.lo, self.found.hi):
            return "holds"
        if self.claimed.excludes(self.found.lo, self.found.hi):
            return "fails"
        return "cannot judge"

    @property
    def why(self) -> str:
        """The measured interval in words, and where it lies."""
        if self.found is None:
            return f"{self.label}: no replication gave a value"
        mean = f"{self.label} {self.written(self.found.mean)}"
        if self.found.lo is None or self.found.hi is None:
            return f"{mean}: one replication has no interval"
        interval = f"[{self.written(self.found.lo)}, {self.written(self.found.hi)}]"
        if self.found.lo == self.found.hi:
            interval = "in every replication"
        if self.verdict == "cannot judge":
            return f"{mean}: the interval {interval} straddles the claim: more replications"
        place = "inside" if self.verdict == "holds" else "outside"
        return f"{mean} {interval}, {place} the claim"


def judged(*parts: Part, note: str = "") -> Finding:
    """All parts must hold; one that fails is enough. The first part is what was observed."""
    verdicts = {part.verdict for part in parts}
    order: tuple[Verdict, ...] = ("fails", "cannot judge", "holds")
    verdict = next(each for each in order if each in verdicts)
    why = "; ".join(part.why for part in parts)
    return Finding(parts[0].found, verdict, f"{why}. {note}" if note else why)


def reduction(evidence: Evidence, model: str, metric: str) -> Estimate | None:
    """How much lower a loss is with 4 slots than with 24: the mean of 1 - four / twenty-four."""
    four = np.asarray(evidence.values(model, 4, metric), dtype=np.float64)
    many = np.asarray(evidence.values(model, 24, metric), dtype=np.float64)
    if (many <= 0).any():
        raise Unjudgeable(f"a {metric} of 0 or less has no share")
    return fitted((1 - four / many).tolist())


def difference(evidence: Evidence, model: str, metric: str, more: int, less: int) -> Part:
    """The claim that one preset has more of a measure than the other, paired."""
    gaps = np.subtract(
        evidence.values(model, more, metric), evidence.values(model, less, metric)
    ).tolist()
    label = f"{metric} with {more} slots less that with {less}:"
    return Part(label, fitted(gaps), POSITIVE, plain)


def rates(claim: str, evidence: Evidence, model: str) -> Finding:
    """A claim on a rate with 4 slots and on the same rate with 24."""
    metric, four, many = RATES[claim]
    parts = [
        Part(f"{metric} with {cap} slots", _rate(evidence.values(model, cap, metric)), claimed)
        for cap, claimed in ((4, four), (24, many))
    ]
    return judged(*parts)


def _rate(values: Sequence[float]) -> Estimate | None:
    return fitted(values, RATE)


def _assumed(observed: Estimate | None, what: str) -> Finding:
    return Finding(observed, "assumed", f"the claims model takes {what} from the document")


def lower_test_loss(evidence: Evidence, model: str) -> Finding:
    """Lower test loss: an input of the claims model."""
    return _loss(evidence, model, "test_loss", TEST_LOSS_REDUCTION)


def lower_synth_loss(evidence: Evidence, model: str) -> Finding:
    """Lower synthetic loss: an input of the claims model."""
    return _loss(evidence, model, "synth_loss", SYNTH_LOSS_REDUCTION)


def _loss(evidence: Evidence, model: str, metric: str, claimed: Claimed) -> Finding:
    found = reduction(evidence, model, metric)
    if model == "claims":
        return _assumed(found, "how much lower the losses are")
    return judged(Part(f"{metric} lower by", found, claimed), note=_null(model))


def _null(model: str) -> str:
    if model != "neutral":
        return ""
    return "The neutral model assumes no effect of the slot's size: a consequence, no evidence"


def stability(evidence: Evidence, model: str) -> Finding:
    """The share of jobs that succeed with 4 slots: an input of the claims model."""
    found = _rate(evidence.values(model, 4, "success_rate"))
    if model == "claims":
        return _assumed(found, "the share of jobs that succeed")
    return judged(Part("success_rate with 4 slots", found, SUCCESS))


def throughput(evidence: Evidence, model: str) -> Finding:
    """More jobs completed with 24 slots."""
    return judged(difference(evidence, model, "jobs_completed", 24, 4))


def revenue(evidence: Evidence, model: str) -> Finding:
    """More earned a day with 24 slots."""
    return judged(difference(evidence, model, "revenue_per_day", 24, 4))


def ranking(evidence: Evidence, model: str) -> Finding:
    """The recommendation: more first places and a lower test loss with 4 slots."""
    first = difference(evidence, model, "first_place_rate", 4, 24)
    if model == "claims":
        return judged(first, note="The lower loss is assumed; judged by first places alone")
    loss = Part("test_loss lower by", reduction(evidence, model, "test_loss"), POSITIVE)
    return judged(first, loss, note=_null(model))
