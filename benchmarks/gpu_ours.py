"""The worker's own step on the worker's own plan, of a model without weights worth the name."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from datasets import Dataset

from benchmarks.gpu_common import SHORT_HOURS, shape_of
from benchmarks.gpu_meter import (
    Meter,
    card_gb,
    counted_anew,
    held_to,
    memory,
    slot_gb,
    without_lack,
)
from benchmarks.gpu_model import config_of, model_of, rows_of
from live.job_files import JobSpec
from live.training import trainers
from live.training.attention import register
from live.training.kept import Data
from live.training.loading import Source, family_of, tokenizer_of
from live.training.planning import settle
from live.training.terms import Settled
from live.training.ways import END_TO_END, Family, Machine, machine
from shared.errors import InputError
from shared.memory import peak_memory, usable_gb
from shared.plan import micro_batches, wanted_step
from shared.presets import ACCURACY_4

MOST_WHY = 160
"""Characters of why a setting was not taken."""


def spec_of(asked: dict[str, Any], device: str) -> JobSpec:
    """The job of a case: the preset's profile with the case's rank and rows."""
    profile = replace(
        ACCURACY_4.profile, lora_r=asked["rank"], batch_size=asked["rows"],
        max_length=asked["row_tokens"], gradient_accumulation_steps=1,
    )  # fmt: skip
    gpus = asked.get("gpus", 1)
    return JobSpec(
        task_id="bench", model=f"llama-{asked['width']}", task_type="InstructTextTask",
        hours_to_complete=asked.get("hours", SHORT_HOURS), started_ms=0, deadline_ms=0, warn_ms=0,
        preset="accuracy_4", slot=0, gpus=tuple(range(gpus)), device=device, processes=gpus,
        memory_gb_per_gpu=slot_gb(asked), sharing=asked.get("jobs", 1), profile=profile,
        request={"parallel": asked.get("parallel")},
    )  # fmt: skip


def family_in(asked: dict[str, Any], device: torch.device, folder: Path) -> Family:
    """What the worker finds in the model's configuration, the GPU's kernels tried with it."""
    config_of(asked).save_pretrained(folder / "model")
    return family_of(Source("bench", folder / "model"), device)


def settled_of(
    asked: dict[str, Any], spec: JobSpec, family: Family, here: Machine, card: float | None
) -> tuple[Settled, float, str]:
    """The plan, the GB that it is held to, and what of it is not the worker's.

    Without the 8-bit optimizer's library a plan that needs it is made for the whole card, where it
    may do without. Raises InputError.
    """
    shape, longest = shape_of(asked["width"]), asked["row_tokens"]
    gb, note = spec.memory_gb_per_gpu, ""
    try:
        settled = settle(spec, shape, family, longest, here, 0)
    except InputError as why:
        if not asked.get("or_card") or not card or card <= gb or "bitsandbytes" not in str(why):
            raise
        gb, note = card, f"bitsandbytes is missing: planned for the card's {card:.0f} GB"
        spec = spec.model_copy(update={"memory_gb_per_gpu": gb})
        settled = settle(spec, shape, family, longest, here, 0)
    if here.cuda and asked.get("parallel") not in (None, settled.parallel):
        settled, note = forced(settled, spec, asked), f"forced: {asked['parallel']}"
    most = asked.get("most_accumulation", settled.accumulation)
    return replace(settled, accumulation=min(settled.accumulation, most)), gb, note


def forced(settled: Settled, spec: JobSpec, asked: dict[str, Any]) -> Settled:
    """The plan that the profile would have with another way of sharing the work, plain Adam and
    its own rank. Raises InputError where not one row fits.
    """
    profile, rows = spec.profile, spec.profile.batch_size
    step = wanted_step(
        shape_of(asked["width"]), profile, gpus=spec.processes, row_tokens=asked["row_tokens"],
        chunked_loss=True, attention="kernel" if settled.attention in END_TO_END else "masked",
    )  # fmt: skip
    for micro in micro_batches(profile):
        one = replace(step, parallel=asked["parallel"], rows=micro, resident_gradients=micro < rows)
        peak = peak_memory(one)
        if peak.total_gb <= usable_gb(spec.memory_gb_per_gpu):
            return replace(
                settled, parallel=asked["parallel"], micro=micro, accumulation=rows // micro,
                eval_batch=min(profile.eval_batch_size, micro), optimizer="adamw",
                lora_r=profile.lora_r, lora_alpha=profile.lora_alpha, plan=None,
                predicted_gb=peak.total_gb,
            )  # fmt: skip
    raise InputError(f"parallel: not one row fits by {asked['parallel']}")


def trained(asked: dict[str, Any], device: torch.device, folder: Path) -> dict[str, Any]:
    """Plan, make and train; where memory runs out, what there was until then."""
    spec = spec_of(asked, device.type)
    try:
        family = family_in(asked, device, folder)
        here = machine(spec.device)
        settled, gb, note = settled_of(asked, spec, family, here, card_gb(device))
    except InputError as why:
        return {"failed": str(why)}
    held_to(gb, device)
    found = {"plan": plan_of(settled), "held_to_gb": gb, **({"note": note} if note else {})}
    meter = Meter(asked, device)
    trainer, base = made(asked, spec, settled, device, folder)
    meter.watch(trainer)
    counted_anew(device)
    try:
        trainer.train()
    except torch.cuda.OutOfMemoryError:
        if dist.get_world_size() > 1:  # the others wait for this rank
            raise
        return {"failed": "out of memory", **found, **against(settled, memory(asked, device))}
    lora = sum(each.numel() for each in trainer.weights.values())
    found = {**meter.figures(base, lora), **found, **against(settled, memory(asked, device))}
    return (
        {**found, "evaluation": evaluation(asked, trainer, device)} if evaluates(asked) else found
    )


def made(
    asked: dict[str, Any], spec: JobSpec, settled: Settled, device: torch.device, folder: Path
) -> tuple[Any, int]:
    """The trainer over a model and rows, and the base's parameters."""
    warm_up = asked.get("warm_up", 2)
    steps = warm_up + asked["steps"]
    rows_a_step = settled.micro * settled.accumulation * dist.get_world_size()
    ids = rows_of(asked, rows_a_step * steps, rows_a_step * warm_up)
    rows = Dataset.from_dict({"input_ids": ids, "labels": ids})
    held_out = rows.select(range(settled.eval_batch if evaluates(asked) else 1))
    data = Data(rows, held_out, asked["row_tokens"])
    register()
    model = model_of(asked, settled.attention, device)
    if settled.parallel == "fsdp2":
        model = model.to("cpu")  # as the worker has it, whose shares go to the GPU one by one
    base = sum(each.numel() for each in model.parameters())
    parts = (model, tokenizer_of(Source("", None)), data)
    return trainers.made(spec, settled, folder, parts, steps, {}), base


