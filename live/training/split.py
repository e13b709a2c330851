"""Which rows are trained on, and which are held out to be judged by: the same every time."""

from collections.abc import Sequence
from typing import NamedTuple

SHARE = 0.05
LEAST, MOST = 8, 500
LARGEST_PART = 5
"""Of a small data set at most the fifth part is held out, whatever ``least`` says."""

_MASK = (1 << 64) - 1


class Split(NamedTuple):
    """Indices in rising order. shared: all rows were alike, so the held-out one is trained on."""

    train: list[int]
    held_out: list[int]
    shared: bool


def split(
    count: int,
    seed: int,
    share: float = SHARE,
    least: int = LEAST,
    most: int = MOST,
    alike: Sequence[int] | None = None,
) -> Split:
    """Deal ``count`` rows. alike: a 64-bit number of each row, equal for equal rows.

    Equal rows stay on one side. With ``alike`` a row's side rests on its content, not on where it
    stands. Raises ValueError when there is no row.
    """
    if count < 1:
        raise ValueError("found no row, allowed is one or more")
    keys = alike if alike is not None else range(count)
    groups: dict[int, int] = {}
    for key in keys:
        groups[key] = groups.get(key, 0) + 1
    if len(groups) == 1:
        return Split(list(range(count)), [0], shared=True)
    chosen = _chosen(groups, seed, _wanted(count, share, least, most))
    sides: tuple[list[int], list[int]] = ([], [])
    for index, key in enumerate(keys):
        sides[key in chosen].append(index)
    return Split(*sides, shared=False)


def _wanted(count: int, share: float, least: int, most: int) -> int:
    return max(1, min(max(least, round(count * share)), most, count // LARGEST_PART))


def _chosen(groups: dict[int, int], seed: int, wanted: int) -> set[int]:
    """Groups that make up the hold-out: by lot, and none that overshoots where another fits."""
    chosen: set[int] = set()
    held = 0
    for key in sorted(groups, key=lambda key: (_lot(key, seed), key)):
        if held + groups[key] <= wanted:
            chosen.add(key)
            held += groups[key]
        if held == wanted:
            break
    return chosen or {min(groups, key=lambda key: (groups[key], _lot(key, seed), key))}


def _lot(key: int, seed: int) -> int:
    """A number that looks drawn: the finaliser of SplitMix64 (Steele, Lea, Flood, 2014)."""
    number = (key + seed * 0x9E3779B97F4A7C15) & _MASK
    number = ((number ^ (number >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    number = ((number ^ (number >> 27)) * 0x94D049BB133111EB) & _MASK
    return number ^ (number >> 31)
