"""The pairs of an image job, from the address in its request to files that every rank reads.

``prepare`` writes into the job folder ``data/pairs/*.png``, ``data/pairs.jsonl`` and last
``data/data.json``: where that is, nothing is done again. For one process of a job.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from PIL import Image

from live.job_files import read_record, write_atomic, write_record
from live.training.address import FetchLimits
from live.training.data import DATA, RAW, RECORD, BadRows, DataRecord
from live.training.fetch import Beat
from live.training.images.archive import Archive, ArchiveLimits, kind_of, names
from live.training.raw import address_of, brought
from live.training.split import LEAST, split
from shared.errors import InputError

PAIRS, LIST = "pairs", "pairs.jsonl"
MOST_PAIRS = 1_000
"""The market's tasks have 10 to 50; what is beyond is left out."""
MOST_BAD_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class Pair:
    """One example. file: in ``data/pairs``; a square image. width, height: of the original, in
    pixels; left, top: of the square in the original scaled to it. held_out: not trained on.
    """

    file: str
    caption: str
    width: int
    height: int
    left: int
    top: int
    held_out: bool = False


@dataclass(frozen=True, slots=True)
class PairLimits:
    """pixels: of a side of the squares. share, most: of the pairs held out. seed: of the split."""

    fetch: FetchLimits
    archive: ArchiveLimits
    pixels: int
    share: float
    most: int
    seed: int = 17


def prepare(
    request: Mapping[str, Any], folder: Path, limits: PairLimits, *, local_files: bool, beat: Beat
) -> DataRecord:
    """Bring a request's pairs into the job folder, or find them there.

    Raises InputError when there is nothing to train on, FetchFailed when the archive could not be
    had now, OSError when the folder cannot be written.
    """
    place = folder / DATA
    done = read_record(place, RECORD, DataRecord)
    if done is not None and (place / LIST).is_file():
        return done
    began_s = monotonic()
    (place / PAIRS).mkdir(parents=True, exist_ok=True)
    key = "dataset_zip"
    raw = brought(
        key, address_of(request, key), place / RAW, limits.fetch, beat, kind_of,
        local_files=local_files,
    )  # fmt: skip
    with Archive(raw.path, raw.source, limits.archive, beat) as archive:
        pairs, digests = _squares(archive, place / PAIRS, limits)
        faults = archive.faults
    bad = {reason: BadRows(count=n, first=first) for reason, (n, first) in faults.by_reason.items()}
    total = faults.total + len(pairs)
    if not pairs or faults.total > MOST_BAD_SHARE * total:
        worst = f"the commonest fault: {faults.commonest()}" if faults.total else (
            f"no image with a caption among {names(raw.path)}")  # fmt: skip
        raise InputError(
            f"{raw.source}: found {faults.total} of {total} pairs that cannot be used, {worst}"
        )
    dealt = split(len(pairs), limits.seed, limits.share, LEAST, limits.most, digests)
    held = set(dealt.held_out)
    lines = [json.dumps(asdict(each) | {"held_out": at in held}) for at, each in enumerate(pairs)]
    write_atomic(place / LIST, "".join(line + "\n" for line in lines))
    record = DataRecord(
        source=raw.source,
        kind="zip",
        rows=total,
        usable=len(pairs),
        bad=bad,
        train=len(dealt.train),
        held_out=len(dealt.held_out),
        held_out_is_train=dealt.shared,
        bytes=raw.bytes,
        sha256=raw.sha256,
        seconds=round(monotonic() - began_s, 3),
        columns=("image", "caption"),
        cut=f"over {MOST_PAIRS} pairs" if len(pairs) == MOST_PAIRS else "",
        characters=sum(len(each.caption) for each in pairs),
        longest=max(len(each.caption) for each in pairs),
    )
    write_record(place, RECORD, record)
    (place / RAW).unlink(missing_ok=True)
    return record


def read_pairs(folder: Path) -> list[Pair]:
    """The pairs that ``prepare`` left in a job folder. Raises OSError."""
    text = (folder / DATA / LIST).read_text(encoding="utf-8")
    return [Pair(**json.loads(line)) for line in text.splitlines()]


def image_of(folder: Path, pair: Pair) -> Image.Image:
    """A pair's square. Raises OSError."""
    with Image.open(folder / DATA / PAIRS / pair.file, formats=("PNG",)) as opened:
        return opened.convert("RGB")


def _squares(archive: Archive, place: Path, limits: PairLimits) -> tuple[list[Pair], list[int]]:
    """Write the squares; what they are of, and a number of each image's content."""
    pairs: list[Pair] = []
    digests: list[int] = []
    for picture in archive.pairs():
        square, left, top = squared(picture.image, limits.pixels)
        name = f"{len(pairs):05d}.png"
        square.save(place / name)
        width, height = picture.image.size
        pairs.append(Pair(name, picture.caption, width, height, left, top))
        digests.append(picture.digest)
        if len(pairs) == MOST_PAIRS:
            break
    return pairs, digests


def squared(image: Image.Image, pixels: int) -> tuple[Image.Image, int, int]:
    """The middle square of an image, its shorter side scaled to ``pixels``; its left and top."""
    width, height = image.size
    scale = pixels / min(width, height)
    size = (max(pixels, round(width * scale)), max(pixels, round(height * scale)))
    scaled = image.resize(size, Image.Resampling.LANCZOS)
    left, top = (size[0] - pixels) // 2, (size[1] - pixels) // 2
    return scaled.crop((left, top, left + pixels, top + pixels)), left, top
