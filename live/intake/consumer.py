"""What the intake needs of the daemon: to enter inputs, to look at the jobs, to be told."""

import asyncio
from collections.abc import Callable
from typing import Protocol

from live.inbox import Entered
from live.rows import Extra
from shared.inputs import Input
from shared.jobs import Answer, Job
from shared.ledger import LedgerEntry


class JobsView(Protocol):
    """The machine, as far as the intake looks at it."""

    @property
    def jobs(self) -> dict[str, Job]:
        """Jobs that hold a slot, by task id."""


UNLEDGERED = ("busy", "late", "unwritten")
"""Why an offer may be refused without an entry: too many wait, its decision came too late, the
ledger cannot be written.
"""
Refusals = Callable[[str], None]
"""Told of each such refusal, by its reason."""


class Consumer(Protocol):
    """The one consumer of the machine. ``live.daemon.Daemon`` is it in production."""

    @property
    def machine(self) -> JobsView:
        """The state of the box, to look at."""

    async def enter(self, entry: Input, *, extra: Extra = ()) -> Entered:
        """Enter one input; returns once it and ``extra`` are durable."""

    def put(self, entry: Input, *, extra: Extra = ()) -> asyncio.Future[Entered]:
        """Enter one input; done once it and ``extra`` are durable."""

    async def keep(self, extra: Extra) -> None:
        """Make rows durable that belong to no input."""

    def listen(self, callback: Callable[[LedgerEntry, list[Answer]], None]) -> None:
        """Have every entry told once it is durable."""
