"""GPUs as NVML shows them, by a driver that says what a test has put there."""

from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import live.discovery
import live.kept_faults
from live.discovery import discover
from live.gpus import CpuSlots, GpuError, GpuProcess
from live.kept_faults import FILE, KeptFaults
from live.nvml_gpus import NvmlGpus
from live.passing import PassingError
from shared.errors import InputError


class NVMLError(Exception):
    pass


class NotSupported(NVMLError):
    pass


class FunctionNotFound(NVMLError):
    pass


class LibraryNotFound(NVMLError):
    pass


class DriverNotLoaded(NVMLError):
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
    fails: NVMLError | None = None
    poor: bool = False
    recovery: int = 0
    uuids: list[str] = field(default_factory=lambda: ["GPU-a", "GPU-b"])
    NVMLError = NVMLError
    NVMLError_NotSupported = NotSupported
    NVMLError_FunctionNotFound = FunctionNotFound
    NVMLError_LibraryNotFound = LibraryNotFound
    NVMLError_DriverNotLoaded = DriverNotLoaded
    NVML_FI_DEV_GET_GPU_RECOVERY_ACTION = 230
    NVML_MEMORY_ERROR_TYPE_UNCORRECTED = 1
    NVML_VOLATILE_ECC = 0
    nvmlMemory_v2 = 2  # noqa: N815
    nvmlEventTypeXidCriticalError = 8  # noqa: N815

    def nvmlInit(self) -> None:  # noqa: N802
        if self.fails:
            raise self.fails

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return self.gpus

    def nvmlDeviceGetHandleByIndex(self, gpu: int) -> int:  # noqa: N802
        if gpu in self.lost:
            raise NVMLError("GPU is lost")
        return gpu

    def nvmlDeviceGetIndex(self, handle: int) -> int:  # noqa: N802
        return handle

    def nvmlDeviceGetUUID(self, handle: int) -> bytes | str:  # noqa: N802
        uuid = self.uuids[handle]
        return uuid.encode() if self.old else uuid

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> int:  # noqa: N802
        if uuid not in self.uuids:
            raise NVMLError("Not Found")
        return self.nvmlDeviceGetHandleByIndex(self.uuids.index(uuid))

    def nvmlDeviceGetFieldValues(self, handle: int, fields: list[int]) -> list[Any]:  # noqa: N802
        assert fields == [230]
        value = SimpleNamespace(uiVal=self.recovery)
        return [SimpleNamespace(nvmlReturn=3 if self.old else 0, value=value)]

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


def test_an_ecc_error_that_no_program_contained_stays() -> None:
    driver = Driver()
    gpus = NvmlGpus(driver)
    assert gpus.fault(0) is None
    driver.ecc = {0: 2}
    assert gpus.fault(0) == "GPU 0: ECC: 2 new uncorrectable error(s)"
    assert gpus.fault(0) == "GPU 0: ECC: 2 new uncorrectable error(s)"
    assert gpus.fault(1) is None


@pytest.mark.parametrize("late", [False, True])
def test_a_contained_error_is_its_program_s(late: bool) -> None:
    """Its count may be seen a round before its Xid is told, or after."""
    driver = Driver()
    gpus = NvmlGpus(driver)
    assert gpus.fault(0) is None
    driver.ecc = {0: 1}
    if late:
        assert gpus.fault(0) is not None
    driver.xids = [(0, 94)]
    assert [gpus.fault(0) for _ in range(5)] == [None] * 5
    driver.ecc = {0: 2}
    assert gpus.fault(0) is not None
    assert gpus.fault(0) is not None  # an error that was not contained is the GPU's


@pytest.mark.parametrize(
    ("rows", "fault", "wish"),
    [
        ((0, 1, True, False), False, True),
        ((0, 1, False, True), True, False),
        ((0, 1, False, False), False, False),
    ],
)
def test_rows_of_memory(rows: tuple[int, int, bool, bool], fault: bool, wish: bool) -> None:
    gpus = NvmlGpus(Driver(rows=rows))
    assert (gpus.fault(1) is not None) is fault
    assert (gpus.wants_reset(1) is not None) is wish


@pytest.mark.parametrize(
    ("action", "fault", "wish"),
    [(0, None, None), (1, "a reset of the GPU", None), (2, "a restart of the box", None),
     (4, None, "a reset once it is idle"), (5, None, None)],
)  # fmt: skip
def test_what_the_driver_asks_for(action: int, fault: str | None, wish: str | None) -> None:
    gpus = NvmlGpus(Driver(recovery=action))
    told = "GPU 0: the driver asks for "
    assert gpus.fault(0) == (fault and told + fault)
    assert gpus.wants_reset(0) == (wish and told + wish)
    assert NvmlGpus(Driver(recovery=action, old=True)).fault(0) is None


@pytest.mark.parametrize("xid", [46, 48, 62, 64, 74, 79, 95, 109, 110, 119, 120, 140, 143, 999])
def test_a_fatal_xid_stays(xid: int) -> None:
    driver = Driver(xids=[(1, xid)])
    gpus = NvmlGpus(driver)
    assert gpus.fault(0) is None
    assert gpus.fault(1) == f"GPU 1: Xid {xid}"
    assert gpus.fault(1) == f"GPU 1: Xid {xid}"


