"""The plain step that the worker's is held against: transformers and peft, nothing of ours."""

from typing import Any

import torch

from benchmarks.gpu_meter import Meter, counted_anew, without_lack
from benchmarks.gpu_model import batch_of, model_of, rows_of
from shared.presets import ACCURACY_4


def made(asked: dict[str, Any], device: torch.device) -> tuple[Any, int]:
    """The model with its adapter, and the base's parameters."""
    from peft import LoraConfig, get_peft_model

    model = model_of(asked, "sdpa", device)
    base = sum(each.numel() for each in model.parameters())
    profile = ACCURACY_4.profile
    lora = LoraConfig(
        r=asked["rank"], lora_alpha=profile.lora_alpha, lora_dropout=profile.lora_dropout,
        target_modules=list(profile.target_modules), task_type="CAUSAL_LM",
    )  # fmt: skip
    model = get_peft_model(model, lora)
    model.gradient_checkpointing_enable()
    model.enable_input_require_grads()
    model.train()
    return model, base


def trained(
    asked: dict[str, Any], rows: int, model: Any, base: int, device: torch.device
) -> dict[str, Any] | None:
    """Train with so many rows at once; None where they do not fit."""
    model.zero_grad()
    counted_anew(device)
    meter = Meter(asked, device)
    parameters = [each for each in model.parameters() if each.requires_grad]
    if without_lack(lambda: _steps(asked, rows, model, parameters, meter)) is None:
        return None
    return meter.figures(base, sum(each.numel() for each in parameters))


def _steps(
    asked: dict[str, Any], rows: int, model: Any, parameters: list[Any], meter: Meter
) -> bool:
    device = meter.device
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, fused=device.type == "cuda")
    count = meter.warm_up + asked["steps"]
    meter.on_train_begin()
    ids = rows_of(asked, rows * count, rows * meter.warm_up)
    for step in range(count):
        batch = batch_of(ids[step * rows : (step + 1) * rows], device)
        meter.saw(batch)
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            loss = model(**batch).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        meter.on_step_end()
    return True
