"""What is measured of a case: the time of its steps, their tokens, and the GPU's memory."""

import gc
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import torch
import torch.distributed as dist
from transformers import TrainerCallback

from benchmarks.gpu_common import SLOT_GB, shape_of, utilisation
from benchmarks.gpu_runs import wait_for
from shared.units import GB

GATE_S = 90.0
"""How long a case waits for those that it is to run beside."""


class Meter(TrainerCallback):
    """Counts the steps after the warm-up: those compile, and allocate the optimizer's states.

    gate: a folder in which all of ``of`` cases meet before the first counted step. tokens:
    without padding; positions: with it.
    """

    def __init__(self, asked: dict[str, Any], device: torch.device) -> None:
        self.asked, self.device = asked, device
        self.warm_up: int = asked.get("warm_up", 2)
        self.at_s: list[float] = []
        self.tokens: list[int] = []
        self.positions: list[int] = []
        self.met = 0
        self.began_s, self.first_step_s = perf_counter(), 0.0
        self._now: list[torch.Tensor] = []
        self._positions = 0

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.began_s = perf_counter()

    def saw(self, inputs: dict[str, Any]) -> None:
        """A micro-batch is being trained on; one without a mask has no padding."""
        ids = inputs["input_ids"]
        mask = inputs.get("attention_mask")
        self._now.append(torch.tensor(ids.numel()) if mask is None else mask.sum())
        self._positions += ids.numel()

    def watch(self, trainer: Any) -> None:
        """See each micro-batch of a trainer, and the end of each step."""
        step = trainer.training_step

        def seen(model: Any, inputs: dict[str, Any], *more: Any, **named: Any) -> Any:
            self.saw(inputs)
            return step(model, inputs, *more, **named)

        trainer.training_step = seen
        trainer.add_callback(self)

    def on_step_end(self, *_: Any, **__: Any) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        self.at_s.append(perf_counter())
        self.tokens.append(int(sum(each.item() for each in self._now)))
        self.positions.append(self._positions)
        self._now, self._positions = [], 0
        since_s = self.at_s[-1] - self.began_s
        print(f"step {len(self.at_s)} ended at {since_s:.2f} s", file=sys.stderr, flush=True)
        if "gate" in self.asked and len(self.at_s) == self.warm_up:
            self._meet(Path(self.asked["gate"]))
            self.at_s[-1] = perf_counter()
        if len(self.at_s) == 1:
            self.first_step_s = since_s

    def _meet(self, gate: Path) -> None:
        (gate / self.asked["as"]).touch()
        self.met = wait_for(gate, self.asked["of"], GATE_S)

    def figures(self, base: int, lora: int) -> dict[str, Any]:
        """Tokens a second of all ranks, which are taken to have as many each."""
        ends = self.at_s[self.warm_up - 1 :]
        took = [after - before for before, after in pairwise(ends)]
        tokens = self.tokens[self.warm_up :]
        rates = [count / each for count, each in zip(tokens, took, strict=True)]
        # Rows that are all alike differ by chance alone; steps of mixed ones are no two alike.
        mixed = self.asked.get("lengths") == "mixed"
        rate = sum(tokens) / sum(took) if mixed else median(rates)
        ranks, positions = dist.get_world_size(), sum(self.positions[self.warm_up :])
        shape, span = shape_of(self.asked["width"]), self._span()
        found = {
            "tokens_per_s": rate * ranks, "least": min(rates) * ranks, "most": max(rates) * ranks,
            "step_s": median(took), "counted_s": sum(took), "first_step_s": self.first_step_s,
            "padding_share": 1 - sum(tokens) / positions, "base_params": base,
            "lora_params": lora,
            **utilisation(rate, base, lora, shape, span, self.asked.get("peak_flops", 989e12)),
        }  # fmt: skip
        return {**found, "met": self.met} if self.met else found

    def _span(self) -> float:
        """Tokens of the row that a token is in, on average."""
        from benchmarks.gpu_model import lengths_of

        lengths = lengths_of(self.asked, 4096)
        return sum(each * each for each in lengths) / sum(lengths)


def held_to(gb: float, device: torch.device) -> None:
    """Hold this process to so much of the card, as the worker holds a slot's."""
    if device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        torch.cuda.set_per_process_memory_fraction(min(1.0, gb * GB / total), device)


def card_gb(device: torch.device) -> float | None:
    if device.type != "cuda":
        return None
    return torch.cuda.get_device_properties(device).total_memory / GB


def slot_gb(asked: dict[str, Any]) -> float:
    return float(asked.get("gb", SLOT_GB))


def counted_anew(device: torch.device) -> None:
    """Count peaks from here: what was there while the model was made is no part of training."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def memory(asked: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """Peaks of the GPU so far, the highest of any rank, GB of 10**9 bytes.

    allocated: by tensors. reserved: by torch, for them. context: on the card beside that; not to
    be told apart where other jobs run on it. measured: reserved and context, what the slot needs.
    """
    if device.type != "cuda":
        return {}
    free, total = torch.cuda.mem_get_info(device)
    context = float(total - free - torch.cuda.memory_reserved(device))
    held = [torch.cuda.max_memory_allocated(device), torch.cuda.max_memory_reserved(device)]
    allocated, reserved, beside = (each / GB for each in highest([*held, context], device))
    found = {"allocated_gb": allocated, "reserved_gb": reserved}
    if asked.get("jobs", 1) > 1:
        return found
    return {**found, "context_gb": beside, "measured_gb": reserved + beside}


def highest(values: list[float], device: torch.device) -> list[float]:
    """Of all ranks, value by value."""
    if dist.get_world_size() == 1:
        return values
    told = torch.tensor(values, dtype=torch.float64, device=device)
    dist.all_reduce(told, op=dist.ReduceOp.MAX)
    most: list[float] = told.tolist()
    return most


def without_lack(train: Callable[[], Any]) -> Any:
    """What it returns, or None when memory ran out, which is given back."""
    try:
        return train()
    except torch.cuda.OutOfMemoryError:
        pass
    gc.collect()  # out here, where the error holds no frame and no tensor of it any more
    torch.cuda.empty_cache()
    return None
