"""The files of a spool folder: names and contents are strangers', so neither is trusted.

spool/NAME.json             put there by a producer (written elsewhere, then renamed in)
spool/taken/ID~NAME.json    being decided; ID is new with every taking
spool/done/NAME.json        the offer and its answer
spool/failed/NAME.json      one line why it was refused; beside it NAME.json.refused, the file
"""

import json
import os
import re
import secrets
import stat
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from shared.errors import InputError
from shared.ledger import Json, dumps
from shared.wire import found

MOST_BYTES = 1 << 20
TAKEN, DONE, FAILED = "taken", "done", "failed"
SUFFIX = ".json"

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._@+-]{0,150}\.json")
_ID = re.compile(r"[0-9a-f]{16}")
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class TakenFile:
    """A file that is being decided. id: of this taking. name: as the producer called it."""

    id: str
    name: str

    @property
    def file(self) -> str:
        """What it is called while it is being decided."""
        return f"{self.id}~{self.name}"


class SpoolFiles:
    """The folder and its three subfolders."""

    def __init__(self, root: Path) -> None:
        """Make the folders that are not there. Raises InputError where they cannot be made."""
        self.root = root
        try:
            for part in ("", TAKEN, DONE, FAILED):
                (root / part).mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as why:
            raise InputError(f"{root}: cannot be made: {why.strerror}") from None

    def waiting(self) -> list[str]:
        """Names of the files that wait, in order. Hidden ones are a producer's own business."""
        names = os.listdir(self.root)  # noqa: PTH208
        return sorted(name for name in names if name.endswith(SUFFIX) and name[0] != ".")

    def taken(self) -> list[TakenFile]:
        """The files that were being decided when an earlier run ended."""
        parts = (name.partition("~") for name in sorted(os.listdir(self.root / TAKEN)))  # noqa: PTH208
        return [TakenFile(id_, name) for id_, _, name in parts if _ID.fullmatch(id_) and name]

    def mark(self, name: str) -> tuple[int, ...]:
        """What changes when a waiting file does. Raises OSError when it is gone."""
        about = (self.root / name).lstat()
        return (about.st_ino, about.st_size, about.st_mtime_ns)

    def read(self, name: str) -> bytes:
        """The contents of a waiting file. Raises InputError for what is no plain small file."""
        return _read(self.root / name)

    def read_taken(self, taken: TakenFile) -> bytes:
        """The contents of a file that is being decided. Raises InputError."""
        return _read(self.root / TAKEN / taken.file)

    def take(self, name: str) -> TakenFile:
        """Take a waiting file in hand."""
        taken = TakenFile(secrets.token_hex(8), name)
        (self.root / name).rename(self.root / TAKEN / taken.file)
        _sync(self.root / TAKEN)
        return taken

    def answer(self, taken: TakenFile, answer: Json) -> None:
        """Write the answer, then let go of the file. Raises OSError."""
        self._write(DONE, taken.name, answer)
        (self.root / TAKEN / taken.file).unlink(missing_ok=True)

    def refuse(self, path: Path, name: str, why: str) -> None:
        """Write why a file is refused and move it out of the way. Raises OSError."""
        safe = safe_name(name)
        self._write(FAILED, safe, {"file": name.encode(errors="replace").decode(), "reason": why})
        path.rename(self.root / FAILED / f"{safe}.refused")

    def refuse_waiting(self, name: str, why: str) -> None:
        """Refuse a file that waits. Raises OSError."""
        self.refuse(self.root / name, name, why)

    def refuse_taken(self, taken: TakenFile, why: str) -> None:
        """Refuse a file that was taken. Raises OSError."""
        self.refuse(self.root / TAKEN / taken.file, taken.name, why)

    def _write(self, folder: str, name: str, value: Json) -> None:
        """Write a file whole or not at all."""
        target = self.root / folder / name
        beside = target.with_name(f".{name}.{secrets.token_hex(4)}")
        try:
            with beside.open("x", encoding="utf-8") as out:
                out.write(dumps(value) + "\n")
                out.flush()
                os.fsync(out.fileno())
            beside.replace(target)
            _sync(target.parent)
        finally:
            with suppress(OSError):
                beside.unlink(missing_ok=True)


def safe_name(name: str) -> str:
    """A name that is good for a file: the given one when it is plain, a hash of it else."""
    if _NAME.fullmatch(name):
        return name
    return sha256(os.fsencode(name)).hexdigest()[:32] + SUFFIX


def check_name(name: str) -> None:
    """Raise InputError for a name that an answer could not bear."""
    if not _NAME.fullmatch(name):
        raise InputError(
            f"found the file name {json.dumps(name)[:60]}, allowed are letters, digits and "
            "._@+- before .json, 156 characters in all"
        )


def _read(path: Path) -> bytes:
    """A plain file of at most ``MOST_BYTES``. Raises InputError for anything else."""
    try:
        handle = os.open(path, _OPEN)
    except OSError as why:
        raise InputError(f"cannot be read: {found(why.strerror)}") from None
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise InputError("found no plain file, allowed are files alone")
        with os.fdopen(handle, "rb", closefd=False) as file:
            read = file.read(MOST_BYTES + 1)
    except OSError as why:
        raise InputError(f"cannot be read: {found(why.strerror)}") from None
    finally:
        os.close(handle)
    if len(read) > MOST_BYTES:
        raise InputError(f"found more than {MOST_BYTES} bytes, allowed are so many")
    return read


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
