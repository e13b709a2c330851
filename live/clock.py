"""Clocks: UTC epoch milliseconds that never go back, and waiting for one of them to come.

A clock is set once, when it is made, and from then on goes by the machine's monotonic clock: when
somebody moves the wall clock by two hours or a year, no deadline moves with it.
"""

import asyncio
import heapq
import time
from collections.abc import Callable
from itertools import count
from typing import Protocol

from shared.units import MS_PER_SECOND

NS_PER_MS = 1_000_000
_LONGEST_NAP_S = 60.0
"""A sleep is looked after this often: the event loop's own clock stands still in suspend."""


class Clock(Protocol):
    """What the daemon tells the time by."""

    def now_ms(self) -> int:
        """UTC epoch milliseconds; never less than the last time."""

    async def sleep_until(self, at_ms: int) -> None:
        """Return once ``now_ms`` is ``at_ms`` or more; at once when it is already."""


def wall_ms() -> int:
    """What the wall clock says now: UTC epoch milliseconds, which may go back."""
    return time.time_ns() // NS_PER_MS


def _steady_ns() -> int:
    """Nanoseconds that only go forward, through suspend too."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class SystemClock:
    """Production's clock: the wall clock as it stood at the start, plus the time gone by."""

    def __init__(
        self,
        *,
        at_least_ms: int = 0,
        wall: Callable[[], int] = wall_ms,
        steady_ns: Callable[[], int] = _steady_ns,
    ) -> None:
        """Set by the wall clock, but not before ``at_least_ms``: the ledger's last entry."""
        self._wall, self._steady_ns = wall, steady_ns
        self._anchor_ns = max(wall(), at_least_ms) * NS_PER_MS - steady_ns()

    def now_ms(self) -> int:
        """UTC epoch milliseconds, by the steady clock."""
        return (self._anchor_ns + self._steady_ns()) // NS_PER_MS

    def behind_wall_ms(self) -> int:
        """How far the wall clock has moved ahead of this one; negative where it was set back."""
        return self._wall() - self.now_ms()

    async def sleep_until(self, at_ms: int) -> None:
        """Return once ``now_ms`` is ``at_ms`` or more."""
        await _sleep(self, at_ms, speed=1.0)


class ScaledClock:
    """A rehearsal's clock: begins at ``start_ms`` and runs ``speed`` times as fast."""

    def __init__(
        self, speed: float, start_ms: int, *, steady_ns: Callable[[], int] = _steady_ns
    ) -> None:
        """Begin now. Raises ValueError for a speed that is not over 0."""
        if not 0 < speed < float("inf"):
            raise ValueError(f"speed: found {speed}, allowed is a number over 0")
        self._speed, self._start_ms, self._steady_ns = speed, start_ms, steady_ns
        self._begun_ns = steady_ns()

    def now_ms(self) -> int:
        """Virtual UTC epoch milliseconds."""
        gone = self._steady_ns() - self._begun_ns
        return self._start_ms + int(gone * self._speed) // NS_PER_MS

    async def sleep_until(self, at_ms: int) -> None:
        """Return once ``now_ms`` is ``at_ms`` or more."""
        await _sleep(self, at_ms, speed=self._speed)


async def _sleep(clock: Clock, at_ms: int, speed: float) -> None:
    while (left_ms := at_ms - clock.now_ms()) > 0:
        await asyncio.sleep(min(left_ms / MS_PER_SECOND / speed, _LONGEST_NAP_S))


class ManualClock:
    """A clock that stands still until somebody moves it."""

    def __init__(self, start_ms: int = 0) -> None:
        """It is ``start_ms``."""
        self._now_ms = start_ms
        self._order = count()
        self._sleepers: list[tuple[int, int, asyncio.Future[None]]] = []

    def now_ms(self) -> int:
        """The time it was last moved to."""
        return self._now_ms

    def move_to(self, at_ms: int) -> None:
        """Make it ``at_ms`` and wake who waited for it. Raises ValueError for an earlier time."""
        if at_ms < self._now_ms:
            raise ValueError(f"found {at_ms}, allowed is {self._now_ms} or later")
        self._now_ms = at_ms
        while self._sleepers and self._sleepers[0][0] <= at_ms:
            _, _, sleeper = heapq.heappop(self._sleepers)
            if not sleeper.done():
                sleeper.set_result(None)

    def advance(self, by_ms: int) -> None:
        """Move it on by so much."""
        self.move_to(self._now_ms + by_ms)

    async def sleep_until(self, at_ms: int) -> None:
        """Return once the clock was moved to ``at_ms`` or beyond."""
        if at_ms > self._now_ms:
            sleeper: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            heapq.heappush(self._sleepers, (at_ms, next(self._order), sleeper))
            await sleeper
