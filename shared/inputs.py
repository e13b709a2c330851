"""What can happen to the box: the inputs of the machine, and the order in which they count.

Inputs are handled in the order (time, rank, id); ids compare by code point. The rank settles what
comes first within a millisecond: a job that ends makes room before the next offer is decided.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from shared.decisions import Policy
from shared.offers import Offer

Outcome = Literal["completed", "failed", "gpu_failed", "cancelled"]


@dataclass(frozen=True, slots=True)
class JobEnded:
    """A job's processes are ending, or are gone.

    phase ``stopping``: the result is in or the deadline is here, processes still live, the slot is
    still held. phase ``gone``: they are dead and their memory is released; the slot is free.
    """

    task_id: str
    outcome: Outcome = "completed"
    phase: Literal["stopping", "gone"] = "gone"
    kind: ClassVar[str] = "ended"
    rank: ClassVar[int] = 0
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    @property
    def id(self) -> str:
        """What orders inputs of one time and rank."""
        return self.task_id


@dataclass(frozen=True, slots=True)
class GpuChanged:
    """A GPU went out of service, or came back."""

    gpu: int
    healthy: bool
    kind: ClassVar[str] = "gpu"
    rank: ClassVar[int] = 1
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    @property
    def id(self) -> str:
        """What orders inputs of one time and rank."""
        return f"{self.gpu}:{'repaired' if self.healthy else 'failed'}"


@dataclass(frozen=True, slots=True)
class TimerFired:
    """The time that ``next_timer`` named has come: reservations lapse."""

    kind: ClassVar[str] = "timer"
    rank: ClassVar[int] = 2
    id: ClassVar[str] = ""
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012


@dataclass(frozen=True, slots=True)
class StartRequested:
    """The market asks for the training of an accepted offer to begin.

    source: who asks; it must be who made the offer.
    """

    task_id: str
    source: str = ""
    kind: ClassVar[str] = "start"
    rank: ClassVar[int] = 3
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    @property
    def id(self) -> str:
        """What orders inputs of one time and rank."""
        return self.task_id


@dataclass(frozen=True, slots=True)
class OperatorAsked:
    """The operator stopped acceptance (drain) or started it again (resume)."""

    action: Literal["drain", "resume"]
    kind: ClassVar[str] = "operator"
    rank: ClassVar[int] = 4
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    @property
    def id(self) -> str:
        """What orders inputs of one time and rank."""
        return f"operator:{self.action}"


@dataclass(frozen=True, slots=True)
class StorageChanged:
    """Room for another job's checkpoints and for the ledger ran out, or came back."""

    available: bool
    kind: ClassVar[str] = "storage"
    rank: ClassVar[int] = 4
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    @property
    def id(self) -> str:
        """What orders inputs of one time and rank."""
        return f"storage:{'available' if self.available else 'full'}"


@dataclass(frozen=True, slots=True)
class PolicyPut:
    """Another policy is in force from here on."""

    policy: Policy
    kind: ClassVar[str] = "policy"
    rank: ClassVar[int] = 4
    id: ClassVar[str] = "policy"
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012


@dataclass(frozen=True, slots=True)
class OfferArrived:
    """The market offers a task. source: who offers it."""

    offer: Offer
    source: str = ""
    kind: ClassVar[str] = "offer"
    rank: ClassVar[int] = 5
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    @property
    def id(self) -> str:
        """What orders inputs of one time and rank."""
        return self.offer.task_id


Input = (
    JobEnded
    | GpuChanged
    | TimerFired
    | StartRequested
    | OperatorAsked
    | StorageChanged
    | PolicyPut
    | OfferArrived
)


def order_key(at_ms: int, entry: Input) -> tuple[int, int, str]:
    """Where an input stands in the handling order."""
    return (at_ms, entry.rank, entry.id)
