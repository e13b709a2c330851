"""Files that are there whole or not at all: written aside, then renamed."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shared.errors import InputError


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give a name beside ``path`` to write to; it takes the place of ``path`` when all went well.

    Raises InputError when nothing can be written there.
    """
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as why:
        raise _unwritable(path, why) from None
    os.close(handle)
    aside = Path(name)
    try:
        yield aside
        aside.chmod(0o666 & ~_umask())
        aside.replace(path)
    except OSError as why:  # a full disk, a folder of that name
        raise _unwritable(path, why) from None
    finally:
        aside.unlink(missing_ok=True)


def _unwritable(path: Path, why: OSError) -> InputError:
    return InputError(f"{path}: cannot be written: {(why.strerror or str(why)).lower()}")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
