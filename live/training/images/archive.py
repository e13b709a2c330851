"""A stranger's zip archive of images and captions, read within bounds.

No name in it is ever a path of ours, nothing is unpacked by name, and what it says of its sizes is
not believed. An image and the text file of the same name are a pair.
"""

import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from io import BytesIO
from pathlib import Path, PurePosixPath
from stat import S_ISLNK

from PIL import Image, ImageOps

from live.training.table import Faults
from shared.errors import InputError
from shared.wire import found

FORMATS = ("PNG", "JPEG", "WEBP")
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp"})
TEXT = ".txt"
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
_ENCRYPTED = 0x1
_CHUNK = 1 << 16

Beat = Callable[[], None]


@dataclass(frozen=True, slots=True)
class ArchiveLimits:
    """Bounds. entries: files in the archive. bytes: of all of them, unpacked; image_bytes: of one.

    pixels: of one image. caption_chars: of one caption. least_side: pixels of an image's shorter
    side.
    """

    entries: int = 20_000
    bytes: int = 2_000_000_000
    image_bytes: int = 64 << 20
    pixels: int = 64_000_000
    caption_chars: int = 10_000
    least_side: int = 16


@dataclass(frozen=True, slots=True)
class Picture:
    """One pair. image: RGB, upright. number: of its entry, from 1. digest: 64 bits of its bytes."""

    image: Image.Image
    caption: str
    number: int
    digest: int


class _Bad(Exception):
    """A pair that is left out; the text says why."""


def kind_of(head: bytes, name: str) -> str:
    """``zip``, by a file's first bytes. Raises InputError for anything else."""
    if head.startswith(_ZIP):
        return "zip"
    raise InputError(f"{name}: found no zip archive, allowed is a zip of images and captions")


class Archive:
    """Reads pairs, bad ones left out and counted in ``faults``. Raises InputError when it is none.

    Use it as a context.
    """

    def __init__(self, path: Path, shown: str, limits: ArchiveLimits, beat: Beat) -> None:
        self.faults, self._shown, self._limits, self._beat = Faults(), shown, limits, beat
        self._left = limits.bytes
        try:
            self._zip = zipfile.ZipFile(path)
        except (OSError, zipfile.BadZipFile, ValueError, NotImplementedError) as why:
            raise InputError(f"{shown}: found no archive that can be read: {why}") from None
        self._entries = self._zip.infolist()
        if len(self._entries) > limits.entries:
            self._zip.close()
            many = f"{len(self._entries)} files"
            raise InputError(f"{shown}: found {many} in it, allowed are {limits.entries}")

    def __enter__(self) -> "Archive":
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()

    def pairs(self) -> Iterator[Picture]:
        """Every pair that can be used, in the archive's order.

        Raises InputError when it unpacks to more than is allowed.
        """
        usable = [(n, each) for n, each in enumerate(self._entries, 1) if _plain(each)]
        texts = {_stem(each): each for _, each in usable if _suffix(each) == TEXT}
        for number, each in usable:
            if _suffix(each) not in SUFFIXES:
                continue
            self._beat()
            try:
                yield self._pair(number, each, texts.get(_stem(each)))
            except _Bad as why:
                self.faults.add(str(why), number)

    def _pair(self, number: int, entry: zipfile.ZipInfo, text: zipfile.ZipInfo | None) -> Picture:
        if text is None:
            raise _Bad("an image without a caption of the same name")
        caption = self._caption(text)
        content = self._read(entry, self._limits.image_bytes)
        digest = int.from_bytes(blake2b(content, digest_size=8).digest(), "big")
        return Picture(self._image(content), caption, number, digest)

    def _caption(self, entry: zipfile.ZipInfo) -> str:
        most = self._limits.caption_chars
        try:
            text = self._read(entry, 4 * most).decode("utf-8-sig")
        except UnicodeDecodeError:
            raise _Bad("a caption that is no UTF-8") from None
        words = " ".join(text.replace("\x00", " ").split())
        if not words:
            raise _Bad("an empty caption")
        if len(words) > most:
            raise _Bad(f"a caption of over {most} characters")
        return words

    def _read(self, entry: zipfile.ZipInfo, most: int) -> bytes:
        """An entry's bytes, counted as they come."""
        parts, count = [], 0
        try:
            with self._zip.open(entry) as file:
                while part := file.read(_CHUNK):
                    parts.append(part)
                    count += len(part)
                    self._left -= len(part)
                    if self._left < 0:
                        raise InputError(
                            f"{self._shown}: found over {self._limits.bytes} bytes unpacked, "
                            "allowed are at most so many"
                        )
                    if count > most:
                        raise _Bad(f"a file of over {most} bytes")
        except (zipfile.BadZipFile, NotImplementedError, EOFError, OSError, RuntimeError,
                zlib.error):  # fmt: skip
            raise _Bad("a file that cannot be unpacked") from None
        return b"".join(parts)

    def _image(self, content: bytes) -> Image.Image:
        """Decoded, upright, RGB over white."""
        limits = self._limits
        try:
            with Image.open(BytesIO(content), formats=FORMATS) as opened:
                width, height = opened.size
                if width * height > limits.pixels:
                    raise _Bad(f"an image of over {limits.pixels} pixels")
                if min(width, height) < limits.least_side:
                    raise _Bad(f"an image of under {limits.least_side} pixels a side")
                return _on_white(ImageOps.exif_transpose(opened))
        except _Bad:
            raise
        except Exception:  # a decoder may raise anything over a hostile file
            raise _Bad(f"no image of {', '.join(FORMATS)}") from None


def _plain(entry: zipfile.ZipInfo) -> bool:
    """Whether an entry is a file that counts: no folder, link, secret or a system's own."""
    name = PurePosixPath(entry.filename)
    hidden = any(part.startswith((".", "__MACOSX")) and part != ".." for part in name.parts)
    link = S_ISLNK(entry.external_attr >> 16)
    return not (entry.is_dir() or hidden or link or entry.flag_bits & _ENCRYPTED)


def _stem(entry: zipfile.ZipInfo) -> str:
    """What a pair has in common: the name without its suffix, folders included."""
    return str(PurePosixPath(entry.filename).with_suffix("")) if _suffix(entry) else entry.filename


def _suffix(entry: zipfile.ZipInfo) -> str:
    return PurePosixPath(entry.filename).suffix.lower()


def _on_white(image: Image.Image) -> Image.Image:
    if "A" not in image.getbands() and "transparency" not in image.info:
        return image.convert("RGB")
    ground = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(ground, image.convert("RGBA")).convert("RGB")


def names(path: Path, most: int = 5) -> str:
    """The first names in an archive, for a message."""
    try:
        with zipfile.ZipFile(path) as held:
            entries = [each.filename for each in held.infolist()]
    except (OSError, zipfile.BadZipFile):
        return "none"
    more = ", ..." if len(entries) > most else ""
    return (", ".join(found(name) for name in entries[:most]) + more) if entries else "none"
