"""Inputs enter the machine at their stamp, and timers at exactly their own time."""

from collections.abc import Iterator
from typing import Protocol

from shared.decisions import Policy
from shared.inputs import Input, TimerFired, order_key
from shared.jobs import Answer, Job
from shared.ledger import LedgerEntry, Recorder

Handled = tuple[LedgerEntry, list[Answer]]


class MachineView(Protocol):
    """What others may look at. It may be ahead of the ledger by what is being written."""

    @property
    def policy(self) -> Policy:
        """The policy in force."""

    @property
    def jobs(self) -> dict[str, Job]:
        """Jobs that hold a slot, by task id: a copy."""

    @property
    def slots_in_use(self) -> int:
        """Slots that count against capacity."""

    @property
    def failed_gpus(self) -> frozenset[int]:
        """GPUs out of service."""

    @property
    def draining(self) -> bool:
        """Whether the operator stopped acceptance."""

    @property
    def storage_full(self) -> bool:
        """Whether there is no room for another job."""

    def next_timer(self) -> int | None:
        """When the next reservation lapses (UTC ms), or None."""


def take_in(recorder: Recorder, entry: Input, now_ms: int) -> Iterator[Handled]:
    """Enter one input at its stamp, after the timers that are due by then, each at its own time.

    Raises what the machine raises; the timers have fired all the same.
    """
    machine = recorder.machine
    while True:
        at_ms = machine.stamp(now_ms, entry)
        due = machine.next_timer()
        if due is None or order_key(at_ms, entry) < (due, TimerFired.rank, TimerFired.id):
            break
        yield recorder.handle(TimerFired(), due)
    yield recorder.handle(entry, at_ms)


def fire_due(recorder: Recorder, now_ms: int) -> Iterator[Handled]:
    """Fire every timer that is due by now, each at its own time."""
    while (due := recorder.machine.next_timer()) is not None and due <= now_ms:
        yield recorder.handle(TimerFired(), due)
