"""The data of a job, from the address in its request to two files that a trainer reads.

``prepare`` fetches, reads, maps and splits, all in bounded memory, and writes into the job folder
``data/train.parquet``, ``data/held_out.parquet`` and last ``data/data.json``: where that is,
nothing is done again. For one process of a job; the others read what it wrote.
"""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from live.job_files import read_record, write_record
from live.training.address import FetchLimits, shown
from live.training.fetch import Beat
from live.training.raw import Raw, address_of, brought, hashed_all, is_here
from live.training.read import Table, read, read_shards
from live.training.rows import Prepared, columns_of, examples
from live.training.split import LEAST, MOST, SHARE, split
from live.training.store import MAPPED, deal, gathered
from live.training.table import ReadLimits, kind_of
from shared.errors import InputError
from shared.wire import found

DATA = "data"
RECORD, TRAIN, HELD_OUT = "data.json", "train.parquet", "held_out.parquet"
RAW = "raw"
HUB = "hf"
"""The file format of a dataset that is told by its name on the hub."""
MOST_NAMES = 20
"""Columns that a message names."""


FromHub = Callable[[str, Path], None]
"""Brings the dataset of a name into a folder, which appears when it is whole. Raises InputError,
FetchFailed.
"""


@dataclass(frozen=True, slots=True)
class DataLimits:
    """Bounds of fetching and reading, and how rows are held out. seed: of the split."""

    fetch: FetchLimits = field(default_factory=FetchLimits)
    read: ReadLimits = field(default_factory=ReadLimits)
    seed: int = 17
    share: float = SHARE
    least: int = LEAST
    most: int = MOST


class BadRows(BaseModel):
    """Rows left out for one reason. first: the line, or row, of the first of them, from 1."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    count: int
    first: int


class DataRecord(BaseModel):
    """What the data came to.

    source: the address without its query. kind: of the file, by its content. rows: read, usable or
    not; repaired: of the usable ones. bad: by reason. held_out_is_train: every row was alike.
    bytes, sha256: of the file. seconds: it all took. columns: of the examples. absent: optional
    columns that no row had. cut: why reading ended before the file did. characters: of all
    examples; longest: of one.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    source: str
    kind: str
    rows: int
    usable: int
    repaired: int = 0
    bad: dict[str, BadRows] = Field(default_factory=dict)
    train: int
    held_out: int
    held_out_is_train: bool = False
    bytes: int
    sha256: str
    seconds: float
    columns: tuple[str, ...]
    absent: tuple[str, ...] = ()
    cut: str = ""
    characters: int = 0
    longest: int = 0


def prepare(
    request: Mapping[str, Any],
    task_type: str,
    folder: Path,
    *,
    limits: DataLimits,
    local_files: bool,
    beat: Beat,
    messages: bool = True,
    from_hub: FromHub | None = None,
) -> DataRecord:
    """Bring a request's data into the job folder, or find it there.

    local_files: whether the address may be an absolute path. messages: as in ``rows.examples``.
    from_hub: brings a dataset of the hub; None: none is fetched.
    Raises InputError when there is nothing to train on, in one line; FetchFailed when the data
    could not be had now; OSError when the folder cannot be written.
    """
    place = folder / DATA
    done = read_record(place, RECORD, DataRecord)
    if done is not None and (place / TRAIN).is_file() and (place / HELD_OUT).is_file():
        return done
    began_s = monotonic()
    place.mkdir(parents=True, exist_ok=True)
    told = _type(request)
    wanted = columns_of(task_type, told)
    raw = _raw(request, place, limits, local_files, beat, from_hub)
    table = (read_shards if raw.path.is_dir() else read)(raw.path, limits.read, wanted)
    rows = examples(task_type, told, table, messages=messages, early_rows=limits.read.early_rows)
    try:
        record = _written(place, raw, table, rows, limits, beat, began_s)
    finally:
        (place / MAPPED).unlink(missing_ok=True)
    write_record(place, RECORD, record)
    if raw.path != place / RAW:
        return record
    if raw.path.is_dir():
        shutil.rmtree(raw.path)
    else:
        raw.path.unlink(missing_ok=True)
    return record


