"""Reads the public Philly trace (Jeon et al., USENIX ATC 2019) as a stream of offers.

The trace tells when a job came and how long it ran. Everything else an offer says is drawn, keyed
by the row, so that a choice of cluster or a limit does not change what a job asks for. The mapping,
and what it cannot tell, is described in docs/offers.md.
"""

import csv
import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from shared.errors import InputError
from sim.arrivals.config import HOURS_LIMIT, Mix
from sim.arrivals.tasks import draw_tasks, whole_ms
from sim.stream import Floats, Ints, OfferStream, in_handling_order, taken
from sim.streams import uniforms, uuids

if TYPE_CHECKING:
    import pandas as pd

_Readable = IO[bytes] | gzip.GzipFile

SEED = 56
"""Seed of what the trace does not tell, fixed so that everybody's import is the same file."""

COLUMNS = ("timestamp", "duration", "num_gpus", "gpu_time", "cluster")
SHORTEST_S = 1.0
LONGEST_S = HOURS_LIMIT * 3600
_SECONDS_PER_HOUR = 3600
_LONGEST_LINE = 4096
_LONGEST_SHOWN = 60
_GZIP = b"\x1f\x8b"
_BOM = b"\xef\xbb\xbf"
_TIME_FORMAT = "%Y-%m-%d %H:%M:%S"


@dataclass(frozen=True, slots=True)
class PhillyImport:
    """What an import found. first_ms, last_ms: epoch milliseconds of the first and last offer.

    rows: jobs in the whole file; repeated_rows: those that equal an earlier row (they are kept).
    """

    offers: int
    rows: int
    repeated_rows: int
    first_ms: int
    last_ms: int


def import_philly(
    path: Path, out: Path, cluster: str | None = None, limit: int | None = None, seed: int = SEED
) -> PhillyImport:
    """Write the trace's jobs as an offers file. cluster: this one's jobs only; limit: the earliest.

    InputError, with file and line, when the trace is not as published; nothing is written then.
    """
    from sim.offers_file import write_offers

    stream, found = read_philly(path, cluster, limit, seed)
    write_offers(stream, out)
    return found


def read_philly(
    path: Path, cluster: str | None = None, limit: int | None = None, seed: int = SEED
) -> tuple[OfferStream, PhillyImport]:
    """The trace's jobs as offers, and what was found. Arguments and errors as ``import_philly``."""
    if limit is not None and limit < 1:
        raise InputError(f"--limit: found {limit}, allowed is a whole number of 1 or more")
    frame = _checked(_table(path), path)
    stream = in_handling_order(taken(_offers(frame, seed), _rows_of(frame, cluster, path)))
    stream = stream if limit is None else taken(stream, np.arange(min(limit, len(stream))))
    first_ms, last_ms = int(stream.at_ms[0]), int(stream.at_ms[-1])
    repeated = int(frame.duplicated(list(COLUMNS)).sum())
    return stream, PhillyImport(len(stream), len(frame), repeated, first_ms, last_ms)


def _offers(frame: "pd.DataFrame", seed: int) -> OfferStream:
    """One offer a row, in the file's order; draw i belongs to row i."""
    n = len(frame)
    hours = np.maximum(frame["duration"].to_numpy(), SHORTEST_S) / _SECONDS_PER_HOUR
    tasks = draw_tasks(Mix(), n, partial(_draw, seed))
    return OfferStream(
        at_ms=frame["timestamp"].to_numpy(),
        task_id=uuids(seed, 0, "philly.task_id", n),
        model=tasks.model,
        task_type=tasks.task_type,
        hours=hours,
        ds_size=tasks.ds_size,
        params=tasks.params,
        train_ms=whole_ms(hours),
    )


def _draw(seed: int, purpose: str, n: int) -> Floats:
    return uniforms(seed, 0, f"philly.{purpose}", n)


def _rows_of(frame: "pd.DataFrame", cluster: str | None, path: Path) -> Ints:
    if cluster is None:
        return np.arange(len(frame))
    rows = np.flatnonzero(frame["cluster"].to_numpy() == cluster)
    if not len(rows):
        known = ", ".join(frame["cluster"].value_counts().index)
        raise InputError(f"{path}: cluster: found no job of {cluster!r}, allowed is one of {known}")
    return rows


