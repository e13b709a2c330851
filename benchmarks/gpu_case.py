"""One case of a GPU bench, in a process of its own: ``python -m benchmarks.gpu_case JSON``.

Trains as the worker does (its plan, its trainer) or with plain transformers and peft, and prints
one JSON object; or writes a model for the workers of another bench. The plain step imports nothing
that is not its own.
"""

import json
import os
import sys
import tempfile
from pathlib import Path
from traceback import format_exception
from typing import Any

from benchmarks.gpu_runs import LAST_WORDS, die_with_parent


def plain(asked: dict[str, Any], device: Any, _: Path) -> dict[str, Any]:
    """Transformers and peft alone: whole logits, sdpa, checkpointing, AdamW.

    With as many rows at once as fit what the case is held to, or where it may, the whole card.
    """
    from benchmarks.gpu_meter import card_gb, held_to, memory, slot_gb
    from benchmarks.gpu_plain import made, trained

    gb, card = slot_gb(asked), card_gb(device)
    held_to(gb, device)
    model, base = made(asked, device)
    tries = [(gb, rows) for rows in asked["most_rows"]]
    if asked.get("or_card") and card is not None and card > gb:
        tries += [(card, rows) for rows in asked["most_rows"]]
    for held_gb, rows in tries:
        held_to(held_gb, device)
        found = trained(asked, rows, model, base, device)
        if found is not None:
            note = {} if held_gb == gb else {"note": "held to the whole card: it needs more"}
            return {"rows": rows, **found, **memory(asked, device), "held_to_gb": held_gb, **note}
    return {"failed": "out of memory", "rows": rows, "held_to_gb": held_gb}


def ours(asked: dict[str, Any], device: Any, folder: Path) -> dict[str, Any]:
    """The worker's own trainer, on the worker's own plan."""
    from benchmarks.gpu_ours import trained

    return trained(asked, device, folder)


def save(asked: dict[str, Any], device: Any, _: Path) -> dict[str, Any]:
    """Write a model and its tokenizer."""
    from benchmarks.gpu_model import model_of
    from live.training.loading import Source, tokenizer_of

    model_of(asked, "sdpa", device).save_pretrained(asked["into"])
    tokenizer_of(Source("", None)).save_pretrained(asked["into"])
    return {"saved": asked["into"]}


def main(asked: dict[str, Any]) -> None:
    die_with_parent()
    try:
        run(asked)
    except ModuleNotFoundError as why:
        told({"missing": [why.name]})
    except Exception as why:  # under torchrun, what it says itself comes last of all
        lack = "out of memory" in str(why)
        words = "".join(format_exception(why))[-LAST_WORDS:]
        told({"failed": "out of memory" if lack else type(why).__name__, "last_words": words})
        raise


def told(found: dict[str, Any]) -> None:
    """Rank 0 alone tells; at once, since what a process does as it ends may fail."""
    if os.environ.get("RANK", "0") == "0":
        print(json.dumps(found), flush=True)


def run(asked: dict[str, Any]) -> None:
    import torch
    import torch.distributed as dist

    torch.set_num_threads(1)
    rank, world = (int(os.environ.get(name, one)) for name, one in (("RANK", 0), ("WORLD_SIZE", 1)))
    device = torch.device("cpu")
    if not asked.get("trial"):
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
        torch.cuda.set_device(device)
    with tempfile.TemporaryDirectory() as folder:
        if world == 1:
            os.environ.update(MASTER_ADDR="127.0.0.1", RANK="0", WORLD_SIZE="1", LOCAL_RANK="0")
        dist.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            init_method=None if world > 1 else f"file://{folder}/store",
            rank=rank, world_size=world, device_id=device if device.type == "cuda" else None,
        )  # fmt: skip
        steps = {"plain": plain, "ours": ours, "save": save}
        told(steps[asked["step"]](asked, device, Path(folder)))
        dist.destroy_process_group()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
