"""Poisson processes in time: at a constant rate, and at one that follows the hour of the day."""

from math import ceil, sqrt

import numpy as np

from shared.units import MS_PER_DAY, MS_PER_HOUR
from sim.arrivals.config import Organic
from sim.arrivals.tasks import Draw
from sim.stream import Floats, Ints
from sim.streams import exponential


def poisson_times(per_ms: float, first_ms: int, end_ms: int, draw: Draw, purpose: str) -> Ints:
    """Arrivals of a Poisson process in [first_ms, end_ms), int64 milliseconds, ascending.

    A later end only adds arrivals: gap i is draw i of the purpose.
    """
    span = end_ms - first_ms
    if per_ms <= 0:
        return np.empty(0, dtype=np.int64)
    mean_gap_ms = min(1 / per_ms, 1e300)  # a longer one would overflow the sum
    expected = per_ms * span
    n = ceil(expected + 6 * sqrt(expected)) + 16
    while True:
        at = np.cumsum(exponential(draw(purpose, n), mean_gap_ms))
        if at[-1] >= span:
            return first_ms + at[at < span].astype(np.int64)
        n *= 2  # one stream in about 10**9 needs this


def daily_shape(at_ms: Ints, amplitude: float, peak_hour: float) -> Floats:
    """Rate at each time relative to the day's mean: a sinusoid with its top at peak_hour UTC."""
    hour = (at_ms % MS_PER_DAY) / MS_PER_HOUR
    return 1 + amplitude * np.cos((hour - peak_hour) * (2 * np.pi / 24))


def organic_times(organic: Organic, first_ms: int, end_ms: int, draw: Draw) -> Ints:
    """When customers bring tasks: thinning of a process at the day's highest rate."""
    top = 1 + organic.amplitude
    per_ms = organic.per_day * top / MS_PER_DAY
    at_ms = poisson_times(per_ms, first_ms, end_ms, draw, "gap")
    kept = draw("thinning", len(at_ms)) * top < daily_shape(
        at_ms, organic.amplitude, organic.peak_hour
    )
    return at_ms[kept]
