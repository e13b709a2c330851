"""The GPUs as the driver shows them: memory, processes, faults. Or none: slots on the CPU."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal, Protocol

from shared.errors import FourSlotError, InputError

Device = Literal["cuda", "cpu"]
APPLICATION_XIDS = frozenset({13, 31, 43, 45, 68, 69, 94})
"""Xids that tell of a fault in a program, not in the GPU: the program dies, the GPU serves on."""


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


@dataclass(frozen=True, slots=True)
class CpuSlots:
    """A box without GPUs: everything is always free and healthy."""

    count: int = 8
    device: Device = "cpu"

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


class NvmlGpus:
    """The box's GPUs through NVML. Remembers what it saw first, so that only news are faults."""

    device: Device = "cuda"

    def __init__(self, nvml: Any = None) -> None:
        """Begin to watch. nvml: the pynvml module. Raises GpuError when NVML cannot be used."""
        if nvml is None:
            nvml = import_module("pynvml")  # only where GPUs are looked for
        self._nvml = nvml
        self._broken: dict[int, str] = {}
        try:
            nvml.nvmlInit()
            self._count = int(nvml.nvmlDeviceGetCount())
        except nvml.NVMLError as why:
            raise GpuError(f"NVML: cannot be used: {why}") from None
        self._ecc = {gpu: self._uncorrected(gpu) for gpu in range(self._count)}
        self._events = self._register()

    @property
    def count(self) -> int:
        """How many there are."""
        return self._count

    def name(self, gpu: int) -> str:
        """Its product name. Raises GpuError."""
        found = self._ask(gpu, "name", self._nvml.nvmlDeviceGetName)
        return found.decode() if isinstance(found, bytes) else str(found)

    def memory_bytes(self, gpu: int) -> int:
        """Its whole memory. Raises GpuError."""
        return int(self._memory(gpu).total)

    def used_bytes(self, gpu: int) -> int:
        """Memory in use, without the driver's own. Raises GpuError."""
        return int(self._memory(gpu).used)

    def processes(self, gpu: int) -> tuple[GpuProcess, ...]:
        """The compute processes on it. Raises GpuError."""
        ask = self._nvml.nvmlDeviceGetComputeRunningProcesses
        found = self._ask(gpu, "processes", ask)
        return tuple(GpuProcess(each.pid, each.usedGpuMemory) for each in found)

    def fault(self, gpu: int) -> str | None:
        """Why it must not be used. What an Xid or an ECC error said stays until a restart."""
        self._take_events()
        if gpu not in self._broken:
            self._look_at_ecc(gpu)
        if gpu in self._broken:
            return self._broken[gpu]
        try:
            self._memory(gpu)
            return self._rows(gpu)
        except GpuError as why:
            return str(why)

    def _handle(self, gpu: int) -> Any:
        return self._nvml.nvmlDeviceGetHandleByIndex(gpu)

    def _ask(self, gpu: int, what: str, question: Callable[[Any], Any]) -> Any:
        try:
            return question(self._handle(gpu))
        except self._nvml.NVMLError as why:
            raise GpuError(f"GPU {gpu}: {what}: {why}") from None

    def _memory(self, gpu: int) -> Any:
        nvml = self._nvml

        def question(handle: Any) -> Any:
            try:
                return nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2)
            except (nvml.NVMLError_NotSupported, nvml.NVMLError_FunctionNotFound):
                return nvml.nvmlDeviceGetMemoryInfo(handle)

        return self._ask(gpu, "memory", question)

    def _uncorrected(self, gpu: int) -> int:
        """ECC errors since the driver was loaded that could not be corrected; 0 where unknown."""
        nvml = self._nvml
        kinds = nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, nvml.NVML_VOLATILE_ECC
        try:
            return int(nvml.nvmlDeviceGetTotalEccErrors(self._handle(gpu), *kinds))
        except nvml.NVMLError:
            return 0

    def _look_at_ecc(self, gpu: int) -> None:
        now = self._uncorrected(gpu)
        if now > self._ecc[gpu]:
            more = now - self._ecc[gpu]
            self._broken[gpu] = f"GPU {gpu}: ECC: {more} new uncorrectable error(s)"

    def _rows(self, gpu: int) -> str | None:
        """A row remapping that failed, or that waits for a reset."""
        try:
            _, _, pending, failed = self._nvml.nvmlDeviceGetRemappedRows(self._handle(gpu))
        except self._nvml.NVMLError:
            return None
        if failed:
            return f"GPU {gpu}: memory: a row could not be remapped"
        return f"GPU {gpu}: memory: a row waits for a reset to be remapped" if pending else None

    def _register(self) -> Any:
        """Have critical Xids told; None where the driver does not."""
        nvml = self._nvml
        try:
            events = nvml.nvmlEventSetCreate()
        except nvml.NVMLError:
            return None
        for gpu in range(self._count):
            try:
                handle = self._handle(gpu)
                nvml.nvmlDeviceRegisterEvents(handle, nvml.nvmlEventTypeXidCriticalError, events)
            except nvml.NVMLError:
                continue
        return events

    def _take_events(self) -> None:
        """Take the Xids that have come, without waiting."""
        nvml = self._nvml
        while self._events is not None:
            try:
                event = nvml.nvmlEventSetWait(self._events, 0)
                gpu = int(nvml.nvmlDeviceGetIndex(event.device))
            except nvml.NVMLError:  # a timeout: nothing more has come
                return
            if event.eventData not in APPLICATION_XIDS:
                self._broken[gpu] = f"GPU {gpu}: Xid {event.eventData}"


def discover(device: Literal["auto", "cuda", "cpu"], slots: int = 8) -> Gpus:
    """The box's GPUs, or ``slots`` slots on the CPU.

    ``auto`` takes the CPU where NVML finds no GPU. Raises InputError when ``cuda`` is asked for
    and there is none.
    """
    if device == "cpu":
        return CpuSlots(slots)
    try:
        found: Gpus = NvmlGpus()
    except (GpuError, ImportError) as why:
        if device == "auto":
            return CpuSlots(slots)
        raise InputError(f"device: found {device!r}, but {why}; allowed here is cpu") from None
    if found.count or device == "cuda":
        if not found.count:
            raise InputError("device: found 'cuda', but NVML shows no GPU; allowed here is cpu")
        return found
    return CpuSlots(slots)
