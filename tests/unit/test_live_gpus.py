"""GPUs as NVML shows them, by a driver that says what a test has put there."""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest

import live.gpus
from live.gpus import CpuSlots, GpuError, GpuProcess, NvmlGpus, discover
from shared.errors import InputError


class NVMLError(Exception):
    pass


class NotSupported(NVMLError):
    pass


class FunctionNotFound(NVMLError):
    pass


@dataclass
class Driver:
    """The functions of pynvml that are used, scripted."""

    gpus: int = 2
    used: int = 5
    ecc: dict[int, int] = field(default_factory=dict)
    rows: tuple[int, int, bool, bool] = (0, 0, False, False)
    xids: list[tuple[int, int]] = field(default_factory=list)
    lost: set[int] = field(default_factory=set)
    old: bool = False
    absent: bool = False
    poor: bool = False
    NVMLError = NVMLError
    NVMLError_NotSupported = NotSupported
    NVMLError_FunctionNotFound = FunctionNotFound
    NVML_MEMORY_ERROR_TYPE_UNCORRECTED = 1
    NVML_VOLATILE_ECC = 0
    nvmlMemory_v2 = 2  # noqa: N815
    nvmlEventTypeXidCriticalError = 8  # noqa: N815

    def nvmlInit(self) -> None:  # noqa: N802
        if self.absent:
            raise NVMLError("Driver Not Loaded")

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return self.gpus

    def nvmlDeviceGetHandleByIndex(self, gpu: int) -> int:  # noqa: N802
        if gpu in self.lost:
            raise NVMLError("GPU is lost")
        return gpu

    def nvmlDeviceGetIndex(self, handle: int) -> int:  # noqa: N802
        return handle

    def nvmlDeviceGetName(self, handle: int) -> bytes | str:  # noqa: N802
        return b"NVIDIA H100" if self.old else "NVIDIA H100"

    def nvmlDeviceGetMemoryInfo(self, handle: int, version: int | None = None) -> Any:  # noqa: N802
        if self.old and version:
            raise FunctionNotFound("Function Not Found")
        return SimpleNamespace(total=80, used=self.used if version else self.used + 1)

    def nvmlDeviceGetComputeRunningProcesses(self, handle: int) -> list[Any]:  # noqa: N802
        return [
            SimpleNamespace(pid=7, usedGpuMemory=3),
            SimpleNamespace(pid=8, usedGpuMemory=None),
        ]

    def nvmlDeviceGetTotalEccErrors(self, handle: int, kind: int, counter: int) -> int:  # noqa: N802
        if self.poor:
            raise NotSupported("Not Supported")
        assert (kind, counter) == (1, 0)
        return self.ecc.get(handle, 0)

    def nvmlDeviceGetRemappedRows(self, handle: int) -> tuple[int, int, bool, bool]:  # noqa: N802
        if self.poor:
            raise NotSupported("Not Supported")
        return self.rows

    def nvmlEventSetCreate(self) -> object:  # noqa: N802
        if self.poor:
            raise NotSupported("Not Supported")
        return object()

    def nvmlDeviceRegisterEvents(self, handle: int, kinds: int, events: object) -> None:  # noqa: N802
        assert kinds == 8

    def nvmlEventSetWait(self, events: object, wait_ms: int) -> Any:  # noqa: N802
        assert wait_ms == 0
        if not self.xids:
            raise NVMLError("Timeout")
        gpu, xid = self.xids.pop(0)
        return SimpleNamespace(device=gpu, eventData=xid)


def test_what_a_gpu_shows() -> None:
    gpus = NvmlGpus(Driver())
    assert (gpus.count, gpus.device, gpus.name(1)) == (2, "cuda", "NVIDIA H100")
    assert (gpus.memory_bytes(0), gpus.used_bytes(0)) == (80, 5)
    assert gpus.processes(0) == (GpuProcess(7, 3), GpuProcess(8, None))
    assert gpus.fault(0) is None


def test_an_older_driver() -> None:
    gpus = NvmlGpus(Driver(old=True))
    assert (gpus.name(0), gpus.used_bytes(0)) == ("NVIDIA H100", 6)


def test_a_driver_that_knows_no_ecc_no_rows_and_no_events() -> None:
    gpus = NvmlGpus(Driver(poor=True))
    assert gpus.fault(0) is None


def test_a_lost_gpu_is_a_fault_and_others_are_not() -> None:
    driver = Driver()
    gpus = NvmlGpus(driver)
    driver.lost = {1}
    assert gpus.fault(1) == "GPU 1: memory: GPU is lost"
    assert gpus.fault(0) is None
    with pytest.raises(GpuError, match="GPU 1: processes: GPU is lost"):
        gpus.processes(1)
    driver.lost = set()
    assert gpus.fault(1) is None


def test_only_new_ecc_errors_count_and_they_stay() -> None:
    driver = Driver(ecc={0: 4})
    gpus = NvmlGpus(driver)
    assert gpus.fault(0) is None
    driver.ecc = {0: 6}
    assert gpus.fault(0) == "GPU 0: ECC: 2 new uncorrectable error(s)"
    driver.ecc = {0: 4}
    assert gpus.fault(0) == "GPU 0: ECC: 2 new uncorrectable error(s)"


@pytest.mark.parametrize(
    ("rows", "words"), [((0, 1, True, False), "waits"), ((0, 1, True, True), "could not")]
)
def test_rows_of_memory(rows: tuple[int, int, bool, bool], words: str) -> None:
    found = NvmlGpus(Driver(rows=rows)).fault(1)
    assert found is not None
    assert words in found


def test_an_xid_is_a_fault_unless_it_is_a_program_s() -> None:
    driver = Driver()
    gpus = NvmlGpus(driver)
    driver.xids = [(0, 31), (0, 13), (1, 79)]
    assert gpus.fault(0) is None
    assert gpus.fault(1) == "GPU 1: Xid 79"
    assert driver.xids == []


def test_discovery(monkeypatch: pytest.MonkeyPatch) -> None:
    driver = Driver()
    monkeypatch.setattr(live.gpus, "import_module", lambda name: driver)
    assert discover("auto").count == 2
    assert discover("cuda").device == "cuda"
    assert discover("cpu", 4) == CpuSlots(4)
    driver.gpus = 0
    assert discover("auto", 8) == CpuSlots(8)
    with pytest.raises(InputError, match="device: found 'cuda'"):
        discover("cuda")
    driver.absent = True
    assert discover("auto", 8) == CpuSlots(8)
    with pytest.raises(InputError, match="Driver Not Loaded"):
        discover("cuda")


def test_on_the_cpu_everything_is_free_and_healthy() -> None:
    slots = CpuSlots(8)
    assert (slots.used_bytes(3), slots.processes(3), slots.fault(3)) == (0, (), None)
    assert (slots.memory_bytes(3), slots.name(3), slots.device) == (0, "CPU slot 3", "cpu")
