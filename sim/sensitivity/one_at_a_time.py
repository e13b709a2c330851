"""The tornado: one parameter at a time at its low and its high, all else as the scenario says."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sim.output_analysis import Estimate, estimate, paired
from sim.sensitivity.parameters import Parameter

FLIPS, VANISHES, IN_DOUBT, STAYS = "flips", "vanishes", "in doubt", "stays"

EvaluateAll = Callable[[Sequence[Mapping[str, Any]]], Sequence[Sequence[float]]]
"""Scenarios to results, one value a replication; the same replications in each."""


@dataclass(frozen=True, slots=True)
class Bar:
    """The result at a parameter's low and at its high, one value a replication.

    value: the scenario's own value of the parameter. base: the result as the scenario says.
    """

    parameter: Parameter
    value: float
    base: Sequence[float]
    low: Sequence[float]
    high: Sequence[float]

    @property
    def at_low(self) -> Estimate | None:
        """The result at the low, with its 95% interval."""
        return estimate(self.low)

    @property
    def at_high(self) -> Estimate | None:
        """The result at the high, with its 95% interval."""
        return estimate(self.high)

    @property
    def change(self) -> Estimate | None:
        """High less low, replication by replication: how much of the swing is no chance."""
        return paired(self.high, self.low)

    @property
    def swing(self) -> float:
        """How far the mean moves among low, base and high; 0 where nothing is known."""
        known = [found.mean for found in self._three() if found is not None]
        return max(known) - min(known) if known else 0.0

    @property
    def answer(self) -> str:
        """What becomes of the result's sign: it flips, vanishes, is in doubt somewhere, or stays.

        It flips when two of low, base and high have intervals on different sides of 0. It vanishes
        where the result is 0 in every replication, for instance because nobody earns anything.
        """
        sides = {side_of(found) for found in self._three()}
        if {-1, 1} <= sides:
            return FLIPS
        if any(not any(values) for values in (self.low, self.base, self.high)):
            return VANISHES
        return IN_DOUBT if 0 in sides else STAYS

    def _three(self) -> tuple[Estimate | None, ...]:
        return self.at_low, estimate(self.base), self.at_high


def side_of(found: Estimate | None) -> int:
    """On which side of 0 the interval lies, 1 or -1; 0 when it holds 0 or nothing is known.

    Of one replication, which has no interval, the number itself decides.
    """
    if found is None:
        return 0
    lo = found.mean if found.lo is None else found.lo
    hi = found.mean if found.hi is None else found.hi
    return int(lo > 0) - int(hi < 0)


def tornado(
    base: Mapping[str, Any], parameters: Sequence[Parameter], evaluate: EvaluateAll
) -> list[Bar]:
    """Every parameter's bar, the widest swing first; 1 + 2 * parameters scenarios."""
    ends = [each.set_in(base, x) for each in parameters for x in (each.low, each.high)]
    at_base, *results = evaluate([base, *ends])
    bars = [
        Bar(each, each.found_in(base), at_base, low, high)
        for each, low, high in zip(parameters, results[::2], results[1::2], strict=True)
    ]
    return sorted(bars, key=lambda bar: bar.swing, reverse=True)
