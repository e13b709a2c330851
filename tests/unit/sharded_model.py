"""One rank of a sharded model as GPUs have it: a bf16 base under fp32 adapters, on the CPU.

Run by ``test_training_loading`` twice over.
"""

import json
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from peft import LoraConfig, get_peft_model
from torch.distributed.fsdp import MixedPrecisionPolicy

from live.training import sharding
from live.training.loading import Source, model_of
from live.training.sharding import share

SMALL = Path(__file__).parents[1] / "models" / "small-llama"


def half(**_: Any) -> MixedPrecisionPolicy:
    """What ``shard`` goes by on GPUs."""
    return MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.bfloat16)


def main(store: Path, rank: int) -> None:
    """Three steps on the same row, and what this rank holds."""
    dist.init_process_group("gloo", init_method=f"file://{store}/joined", rank=rank, world_size=2)
    base = model_of(Source("small", SMALL), "sdpa", torch.device("cpu"), half=True)
    base.enable_input_require_grads()
    model = get_peft_model(base, LoraConfig(r=4, target_modules=["q_proj", "up_proj"]))
    sharding.MixedPrecisionPolicy = half  # type: ignore[assignment,misc]
    sharding.shard(model, torch.device("cpu"))
    trained = [each for each in model.parameters() if each.requires_grad]
    adam = torch.optim.AdamW(trained, lr=1e-2, fused=True)
    row, losses = torch.arange(3, 35)[None], []
    for _ in range(3):
        loss = model(input_ids=row, labels=row).loss
        loss.backward()
        adam.step()
        adam.zero_grad()
        losses.append(float(loss.detach()))
    frozen = [each for each in model.parameters() if not each.requires_grad]
    told = {
        "losses": losses,
        "base": sorted({str(each.dtype) for each in frozen}),
        "trained": sorted({str(each.dtype) for each in trained}),
        "here": sum(share(each.detach()).nbytes for each in frozen),
        "whole": sum(each.numel() for each in frozen) * 2,
    }
    (store / f"told-{rank}.json").write_text(json.dumps(told))
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
