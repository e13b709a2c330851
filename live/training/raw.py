"""A job's data as it came: a file of this machine, what was fetched before, or is fetched now."""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from live.training.address import FetchLimits, shown
from live.training.fetch import Beat, Kind, fetch
from shared.errors import InputError
from shared.wire import found

HASH_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Raw:
    """The file, wherever it lies. source: as it is shown. bytes, sha256: of the whole."""

    source: str
    path: Path
    bytes: int
    sha256: str


def address_of(request: Mapping[str, Any], key: str) -> str:
    """Where a request says that its data lies. Raises InputError naming the key."""
    address = request.get(key)
    if not isinstance(address, str) or not address or "\x00" in address:
        raise InputError(f"{key}: found {found(address)}, allowed is an address")
    return address


def is_here(address: str, *, local_files: bool) -> bool:
    """Whether an address is a file of this machine, where such are allowed."""
    return local_files and Path(address).is_absolute()


def brought(
    key: str,
    address: str,
    path: Path,
    limits: FetchLimits,
    beat: Beat,
    kind_of: Kind,
    *,
    local_files: bool,
) -> Raw:
    """The file of an address, which lies at ``path`` when it has to be fetched.

    Raises InputError naming the key, FetchFailed when it could not be had now.
    """
    if is_here(address, local_files=local_files):
        if not Path(address).is_file():
            raise InputError(f"{key}: found {found(address)}, allowed is a file that is there")
        return hashed(address, Path(address), beat)
    if path.is_file():  # it was put there whole, and its address may have expired since
        return hashed(shown(address), path, beat)
    got = fetch(address, path, limits, beat, kind_of)
    return Raw(shown(address), path, got.bytes, got.sha256)


def hashed(source: str, path: Path, beat: Beat) -> Raw:
    """A file that is there. Raises InputError when it cannot be read."""
    count, digest = 0, sha256()
    try:
        with path.open("rb") as file:
            while block := file.read(HASH_BYTES):
                count += len(block)
                digest.update(block)
                beat()
    except OSError as why:
        raise InputError(f"{source}: cannot be read: {why.strerror}") from None
    return Raw(source, path, count, digest.hexdigest())


def hashed_all(source: str, folder: Path, beat: Beat) -> Raw:
    """All files of a folder, in the order of their names. Raises InputError."""
    count, digest = 0, sha256()
    for path in sorted(each for each in folder.iterdir() if each.is_file()):
        one = hashed(source, path, beat)
        count += one.bytes
        digest.update(one.sha256.encode())
    return Raw(source, folder, count, digest.hexdigest())
