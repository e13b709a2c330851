"""Which GPUs jobs run on: those of the box, or slots on the CPU where there are none."""

from importlib import import_module
from pathlib import Path
from typing import Any, Literal

from live.gpus import CpuSlots, Gpus
from live.kept_faults import KeptFaults
from live.nvml_gpus import NvmlGpus
from live.passing import PassingError
from shared.errors import InputError

PCI = Path("/sys/bus/pci/devices")
NVIDIA, DISPLAYS = "0x10de", ("0x0300", "0x0302")
"""PCI's number of the maker, and of the classes that a GPU may be of."""


def discover(
    device: Literal["auto", "cuda", "cpu"], slots: int = 8, kept: KeptFaults | None = None
) -> Gpus:
    """The box's GPUs, or ``slots`` slots on the CPU.

    ``auto`` takes the CPU where there is no NVML or no NVIDIA GPU, and says why. kept:
    what an earlier daemon knew of them. Raises InputError when ``cuda`` is asked for and there is
    none, and PassingError when there are GPUs and their driver fails: that is no box without GPUs.
    """
    if device == "cpu":
        return CpuSlots(slots)
    try:
        nvml = import_module("pynvml")  # only where GPUs are looked for
    except ImportError as why:
        return _without(device, str(why), slots)
    try:
        found = NvmlGpus(nvml, kept)
    except nvml.NVMLError as why:
        if _none_here(nvml, why):
            return _without(device, f"NVML: {why}", slots)
        raise _failing(device, f"NVML is there and fails: {why}") from None
    if found.count:
        return found
    if device == "auto" and (shown := on_the_bus()):
        raise _failing(device, f"NVML shows no GPU and the PCI bus shows {shown}")
    return _without(device, "NVML shows no GPU", slots)


def on_the_bus() -> int:
    """NVIDIA's GPUs that the PCI bus shows, with or without a driver."""
    return sum(
        _line(folder / "vendor") == NVIDIA and _line(folder / "class").startswith(DISPLAYS)
        for folder in (PCI.iterdir() if PCI.is_dir() else ())
    )


def _line(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _none_here(nvml: Any, why: Exception) -> bool:
    """Whether NVML's complaint is that of a machine without NVIDIA GPUs."""
    kinds = (nvml.NVMLError_LibraryNotFound, nvml.NVMLError_DriverNotLoaded)
    return isinstance(why, kinds) and not on_the_bus()


def _without(device: str, why: str, slots: int) -> CpuSlots:
    if device == "cuda":
        raise InputError(f"device: found {device!r}, but {why}; allowed here is cpu")
    shown = on_the_bus()
    though = f", though the PCI bus shows {shown} NVIDIA GPU(s)" if shown else ""
    return CpuSlots(slots, why=f"{why}{though}")


def _failing(device: str, why: str) -> PassingError:
    return PassingError(
        f'device: found {device!r}, but {why}; mend the driver (nvidia-smi), or set device = "cpu"'
    )
