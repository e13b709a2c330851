"""What is handed in is looked at first: it loads, is finite, and differs from the base model."""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from live.training.sharding import put
from shared.errors import InputError


def checked(trainer: Any, folder: Path) -> tuple[str, ...]:
    """What is wrong with the file that will be handed in, nothing when it is well."""
    try:
        weights = load_file(folder / trainer.weights_file)
        trainer.check_loads(folder)
    except (OSError, ValueError, SafetensorError, TypeError) as why:
        return (f"it does not load: {(str(why).splitlines() or [type(why).__name__])[0]}",)
    wanted = {trainer.exported(name): tuple(each.shape) for name, each in trainer.weights.items()}
    faults = []
    if {name: tuple(each.shape) for name, each in weights.items()} != wanted:
        faults.append("its weights are not those of the job")
    if not all(bool(torch.isfinite(each).all()) for each in weights.values()):
        faults.append("it is not finite")
    if not any(bool(each.any()) for name, each in weights.items() if "lora_B" in name):
        faults.append("it does not differ from the base model")
    return tuple(faults)


def put_back(trainer: Any, folder: Path) -> None:
    """Give the model the weights of a written adapter, on every rank.

    Raises InputError when they cannot be read.
    """
    try:
        found = load_file(folder / trainer.weights_file)
    except (OSError, SafetensorError) as why:
        raise InputError(f"{folder}: cannot be loaded again: {why}") from None
    with torch.no_grad():
        for name, weight in trainer.weights.items():
            put(weight, found[trainer.exported(name)])
