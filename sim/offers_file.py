"""Offers files, read whole and strictly, and written whole or not at all.

JSON lines (.jsonl, .ndjson, .json), CSV (.csv), either of them packed (.gz), and Parquet (.parquet)
hold the same columns. Empty lines are allowed at the end only. Files that have one fault are
refused whole, with one line naming where it is, what was found and what is allowed.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from shared.errors import InputError
from shared.wire import MIN_REPEAT_MS, found
from sim.distinct import surely_distinct
from sim.files import written_whole
from sim.offers_checks import Rows, joined
from sim.offers_csv import read_csv
from sim.offers_jsonl import read_json_lines
from sim.offers_parquet import read_parquet
from sim.offers_write import write_csv, write_json_lines, write_parquet
from sim.stream import Ints, OfferStream, in_handling_order

_Reader = Callable[[Path], Iterator[Rows]]
_Writer = Callable[[OfferStream, Path, bool], None]

_FORMATS: dict[str, tuple[_Reader, _Writer]] = {
    ".jsonl": (read_json_lines, write_json_lines),
    ".ndjson": (read_json_lines, write_json_lines),
    ".json": (read_json_lines, write_json_lines),
    ".csv": (read_csv, write_csv),
    ".parquet": (read_parquet, write_parquet),
}


def read_offers(path: Path) -> OfferStream:
    """The offers of a file, in handling order, every check of the format passed.

    Raises InputError of one line: ``FILE:LINE: KEY: found ..., allowed is ...`` (Parquet:
    ``FILE: row N: ...``). The first line that is wrong by itself is told first; a task offered
    twice within a minute is looked for when all lines are right.
    """
    parts = list(_format(path)[0](path))
    if not parts:
        raise InputError(f"{path}: found no offers, allowed is one or more")
    in_file_order, where = joined(parts)
    parts.clear()
    stream = in_handling_order(in_file_order)
    _check_repeats(stream, in_file_order, where, path)
    return stream


def write_offers(stream: OfferStream, path: Path) -> None:
    """Write the offers so that reading them gives the same stream; the name's ending says how.

    The file takes its place when it is whole. Raises InputError where it cannot be written.
    """
    write = _format(path)[1]
    with written_whole(path) as aside:
        write(stream, aside, path.suffix == ".gz")


def _format(path: Path) -> tuple[_Reader, _Writer]:
    """How to read and to write a file of this name."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    packed = suffixes[-1:] == [".gz"]
    ending = suffixes[-2:-1] if packed else suffixes[-1:]
    if not ending or ending[0] not in _FORMATS or (packed and ending == [".parquet"]):
        raise InputError(
            f"{path}: found the name {found(path.name)}, allowed are names ending in "
            f"{', '.join(_FORMATS)} (the text forms also packed, in .gz)"
        )
    return _FORMATS[ending[0]]


def _check_repeats(
    stream: OfferStream, in_file_order: OfferStream, where: Ints, path: Path
) -> None:
    """Refuse a task that is offered again within a minute. Raises InputError naming both lines."""
    if surely_distinct(stream.task_id) or (previous := stream.previous) is None:
        return
    again = np.flatnonzero(previous >= 0)
    gaps = stream.at_ms[again] - stream.at_ms[previous[again]]
    again, gaps = again[gaps <= MIN_REPEAT_MS], gaps[gaps <= MIN_REPEAT_MS]
    if len(again) == 0:
        return
    lines = _where_sorted(in_file_order, where)
    pairs = np.sort(np.stack([lines[previous[again]], lines[again]]), axis=0)
    worst = int(np.argmin(pairs[1]))  # as a reader of the file from its start would find it
    row = "row " if path.suffix.lower() == ".parquet" else "line "
    at = f"{path}: {row}{pairs[1, worst]}" if row == "row " else f"{path}:{pairs[1, worst]}"
    raise InputError(
        f"{at}: task_id: found {found(stream.task_id[again[worst]].as_py())} "
        f"{gaps[worst]} ms from {row}{pairs[0, worst]}, allowed is the same task again "
        f"after more than {MIN_REPEAT_MS} ms"
    )


def _where_sorted(in_file_order: OfferStream, where: Ints) -> Ints:
    """Where each offer of the sorted stream stood: the numbers sorted along in another column."""
    return in_handling_order(replace(in_file_order, ds_size=where)).ds_size
