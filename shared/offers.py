"""An offer: one fine-tuning job that the market asks this miner to take."""

import re
from dataclasses import dataclass
from functools import lru_cache

DEFAULT_PARAMS_B = 7.0
"""Billions of parameters assumed when neither the count nor the name tells."""

_SIZE_IN_NAME = re.compile(r"(?<![\d.])(\d+(?:\.\d+)?)b(?![a-z0-9])", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Offer:
    """The fields a decision may rest on. Nothing here says when it came or how long it runs.

    hours_to_complete: hours until the deadline, counted from the start request.
    ds_size: rows of the dataset (text) or image-text pairs; None when not told.
    model_params_count: parameters of the base model; None when not told.
    """

    task_id: str
    model: str
    task_type: str
    hours_to_complete: float
    ds_size: int | None = None
    model_params_count: int | None = None


def model_name(model: str) -> str:
    """The model's own name: what follows the organisation."""
    return model.rsplit("/", 1)[-1]


@lru_cache(maxsize=4096)
def size_in_name(model: str) -> float | None:
    """Billions of parameters as written before a b in the model's name, or None.

    >>> size_in_name("facebook/opt-1.3b")
    1.3
    """
    found = _SIZE_IN_NAME.search(model_name(model))
    return float(found[1]) if found else None


def params_b(model: str, model_params_count: int | None) -> float:
    """Billions of parameters: the count, else the size in the name, else 7."""
    if model_params_count is not None:
        return model_params_count / 1e9
    named = size_in_name(model)
    return DEFAULT_PARAMS_B if named is None else named
