"""Checkpoints: adapter, optimizer, random state and step, whole or not there at all.

Weights and moments are safetensors by name, without shares: a checkpoint of two ranks under FSDP2
and one of DDP look the same. What a rank's random generators held lies beside them.
"""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from live.job_files import sync_folder
from live.training.sharding import put, same_kind, whole
from shared.errors import FourSlotError

KEPT = 2
_ADAPTER, _OPTIMIZER, _STATE = "adapter.safetensors", "optimizer.safetensors", "state.json"
_NUMBER = "number"

Weights = Mapping[str, torch.nn.Parameter]


class CheckpointMismatch(FourSlotError):
    """A checkpoint that is not of the job at hand."""


@dataclass(frozen=True, slots=True)
class State:
    """Where training stands. step: optimizer steps done. trainable: weights that are trained.

    rows_per_step: of all ranks; with the seed it says which rows come next. losses: of each step.
    pace: what the pacing remembers, as JSON values.
    """

    step: int
    trainable: int
    rows_per_step: int
    seed: int
    losses: list[float]
    pace: dict[str, Any] = field(default_factory=dict)


def trainable(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """The weights that are trained, by name."""
    return {name: each for name, each in model.named_parameters() if each.requires_grad}


def _first() -> bool:
    return not dist.is_initialized() or dist.get_rank() == 0


def _together() -> None:
    if dist.is_initialized():
        dist.barrier()


def save(
    folder: Path,
    weights: Weights,
    optimizer: torch.optim.Optimizer,
    state: State,
    others: Callable[[Path], None] = lambda _: None,
) -> Path:
    """Write a checkpoint, all ranks together, and drop all but the newest two.

    others: writes what else belongs into the folder; called on every rank. Raises OSError.
    """
    scratch, final = (folder / f"{dot}step-{state.step:08d}" for dot in (".", ""))
    if _first():
        folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(scratch, ignore_errors=True)
        scratch.mkdir()
    _together()
    others(scratch)
    adapter = {name: _kept(each) for name, each in weights.items()}
    moments = _moments(weights, optimizer)
    _together()
    if _first():
        save_file(adapter, scratch / _ADAPTER)
        save_file(moments, scratch / _OPTIMIZER)
        (scratch / _STATE).write_text(json.dumps(asdict(state)))
        put_in_place(scratch, final)
        for old in found(folder)[KEPT:]:
            shutil.rmtree(old, ignore_errors=True)
    _together()
    return final


def put_in_place(scratch: Path, final: Path) -> None:
    """Make a written folder durable and give it its name, in place of what had it.

    Raises OSError.
    """
    for path in (each for each in scratch.rglob("*") if each.is_file()):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    sync_folder(scratch)
    if final.exists():
        old = final.with_name(f".{final.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        final.rename(old)
        scratch.rename(final)
        shutil.rmtree(old, ignore_errors=True)
    else:
        scratch.rename(final)
    sync_folder(final.parent)


def _kept(weight: torch.Tensor) -> torch.Tensor:
    return whole(weight.detach()).cpu().contiguous()


def _moments(weights: Weights, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """The optimizer's memory, by the names of the weights it is about; numbers are marked so."""
    told = {}
    for name, weight in weights.items():
        for key, value in optimizer.state[weight].items():
            if isinstance(value, torch.Tensor):
                told[f"{key}:{name}"] = _kept(value)
            elif isinstance(value, int | float):
                told[f"{key}/{_NUMBER}:{name}"] = torch.tensor(value, dtype=torch.float64)
    return told


def found(folder: Path) -> list[Path]:
    """Checkpoints, the newest first."""
    return sorted(folder.glob("step-*"), reverse=True)


def newest(folder: Path, like: State) -> tuple[Path, State] | None:
    """The newest checkpoint that can be read whole, and its state; None where there is none.

    like: what the job at hand is; its step, losses and pace do not matter. Raises
    CheckpointMismatch when the checkpoint is of another one.
    """
    for path in found(folder):
        try:
            state = State(**json.loads((path / _STATE).read_text()))
            for name in (_ADAPTER, _OPTIMIZER):
                load_file(path / name)
        except (OSError, ValueError, TypeError, SafetensorError):
            continue  # half gone; the one before it will do
        _check(path, state, like)
        return path, state
    return None


def _check(path: Path, state: State, like: State) -> None:
    for name in ("trainable", "rows_per_step", "seed"):
        there, wanted = getattr(state, name), getattr(like, name)
        if there != wanted:
            raise CheckpointMismatch(f"{path}: {name}: found {there}, the job has {wanted}")


def take_up(path: Path, weights: Weights, optimizer: torch.optim.Optimizer) -> None:
    """Put a checkpoint's weights and moments in place, on every rank.

    Raises CheckpointMismatch when it holds other weights.
    """
    adapter, moments = load_file(path / _ADAPTER), load_file(path / _OPTIMIZER)
    if adapter.keys() != weights.keys():
        raise CheckpointMismatch(f"{path}: found other weights than the job has")
    remembered: dict[str, dict[str, torch.Tensor]] = {name: {} for name in weights}
    for key, value in moments.items():
        moment, name = key.split(":", 1)
        remembered[name][moment] = value
    with torch.no_grad():
        for name, weight in weights.items():
            put(weight, adapter[name])
            for moment, value in remembered[name].items():
                _remember(optimizer.state[weight], moment, value, weight)


def _remember(
    state: dict[str, Any], moment: str, value: torch.Tensor, weight: torch.nn.Parameter
) -> None:
    key, _, number = moment.partition("/")
    if number == _NUMBER:
        state[key] = int(value) if float(value).is_integer() else float(value)
    elif value.dim() == 0:
        state[key] = value  # AdamW's step count stays on the CPU, fused or not, until used
    else:
        state[key] = same_kind(weight, value.to(weight.device))
