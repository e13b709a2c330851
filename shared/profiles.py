"""The training profile each preset asks for; the memory planner makes a feasible plan of it."""

from dataclasses import dataclass, replace
from typing import Literal

ALL_PROJECTIONS = (
    "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class TrainingProfile:
    """Settings of one fine-tuning job as the strategy asks for them.

    batch_size, gradient_accumulation_steps, lora_r: the target and, as ``*_range``, the least and
    the most that the strategy calls sensible. batch_size is rows per GPU; max_length is tokens a
    row; ddp_bucket_cap_mb is MiB as torch counts them.
    """

    batch_size: int
    batch_size_range: tuple[int, int]
    gradient_accumulation_steps: int
    gradient_accumulation_range: tuple[int, int]
    eval_batch_size: int
    lora_r: int
    lora_r_range: tuple[int, int]
    lora_alpha: int
    lora_dropout: float
    ddp_bucket_cap_mb: int
    max_length: int = 8192
    target_modules: tuple[str, ...] = ALL_PROJECTIONS
    precision: Literal["bf16", "bf16_autocast"] = "bf16"
    gradient_checkpointing: bool = True
    torch_compile: bool = True
    attention: Literal["flash", "flash_where_it_fits"] = "flash"
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012


ACCURACY_PROFILE = TrainingProfile(
    batch_size=32,
    batch_size_range=(16, 32),
    gradient_accumulation_steps=1,
    gradient_accumulation_range=(1, 2),
    eval_batch_size=16,
    lora_r=2048,
    lora_r_range=(1024, 2048),
    lora_alpha=512,
    lora_dropout=0.1,
    ddp_bucket_cap_mb=100,
)
"""Two H100s a job: the strategy document's settings."""

THROUGHPUT_PROFILE = replace(
    ACCURACY_PROFILE,
    batch_size=4,
    batch_size_range=(2, 4),
    gradient_accumulation_steps=8,
    gradient_accumulation_range=(8, 16),
    eval_batch_size=4,
    lora_r=256,
    lora_r_range=(128, 256),
    ddp_bucket_cap_mb=25,
    precision="bf16_autocast",
    attention="flash_where_it_fits",
)
"""A third of an H100 a job: the strategy document's other column."""

MAXIMUM_PROFILE = replace(
    ACCURACY_PROFILE,
    batch_size=128,
    batch_size_range=(128, 128),
    gradient_accumulation_range=(1, 1),
    eval_batch_size=64,
    lora_r=8192,
    lora_r_range=(8192, 8192),
    lora_alpha=2048,
    lora_dropout=0.05,
    ddp_bucket_cap_mb=200,
)
"""Four H100s a job: the predecessor's settings."""
