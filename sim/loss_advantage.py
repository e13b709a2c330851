"""How much lower a preset's losses must be for it to earn as much as another."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from sim.output_analysis import Estimate, estimate
from sim.sensitivity import BreakEven, break_even

TOLERANCE = 1e-3
"""Width of the last bracket as a share of the range searched."""


@dataclass(frozen=True)
class LossAdvantage:
    """The revenue of preset a over the share by which its losses are lower, against preset b's.

    Under the neutral model, in which nothing else sets the two apart but their capacity.
    a_earns, gap: one a point of ``lower``; gap is a's revenue less b's, paired.
    """

    a: str
    b: str
    lower: tuple[float, ...]
    a_earns: tuple[Estimate | None, ...]
    b_earns: Estimate | None
    gap: tuple[Estimate | None, ...]
    break_even: BreakEven

    def document(self) -> dict[str, Any]:
        """The row of ``compare --json``."""
        value = self.break_even.value
        return {
            "a": self.a,
            "b": self.b,
            "quality_model": "neutral",
            "loss_lower_by": None if value is None else asdict(value),
            "why": self.break_even.why,
            "curve": [
                {"loss_lower_by": lower, "revenue_gap": None if gap is None else asdict(gap)}
                for lower, gap in zip(self.lower, self.gap, strict=True)
            ],
        }


def loss_advantage(
    a: str, b: str, lower: Sequence[float], curves: Sequence[Sequence[float]], b_earns: list[float]
) -> LossAdvantage:
    """The break-even of paired replications.

    lower: the shares tried, ascending. curves: a's revenue at each of them, one row a replication;
    between two shares it is taken as a straight line. b_earns: b's revenue, one a replication.
    """
    rows = np.asarray(curves, dtype=np.float64)
    gaps = rows - np.asarray(b_earns, dtype=np.float64)[:, None]

    def difference(share: float) -> list[float]:
        return [float(np.interp(share, lower, gap)) for gap in gaps]

    return LossAdvantage(
        a,
        b,
        tuple(lower),
        tuple(estimate(column.tolist()) for column in rows.T),
        estimate(b_earns),
        tuple(estimate(column.tolist()) for column in gaps.T),
        break_even(difference, lower[0], lower[-1], tolerance=TOLERANCE),
    )
