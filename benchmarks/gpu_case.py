"""One case of a GPU bench, in a process of its own: ``python -m benchmarks.gpu_case JSON``.

Trains a randomly initialised Llama on rows of random tokens, full to their end, either as the
worker does (its plan, its trainer) or with plain transformers and peft, and prints one JSON object.
"""

import json
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch
import torch.distributed as dist
from datasets import Dataset
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM, TrainerCallback

from benchmarks.gpu_common import WIDTHS, utilisation
from live.job_files import JobSpec
from live.training import trainers
from live.training.kept import Data
from live.training.loading import Source, tokenizer_of
from live.training.planning import Settled, machine, settle
from live.training.telling import peak_gb
from shared.architectures import MODULES, architecture_from_config
from shared.presets import ACCURACY_4

WARM_UP = 2
"""Steps that are not counted: they compile, and allocate the optimizer's states."""


class Clock(TrainerCallback):
    def __init__(self) -> None:
        self.at_s: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.at_s.append(perf_counter())


def spec_of(asked: dict[str, Any], cuda: bool) -> JobSpec:
    """The job of a case: the preset's profile with the case's rank and rows."""
    rank, rows = asked["rank"], asked["rows"]
    profile = replace(
        ACCURACY_4.profile, lora_r=rank, batch_size=rows, max_length=asked["row_tokens"],
        gradient_accumulation_steps=asked.get("accumulation", 1),
    )  # fmt: skip
    return JobSpec(
        task_id="bench", model=f"llama-{asked['width']}", task_type="InstructTextTask",
        hours_to_complete=asked.get("hours", 1.0), started_ms=0, deadline_ms=0, warn_ms=0,
        preset="accuracy_4", slot=0, gpus=tuple(range(asked.get("gpus", 1))),
        device="cuda" if cuda else "cpu", processes=asked.get("gpus", 1),
        memory_gb_per_gpu=asked.get("gb", 80.0), sharing=asked.get("sharing", 1), profile=profile,
    )  # fmt: skip


def model_of(asked: dict[str, Any], attention: str, device: torch.device) -> Any:
    """Random weights, made on the device in bf16."""
    config = LlamaConfig(
        **WIDTHS[asked["width"]], max_position_embeddings=8192, tie_word_embeddings=False,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, attn_implementation=attention,
    )  # fmt: skip
    torch.manual_seed(0)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    with torch.device(device):
        model = LlamaForCausalLM(config)
    return model.to(dtype)


def rows_of(asked: dict[str, Any], count: int) -> list[list[int]]:
    dice = torch.Generator().manual_seed(1)
    vocabulary = WIDTHS[asked["width"]]["vocab_size"]
    size = (count, asked["row_tokens"])
    rows: list[list[int]] = torch.randint(3, vocabulary, size, generator=dice).tolist()
    return rows


def ours(asked: dict[str, Any], device: torch.device, folder: Path) -> dict[str, Any]:
    """The worker's own trainer, on the worker's own plan."""
    spec = spec_of(asked, device.type == "cuda")
    shape = architecture_from_config(LlamaConfig(**WIDTHS[asked["width"]]).to_dict())
    settled: Settled = settle(spec, shape, MODULES, asked["row_tokens"], machine(spec.device), 0)
    steps = WARM_UP + asked["steps"]
    count = settled.micro * settled.accumulation * dist.get_world_size() * steps
    ids = rows_of(asked, count)
    rows = Dataset.from_dict({"input_ids": ids, "labels": ids})
    data = Data(rows, rows.select(range(1)), asked["row_tokens"])
    place = torch.device("cpu") if settled.parallel == "fsdp2" else device
    model = model_of(asked, settled.attention, place)
    base = sum(each.numel() for each in model.parameters())
    parts = (model, tokenizer_of(Source("", None)), data)
    trainer = trainers.made(spec, settled, folder, parts, steps, {})
    clock = Clock()
    trainer.add_callback(clock)
    trainer.train()
    lora = sum(each.numel() for each in trainer.weights.values())
    tokens = settled.micro * settled.accumulation * dist.get_world_size() * asked["row_tokens"]
    found = figures(clock.at_s, tokens, base, lora)
    peak = peak_gb(spec)
    return {**found, "plan": settled.record(), "measured_gb": peak,
            "predicted_gb": settled.plan.predicted_gb if settled.plan else None}  # fmt: skip


def plain(asked: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """Transformers and peft alone: whole logits, sdpa, checkpointing, AdamW."""
    model = model_of(asked, "sdpa", device)
    base = sum(each.numel() for each in model.parameters())
    profile = ACCURACY_4.profile
    model = get_peft_model(
        model,
        LoraConfig(
            r=asked["rank"], lora_alpha=profile.lora_alpha, lora_dropout=profile.lora_dropout,
            target_modules=list(profile.target_modules), task_type="CAUSAL_LM",
        ),
    )  # fmt: skip
    model.gradient_checkpointing_enable()
    model.enable_input_require_grads()
    trained = [each for each in model.parameters() if each.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=device.type == "cuda")
    steps, clock = WARM_UP + asked["steps"], Clock()
    ids = rows_of(asked, asked["rows"] * steps)
    for step in range(steps):
        part = ids[step * asked["rows"] : (step + 1) * asked["rows"]]
        batch = torch.tensor(part, device=device)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            loss = model(input_ids=batch, labels=batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        clock.on_step_end()
    lora = sum(each.numel() for each in trained)
    return figures(clock.at_s, asked["rows"] * asked["row_tokens"], base, lora)


def figures(at_s: list[float], tokens: int, base: int, lora: int) -> dict[str, Any]:
    """Tokens a second of all ranks, of the steps after the warm-up."""
    took = [
        after - before for before, after in zip(at_s[WARM_UP - 1 :], at_s[WARM_UP:], strict=False)
    ]
    speeds = [tokens / each for each in took]
    each_gpu = median(speeds) / dist.get_world_size()
    return {
        "tokens_per_s": median(speeds), "least": min(speeds), "most": max(speeds),
        "step_s": median(took), "base_params": base, "lora_params": lora,
        **utilisation(each_gpu, base, lora),
    }  # fmt: skip


def main(asked: dict[str, Any]) -> None:
    cuda = not asked.get("trial")
    rank, world = (int(os.environ.get(name, one)) for name, one in (("RANK", 0), ("WORLD_SIZE", 1)))
    device = (
        torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0))) if cuda else torch.device("cpu")
    )
    with tempfile.TemporaryDirectory() as folder:
        if cuda:
            torch.cuda.set_device(device)
            if asked.get("sharing", 1) > 1:
                torch.cuda.set_per_process_memory_fraction(1 / asked["sharing"], device)
        if world == 1:
            os.environ.update(MASTER_ADDR="127.0.0.1", RANK="0", WORLD_SIZE="1", LOCAL_RANK="0")
        store = None if world > 1 else f"file://{folder}/store"
        dist.init_process_group(
            "nccl" if cuda else "gloo", init_method=store, rank=rank, world_size=world
        )
        does = (
            plain(asked, device) if asked["step"] == "plain" else ours(asked, device, Path(folder))
        )
        if rank == 0:
            sys.stdout.write(json.dumps(does) + "\n")
        dist.destroy_process_group()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
