"""The box's GPUs through NVML: health, memory, processes, and which of them were called broken."""

import logging
from collections.abc import Callable
from typing import Any

from live.gpus import Device, GpuError, GpuProcess
from live.kept_faults import UNCOUNTED, KeptFaults, KeptGpu
from live.xids import CONTAINED, is_fatal
from shared.errors import InputError

log = logging.getLogger(__name__)

CONTAINED_LOOKS = 3
"""For so many looks after a contained error, a rise of the ECC count is that error's."""
_RESET, _RESTART = "a reset of the GPU", "a restart of the box"
MUST = {1: _RESET, 2: _RESTART, 6: _RESET, 7: _RESTART}
WHEN_IDLE = {3: "its peer traffic to be drained", 4: "a reset once it is idle"}
"""NVML's recovery actions, ``nvmlDeviceGpuRecoveryAction_t``; 0 is none."""


class NvmlGpus:
    """The box's GPUs. A number stands for the same GPU as long as the machine is up.

    What an Xid or an ECC error said of one stays, through restarts of the daemon, until the
    machine restarts, the driver's counters show a reset, or an operator calls it well.
    """

    device: Device = "cuda"

    def __init__(self, nvml: Any, kept: KeptFaults | None = None) -> None:
        """Begin to watch. nvml: the pynvml module. Raises NVMLError when NVML cannot be used."""
        self._nvml, self._kept = nvml, kept or KeptFaults(None)
        self._contained: dict[int, int] = {}
        self._suspect: set[int] = set()
        self._looked: set[int] = set()
        nvml.nvmlInit()
        seen = [self._uuid_at(index) for index in range(int(nvml.nvmlDeviceGetCount()))]
        self._uuids = self._kept.numbered(seen)
        told = [each or known for each, known in zip(seen, self._uuids, strict=False)]
        self._moved = told != self._uuids  # the driver numbers them otherwise than this boot did
        self._events = self._register()

    @property
    def count(self) -> int:
        """How many there are, those that were lost since the machine is up among them."""
        return len(self._uuids)

    def uuid(self, gpu: int) -> str | None:
        """What tells it from every other GPU, for CUDA too; None where the driver does not say."""
        return self._uuids[gpu]

    def name(self, gpu: int) -> str:
        """Its product name. Raises GpuError."""
        return _text(self._ask(gpu, "name", self._nvml.nvmlDeviceGetName))

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
        """Why it must not be used."""
        self._take_events()
        suspected = self._look_at_ecc(gpu)
        self._kept.flush()
        kept = self._kept.of(self._key(gpu))
        known = kept.reason if kept.fatal else None
        if known or suspected:
            return known or suspected
        try:
            self._memory(gpu)
        except GpuError as why:
            return str(why)
        if (rows := self._rows(gpu)) and rows[1]:
            return f"GPU {gpu}: memory: a row could not be remapped"
        needs = MUST.get(self._recovery(gpu))
        return f"GPU {gpu}: the driver asks for {needs}" if needs else None

    def wants_reset(self, gpu: int) -> str | None:
        """Why it should be reset once nothing runs on it, or None."""
        kept = self._kept.of(self._key(gpu))
        if kept.reason and not kept.fatal:
            return kept.reason
        if (rows := self._rows(gpu)) and rows[0]:
            return f"GPU {gpu}: memory: a row waits for a reset to be remapped"
        needs = WHEN_IDLE.get(self._recovery(gpu))
        return f"GPU {gpu}: the driver asks for {needs}" if needs else None

    def clear(self, gpu: int) -> str | None:
        """Call it well on an operator's word; the reason that was kept. Raises InputError, OSError.

        What the driver shows at this moment still counts.
        """
        if not 0 <= gpu < self.count:
            raise InputError(f"gpu: found {gpu}, allowed is 0 to {self.count - 1}")
        self._suspect.discard(gpu)
        return self._kept.clear(self._key(gpu))

    # The driver.

    def _uuid_at(self, index: int) -> str | None:
        nvml = self._nvml
        try:
            return _text(nvml.nvmlDeviceGetUUID(nvml.nvmlDeviceGetHandleByIndex(index)))
        except nvml.NVMLError:
            return None

    def _key(self, gpu: int) -> str:
        return self._uuids[gpu] or f"number {gpu}"

    def _handle(self, gpu: int) -> Any:
        uuid = self._uuids[gpu]
        if self._moved and uuid is not None:
            return self._nvml.nvmlDeviceGetHandleByUUID(uuid)
        return self._nvml.nvmlDeviceGetHandleByIndex(gpu)

    def _ask(self, gpu: int, what: str, question: Callable[[Any], Any]) -> Any:
        try:
            return question(self._handle(gpu))
        except self._nvml.NVMLError as why:
            raise GpuError(f"GPU {gpu}: {what}: {why}") from None

    def _told(self, gpu: int, name: str, *more: Any) -> Any:
        """An answer that not every driver has; None where this one has not."""
        question = getattr(self._nvml, name, None)
        if question is None:
            return None
        try:
            return question(self._handle(gpu), *more)
        except self._nvml.NVMLError:
            return None

    def _memory(self, gpu: int) -> Any:
        nvml = self._nvml

        def question(handle: Any) -> Any:
            try:
                return nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2)
            except (nvml.NVMLError_NotSupported, nvml.NVMLError_FunctionNotFound):
                return nvml.nvmlDeviceGetMemoryInfo(handle)

        return self._ask(gpu, "memory", question)

    def _rows(self, gpu: int) -> tuple[bool, bool] | None:
        """Whether a remapping of a row waits for a reset, and whether one has failed."""
        found = self._told(gpu, "nvmlDeviceGetRemappedRows")
        return None if found is None else (bool(found[2]), bool(found[3]))

    def _recovery(self, gpu: int) -> int:
        """What the driver says has to be done with it; 0 for nothing, or where it does not say."""
        field = getattr(self._nvml, "NVML_FI_DEV_GET_GPU_RECOVERY_ACTION", None)
        found = None if field is None else self._told(gpu, "nvmlDeviceGetFieldValues", [field])
        return int(found[0].value.uiVal) if found and found[0].nvmlReturn == 0 else 0

    # ECC errors and Xids.

    def _look_at_ecc(self, gpu: int) -> str | None:
        """Account for uncorrected errors; a suspicion while it may still be a contained one."""
        nvml, key = self._nvml, self._key(gpu)
        looks = self._contained.get(gpu, 0)
        self._contained[gpu] = max(0, looks - 1)
        kinds = nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, nvml.NVML_VOLATILE_ECC
        told = self._told(gpu, "nvmlDeviceGetTotalEccErrors", *kinds)
        if told is None:
            return None
        now, kept = int(told), self._kept.of(key)
        if now < kept.errors and kept.reason is not None:
            log.warning("%s: forgotten, the GPU was reset since", kept.reason)
        if now < kept.errors:
            self._kept.put(key, KeptGpu(errors=now))
        elif kept.errors == UNCOUNTED or (now > kept.errors and looks):
            self._kept.put(key, kept.model_copy(update={"errors": now}))
        elif now > kept.errors:
            return self._suspected(gpu, kept, now)
        self._suspect.discard(gpu)
        self._looked.add(gpu)
        return None

    def _suspected(self, gpu: int, kept: KeptGpu, now: int) -> str | None:
        """A rise that no contained error explains is the GPU's fault at the second look.

        One that was there at the first look befell it while nobody watched: it may have been
        contained, so a job that lives on may go on, and no other comes until somebody has looked.
        """
        why = f"GPU {gpu}: ECC: {now - kept.errors} new uncorrectable error(s)"
        unwatched = gpu not in self._looked
        self._looked.add(gpu)
        if not unwatched and gpu not in self._suspect:
            self._suspect.add(gpu)
            return why
        self._suspect.discard(gpu)
        if kept.reason is None or not kept.fatal:
            why += " while nobody watched" if unwatched else ""
            kept = KeptGpu(reason=why, fatal=not unwatched)
        self._kept.put(self._key(gpu), kept.model_copy(update={"errors": now}))
        return None

    def _register(self) -> Any:
        """Have critical Xids told; None where the driver does not."""
        nvml = self._nvml
        try:
            events = nvml.nvmlEventSetCreate()
        except nvml.NVMLError:
            return None
        for gpu in range(self.count):
            try:
                handle = self._handle(gpu)
                nvml.nvmlDeviceRegisterEvents(handle, nvml.nvmlEventTypeXidCriticalError, events)
            except nvml.NVMLError:
                continue
        return events

    def _take_events(self) -> None:
        """Take the Xids that have come, without waiting."""
        while self._events is not None:
            try:
                event = self._nvml.nvmlEventSetWait(self._events, 0)
            except self._nvml.NVMLError:  # a timeout: nothing more has come
                return
            self._take(int(event.eventData), self._number_of(event.device))

    def _take(self, xid: int, gpu: int | None) -> None:
        if gpu is None:
            log.error("Xid %d of a GPU that cannot be told", xid)
            return
        if xid == CONTAINED:
            self._contained[gpu] = CONTAINED_LOOKS
        if not is_fatal(xid):
            log.warning("GPU %d: Xid %d, the GPU serves on", gpu, xid)
            return
        kept = self._kept.of(self._key(gpu))
        if kept.reason is None or not kept.fatal:
            why = KeptGpu(reason=f"GPU {gpu}: Xid {xid}", errors=kept.errors)
            self._kept.put(self._key(gpu), why)

    def _number_of(self, device: Any) -> int | None:
        nvml = self._nvml
        try:
            uuid = _text(nvml.nvmlDeviceGetUUID(device))
            if uuid in self._uuids:
                return self._uuids.index(uuid)
            return None if self._moved else int(nvml.nvmlDeviceGetIndex(device))
        except nvml.NVMLError:
            return None


def _text(told: bytes | str) -> str:
    return told.decode() if isinstance(told, bytes) else str(told)
