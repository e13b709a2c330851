"""What replications say: means, intervals, and paired differences under common random numbers."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean and the bounds of its 95% interval; bounds are None with fewer than two values."""

    mean: float
    lo: float | None
    hi: float | None


def estimate(values: Sequence[float]) -> Estimate | None:
    """Mean and Student's t interval over independent replications; NaN values are left out.

    None when no value is left. Source: Law, Simulation Modeling and Analysis, section 9.4.1.
    """
    known = np.asarray(values, dtype=np.float64)
    known = known[~np.isnan(known)]
    if not len(known):
        return None
    mean = float(known.mean())
    if len(known) < 2:
        return Estimate(mean, None, None)
    half = _t_quantile(len(known) - 1) * float(known.std(ddof=1)) / len(known) ** 0.5
    return Estimate(mean, mean - half, mean + half)


def paired(first: Sequence[float], second: Sequence[float]) -> Estimate | None:
    """The mean of first minus second, pair by pair: replications share their random numbers."""
    return estimate(np.subtract(first, second).tolist())


def _t_quantile(degrees: int) -> float:
    from scipy.special import stdtrit  # here: scipy is slow to import and --help needs none

    return float(stdtrit(degrees, 0.5 + CONFIDENCE / 2))
