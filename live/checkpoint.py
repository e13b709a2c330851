"""Checkpoints: adapter, optimizer and step, as safetensors and JSON, whole or not there at all."""

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from live.job_files import sync_folder
from shared.errors import FourSlotError

KEPT = 2
_ADAPTER, _OPTIMIZER, _STATE = "adapter.safetensors", "optimizer.safetensors", "state.json"
_MOMENTS = ("exp_avg", "exp_avg_sq", "step")


class CheckpointMismatch(FourSlotError):
    """A checkpoint that is not of the job at hand."""


@dataclass(frozen=True, slots=True)
class State:
    """Where training stands. step: optimizer steps done. trainable: weights that are trained.

    losses: of each step. rows_per_step: of all ranks; with the seed it says which rows come next.
    """

    step: int
    trainable: int
    rows_per_step: int
    seed: int
    losses: list[float]


Weights = Mapping[str, torch.nn.Parameter]


def trainable(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    """The weights that are trained, by name."""
    return {name: each for name, each in model.named_parameters() if each.requires_grad}


def save(folder: Path, weights: Weights, optimizer: torch.optim.Optimizer, state: State) -> Path:
    """Write a checkpoint and drop all but the newest two. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    scratch = folder / f".step-{state.step:08d}"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    save_file({name: each.detach().cpu().contiguous() for name, each in weights.items()},
              scratch / _ADAPTER)  # fmt: skip
    save_file(_moments(weights, optimizer), scratch / _OPTIMIZER)
    (scratch / _STATE).write_text(json.dumps(asdict(state)))
    final = folder / f"step-{state.step:08d}"
    put_in_place(scratch, final)
    for old in _found(folder)[KEPT:]:
        shutil.rmtree(old, ignore_errors=True)
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
        shutil.rmtree(final)
    scratch.rename(final)
    sync_folder(final.parent)


def _moments(weights: Weights, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """AdamW's memory, by the names of the weights it is about."""
    found = {}
    for name, weight in weights.items():
        for moment in _MOMENTS:
            value = optimizer.state[weight].get(moment)
            if value is not None:
                found[f"{moment}:{name}"] = torch.as_tensor(value).detach().cpu().contiguous()
    return found


def _found(folder: Path) -> list[Path]:
    """Checkpoints, the newest first."""
    return sorted(folder.glob("step-*"), reverse=True)


def resume(
    folder: Path, weights: Weights, optimizer: torch.optim.Optimizer, like: State
) -> State | None:
    """Take up the newest checkpoint that can be read whole; None where there is none.

    like: what the job at hand is, its step and losses aside. Raises CheckpointMismatch when the
    checkpoint is of another one.
    """
    for path in _found(folder):
        try:
            state = State(**json.loads((path / _STATE).read_text()))
            adapter, moments = load_file(path / _ADAPTER), load_file(path / _OPTIMIZER)
        except (OSError, ValueError, TypeError, SafetensorError):
            continue  # half gone; the one before it will do
        _check(path, state, like, adapter, weights)
        _put(weights, optimizer, adapter, moments)
        return state
    return None


def _check(
    path: Path, state: State, like: State, adapter: Mapping[str, torch.Tensor], weights: Weights
) -> None:
    for field in ("trainable", "rows_per_step", "seed"):
        found, wanted = getattr(state, field), getattr(like, field)
        if found != wanted:
            raise CheckpointMismatch(f"{path}: {field}: found {found}, the job has {wanted}")
    if adapter.keys() != weights.keys():
        raise CheckpointMismatch(f"{path}: found other weights than the job has")


def _put(
    weights: Weights,
    optimizer: torch.optim.Optimizer,
    adapter: Mapping[str, torch.Tensor],
    moments: Mapping[str, torch.Tensor],
) -> None:
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(adapter[name])
            remembered = {
                moment: moments[f"{moment}:{name}"].to(weight.device if moment != "step" else "cpu")
                for moment in _MOMENTS
                if f"{moment}:{name}" in moments
            }
            if remembered:
                optimizer.state[weight].update(remembered)
