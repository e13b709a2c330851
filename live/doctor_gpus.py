"""The doctor on what CUDA needs of the box, and on the modes that GPUs are in.

Of a box without GPUs there is nothing to say here. Torch is not imported: its files tell.
"""

import os
import re
from collections.abc import Iterator
from functools import partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

from live.doctor_lines import Check, Line, Scene, fault, ok, warning
from live.in_time import in_time
from shared.errors import InputError
from shared.layout import SlotLayout
from shared.units import GB

ANSWER_S = 10.0
UVM = Path("/dev/nvidia-uvm")
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 - asked for its size
LEAST_SHARED_BYTES = 1_000_000_000
"""NCCL's buffers of a box full of jobs, with room; containers are given 64 MB by default."""
_BUILT_FOR = re.compile(r"^cuda\b[^=\n]*=\s*['\"]([^'\"]+)", re.MULTILINE)


def _cuda(scene: Scene) -> Iterator[Line]:
    if not scene.on_gpus:
        return
    built_for = torch_cuda()
    if built_for is None:
        remedy = "install torch's build for CUDA: pip install torch, without the CPU index"
        yield fault("CUDA", "torch is a build for the CPU: every job fails", remedy)
    if not UVM.exists():
        remedy = "nvidia-modprobe -u -c=0 at every boot; a container needs the device passed in"
        yield fault("CUDA", f"{UVM} is missing: no program can use a GPU", remedy)
    if built_for is not None and UVM.exists():
        yield ok("CUDA", f"torch is built for CUDA {built_for}, {UVM} is there")


def torch_cuda() -> str | None:
    """The CUDA that the installed torch is built for; None for a build without it, or no torch."""
    try:
        path = Path(str(distribution("torch").locate_file("torch/version.py")))
        found = _BUILT_FOR.search(path.read_text())
    except (PackageNotFoundError, OSError):
        return None
    return found[1] if found else None


def _shared_memory(scene: Scene) -> Iterator[Line]:
    """The ranks of a job talk through it."""
    layout = _layout(scene)
    if layout is None or not scene.on_gpus or len(layout.gpus[0]) == 1:
        return
    about = os.statvfs(SHARED_MEMORY)
    free = about.f_bavail * about.f_frsize
    found = f"{SHARED_MEMORY}: {free / GB:.2f} GB free"
    if free < LEAST_SHARED_BYTES:
        remedy = f"mount -o remount,size={LEAST_SHARED_BYTES // 10**9}G or more; docker: --shm-size"
        yield fault("shared memory", f"{found}: NCCL fails without room there", remedy)
    else:
        yield ok("shared memory", found)


def _modes(scene: Scene) -> Iterator[Line]:
    """One line for each thing that is wrong, with the GPUs that it is wrong of."""
    layout = _layout(scene)
    if layout is None or not scene.cuda or isinstance(scene.gpus, str):
        return
    nvml = import_module("pynvml")
    wrong: dict[str, list[int]] = {}
    for gpu in range(min(scene.gpus.count, 1 + max(map(max, layout.gpus)))):
        try:
            found = in_time(ANSWER_S, partial(_wrong, nvml, gpu, layout))
        except (TimeoutError, nvml.NVMLError):
            continue  # told under "GPUs"
        for each in found:
            wrong.setdefault(each, []).append(gpu)
    for each, gpus in wrong.items():
        make = warning if each == IDLES else fault
        yield make("GPU modes", f"{each}: GPU {', '.join(map(str, gpus))}", REMEDIES[each])
    if not wrong:
        yield ok("GPU modes", "no MIG, open to several programs, persistence on, no ECC error")


MIG = "MIG is on, so a job gets a part of a GPU or none"
PROHIBITED = "compute mode prohibited: no program may use it"
EXCLUSIVE = "compute mode exclusive, and slots share a GPU: all jobs but one fail"
IDLES = "persistence is off, so the driver is loaded anew for every job"
ECC = "uncorrected ECC errors since its last reset"
REMEDIES = {
    MIG: "nvidia-smi -i N -mig 0, then reset the GPU",
    PROHIBITED: "nvidia-smi -i N -c 0",
    EXCLUSIVE: "nvidia-smi -i N -c 0",
    IDLES: "systemctl enable --now nvidia-persistenced, or nvidia-smi -pm 1",
    ECC: "nvidia-smi --gpu-reset -i N while nothing runs on it; replace it if they return",
}


def _wrong(nvml: Any, gpu: int, layout: SlotLayout) -> list[str]:
    handle = nvml.nvmlDeviceGetHandleByIndex(gpu)

    def told(question: str, *more: Any) -> Any:
        """None where this kind of GPU, or this user, is not told."""
        try:
            return getattr(nvml, question)(handle, *more)
        except (nvml.NVMLError, AttributeError):
            return None

    mig, mode = told("nvmlDeviceGetMigMode"), told("nvmlDeviceGetComputeMode")
    kinds = nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, nvml.NVML_VOLATILE_ECC
    exclusive = mode not in (None, nvml.NVML_COMPUTEMODE_DEFAULT, nvml.NVML_COMPUTEMODE_PROHIBITED)
    holds = {
        MIG: bool(mig and mig[0]),
        PROHIBITED: mode == nvml.NVML_COMPUTEMODE_PROHIBITED,
        EXCLUSIVE: exclusive and layout.gpu_share < 1,
        IDLES: told("nvmlDeviceGetPersistenceMode") == 0,
        ECC: bool(told("nvmlDeviceGetTotalEccErrors", *kinds)),
    }
    return [what for what, is_so in holds.items() if is_so]


def _layout(scene: Scene) -> SlotLayout | None:
    try:
        return scene.policy().preset.layout
    except InputError:
        return None  # told under "policy"


CHECKS: dict[str, Check] = {"CUDA": _cuda, "GPU modes": _modes, "shared memory": _shared_memory}
