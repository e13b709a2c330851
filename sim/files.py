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

    A device or a pipe is written to as it is. Raises InputError when nothing can be written there.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        yield path
        return
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


def check_outputs(outputs: list[Path], inputs: list[Path]) -> None:
    """Before any work: raise InputError when an output cannot be written, or would take the place
    of an input or of another output.
    """
    taken = {path.resolve() for path in inputs}
    for path in outputs:
        if path.is_file() or not path.exists():
            if path.resolve() in taken:
                raise InputError(f"{path}: is named twice, allowed is a file of its own")
            taken.add(path.resolve())
        if path.is_dir():
            raise InputError(f"{path}: cannot be written: is a directory")
        if not os.access(path.parent, os.W_OK):
            raise InputError(f"{path}: cannot be written: no such folder, or not a writable one")


def _unwritable(path: Path, why: OSError) -> InputError:
    return InputError(f"{path}: cannot be written: {(why.strerror or str(why)).lower()}")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