def evaluates(asked: dict[str, Any]) -> bool:
    return bool(asked.get("evaluates"))


def evaluation(asked: dict[str, Any], trainer: Any, device: torch.device) -> dict[str, Any]:
    """Peaks of one batch evaluated, which no plan counts: it has to fit beside the training's."""
    counted_anew(device)
    done = without_lack(lambda: trainer.evaluate() or True)
    return {**memory(asked, device), **({} if done else {"failed": "out of memory"})}


def plan_of(settled: Settled) -> dict[str, Any]:
    """The plan's record, and what was given in place of the profile's settings, and why."""
    told = settled.record()
    for short in ("target_modules", "bucket_mb", "learning_rate", "lora_dropout"):
        told.pop(short, None)
    others = {each.setting: f"{each.given}: {each.why}"[:MOST_WHY] for each in settled.not_taken}
    return {**told, "not_taken": others}


def against(settled: Settled, peaks: dict[str, Any]) -> dict[str, Any]:
    """Predicted over measured, less one.

    error: of the whole, against what torch reserved and the context: the one that may be 10%.
    tensors_error: of the tensors alone, against what torch allocated.
    """
    found = {**peaks, "predicted_gb": settled.predicted_gb}
    if settled.predicted_gb and "measured_gb" in peaks:
        found["error"] = settled.predicted_gb / peaks["measured_gb"] - 1
    if settled.plan and peaks:
        tensors = settled.plan.predicted.tensors_gb
        found |= {"predicted_tensors_gb": tensors,
                  "tensors_error": tensors / peaks["allocated_gb"] - 1}  # fmt: skip
    return found
