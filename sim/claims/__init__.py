"""The strategy document's claims, each judged by what the models give.

``judge`` takes the evidence of a comparison and gives a verdict on every claim under every quality
model; ``contradictions`` says where the document's own numbers exclude each other.
"""

from sim.claims.contradictions import contradictions
from sim.claims.document import CLAIMS, Claim
from sim.claims.evidence import ClaimVerdict, Evidence, Verdict
from sim.claims.judging import judge

__all__ = ["CLAIMS", "Claim", "ClaimVerdict", "Evidence", "Verdict", "contradictions", "judge"]
