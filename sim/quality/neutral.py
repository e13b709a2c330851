"""No effect of a slot's size: the null hypothesis. Every slot's run is the reference run.

Losses and success have one distribution for all presets, and the same draws on the same offer. The
tokens are counted all the same; here they make no difference.
"""

import numpy as np

from sim.quality.columns import Jobs, Luck, Outcomes, Slot, outcomes_of
from sim.quality.config import QualityConfig
from sim.quality.throughput import trained


class Neutral:
    """The same luck for everybody."""

    def __init__(self, config: QualityConfig) -> None:
        self._config = config

    def outcomes(self, jobs: Jobs, slot: Slot, luck: Luck) -> Outcomes:
        """The reference run's loss, with the luck of the run."""
        config, one = self._config, np.ones(len(jobs))
        return outcomes_of(
            one,
            one,
            trained(jobs, slot, config.physical, config.reference).tokens,
            (luck.fate >= config.neutral.failure_rate) & ~jobs.late,
            luck,
            config.noise,
        )
