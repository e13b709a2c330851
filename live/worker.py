"""The worker: ``torchrun --standalone --nproc-per-node=N -m live.worker JOBDIR`` trains one job.

What it gets is ``job.json``; what it owes is a heartbeat, checkpoints and ``result.json``. SIGTERM
makes it save and leave, a ``stop`` file or the deadline's warning makes it deliver what it has.
"""

import os
import sys
from collections.abc import Callable
from datetime import timedelta
from importlib.util import find_spec
from typing import TYPE_CHECKING, Protocol

from live.job_files import JobResult
from live.worker_end import end_with_others, fail
from live.worker_files import WorkerFiles, opened, rank_of_process
from shared.box import IMAGE_TASK
from shared.errors import InputError
from shared.units import GB

if TYPE_CHECKING:
    import torch

PATIENCE = timedelta(hours=6)
"""How long a rank waits for another, which may be fetching a model: the heartbeat is the watch."""
IMAGE_LIBRARY, IMAGE_EXTRA = "diffusers", "pip install '.[live,image]'"
IMPORT_S = 300.0
"""How long the imports may take on a busy machine before the first step shows life."""


class Trainer(Protocol):
    """Trains one job on this rank, with all others."""

    def train(self) -> JobResult | None:
        """Train; None when it was interrupted and can be taken up again. Raises InputError."""


def _text(files: WorkerFiles, device: "torch.device") -> Trainer:
    from live.training.texts import TextRun

    return TextRun(files, device)


def _images(files: WorkerFiles, device: "torch.device") -> Trainer:
    from live.training.images.run import ImageRun

    return ImageRun(files, device)


def trainer_of(task_type: str) -> Callable[[WorkerFiles, "torch.device"], Trainer]:
    """What trains a task of this type. Raises InputError when nothing does."""
    if task_type != IMAGE_TASK:
        return _text
    if find_spec(IMAGE_LIBRARY) is None:
        raise InputError(
            f"task_type: found {task_type!r}, which needs {IMAGE_LIBRARY}: {IMAGE_EXTRA}"
        )
    return _images


def trains(task_type: str) -> bool:
    """Whether something here trains a task of this type."""
    try:
        trainer_of(task_type)
    except InputError:
        return False
    return True


def _device(files: WorkerFiles) -> "torch.device":
    """This rank's device, in its process group, under its slot's memory cap."""
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    if files.spec.device == "cpu":
        dist.init_process_group("gloo", timeout=PATIENCE)
        return torch.device("cpu")
    device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
    torch.cuda.set_device(device)
    if files.spec.sharing > 1:
        total = torch.cuda.get_device_properties(device).total_memory
        share = min(1.0, files.spec.memory_gb_per_gpu * GB / total)
        torch.cuda.set_per_process_memory_fraction(share, device)
    dist.init_process_group("nccl", device_id=device, timeout=PATIENCE)
    return device


def train(files: WorkerFiles) -> JobResult | None:
    """Train the job of these files; a job that cannot be trained has a failed result."""
    try:
        make = trainer_of(files.spec.task_type)
        return make(files, _device(files)).train()
    except InputError as why:
        return JobResult(outcome="failed", reason=str(why))


def main(argv: list[str]) -> int:
    """One rank. 0 when a result was delivered, 1 when interrupted, 2 when there is no job."""
    try:
        files = opened(argv, rank_of_process())
    except InputError as why:
        sys.stderr.write(f"{why}\n")
        return 2
    files.beat(IMPORT_S)
    end_with_others(files)
    try:
        result = train(files)
        if result is None:
            return 1
        files.deliver(result)
        _leave()
    except Exception:
        fail(files)
    return 0


def _leave() -> None:
    import torch.distributed as dist

    if dist.is_initialized():
        dist.barrier()  # no rank goes while another still needs it
        dist.destroy_process_group()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
