"""What is handed in is looked at first: it loads, is finite, and differs from the base model."""

from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig
from safetensors import SafetensorError
from safetensors.torch import load_file

from live.training.sharding import put
from live.training.trainers import WEIGHTS
from shared.errors import InputError


def checked(folder: Path, wanted: dict[str, tuple[int, ...]]) -> tuple[str, ...]:
    """What is wrong with the file that will be handed in, nothing when it is well.

    wanted: the shape of every weight that the adapter has to have, by the name in the file.
    """
    try:
        weights = load_file(folder / WEIGHTS)
        PeftConfig.from_pretrained(str(folder))
    except (OSError, ValueError, SafetensorError, TypeError) as why:
        return (f"it does not load: {str(why).splitlines()[0]}",)
    faults = []
    if {name: tuple(each.shape) for name, each in weights.items()} != wanted:
        faults.append("its weights are not those of the job")
    if not all(bool(torch.isfinite(each).all()) for each in weights.values()):
        faults.append("it is not finite")
    if not any(bool(each.any()) for name, each in weights.items() if "lora_B" in name):
        faults.append("it does not differ from the base model")
    return tuple(faults)


def shapes(trainer: Any) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the trained weights as peft writes them."""
    return {
        name.replace(".default.", "."): tuple(each.shape) for name, each in trainer.weights.items()
    }


def put_back(trainer: Any, folder: Path) -> None:
    """Give the model the weights of a written adapter, on every rank.

    Raises InputError when they cannot be read.
    """
    try:
        found = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as why:
        raise InputError(f"{folder}: cannot be loaded again: {why}") from None
    with torch.no_grad():
        for name, weight in trainer.weights.items():
            put(weight, found[name.replace(".default.", ".")])
