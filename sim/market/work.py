"""How much work a task counts for: the validator's published rules, mid-2025."""

from __future__ import annotations

import re
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from sim.market.rules import Work

_SIZE_IN_NAME = re.compile(r"([0-9]+)[bB]")


@lru_cache(maxsize=4096)
def billions_in_name(model: str) -> int | None:
    """The first run of digits directly before a b or B, or None.

    Not the policy's reading of a name but the validator's, which takes ``1.5b`` for 5.

    >>> billions_in_name("Qwen/Qwen2.5-1.5B-Instruct")
    5
    """
    found = _SIZE_IN_NAME.search(model)
    return int(found[1]) if found else None


def task_billions(model: str, model_params_count: int | None, work: Work) -> int:
    """Whole billions of parameters that a task's work is reckoned with."""
    if model_params_count is not None:
        billions = model_params_count // 10**9
    else:
        named = billions_in_name(model)
        billions = work.least_billions if named is None else min(named, work.most_named_billions)
    return min(max(billions, work.least_billions), work.most_billions)


def task_work(
    hours: NDArray[np.float64], billions: NDArray[np.int64], work: Work
) -> NDArray[np.float64]:
    """Work of tasks from hours to complete and whole billions of parameters, same shape."""
    return np.asarray(np.maximum(work.least, work.factor * np.sqrt(hours * billions)))
