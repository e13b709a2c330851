"""The adapter that a plan is about, and what peft is spared."""

from typing import Any

from peft import LoraConfig
from peft.tuners.lora import LoraLayer

from live.training.terms import Settled


def lora(settled: Settled) -> LoraConfig:
    """The adapter the plan is about."""
    return LoraConfig(
        r=settled.lora_r,
        lora_alpha=settled.lora_alpha,  # type: ignore[arg-type] # it only divides by the rank
        lora_dropout=settled.lora_dropout,
        target_modules=list(settled.target_modules),
        task_type="CAUSAL_LM",
    )


def spare_casts(model: Any) -> None:
    """Leave a layer's input in bf16, as autocast wants it for fp32 adapters anyway.

    By itself peft makes it fp32 for each adapter and drops out in fp32: three more passes over the
    layer's tokens, and their memory.
    """
    for each in model.modules():
        if isinstance(each, LoraLayer):
            each.cast_input_dtype_enabled = False
