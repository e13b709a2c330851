"""Every claim under every quality model."""

from collections.abc import Callable
from functools import partial

from sim.claims import arithmetic, measured
from sim.claims.document import CLAIMS, RATES, Claim
from sim.claims.evidence import ClaimVerdict, Evidence, Finding, Unjudgeable
from sim.claims.factors import FACTOR_ROWS

_JUDGES: dict[str, Callable[[Evidence, str], Finding]] = {
    **FACTOR_ROWS,
    **{claim: partial(measured.rates, claim) for claim in RATES},
    "memory": arithmetic.memory,
    "fits": arithmetic.fits,
    "test-loss": measured.lower_test_loss,
    "synth-loss": measured.lower_synth_loss,
    "stability": measured.stability,
    "throughput": measured.throughput,
    "revenue": measured.revenue,
    "ranking": measured.ranking,
}


def judge(evidence: Evidence) -> list[ClaimVerdict]:
    """Each claim under each quality model that was run, in the document's order."""
    return [_verdict(claim, evidence, model) for claim in CLAIMS for model in evidence.measures]


def _verdict(claim: Claim, evidence: Evidence, model: str) -> ClaimVerdict:
    try:
        found = _JUDGES[claim.id](evidence, model)
    except Unjudgeable as why:
        found = Finding(None, "cannot judge", str(why))
    return ClaimVerdict(claim.id, claim.text, model, found.observed, found.verdict, found.why)
