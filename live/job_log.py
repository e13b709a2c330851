"""The log of one attempt: rotated by size, and searched for the words of a lack of memory."""

import os
from pathlib import Path

KEPT = 4
"""Older files of one log that are kept, as ``NAME.1`` (the newest) to ``NAME.4``."""
_OVERLAP = 64
OUT_OF_MEMORY = (
    b"CUDA out of memory",
    b"OutOfMemoryError",
    b"CUDA error: out of memory",
    b"can't allocate memory",
    b"Cannot allocate memory",
    b"MemoryError",
)


class AttemptLog:
    """Takes what a job's processes print. A disk that is full loses the log, never the job."""

    def __init__(self, path: Path, most_bytes: int) -> None:
        """A log at ``path``, of files of ``most_bytes`` each. Raises OSError."""
        path.parent.mkdir(exist_ok=True)
        self._path = path
        self._most = most_bytes
        self._handle = self._opened()
        self._size = os.fstat(self._handle).st_size
        self._tail = b""
        self.out_of_memory = False

    def _opened(self) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        return os.open(self._path, flags, 0o600)

    def write(self, chunk: bytes) -> None:
        """Append, and look for a lack of memory, across chunks too."""
        seen = self._tail + chunk
        self.out_of_memory |= any(words in seen for words in OUT_OF_MEMORY)
        self._tail = seen[-_OVERLAP:]
        try:
            if self._size and self._size + len(chunk) > self._most:
                self._rotate()
            self._size += os.write(self._handle, chunk)
        except OSError:
            return

    def _rotate(self) -> None:
        name = self._path.name
        for number in range(KEPT, 0, -1):
            older = self._path.with_name(f"{name}.{number - 1}") if number > 1 else self._path
            if older.exists():
                older.replace(self._path.with_name(f"{name}.{number}"))
        fresh = self._opened()
        os.close(self._handle)
        self._handle, self._size = fresh, 0

    def close(self) -> None:
        """Close the file."""
        os.close(self._handle)
