"""What a replay gives back: one column a question, one value an offer."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from sim.stream import Floats, Ints

NO_SLOT = -1
NEVER = -1

Flags = NDArray[np.bool_]


@dataclass(frozen=True)
class Decisions:
    """What was decided on each of n offers, in handling order.

    gate: uint8, codes of ``shared.decisions.Gate``. slot: int8, -1 when refused. priority:
    float64. repeat: bool, a first answer given again. end_ms: int64, when the slot that an offer
    took came free; -1 when it took none (refused, or a repeat). gpu_failed, lapsed: bool, why the
    slot came free, where it was not the end of the training.
    """

    gate: NDArray[np.uint8]
    slot: NDArray[np.int8]
    priority: Floats
    repeat: Flags
    end_ms: Ints
    gpu_failed: Flags
    lapsed: Flags

    @property
    def took_slot(self) -> Flags:
        """Offers that became a job or a reservation: accepted, and not a repeat."""
        return np.not_equal(self.end_ms, NEVER)
