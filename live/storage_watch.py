"""Whether the disk has room for another job, told to the daemon when that changes."""

import asyncio
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from live.gpu_watch import Desk
from shared.architectures import architecture_of
from shared.inputs import StorageChanged
from shared.presets import Preset
from shared.units import GB

log = logging.getLogger(__name__)

CHECKPOINTS = 3
"""Two are kept while the next is being written."""
OPTIMIZER_BYTES = 12
"""Per adapter parameter of a checkpoint: the weight and AdamW's two moments, all fp32."""
ADAPTER_BYTES = 4
BASE_BYTES = 2
LOGS_AND_DATA_BYTES = 2 * GB
CPU_JOB_BYTES = 200_000_000
"""What a job of a tiny model on the CPU may need."""
REFERENCE_MODEL = "meta-llama/Llama-3.1-8B"
"""The model that room is kept for while nobody knows what comes next."""
HYSTERESIS = 1.2
"""So much more than is needed must be free before storage counts as available again."""


def job_bytes(preset: Preset, model: str = REFERENCE_MODEL, params: int | None = None) -> int:
    """Disk that a job may need at most, at the rank its preset asks for, in bytes.

    Model, checkpoints with their optimizer, and the adapter that is delivered; the planner may
    lower the rank, never raise it.
    """
    shape = architecture_of(model, params)
    lora = shape.lora_parameters(preset.profile.lora_r, preset.profile.target_modules)
    training = CHECKPOINTS * OPTIMIZER_BYTES * lora + ADAPTER_BYTES * lora
    return training + BASE_BYTES * shape.base_parameters + LOGS_AND_DATA_BYTES


def folder_bytes(folder: Path) -> int:
    """What the files of a folder take on the disk; what vanishes meanwhile counts as nothing."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(Path(parent, name)).st_blocks * 512
            except OSError:
                continue
    return total


class StorageWatch:
    """Compares what is free with what the running jobs and one more may need."""

    def __init__(
        self,
        desk: Desk,
        root: Path,
        need_bytes: Callable[[], int],
        *,
        free_bytes: Callable[[Path], int] = lambda root: shutil.disk_usage(root).free,
    ) -> None:
        """root: where the job folders are. need_bytes: of one job under the policy in force."""
        self._desk, self._root = desk, root
        self._need, self._free = need_bytes, free_bytes

    def room(self, running: list[Path], reserved: int = 0) -> bool | None:
        """Whether there is room now; None between the two limits, where nothing changes.

        running: the folders of jobs that will still write. reserved: accepted offers whose start
        has yet to come. Raises OSError.
        """
        need = self._need()
        owed = need * reserved + sum(max(0, need - folder_bytes(folder)) for folder in running)
        free = self._free(self._root)
        if free < need + owed:
            return False
        return True if free >= need * HYSTERESIS + owed else None

    async def look(self, running: list[Path]) -> None:
        """One round: enter a change, once. A disk that cannot be asked has no room."""
        jobs = self._desk.machine.jobs.values()
        reserved = sum(1 for job in jobs if job.state == "reserved")
        try:
            room = await asyncio.to_thread(self.room, running, reserved)
        except OSError as why:
            log.error("%s: cannot be asked for room: %s", self._root, why)
            room = False
        full = self._desk.machine.storage_full
        if room is None or room is not full:
            return
        log.warning("storage: %s", "room for a job again" if room else "no room for another job")
        await self._desk.enter(StorageChanged(available=room))