@pytest.mark.parametrize("xid", [13, 31, 32, 43, 45, 63, 68, 69, 92, 94, 137, 154])
def test_a_program_s_xid_or_mere_news_is_no_fault(xid: int) -> None:
    driver = Driver(xids=[(1, xid)])
    assert NvmlGpus(driver).fault(1) is None
    assert driver.xids == []


# What outlives the daemon.


def opened(driver: Driver, folder: Path) -> NvmlGpus:
    return NvmlGpus(driver, KeptFaults(folder))


def broken(driver: Driver, folder: Path) -> None:
    """A fault of GPU 1 that a daemon has seen, before it ended."""
    driver.xids = [(1, 79)]
    assert opened(driver, folder).fault(1) == "GPU 1: Xid 79"


def test_a_fault_outlives_the_daemon(tmp_path: Path) -> None:
    driver = Driver()
    broken(driver, tmp_path)
    again = opened(driver, tmp_path)
    assert (again.fault(0), again.fault(1)) == (None, "GPU 1: Xid 79")


def test_an_ecc_error_while_nobody_watched_takes_a_gpu_out_and_ends_no_job(tmp_path: Path) -> None:
    driver = Driver(xids=[(0, 94)], ecc={0: 1})
    assert opened(driver, tmp_path).fault(0) is None
    gpus = opened(driver, tmp_path)
    assert (gpus.fault(0), gpus.wants_reset(0)) == (None, None)  # this one is accounted for
    driver.ecc = {0: 2}
    for _ in range(2):
        gpus = opened(driver, tmp_path)
        assert gpus.fault(0) is None
        why = "GPU 0: ECC: 1 new uncorrectable error(s) while nobody watched"
        assert gpus.wants_reset(0) == why
    driver.xids = [(0, 95)]
    assert gpus.fault(0) == "GPU 0: Xid 95"
    driver.ecc = {0: 5}
    assert [gpus.fault(0) for _ in range(3)] == ["GPU 0: Xid 95"] * 3


def test_an_ecc_error_after_an_unwatched_one_is_fatal(tmp_path: Path) -> None:
    driver = Driver(ecc={0: 1})
    gpus = opened(driver, tmp_path)
    assert (gpus.fault(0), gpus.fault(0)) == (None, None)
    driver.ecc = {0: 2}
    assert [gpus.fault(0) for _ in range(2)] == ["GPU 0: ECC: 1 new uncorrectable error(s)"] * 2


def test_a_restart_of_the_machine_clears_a_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = Driver()
    broken(driver, tmp_path)
    monkeypatch.setattr(live.kept_faults, "boot_id", lambda: "another")
    assert opened(driver, tmp_path).fault(1) is None


def test_a_reset_that_the_driver_s_counters_show_clears_a_fault(tmp_path: Path) -> None:
    driver = Driver(ecc={1: 3})
    gpus = opened(driver, tmp_path)
    driver.xids = [(1, 48)]
    assert gpus.fault(1) == "GPU 1: Xid 48"
    assert opened(driver, tmp_path).fault(1) == "GPU 1: Xid 48"
    driver.ecc = {}
    assert opened(driver, tmp_path).fault(1) is None
    assert opened(driver, tmp_path).fault(1) is None


def test_an_operator_clears_a_fault(tmp_path: Path) -> None:
    driver = Driver(ecc={1: 3})
    broken(driver, tmp_path)
    gpus = opened(driver, tmp_path)
    assert gpus.clear(1) == "GPU 1: Xid 79"
    assert [gpus.fault(1) for _ in range(3)] == [None] * 3
    assert opened(driver, tmp_path).fault(1) is None
    driver.xids = [(1, 95)]
    assert gpus.fault(1) == "GPU 1: Xid 95"
    kept = KeptFaults(tmp_path)
    assert kept.clear(kept.key_of(1)) == "GPU 1: Xid 95"
    assert opened(driver, tmp_path).fault(1) is None
    for number in (-1, 2):
        with pytest.raises(InputError, match=f"gpu: found {number}, allowed is 0 to 1"):
            kept.key_of(number)
        with pytest.raises(InputError, match=f"gpu: found {number}, allowed is 0 to 1"):
            gpus.clear(number)


def test_who_only_looks_writes_nothing(tmp_path: Path) -> None:
    gpus = NvmlGpus(Driver(xids=[(1, 79)]), KeptFaults(tmp_path, writes=False))
    assert gpus.fault(1) == "GPU 1: Xid 79"
    assert list(tmp_path.iterdir()) == []


def test_a_fault_is_written_when_the_disk_has_room_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = Driver()
    gpus = opened(driver, tmp_path)
    with monkeypatch.context() as full:
        full.setattr(live.kept_faults, "write_record", full_disk)
        driver.xids = [(1, 79)]
        assert gpus.fault(1) == "GPU 1: Xid 79"
        assert opened(driver, tmp_path).fault(1) is None
    gpus.fault(0)
    assert opened(driver, tmp_path).fault(1) == "GPU 1: Xid 79"


