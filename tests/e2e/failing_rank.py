"""A worker of two ranks of which the second runs out of memory; run by ``test_live_worker``."""

import ctypes
import sys
import threading

import torch
import torch.distributed as dist

from live import worker
from live.job_files import JobResult
from live.worker_files import WorkerFiles


def stuck() -> None:
    """Inside a library for ever, as in a wait for a GPU: no signal handler of Python's runs."""
    lock, libc = ctypes.create_string_buffer(64), ctypes.CDLL(None)
    for _ in range(2):
        libc.pthread_mutex_lock(lock)


def train(files: WorkerFiles) -> JobResult | None:
    files.beat(600.0)
    dist.init_process_group("gloo", timeout=worker.PATIENCE)
    dist.barrier()
    if files.rank == 1:
        # As NCCL's end may do, this keeps the interpreter from ending.
        threading.Thread(target=threading.Event().wait).start()
        if files.spec.request["of"] == "GPU":
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        raise MemoryError
    if files.spec.request["waits"] == "collective":
        dist.barrier()
    stuck()
    return None


if __name__ == "__main__":
    worker.train = train
    sys.exit(worker.main(sys.argv[1:]))
