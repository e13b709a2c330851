"""The doctor on the policy, the box declaration and the GPUs."""

import os
from collections.abc import Iterator
from importlib import import_module

from live.discovery import on_the_bus
from live.doctor_lines import Check, Line, Scene, fault, ok, warning
from live.gpus import CpuSlots, GpuError, Gpus
from live.in_time import in_time
from live.job_settings import JobSettings
from live.reaping import host_pids, job_of
from live.worker import trains
from shared.errors import InputError
from shared.presets import DEFAULT_TABLES, Preset
from shared.units import GB

ANSWER_S = 10.0


def _policy(scene: Scene) -> Iterator[Line]:
    try:
        policy = scene.policy()
    except InputError as why:
        yield fault("policy", str(why), "mend the table [policy] or the file it names")
        return
    preset, box = policy.preset, policy.box
    yield ok("policy", f"{preset.name}, {preset.cap} slots, at most {preset.time_limit_hours:g} h")
    cannot = sorted(filter(untrainable, box.task_types or DEFAULT_TABLES.task_weight))
    remedy = f"declare task_types without {', '.join(cannot)} in the file of policy.box"
    if box.task_types is not None and cannot:
        yield fault("box", f"declares what no worker here trains: {', '.join(cannot)}", remedy)
    elif cannot:
        found = f"no task types declared: {', '.join(cannot)} is accepted and then fails"
        yield warning("box", found, remedy)
    elif box.shortest_row is None:
        remedy = "declare shortest_row, so that a model that fits no slot is refused"
        yield warning("box", "models of every size are accepted", remedy)
    else:
        yield ok("box", f"{len(box.task_types or ())} task types, rows of {box.shortest_row} on")


def untrainable(task_type: str) -> bool:
    """Whether the worker has nothing for this task type, or nobody knows the type."""
    return not trains(task_type) or task_type not in DEFAULT_TABLES.task_weight


def _gpus(scene: Scene) -> Iterator[Line]:
    gpus = scene.gpus
    if isinstance(gpus, str):
        remedy = 'see nvidia-smi and the driver\'s log; device = "cpu" runs without GPUs'
        yield fault("GPUs", gpus, remedy)
        return
    if gpus.device == "cpu" and scene.config.device == "auto" and on_the_bus():
        found = f"{gpus.count} CPU slots, and the box has GPUs"
        remedy = 'install the driver (nvidia-smi must show them); device = "cpu" if that is meant'
        yield fault("GPUs", f"{found}{_because(gpus)}", remedy)
        return
    if gpus.device == "cpu":
        remedy = "for trials only; install the driver, or see why nvidia-smi shows no GPU"
        yield warning("GPUs", f"{gpus.count} CPU slots, not for production{_because(gpus)}", remedy)
        return
    try:
        preset = scene.policy().preset
    except InputError:
        return  # told under "policy"
    yield _driver()
    yield _count(gpus, preset)
    for gpu in range(min(gpus.count, preset.gpus)):
        yield from _one(scene, gpus, preset, gpu)


def _because(gpus: Gpus) -> str:
    return f": {gpus.why}" if isinstance(gpus, CpuSlots) and gpus.why else ""


def _driver() -> Line:
    nvml = import_module("pynvml")
    try:
        found = in_time(ANSWER_S, nvml.nvmlSystemGetDriverVersion)
    except (nvml.NVMLError, TimeoutError) as why:
        return fault("driver", str(why), "see nvidia-smi and dmesg; a restart of the box helps")
    return ok("driver", found.decode() if isinstance(found, bytes) else str(found))


def _count(gpus: Gpus, preset: Preset) -> Line:
    if gpus.count < preset.gpus:
        layout = preset.layout.gpus
        out = sum(any(gpu >= gpus.count for gpu in slot) for slot in layout)
        found = f"{gpus.count} of the {preset.gpus} that {preset.name} counts on"
        remedy = "mend or reseat the missing ones (nvidia-smi, dmesg)"
        return fault("GPUs", f"{found}: {out} slots are out of service", remedy)
    return ok("GPUs", f"{gpus.count}, {preset.name} counts on {preset.gpus}")


def _one(scene: Scene, gpus: Gpus, preset: Preset, gpu: int) -> Iterator[Line]:
    """Health, memory and strangers of one GPU."""
    check = f"GPU {gpu}"
    try:
        name, total, why, pids = in_time(ANSWER_S, lambda: _asked(gpus, gpu))
        used = gpus.used_bytes(gpu)
    except (GpuError, TimeoutError) as error:
        yield fault(check, str(error), "see dmesg for its Xid; reset the GPU or restart the box")
        return
    found = f"{name}, {total / GB:.1f} GB, {used / GB:.1f} GB used"
    strangers = [pid for pid in pids if job_of(pid) is None] if host_pids() else []
    if why is not None:
        yield fault(check, f"{found}: {why}", "reset the GPU or restart the box; replace it if not")
    elif total < preset.gpu_memory_gb * GB:
        remedy = "its slots hold less than the planner counts on: use GPUs of that size"
        yield fault(check, f"{found}, {preset.gpu_memory_gb:g} GB are counted on", remedy)
    elif strangers and not _ours(scene, gpu):
        remedy = "end them: their memory keeps a slot from being released"
        yield fault(check, f"{found}: processes of no job: {_some(strangers)}", remedy)
    elif used > JobSettings().idle_bytes and not _ours(scene, gpu):
        remedy = "find who holds it (nvidia-smi, fuser -v /dev/nvidia*)"
        yield fault(check, f"{found}, though no job is on it", remedy)
    elif strangers:
        remedy = "see whether they are of the job that runs there; ask as the daemon's user"
        yield warning(check, f"{found}: processes of no known job: {_some(strangers)}", remedy)
    else:
        yield ok(check, f"{found}, healthy")


def _asked(gpus: Gpus, gpu: int) -> tuple[str, int, str | None, list[int]]:
    pids = [process.pid for process in gpus.processes(gpu) if process.pid != os.getpid()]
    return gpus.name(gpu), gpus.memory_bytes(gpu), gpus.fault(gpu), pids


def _ours(scene: Scene, gpu: int) -> bool:
    """Whether a job of the running daemon holds this GPU."""
    slots = [] if scene.daemon is None else scene.daemon["slots"]
    return any(gpu in slot["gpus"] and "task_id" in slot for slot in slots)


def _some(pids: list[int]) -> str:
    return ", ".join(map(str, pids[:8])) + ("" if len(pids) <= 8 else " and more")


CHECKS: dict[str, Check] = {"policy": _policy, "GPUs": _gpus}
