"""The strategy document's own percentages, taken at their word.

The document knows two columns, 4 jobs (2 GPUs each) and 24 jobs (1/3 GPU each): with 4 the test
loss is 25 to 40% lower, the synthetic loss 20 to 30%, and 95% of jobs succeed against 90%. A slot
between the columns is read linearly in the logarithm of its GPUs' worth, in the logarithm of the
loss and in the success rate; beyond a column the document says nothing, and the column stands.
The reference run (1 GPU unless told) is a slot like any other, so it lies between the two.
"""

from math import log

import numpy as np

from shared.layout import slot_layout
from sim.quality.columns import Jobs, Luck, Outcomes, Slot, outcomes_of
from sim.quality.config import QualityConfig, Range
from sim.quality.throughput import trained
from sim.stream import Floats

FEW, MANY = slot_layout(4).gpus_per_slot, slot_layout(24).gpus_per_slot
"""GPUs' worth of a slot in the document's two columns."""


def place(gpus_worth: float) -> float:
    """Where a slot lies between the columns: 0 at 24 jobs, 1 at 4 jobs, no unit."""
    return min(max(log(gpus_worth / MANY) / log(FEW / MANY), 0.0), 1.0)


class Claims:
    """What the document asserts; the compute of a slot decides only the count of tokens."""

    def __init__(self, config: QualityConfig) -> None:
        self._config = config

    def outcomes(self, jobs: Jobs, slot: Slot, luck: Luck) -> Outcomes:
        """Losses and success by the slot's place between the document's columns."""
        config = self._config
        at, origin = place(slot.gpus_worth), place(config.reference.gpus)
        claims = config.claims
        success = claims.success_24 + at * (claims.success_4 - claims.success_24)
        return outcomes_of(
            _loss(claims.test_lower, luck.test_range, at - origin),
            _loss(claims.synth_lower, luck.synth_range, at - origin),
            trained(jobs, slot, config.physical, config.reference).tokens,
            (luck.fate < success) & ~jobs.late,
            luck,
            config.noise,
        )


def _loss(lower: Range, u: Floats, steps: float) -> Floats:
    """Relative losses of a slot that lies ``steps`` towards 4 jobs from the reference run."""
    return np.asarray((1.0 - (lower.low + u * (lower.high - lower.low))) ** steps)
