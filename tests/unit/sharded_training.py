"""One rank of a small sharded training, run by ``test_training_checkpoints`` twice over."""

import json
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from torch.distributed.fsdp import fully_shard

from live.training import checkpoints
from live.training.checkpoints import State, gathered, trainable
from live.training.optimizers import adam_8bit

WIDTH, ROWS = 256, 41
"""The rows of the second layer do not divide by two ranks, nor its elements by a block of 256."""


def made(kind: str, *, sharded: bool) -> tuple[torch.nn.Module, Any]:
    """A model of three layers, of which the first is not trained, and its optimizer."""
    Accelerator(cpu=True)
    torch.manual_seed(1)
    model = torch.nn.Sequential(
        torch.nn.Linear(WIDTH, WIDTH), torch.nn.Linear(WIDTH, ROWS), torch.nn.Linear(ROWS, 3)
    )
    model[0].requires_grad_(requires_grad=False)
    if sharded:
        for layer in model:
            fully_shard(layer)
        fully_shard(model)
    weights = list(trainable(model).values())
    adam = torch.optim.AdamW(weights, lr=1e-2, weight_decay=0.0, fused=kind == "fused")
    optimizer = adam_8bit(weights, 1e-2) if kind == "adamw8bit" else adam
    return model, AcceleratedOptimizer(optimizer)  # as the trainers have it


def train(model: torch.nn.Module, optimizer: Any, steps: range) -> None:
    """The same rows on every rank, so that sharded and whole models see the same gradients."""
    for step in steps:
        dice = torch.Generator().manual_seed(step)
        rows, wanted = (torch.randn(8, width, generator=dice) for width in (WIDTH, 3))
        optimizer.param_groups[0]["lr"] = 1e-2 / (1 + step)
        loss = ((model(rows) - wanted) ** 2).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()


def told(model: torch.nn.Module) -> dict[str, list[float]]:
    """All trained weights, on rank 0."""
    return {name: w.flatten().tolist() for name, w in gathered(trainable(model).items()).items()}


def main(kind: str, store: Path, rank: int) -> None:
    """Six steps at once, and three and three with a checkpoint between; whole ones beside them."""
    dist.init_process_group("gloo", init_method=f"file://{store}/joined", rank=rank, world_size=2)
    results = {}
    straight = made(kind, sharded=True)
    train(*straight, range(6))
    results["straight"] = told(straight[0])
    first = made(kind, sharded=True)
    train(*first, range(3))
    state = State(step=3, trainable=1, rows_per_step=8, seed=1, losses=[])
    checkpoints.save(store / "kept", trainable(first[0]), first[1], state)
    second = made(kind, sharded=True)
    found = checkpoints.newest(store / "kept", state)
    assert found is not None
    checkpoints.take_up(found[0], trainable(second[0]), second[1])
    results["between"] = told(second[0])
    train(*second, range(3, 6))
    results["resumed"] = told(second[0])
    whole = made(kind, sharded=False)
    train(*whole, range(6))
    results["whole"] = told(whole[0])
    if not rank:
        (store / "told.json").write_text(json.dumps(results))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
