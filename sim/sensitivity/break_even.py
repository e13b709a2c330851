"""How large an effect must be for two presets to come out even."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from sim.output_analysis import Estimate, estimate


@dataclass(frozen=True, slots=True)
class BreakEven:
    """Where a difference changes its sign.

    value: the crossing of the mean, with the interval of points at which the difference's own 95%
    interval holds 0; a bound is None where that goes beyond the range searched. bracket: the last
    two points around the crossing. evaluations: how many points were looked at.
    """

    value: Estimate | None
    bracket: tuple[float, float] | None
    why: str
    evaluations: int


class _Looked:
    """The difference at the points looked at so far: (lo, mean, hi) of each, never asked twice."""

    def __init__(self, difference: Callable[[float], Sequence[float]]) -> None:
        self._difference = difference
        self.points: dict[float, tuple[float, float, float]] = {}

    def at(self, x: float, which: int) -> float:
        """The lower bound (0), the mean (1) or the upper bound (2) at a point."""
        if x not in self.points:
            found = estimate(self._difference(x))
            if found is None:
                raise ValueError(f"no replication gave a difference at {x:g}")
            lo = found.mean if found.lo is None else found.lo
            self.points[x] = (lo, found.mean, found.mean if found.hi is None else found.hi)
        return self.points[x][which]

    def bracket(self, which: int, rising: bool) -> tuple[float, float] | None:
        """The two neighbouring points between which the sign changes, the first such pair."""
        xs, sign = sorted(self.points), 1 if rising else -1
        for left, right in pairwise(xs):
            if sign * self.at(left, which) <= 0 <= sign * self.at(right, which):
                return left, right
        return None


def break_even(
    difference: Callable[[float], Sequence[float]],
    low: float,
    high: float,
    *,
    tolerance: float = 0.01,
) -> BreakEven:
    """Where the mean of ``difference`` crosses 0 between ``low`` and ``high``.

    difference: paired differences at a point, one a replication; the same replications at every
    point (common random numbers), so that noise moves the whole curve and hardly its shape. It
    must rise or fall over the range; small dents are no harm: bisection keeps a change of sign
    between its ends. tolerance: width of the last bracket, as a share of the range.
    The interval inverts the test at each point (as Fieller's does): its ends are where the bounds
    of the difference's interval cross 0.
    """
    if not low < high:
        raise ValueError(f"low: found {low:g}, allowed is under high ({high:g})")
    looked, width = _Looked(difference), tolerance * (high - low)
    ends = looked.at(low, 1), looked.at(high, 1)
    if ends[0] * ends[1] > 0 or ends == (0.0, 0.0):
        return BreakEven(None, None, _no_crossing(low, high, ends), len(looked.points))
    rising = ends[0] < ends[1]
    bracket = _narrowed(looked, 1, rising, width)
    assert bracket is not None  # the ends have different signs
    value = _between(looked, 1, bracket)
    first, second = (
        _crossing(looked, which, rising, width) for which in ((2, 0) if rising else (0, 2))
    )
    why = f"the difference crosses 0 between {bracket[0]:.4g} and {bracket[1]:.4g}"
    if first is None or second is None:
        why += "; its interval reaches beyond the range searched"
    return BreakEven(Estimate(value, first, second), bracket, why, len(looked.points))


def _no_crossing(low: float, high: float, ends: tuple[float, float]) -> str:
    where = f"between {low:g} and {high:g}"
    if ends == (0.0, 0.0):
        return f"the difference is 0 at both ends {where}: nothing to cross"
    side = "over" if ends[0] > 0 else "under"
    return f"no break-even {where}: the difference is {side} 0 at both ends"


def _narrowed(
    looked: _Looked, which: int, rising: bool, width: float
) -> tuple[float, float] | None:
    bracket = looked.bracket(which, rising)
    while bracket is not None and bracket[1] - bracket[0] > width:
        looked.at(sum(bracket) / 2, which)
        inside = looked.bracket(which, rising)
        assert inside is not None
        bracket = inside
    return bracket


def _between(looked: _Looked, which: int, bracket: tuple[float, float]) -> float:
    left, right = bracket
    a, b = looked.at(left, which), looked.at(right, which)
    return left if a == b else left + (right - left) * a / (a - b)


def _crossing(looked: _Looked, which: int, rising: bool, width: float) -> float | None:
    bracket = _narrowed(looked, which, rising, width)
    return None if bracket is None else _between(looked, which, bracket)
