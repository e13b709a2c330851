"""What the daemon asks of GPUs: memory, processes, faults. And a box that has none: CPU slots."""

from dataclasses import dataclass, field
from typing import Literal, Protocol

from shared.errors import FourSlotError, InputError

Device = Literal["cuda", "cpu"]


class GpuError(FourSlotError):
    """The driver did not answer about a GPU; the message says to what and why."""


@dataclass(frozen=True, slots=True)
class GpuProcess:
    """A process that holds memory of a GPU. used_bytes: None where the driver does not say."""

    pid: int
    used_bytes: int | None


class Gpus(Protocol):
    """What the supervisor needs to know about the box's GPUs."""

    @property
    def device(self) -> Device:
        """What jobs run on."""

    @property
    def count(self) -> int:
        """How many there are, numbered from 0 in the order of the PCI bus."""

    def name(self, gpu: int) -> str:
        """Its product name. Raises GpuError."""

    def memory_bytes(self, gpu: int) -> int:
        """Its whole memory. Raises GpuError."""

    def used_bytes(self, gpu: int) -> int:
        """Memory in use, without what the driver keeps for itself. Raises GpuError."""

    def processes(self, gpu: int) -> tuple[GpuProcess, ...]:
        """The compute processes on it. Raises GpuError."""

    def fault(self, gpu: int) -> str | None:
        """Why it must not be used, or None while it is healthy. Never raises GpuError."""

    def wants_reset(self, gpu: int) -> str | None:
        """Why it should be reset once it is idle, or None. What runs on it may go on."""

    def uuid(self, gpu: int) -> str | None:
        """What CUDA knows it by whatever the numbering; None where there is no such thing."""

    def clear(self, gpu: int) -> str | None:
        """Call it well on an operator's word; the fault that was remembered, or None.

        Raises InputError, OSError.
        """


@dataclass(frozen=True, slots=True)
class CpuSlots:
    """A box without GPUs: everything is always free and healthy.

    why: there are none, where they were looked for.
    """

    count: int = 8
    device: Device = "cpu"
    why: str = field(default="", compare=False)

    def name(self, gpu: int) -> str:
        """What stands for a GPU."""
        return f"CPU slot {gpu}"

    def memory_bytes(self, gpu: int) -> int:  # noqa: ARG002 - the protocol's
        """Nothing to tell."""
        return 0

    def used_bytes(self, gpu: int) -> int:  # noqa: ARG002 - the protocol's
        """Nothing is ever held."""
        return 0

    def processes(self, gpu: int) -> tuple[GpuProcess, ...]:  # noqa: ARG002 - the protocol's
        """Nobody."""
        return ()

    def fault(self, gpu: int) -> str | None:  # noqa: ARG002 - the protocol's
        """None, ever."""
        return None

    def wants_reset(self, gpu: int) -> str | None:  # noqa: ARG002 - the protocol's
        """None, ever."""
        return None

    def uuid(self, gpu: int) -> str | None:  # noqa: ARG002 - the protocol's
        """CUDA knows nothing of it."""
        return None

    def clear(self, gpu: int) -> str | None:
        """Nothing is ever remembered. Raises InputError for a number that is no slot's."""
        if not 0 <= gpu < self.count:
            raise InputError(f"gpu: found {gpu}, allowed here is 0 to {self.count - 1}")
        return None