def _type(request: Mapping[str, Any]) -> Mapping[str, Any] | str:
    told = request.get("dataset_type")
    if isinstance(told, (str, Mapping)):
        return told
    raise InputError(f"dataset_type: found {found(told)}, allowed is an object, or one word")


def _raw(
    request: Mapping[str, Any],
    place: Path,
    limits: DataLimits,
    local_files: bool,
    beat: Beat,
    from_hub: FromHub | None,
) -> Raw:
    """What to read: one file, or the files of a dataset of the hub."""
    address, path = address_of(request, "dataset"), place / RAW
    if request.get("file_format") != HUB or is_here(address, local_files=local_files):
        return brought(
            "dataset", address, path, limits.fetch, beat, kind_of, local_files=local_files
        )
    if from_hub is None:
        raise InputError(
            f"dataset: found {found(shown(address))} of file_format hf, allowed is the https "
            "address of a file: training.hub_datasets is off"
        )
    if not path.is_dir():
        from_hub(address, path)
    return hashed_all(shown(address), path, beat)


def _written(
    place: Path,
    raw: Raw,
    table: Table,
    rows: Prepared,
    limits: DataLimits,
    beat: Beat,
    began_s: float,
) -> DataRecord:
    """Write both files and say what they hold. Raises InputError, OSError."""
    got = gathered(rows, place / MAPPED, beat)
    _worth_it(raw.source, table, rows)
    dealt = split(got.count, limits.seed, limits.share, limits.least, limits.most, got.alike)
    parts = {TRAIN: dealt.train, HELD_OUT: dealt.held_out}
    for name, indices in parts.items():
        deal(place / MAPPED, place / name, got.count, indices, beat)
    return DataRecord(
        source=raw.source,
        kind=table.kind,
        rows=rows.usable + _bad_rows(table, rows),
        usable=rows.usable,
        repaired=rows.repaired,
        bad=_by_reason(table, rows),
        train=len(dealt.train),
        held_out=len(dealt.held_out),
        held_out_is_train=dealt.shared,
        bytes=raw.bytes,
        sha256=raw.sha256,
        seconds=round(monotonic() - began_s, 3),
        columns=got.columns,
        absent=rows.absent(),
        cut=table.seen.cut,
        characters=got.characters,
        longest=got.longest,
    )


def _bad_rows(table: Table, rows: Prepared) -> int:
    return table.seen.faults.total + rows.faults.total


def _by_reason(table: Table, rows: Prepared) -> dict[str, BadRows]:
    both = {**table.seen.faults.by_reason, **rows.faults.by_reason}
    return {reason: BadRows(count=count, first=first) for reason, (count, first) in both.items()}


def _worth_it(source: str, table: Table, rows: Prepared) -> None:
    """Raise InputError when no row, or too few of them, can be used."""
    seen, bad = table.seen, _bad_rows(table, rows)
    total = rows.usable + bad
    if not total:
        raise InputError(f"{source}: found no row, allowed is one or more")
    absent = [name for name in rows.absent() if name in rows.required]
    if not rows.usable and seen.rows and absent:
        raise InputError(
            f"{source}: column {found(absent[0])}: found in none of {seen.rows} rows, "
            f"columns there are {_names(table)}"
        )
    if not rows.usable or bad > seen.limits.most_bad_share * total:
        worst = max((seen.faults, rows.faults), key=lambda faults: faults.most)
        raise InputError(
            f"{source}: found {bad} of {total} rows that cannot be used, "
            f"the commonest fault: {worst.commonest()}"
        )
    if seen.left_share > seen.limits.most_bad_share:
        raise InputError(f"{source}: found {seen.cut}: {seen.left_share:.0%} of the file")


def _names(table: Table) -> str:
    names = list(table.seen.columns)
    more = ", ..." if len(names) > MOST_NAMES else ""
    return ", ".join(found(name) for name in names[:MOST_NAMES]) + more if names else "none"
