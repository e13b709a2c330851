"""What is handed in is looked at first: it loads, is finite, and differs from the base model.

One tensor at a time: an adapter may be of many gigabytes, and every rank looks.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from live.training.sharding import put
from shared.errors import InputError


def checked(trainer: Any, folder: Path) -> tuple[str, ...]:
    """What is wrong with the file that will be handed in, nothing when it is well."""
    shapes, finite, differs = {}, True, False
    try:
        with safe_open(folder / trainer.weights_file, framework="pt") as weights:
            for name in weights.keys():  # noqa: SIM118 # no mapping
                each = weights.get_tensor(name)
                shapes[name] = tuple(each.shape)
                finite = finite and bool(torch.isfinite(each).all())
                differs = differs or ("lora_B" in name and bool(each.any()))
        trainer.check_loads(folder)
    except (OSError, ValueError, SafetensorError, TypeError) as why:
        return (f"it does not load: {(str(why).splitlines() or [type(why).__name__])[0]}",)
    wanted = {trainer.exported(name): tuple(each.shape) for name, each in trainer.weights.items()}
    faults = []
    if shapes != wanted:
        faults.append("its weights are not those of the job")
    if not finite:
        faults.append("it is not finite")
    if not differs:
        faults.append("it does not differ from the base model")
    return tuple(faults)


def put_back(trainer: Any, folder: Path) -> None:
    """Give the model the weights of a written adapter, on every rank.

    Raises InputError when they cannot be read.
    """
    try:
        with safe_open(folder / trainer.weights_file, framework="pt") as found, torch.no_grad():
            for name, weight in trainer.weights.items():
                put(weight, found.get_tensor(trainer.exported(name)))
    except (OSError, SafetensorError) as why:
        raise InputError(f"{folder}: cannot be loaded again: {why}") from None
