"""What a job's processes are started with: an argument list and an environment, both closed.

Nothing of the daemon's environment passes but what stands on the list here: no token, no proxy.
"""

import os
import sys
from collections.abc import Mapping
from math import ceil
from pathlib import Path

from live.job_files import MARKER, TMP, JobSpec

PASSED = (
    "PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "TMPDIR", "PYTHONPATH", "VIRTUAL_ENV",
    "LD_LIBRARY_PATH", "CUDA_HOME", "CUDA_PATH", "TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR",
)  # fmt: skip
PASSED_PREFIXES = ("NCCL_", "GLOO_")
COMPILED = "compiled"
"""The folder beside that of the jobs for the kernels that they compile."""
_OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
}


def passed(environment: Mapping[str, str]) -> dict[str, str]:
    """What of an environment a launcher and its worker may see."""
    return {
        name: value
        for name, value in environment.items()
        if name in PASSED or name.startswith(PASSED_PREFIXES)
    }


def _caches(folder: Path) -> dict[str, str]:
    """Kernels that one job has compiled are there for the next, whose home is another folder.

    Both libraries write a file whole and rename it, so jobs can share them.
    """
    kept = folder.absolute().parent.parent / COMPILED
    return {
        "TRITON_CACHE_DIR": str(kept / "triton"),
        "TORCHINDUCTOR_CACHE_DIR": str(kept / "inductor"),
    }


def worker_environment(spec: JobSpec, folder: Path, attempt: int) -> dict[str, str]:
    """The whole environment of a job's processes, its marker included.

    folder: of the job, in the folder of jobs in the data folder.
    """
    return {
        **_caches(folder),
        **passed(os.environ),
        **_OFFLINE,
        "HOME": str(folder),
        "TMPDIR": str(folder / TMP),
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONUNBUFFERED": "1",
        "PYTHONSAFEPATH": "1",  # nothing in the working directory can hide a module
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",  # NVML's numbering
        "CUDA_VISIBLE_DEVICES": _visible(spec),
        "PYTORCH_ALLOC_CONF": "expandable_segments:True",
        MARKER: str(folder),
        "FOUR_SLOT_ATTEMPT": str(attempt),
    }


def _visible(spec: JobSpec) -> str:
    """The job's GPUs as CUDA is told them: by UUID, for where one has fallen off the bus CUDA
    counts those that are left and NVML goes on counting all.
    """
    if spec.device != "cuda":
        return ""
    return ",".join(spec.gpu_uuids or map(str, spec.gpus))


def worker_command(spec: JobSpec, folder: Path) -> list[str]:
    """The argument list of one attempt: torchrun on this machine alone, or the module itself."""
    if not spec.torchrun:
        return [sys.executable, "-m", spec.worker_module, str(folder)]
    return [
        sys.executable, "-m", "torch.distributed.run",
        "--standalone",
        "--local-addr=127.0.0.1",  # the host's own name need not resolve
        f"--nproc-per-node={spec.processes}",
        "--max-restarts=0",
        f"--shutdown-timeout={ceil(_longest_stop_s(spec))}",
        "-m", spec.worker_module, str(folder),
    ]  # fmt: skip


def _longest_stop_s(spec: JobSpec) -> float:
    """Torchrun must not kill before the launcher does, who alone knows how long may be waited."""
    left = spec.time_left
    if left is None or left.warn_s is None or left.kill_s is None:
        return spec.stop_grace_s + 1
    return max(spec.stop_grace_s, left.kill_s - left.warn_s) + 1