def full_disk(*_: Any) -> None:
    raise OSError(28, "No space left on device")


def test_a_file_that_is_none_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / FILE).write_text('{"boot_id": 3}')
    with pytest.raises(InputError, match=f"{FILE}: boot_id: found 3"):
        KeptFaults(tmp_path)


def test_a_gpu_that_fell_off_the_bus_moves_no_other(tmp_path: Path) -> None:
    """The driver may count fewer after its reload; the numbers of jobs and slots must hold."""
    names = ["GPU-a", "GPU-b", "GPU-c"]
    assert opened(Driver(gpus=3, uuids=names), tmp_path).count == 3
    driver = Driver(gpus=2, uuids=["GPU-a", "GPU-c"], xids=[(1, 95)])
    gpus = opened(driver, tmp_path)
    assert (gpus.count, gpus.uuid(2)) == (3, "GPU-c")
    assert gpus.fault(1) == "GPU 1: memory: Not Found"
    assert (gpus.fault(0), gpus.fault(2)) == (None, "GPU 2: Xid 95")
    lost = opened(Driver(gpus=3, uuids=names, lost={1}), tmp_path)
    assert (lost.uuid(1), lost.fault(1)) == ("GPU-b", "GPU 1: memory: GPU is lost")


def test_gpus_that_are_all_lost_at_the_first_look_are_counted(tmp_path: Path) -> None:
    gpus = opened(Driver(lost={0, 1}), tmp_path)
    assert (gpus.count, gpus.uuid(0)) == (2, None)
    assert gpus.fault(0) == "GPU 0: memory: GPU is lost"


# Which GPUs there are.


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Driver:
    made = Driver()
    monkeypatch.setattr(live.discovery, "import_module", lambda _: made)
    monkeypatch.setattr(live.discovery, "PCI", tmp_path / "pci")
    return made


def plug_in(folder: Path, kind: str = "0x030200", maker: str = "0x10de") -> None:
    at = folder / "pci" / f"0000:{kind}"
    at.mkdir(parents=True)
    (at / "vendor").write_text(f"{maker}\n")
    (at / "class").write_text(f"{kind}\n")


def test_discovery(driver: Driver) -> None:
    assert discover("auto").count == 2
    assert discover("cuda").device == "cuda"
    assert discover("cpu", 4) == CpuSlots(4)
    driver.gpus = 0
    assert discover("auto", 8) == CpuSlots(8)
    with pytest.raises(InputError, match="device: found 'cuda', but NVML shows no GPU"):
        discover("cuda")


@pytest.mark.parametrize("why", [LibraryNotFound("no library"), DriverNotLoaded("no driver")])
def test_a_box_without_gpus_has_cpu_slots_and_says_why(driver: Driver, why: NVMLError) -> None:
    driver.fails = why
    found = discover("auto", 8)
    assert isinstance(found, CpuSlots)
    assert found.why == f"NVML: {why}"
    with pytest.raises(InputError, match=f"device: found 'cuda', but NVML: {why}; allowed"):
        discover("cuda")


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_a_driver_that_fails_is_no_box_without_gpus(
    driver: Driver, tmp_path: Path, device: Any
) -> None:
    driver.fails = NVMLError("Driver/library version mismatch")
    with pytest.raises(PassingError, match="NVML is there and fails: Driver/library version"):
        discover(device)
    driver.fails = DriverNotLoaded("Driver Not Loaded")
    plug_in(tmp_path)
    with pytest.raises(PassingError, match="fails: Driver Not Loaded"):
        discover(device)


def test_a_driver_that_shows_none_of_the_bus_s_gpus_fails(driver: Driver, tmp_path: Path) -> None:
    plug_in(tmp_path, "0x020000")  # their network card
    plug_in(tmp_path, "0x030000", "0x1a03")
    driver.gpus = 0
    assert discover("auto") == CpuSlots(8)
    plug_in(tmp_path)
    with pytest.raises(PassingError, match="shows no GPU and the PCI bus shows 1"):
        discover("auto")


def test_a_machine_without_the_module(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def absent(_: str) -> None:
        raise ImportError("No module named 'pynvml'")

    monkeypatch.setattr(live.discovery, "import_module", absent)
    monkeypatch.setattr(live.discovery, "PCI", tmp_path / "pci")
    plug_in(tmp_path)
    found = discover("auto")
    assert isinstance(found, CpuSlots)
    assert "pynvml" in found.why
    assert "1 NVIDIA GPU" in found.why


def test_on_the_cpu_everything_is_free_and_healthy() -> None:
    slots = CpuSlots(8)
    assert (slots.used_bytes(3), slots.processes(3), slots.fault(3)) == (0, (), None)
    assert (slots.memory_bytes(3), slots.name(3), slots.device) == (0, "CPU slot 3", "cpu")
    assert (slots.wants_reset(3), slots.uuid(3), slots.clear(3)) == (None, None, None)
