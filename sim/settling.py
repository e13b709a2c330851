"""Whether the warm-up was long enough for the box to fill."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sim.output_analysis import warm_up


@dataclass(frozen=True, slots=True)
class Settling:
    """hours: the cut that MSER-5 would make; settled: whether the series was long enough for one.

    watched: hours that the series covers.
    """

    hours: int
    settled: bool
    watched: int

    def complaint(self, warm_up_hours: float) -> str:
        """What is wrong with a warm-up of so many hours; empty when nothing is."""
        if not self.settled:
            return f"the slots in use do not settle within {self.watched} hours: run longer"
        if self.hours > warm_up_hours:
            return (
                f"the slots in use settle after {self.hours} hours (MSER-5), the warm-up leaves "
                f"out {warm_up_hours:g}: set warm_up_days to {np.ceil(self.hours / 2.4) / 10:g}"
            )
        return ""


def settling(series: Sequence[Sequence[float]]) -> Settling:
    """The cut that suits the mean of the replications' series of slots in use, hour by hour."""
    mean = np.mean(np.asarray(series, dtype=np.float64), axis=0)
    if not np.ptp(mean):  # a box that nothing reached, or that was full from the first hour on
        return Settling(0, settled=True, watched=len(mean))
    found = warm_up(mean.tolist())
    return Settling(found.truncation, found.settled, len(mean))
