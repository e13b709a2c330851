"""The order of the rows: the longest first, then at random, the same after every restart.

One long row in the middle of a run is the usual way to run out of memory, hours in. With the
longest rows in the first two steps it happens in the first minute, or not at all; two, since the
optimizer's states exist from the second on.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import Sampler

STEPS = 2


class LongestFirst(Sampler[int]):
    """Indices of one epoch. lengths: of the rows, in tokens. rows_per_step: of all ranks."""

    def __init__(self, lengths: Sequence[int], rows_per_step: int, seed: int) -> None:
        self._count, self._seed, self._epoch = len(lengths), seed, 0
        ranked = sorted(range(self._count), key=lambda at: (-lengths[at], at))
        self._first = ranked[: STEPS * rows_per_step]

    def __len__(self) -> int:
        """How many rows there are."""
        return self._count

    def set_epoch(self, epoch: int) -> None:
        """Which epoch is asked for next, from 0."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[int]:
        """Every index once; in the first epoch the longest rows come first."""
        dice = torch.Generator().manual_seed(self._seed + self._epoch)
        order: list[int] = torch.randperm(self._count, generator=dice).tolist()
        if self._epoch == 0:
            early = set(self._first)
            order = [*self._first, *(at for at in order if at not in early)]
        return iter(order)


def lengths_of(rows: Any) -> list[int]:
    """Tokens of each prepared row: ``input_ids``, or the prompt with both answers."""
    names = [name for name in rows.column_names if name.endswith("_ids")]
    columns = [rows.with_format("arrow")[:][name] for name in names]
    return [sum(map(len, parts)) for parts in zip(*(c.to_pylist() for c in columns), strict=True)]
