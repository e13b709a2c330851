"""FSDP2 over the slot's GPUs: base weights, adapters, gradients and optimizer states in shares.

Called here and not through accelerate, which raises bf16 adapters to fp32 as it shards.
"""

from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor


def shard(model: Any, device: torch.device) -> None:
    """Shard a model with its adapter in place: each decoder layer a group, the rest another."""
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    half = device.type == "cuda"
    policy = MixedPrecisionPolicy(
        param_dtype=torch.bfloat16 if half else None,
        reduce_dtype=torch.bfloat16 if half else None,
    )
    for layer in _layers(model):
        fully_shard(layer, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)
    model._is_fsdp_managed_module = True  # what transformers tells such a model by


def _layers(model: Any) -> list[torch.nn.Module]:
    """The decoder layers: what transformers says may not be split."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    kinds = set(inner._no_split_modules or ())
    return [each for each in inner.modules() if type(each).__name__ in kinds]


def whole(weight: torch.Tensor) -> torch.Tensor:
    """A weight with all its shares; every rank has to ask for it."""
    return weight.full_tensor() if isinstance(weight, DTensor) else weight


def share(weight: torch.Tensor) -> torch.Tensor:
    """The part of a weight that is on this rank, in the weight's own memory."""
    return weight.to_local() if isinstance(weight, DTensor) else weight


def put(weight: torch.Tensor, value: torch.Tensor) -> None:
    """Give a weight this whole value, of which a rank keeps its share."""
    weight.copy_(like(weight, value.to(weight.dtype)))


def like(weight: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """A whole value of the weight's shape as its own kind of tensor, where the weight is."""
    moved = value.to(weight.device)
    if isinstance(weight, DTensor):
        return distribute_tensor(moved, weight.device_mesh, weight.placements)
    return moved
