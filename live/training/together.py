"""What the ranks of a job do together."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from shared.errors import InputError

_Value = TypeVar("_Value")


def on_rank_0(work: Callable[[], _Value]) -> _Value:
    """Rank 0 does it, the others wait and get the same value; JSON-like values only.

    Raises InputError on every rank where rank 0 raises it.
    """
    told: list[Any] = [None, None]
    if dist.get_rank() == 0:
        try:
            told = [work(), None]
        except InputError as why:
            told = [None, str(why)]
    dist.broadcast_object_list(told, src=0)
    value, wrong = told
    if wrong is not None:
        raise InputError(wrong)
    return value  # type: ignore[no-any-return]


def rank_0_says(values: list[float], device: torch.device) -> list[float]:
    """Rank 0's numbers on every rank."""
    told = torch.tensor(values, dtype=torch.float64, device=device)
    dist.broadcast(told, src=0)
    return [float(each) for each in told]


def highest(value: int, device: torch.device) -> int:
    """The highest of all ranks' values."""
    flag = torch.tensor(value, device=device)
    dist.all_reduce(flag, op=dist.ReduceOp.MAX)
    return int(flag)
