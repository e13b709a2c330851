"""The strategy document's claims as data: every number that it states, in our own words."""

from dataclasses import dataclass
from math import inf


@dataclass(frozen=True, slots=True)
class Claim:
    """One row of the claims table."""

    id: str
    text: str


CLAIMS = (
    Claim("memory", "8 H100s have 640 GB: 160 GB a job with 4 jobs, about 26 GB with 24"),
    Claim("batch", "batches of 16-32 rows instead of 2-4 give 40% more accuracy"),
    Claim("rank", "LoRA rank 1024-2048 instead of 128-256 gives 25% more accuracy"),
    Claim("memory-effect", "160 GB a job instead of 26 GB gives 30% more accuracy"),
    Claim("gradient", "whole instead of fragmented gradients give 20% more accuracy"),
    Claim("convergence", "4 jobs converge 2-3 times faster, with 15% more accuracy"),
    Claim("test-loss", "the test loss is 25-40% lower with 4 jobs"),
    Claim("synth-loss", "the synthetic loss is 20-30% lower with 4 jobs"),
    Claim("stability", "at least 95% of jobs succeed with 4 jobs"),
    Claim("first-place", "first place in over 90% of tasks with 4 jobs, in under 30% with 24"),
    Claim("top-4", "among the best 4 in over 95% of tasks with 4 jobs, in under 60% with 24"),
    Claim("penalty", "a penalty in under 1% of tasks with 4 jobs, in over 10% with 24"),
    Claim("tournament", "over 80% of tournaments won with 4 jobs, under 40% with 24"),
    Claim("throughput", "more jobs are done with 24 slots"),
    Claim("revenue", "24 slots earn more than 4, through more jobs"),
    Claim("fragmentation", "24 jobs suffer from switching, scattered memory and worse caches"),
    Claim("ranking", "for accuracy and top ranking, 4 slots are the choice over 24"),
    Claim("fits", "32 rows of 8192 tokens at rank 2048 on seven projections fit a pair of H100s"),
)

BOX_GB, FOUR_GB, TWENTY_FOUR_GB = 640.0, 160.0, 26.0

FACTORS = {
    "batch": 0.40,
    "rank": 0.25,
    "memory-effect": 0.30,
    "gradient": 0.20,
    "convergence": 0.15,
}
"""What each factor is said to add to accuracy; no row says how accuracy becomes loss."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """A claimed range of a number. open: the bounds themselves do not meet it ("over", "under")."""

    low: float = -inf
    high: float = inf
    open: bool = True

    def contains(self, lo: float, hi: float) -> bool:
        """Whether the whole interval meets the claim."""
        if self.open:
            return self.low < lo and hi < self.high
        return self.low <= lo and hi <= self.high

    def excludes(self, lo: float, hi: float) -> bool:
        """Whether no number of the interval meets the claim."""
        if self.open:
            return hi <= self.low or lo >= self.high
        return hi < self.low or lo > self.high


TEST_LOSS_REDUCTION = Claimed(0.25, 0.40, open=False)
SYNTH_LOSS_REDUCTION = Claimed(0.20, 0.30, open=False)
SPEED_RATIO = Claimed(2.0, 3.0, open=False)
SUCCESS = Claimed(0.95, open=False)
POSITIVE = Claimed(0.0)

RATES = {
    "first-place": ("first_place_rate", Claimed(0.90), Claimed(high=0.30)),
    "top-4": ("top4_rate", Claimed(0.95), Claimed(high=0.60)),
    "penalty": ("penalty_rate", Claimed(high=0.01), Claimed(0.10)),
    "tournament": ("tournament_win_rate", Claimed(0.80), Claimed(high=0.40)),
}
"""Claims of two halves: the measure, what is claimed with 4 slots and what with 24."""

FIT_ROWS, FIT_ROW_TOKENS, FIT_RANK, FIT_GPUS = 32, 8192, 2048, 2
