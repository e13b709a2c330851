"""What waits for the daemon: inputs and rows, each with who waits for its answer."""

import asyncio
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from live.rows import Row
from shared.inputs import Input, OfferArrived, OperatorAsked, StartRequested
from shared.jobs import Answer
from shared.ledger import LedgerEntry

MOST_AT_ONCE = 256
"""Inputs written in one transaction at most."""


@dataclass(frozen=True, slots=True)
class Entered:
    """What became of an input.

    entry: its ledger entry, durable; None for an offer refused because nothing can be written, and
    for rows alone. answers: what the machine answered.
    """

    entry: LedgerEntry | None
    answers: list[Answer]


@dataclass(slots=True, eq=False)
class Waiting:
    """One input, or rows alone, from its arrival to its answer."""

    entry: Input | None
    rows: tuple[Row, ...]
    answer: asyncio.Future[Entered]
    outcome: Entered | Exception = field(default_factory=lambda: Entered(None, []))

    @property
    def deaf(self) -> bool:
        """Whether nobody waits for an answer without which it means nothing: a market's
        request, an operator's.

        What the box reports (a job's end, a GPU) is true whoever listens.
        """
        return self.answer.cancelled() and isinstance(
            self.entry, OfferArrived | StartRequested | OperatorAsked
        )

    def tell(self) -> None:
        """Give the answer to who waits."""
        if self.answer.done():
            return
        if isinstance(self.outcome, Exception):
            self.answer.set_exception(self.outcome)
        else:
            self.answer.set_result(self.outcome)


class Inbox:
    """Arrivals in order, and a bell."""

    def __init__(self) -> None:
        """Empty."""
        self._waiting: deque[Waiting] = deque()
        self._bell = asyncio.Event()

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, entry: Input | None, rows: tuple[Row, ...]) -> asyncio.Future[Entered]:
        """Add one; its answer comes through the future."""
        waiting = Waiting(entry, rows, asyncio.get_running_loop().create_future())
        self._waiting.append(waiting)
        self._bell.set()
        return waiting.answer

    def put_back(self, waiting: Sequence[Waiting]) -> None:
        """These come first again, without a ring."""
        self._waiting.extendleft(reversed(waiting))

    def ring(self) -> None:
        """Wake who waits for the bell, though nothing was put."""
        self._bell.set()

    async def rung(self, at_most_s: float | None) -> None:
        """Wait for the bell, or so many seconds."""
        if at_most_s is None:
            await self._bell.wait()
        else:
            with suppress(TimeoutError):
                async with asyncio.timeout(at_most_s):
                    await self._bell.wait()
        self._bell.clear()

    def take(self) -> list[Waiting]:
        """What is handled next, together.

        Offers go last and by task id: they are at one instant, and the handling order then needs
        no later milliseconds. Everything else keeps the order it came in, for one thing may be
        the consequence of another.
        """
        taken = [self._waiting.popleft() for _ in range(min(len(self._waiting), MOST_AT_ONCE))]
        if self._waiting:
            self._bell.set()
        heard = (waiting for waiting in taken if not waiting.deaf)
        return sorted(heard, key=_place)


def _place(waiting: Waiting) -> tuple[bool, str]:
    entry = waiting.entry
    return (True, entry.id) if isinstance(entry, OfferArrived) else (False, "")
