"""The curve of a measure over caps, and how sure its best cap is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sim.measures import range_of
from sim.output_analysis import Estimate, fitted, holm, p_value

RESAMPLES = 2000


@dataclass(frozen=True, slots=True)
class CapPoint:
    """One cap of the curve: the preset's name, and each measure with its interval."""

    cap: int
    name: str
    measures: dict[str, Estimate | None]


@dataclass(frozen=True, slots=True)
class BestCap:
    """The cap with the highest mean of a measure, and how sure that is.

    confidence: share of bootstrap resamples of the replications in which it has the highest mean.
    rivals: caps whose paired difference from it is not significant at 5% after Holm's correction.
    """

    cap: int
    confidence: float
    rivals: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class CapCurve:
    """Measures over caps, and the best cap in each measure that is known."""

    points: tuple[CapPoint, ...]
    best: dict[str, BestCap]


def cap_curve(
    measures: Mapping[str, Mapping[str, Sequence[float]]],
    caps: Mapping[str, int],
    metrics: Sequence[str] = ("revenue_per_day", "first_place_rate"),
) -> CapCurve:
    """The curve over caps of one quality model's measures (preset, metric, values).

    caps: each preset's cap; two presets of one cap are two points.
    """
    names = sorted(measures, key=lambda name: caps[name])
    points = [
        CapPoint(
            caps[name], name, {key: fitted(measures[name][key], range_of(key)) for key in metrics}
        )
        for name in names
    ]
    best = {}
    for key in metrics:
        values = np.asarray([measures[name][key] for name in names], dtype=np.float64)
        values = values[:, ~np.isnan(values).any(axis=0)]
        if values.size:
            best[key] = _best(values, [caps[name] for name in names])
    return CapCurve(tuple(points), best)


def _best(values: NDArray[np.float64], caps: list[int]) -> BestCap:
    """values: one row a cap, one column a replication."""
    top, n = int(values.mean(axis=1).argmax()), values.shape[1]
    # whole replications are drawn, for all caps alike: they share their random numbers
    drawn = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), RESAMPLES)
    means = values @ drawn.T
    others = [row for row in range(len(caps)) if row != top]
    tested = {str(row): p_value((values[top] - values[row]).tolist()) for row in others}
    rivals = [row for row in others if not holm(tested)[str(row)] < 0.05]
    confidence = float((means.argmax(axis=0) == top).mean())
    return BestCap(caps[top], confidence, tuple(caps[row] for row in rivals))
