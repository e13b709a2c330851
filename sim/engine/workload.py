"""What the world will do to a box, known to the simulator alone: the same luck for every preset."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shared.inputs import GpuChanged, OperatorAsked, StorageChanged, order_key
from sim.stream import Ints, OfferStream

Interruption = GpuChanged | OperatorAsked | StorageChanged
Timeline = Sequence[tuple[int, Interruption]]
"""What befalls the box itself: (epoch ms, input), in handling order."""


@dataclass(frozen=True)
class Workload:
    """An offer stream with the fate of each offer, were it accepted.

    start_lag_ms: int64, from acceptance to the start request. starts: bool, whether that request
    ever comes; None when every one does. timeline: GPU failures and repairs, drains, full storage.
    """

    stream: OfferStream
    start_lag_ms: Ints | None = None
    starts: NDArray[np.bool_] | None = None
    timeline: Timeline = ()

    def __post_init__(self) -> None:
        keys = [order_key(at_ms, entry) for at_ms, entry in self.timeline]
        if keys != sorted(keys):
            raise ValueError("timeline: its entries are not in handling order")

    def hold_ms(self, reservation_ttl_ms: int) -> Ints:
        """How long each offer would hold its slot: int64, at least 1.

        Its lag and its training, or the reservation's time to live when no start comes within it.
        The end of a job that takes no time is entered in the next millisecond, as the tie rule
        has it: at its own millisecond it would sort before the offer.
        """
        lag = 0 if self.start_lag_ms is None else self.start_lag_ms
        hold = np.maximum(self.stream.train_ms + lag, 1)
        lapses = self.lapses(reservation_ttl_ms)
        return hold if lapses is None else np.where(lapses, reservation_ttl_ms, hold)

    def lapses(self, reservation_ttl_ms: int) -> NDArray[np.bool_] | None:
        """Which offers' reservations would lapse: bool, or None when none would."""
        if self.start_lag_ms is None and self.starts is None:
            return None
        late = np.zeros(len(self.stream), dtype=np.bool_)
        if self.start_lag_ms is not None:
            late |= self.start_lag_ms >= reservation_ttl_ms  # the timer's rank is the lower
        return late if self.starts is None else late | ~self.starts