def _checked(table: "pd.DataFrame", path: Path) -> "pd.DataFrame":
    """The table with times in epoch milliseconds and numbers as float64; all of it makes sense."""
    import pandas as pd

    when = pd.to_datetime(table["timestamp"], format=_TIME_FORMAT, errors="coerce")
    numbers = {key: pd.to_numeric(table[key], errors="coerce") for key in COLUMNS[1:4]}
    seconds = f"a number of seconds from 0 to {LONGEST_S:.0f}"
    _raise_first(
        table,
        path,
        {
            "timestamp": (when >= pd.Timestamp(0), "a time like 2017-10-09 07:01:55"),
            "duration": (numbers["duration"].between(0, LONGEST_S), seconds),
            "num_gpus": (numbers["num_gpus"].between(0, 2**53), "a number of GPUs, 0 or more"),
            "gpu_time": (numbers["gpu_time"].between(0, 2**53), "GPU seconds, 0 or more"),
            "cluster": (table["cluster"].str.strip() != "", "the id of a cluster"),
        },
    )
    at_ms = when.astype("datetime64[ms]").astype("int64")
    return table.assign(timestamp=at_ms, **{k: v.astype("float64") for k, v in numbers.items()})


def _raise_first(
    table: "pd.DataFrame", path: Path, checks: "dict[str, tuple[pd.Series[bool], str]]"
) -> None:
    """InputError for the first bad line, and on it the first bad column."""
    bad = np.column_stack([~np.asarray(good, dtype=np.bool_) for good, _ in checks.values()])
    rows, columns = np.nonzero(bad)
    if not len(rows):
        return
    row, key = int(rows[0]), list(checks)[columns[0]]
    line, found = table.index[row], table[key].iloc[row][:_LONGEST_SHOWN]
    raise InputError(f"{path}:{line}: {key}: found {found!r}, allowed is {checks[key][1]}")


def _table(path: Path) -> "pd.DataFrame":
    """The file's fields as text, indexed by line number (the header is line 1)."""
    import pandas as pd

    with _opened(path) as file:
        lines = _lines(file, path)
        names = _header(next(lines, b""), path)
        jobs = dict(_jobs(lines, len(names), path))
    if not jobs:
        raise InputError(f"{path}:2: line: found the end of the file, allowed is at least one job")
    text = BytesIO(b"\n".join(jobs.values()))
    table = pd.read_csv(text, names=names, dtype=str, keep_default_na=False, quoting=csv.QUOTE_NONE)
    return table.set_index(pd.Index(list(jobs)))


def _jobs(lines: Iterator[bytes], width: int, path: Path) -> Iterator[tuple[int, bytes]]:
    """Line number and line of every job; empty lines are passed over."""
    for number, line in enumerate(lines, start=2):
        found = line.count(b",") + 1
        if line and found != width:
            raise InputError(
                f"{path}:{number}: line: found {found} fields, allowed is {width}, as in the header"
            )
        if line:
            yield number, line


def _header(line: bytes, path: Path) -> list[str]:
    names = line.decode().split(",")
    wrong = [name for name in dict.fromkeys([*COLUMNS, *names]) if names.count(name) != 1]
    if wrong:
        raise InputError(
            f"{path}:1: {wrong[0]}: found the columns {', '.join(names)[:200]!r}, "
            f"allowed is a header that names each of {', '.join(COLUMNS)} once"
        )
    return names


def _lines(file: _Readable, path: Path) -> Iterator[bytes]:
    """The lines without their ends; one that no Philly table holds is an InputError."""
    for number, read in enumerate(iter(lambda: file.readline(_LONGEST_LINE + 1), b""), start=1):
        line = read.removeprefix(_BOM) if number == 1 else read
        problem = None
        if len(line) > _LONGEST_LINE:
            problem = f"over {_LONGEST_LINE} bytes in a line"
        elif not line.isascii() or b"\0" in line or b'"' in line:
            problem = "bytes that are no plain text"
        if problem:
            raise InputError(
                f"{path}:{number}: line: found {problem}, allowed is comma-separated text"
            )
        yield line.strip()


@contextmanager
def _opened(path: Path) -> Iterator[_Readable]:
    """The file, unpacked when it is gzip; every way it cannot be read is an InputError."""
    try:
        with path.open("rb") as raw:
            packed = raw.read(len(_GZIP)) == _GZIP
            raw.seek(0)
            if path.suffix == ".gz" and not packed:
                raise InputError(
                    f"{path}:1: file: found no gzip data, allowed is a .csv.gz or .csv"
                )
            if packed:
                with gzip.open(raw) as unpacked:
                    yield unpacked
            else:
                yield raw
    except (gzip.BadGzipFile, EOFError, zlib.error) as why:
        raise InputError(f"{path}: file: found damaged gzip data ({why})") from None
    except OSError as why:
        raise InputError(f"{path}: cannot be read: {(why.strerror or str(why)).lower()}") from None
