"""What is known of each GPU and must outlive the daemon: why it is out, and its counted errors.

One file in the data folder, good for one boot of the machine: a boot resets the GPUs.
"""

import logging
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from live.job_files import read_record, write_record
from live.reaping import boot_id
from shared.errors import InputError

log = logging.getLogger(__name__)

FILE = "gpu-faults.json"
UNCOUNTED = -1
"""Of a GPU that an operator called well: whatever errors it shows next are accounted for."""


class KeptGpu(BaseModel):
    """reason: why it is out of service, None while it is not. fatal: whether that ends the job on
    it. errors: uncorrected ECC errors since its last reset that are accounted for; fewer of them
    show that it was reset.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    reason: str | None = None
    fatal: bool = True
    errors: int = Field(default=0, ge=UNCOUNTED)


class _File(BaseModel):
    """order: UUIDs by the number that each GPU had first in this boot."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    boot_id: str
    order: tuple[str, ...] = ()
    gpus: dict[str, KeptGpu] = Field(default_factory=dict)


class KeptFaults:
    """The file, read once and written whole at each change; a write that fails is tried again."""

    def __init__(self, folder: Path | None, *, writes: bool = True) -> None:
        """folder: the data folder; None keeps nothing beyond this process. writes: False for who
        only looks. Raises InputError when the file is not what it should be.
        """
        self._folder, self._writes = folder, writes and folder is not None
        found = None if folder is None else read_record(folder, FILE, _File)
        here = boot_id()
        if found is not None and found.boot_id != here:
            found = None  # a restart of the machine has reset them all
        self._file = found or _File(boot_id=here)
        self._dirty = self._complained = False

    def of(self, uuid: str) -> KeptGpu:
        """What is known of one GPU."""
        return self._file.gpus.get(uuid, KeptGpu())

    def put(self, uuid: str, known: KeptGpu) -> None:
        """Keep it."""
        if known != self.of(uuid):
            gpus = {**self._file.gpus, uuid: known}
            self._change(self._file.model_copy(update={"gpus": gpus}))

    def numbered(self, seen: list[str | None]) -> list[str | None]:
        """UUIDs by number: as they were first in this boot, so that a GPU which fell off the bus
        leaves its number empty and moves no other. seen: by the driver's index, None where it
        cannot be asked.
        """
        if self._file.order and {each for each in seen if each} <= set(self._file.order):
            return [*self._file.order]
        known = tuple(each for each in seen if each)
        if len(known) == len(seen):
            self._change(self._file.model_copy(update={"order": known}))
        return seen

    def key_of(self, gpu: int) -> str:
        """The UUID that a number stands for. Raises InputError for one that no GPU here had."""
        seen = len(self._file.order)
        if not 0 <= gpu < seen:
            allowed = f"0 to {seen - 1}" if seen else "none: no GPU was seen since the restart"
            raise InputError(f"gpu: found {gpu}, allowed is {allowed}")
        return self._file.order[gpu]

    def clear(self, uuid: str) -> str | None:
        """Call a GPU well on an operator's word; the reason that was kept, if there was one.

        Raises OSError when it cannot be written.
        """
        reason = self.of(uuid).reason
        gpus = {**self._file.gpus, uuid: KeptGpu(errors=UNCOUNTED)}
        self._file, self._dirty = self._file.model_copy(update={"gpus": gpus}), True
        self._write()
        return reason

    def flush(self) -> None:
        """Write what a full disk has kept from being written, if there is anything."""
        try:
            self._write()
        except OSError as why:
            if not self._complained:
                log.error("%s: cannot be written, a restart would forget a fault: %s", FILE, why)
            self._complained = True

    def _change(self, file: _File) -> None:
        self._file, self._dirty = file, True
        self.flush()

    def _write(self) -> None:
        if self._folder is None or not self._writes or not self._dirty:
            return
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_record(self._folder, FILE, self._file)
        self._dirty = self._complained = False
