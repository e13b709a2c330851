"""Checkpoints: adapter, optimizer, random state and step, whole or not there at all.

Weights and moments are safetensors by name, without shares: a checkpoint of two ranks under FSDP2
and one of DDP look the same. What is a rank's own lies beside them: its random generators, and
moments that cannot be told without its share. No more is held in memory than rank 0 writes to one
file, and nothing is read but one tensor at a time.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch.distributed.tensor import DTensor

from live.job_files import sync_folder
from live.training.sharding import like, put, whole
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


def _rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def _first() -> bool:
    return _rank() == 0


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
    _write(gathered(weights.items()), scratch / _ADAPTER)
    _write(gathered(_moments(weights, optimizer)), scratch / _OPTIMIZER)
    own = dict(_own_moments(weights, optimizer))
    if own:
        save_file(own, scratch / _own_file(_rank()))
    _together()
    if _first():
        (scratch / _STATE).write_text(json.dumps(asdict(state)))
        put_in_place(scratch, final)
        for old in found(folder)[KEPT:]:
            shutil.rmtree(old, ignore_errors=True)
    _together()
    return final


def gathered(named: Iterable[tuple[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    """Tensors with all their shares on the CPU, on rank 0 alone; every rank has to ask for it."""
    kept = {}
    for name, each in named:
        value = whole(each.detach())
        if _first():
            kept[name] = value.cpu().contiguous()
    return kept


def _write(tensors: dict[str, torch.Tensor], path: Path) -> None:
    if _first():
        save_file(tensors, path)


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


def _is_own(weight: torch.Tensor, value: torch.Tensor) -> bool:
    """Whether a moment is of this rank's share, and cannot be put together with the others'."""
    return isinstance(weight, DTensor) and not isinstance(value, DTensor) and value.dim() > 0


def _moments(
    weights: Weights, optimizer: torch.optim.Optimizer
) -> Iterator[tuple[str, torch.Tensor]]:
    """The optimizer's memory, by the names of the weights it is about; numbers are marked so."""
    for name, weight in weights.items():
        for key, value in optimizer.state[weight].items():
            if isinstance(value, int | float):
                yield f"{key}/{_NUMBER}:{name}", torch.tensor(value, dtype=torch.float64)
            elif isinstance(value, torch.Tensor) and not _is_own(weight, value):
                yield f"{key}:{name}", value


def _own_moments(
    weights: Weights, optimizer: torch.optim.Optimizer
) -> Iterator[tuple[str, torch.Tensor]]:
    for name, weight in weights.items():
        for key, value in optimizer.state[weight].items():
            if isinstance(value, torch.Tensor) and _is_own(weight, value):
                yield f"{key}:{name}", value.cpu().contiguous()


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
            own = path.glob(_own_file("*"))
            for file in (path / _ADAPTER, path / _OPTIMIZER, *own):
                with safe_open(file, framework="pt"):
                    pass  # its header tells how long it has to be
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
    own = path / _own_file(_rank())
    counted = _counted_there(optimizer)
    with torch.no_grad():
        with safe_open(path / _ADAPTER, framework="pt") as adapter:
            if set(adapter.keys()) != weights.keys():
                raise CheckpointMismatch(f"{path}: found other weights than the job has")
            for name, weight in weights.items():
                put(weight, adapter.get_tensor(name))
        for file in (path / _OPTIMIZER, own) if own.exists() else (path / _OPTIMIZER,):
            with safe_open(file, framework="pt") as moments:
                for key in moments.keys():  # noqa: SIM118 # no mapping
                    moment, name = key.split(":", 1)
                    weight, value = weights[name], moments.get_tensor(key)
                    if value.dim() == 0 and weight in counted:
                        value = value.to(weight.device, torch.float32)
                    placed = value.to(weight.device) if file == own else None
                    _remember(optimizer.state[weight], moment, value, weight, placed)


def _counted_there(optimizer: torch.optim.Optimizer) -> set[torch.Tensor]:
    """Weights whose steps a kernel counts beside them; for others torch counts on the CPU.

    Its own ``load_state_dict`` goes by the same two settings.
    """
    there = [g for g in optimizer.param_groups if g.get("fused") or g.get("capturable")]
    return {each for group in there for each in group["params"]}


def _own_file(rank: int | str) -> str:
    return f"optimizer-{rank}.safetensors"


def _remember(
    state: dict[str, Any],
    moment: str,
    value: torch.Tensor,
    weight: torch.nn.Parameter,
    placed: torch.Tensor | None,
) -> None:
    """placed: the moment of a share, as it is kept; None for a whole one, of which that is made."""
    key, _, number = moment.partition("/")
    if number == _NUMBER:
        state[key] = int(value) if float(value).is_integer() else float(value)
    elif value.dim() == 0:
        state[key] = value
    else:
        state[key] = like(weight, value) if placed is None else placed
