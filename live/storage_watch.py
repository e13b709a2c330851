"""Whether the disk has room for another job, told to the daemon when that changes."""

import asyncio
import logging
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from live.disk_need import Owed
from live.gpu_watch import Desk
from shared.inputs import StorageChanged

log = logging.getLogger(__name__)

HYSTERESIS = 1.2
"""So much more than is needed must be free before storage counts as available again."""


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
        """root: where the job folders are. need_bytes: of the job that may come next."""
        self._desk, self._root = desk, root
        self._need, self._free = need_bytes, free_bytes

    def room(self, owed: Sequence[Owed]) -> bool | None:
        """Whether there is room now; None between the two limits, where nothing changes.

        owed: what the accepted jobs may still write. Raises OSError.
        """
        need, left = self._need(), sum(each.left() for each in owed)
        free = self._free(self._root)
        if free < need + left:
            return False
        return True if free >= need * HYSTERESIS + left else None

    async def look(self, owed: Sequence[Owed]) -> None:
        """One round: enter a change, once. A disk that cannot be asked has no room."""
        try:
            room = await asyncio.to_thread(self.room, owed)
        except OSError as why:
            log.error("%s: cannot be asked for room: %s", self._root, why)
            room = False
        full = self._desk.machine.storage_full
        if room is None or room is not full:
            return
        log.warning("storage: %s", "room for a job again" if room else "no room for another job")
        await self._desk.enter(StorageChanged(available=room))
