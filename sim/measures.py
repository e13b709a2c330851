"""Every measure of a comparison: those of the box and those of the market, with their ranges."""

from math import inf

from sim.metrics import BOX_METRICS
from sim.season import SEASON_METRICS

METRICS = {**BOX_METRICS, **SEASON_METRICS}
"""Every measure, in the order in which it is shown, with what it means."""

SHARES = frozenset(
    {
        "acceptance_rate",
        "slot_utilisation",
        "success_rate",
        "first_place_rate",
        "top4_rate",
        "penalty_rate",
        "tournament_win_rate",
        "mean_rank_percentile",
        "emission_share",
    }
)
"""Measures that lie from 0 to 1."""


_OF_EITHER_SIGN = frozenset({"mean_score"})


def range_of(metric: str) -> tuple[float, float] | None:
    """The range that a measure cannot leave, or None: shares, and what is counted or paid."""
    if metric in _OF_EITHER_SIGN:
        return None
    return (0.0, 1.0 if metric in SHARES else inf)
