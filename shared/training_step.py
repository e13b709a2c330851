"""One LoRA training step, as far as its memory depends on it. GB is 10**9 bytes."""

from dataclasses import dataclass
from typing import Literal

from shared.architectures import MODULES, Architecture
from shared.errors import InputError
from shared.layer_memory import BF16, FP32, AttentionMemory, LayerMemory

Parallel = Literal["ddp", "fsdp2"]
Device = Literal["cuda", "cpu"]


class MemoryPlanError(InputError):
    """A training step that cannot exist; the message names the field."""


@dataclass(frozen=True, slots=True)
class Optimizer:
    """Bytes per adapter parameter: the parameter itself and the optimizer's states."""

    name: str
    adapter_bytes: int
    state_bytes: float


ADAMW = Optimizer("adamw", FP32, 2 * FP32)
"""Adapters and both moments in fp32; the fused kernel (transformers' default) has no temporary."""

ADAMW_8BIT = Optimizer("adamw8bit", BF16, 2 + 2 * FP32 / 256)
"""Adapters in bf16; both moments in 8 bits with an fp32 scale per block of 256 (bitsandbytes)."""


@dataclass(frozen=True, slots=True)
class TrainingStep:
    """One optimizer step of one process.

    rows x row_tokens: the micro-batch, padded. gpus: processes, one per GPU. resident_gradients:
    gradients of earlier micro-batches are kept (accumulation above 1). bucket_view: DDP's
    gradient_as_bucket_view, which spares a second copy of the gradients. autocast False runs the
    adapters in fp32 throughout; casts: their inputs are made fp32 first, which our trainers spare.
    sampled_rows: rows of ``row_tokens``, prompt and answer, that one
    process samples at once between steps (0: none). attention: what its memory goes by. device: the
    CPU has no context, and other kernels. Raises MemoryPlanError for a count below 1, an unknown
    module or a strategy without GPUs for it.
    """

    architecture: Architecture
    lora_r: int
    rows: int
    row_tokens: int
    target_modules: tuple[str, ...] = MODULES
    gpus: int = 1
    parallel: Parallel = "ddp"
    optimizer: Optimizer = ADAMW
    chunked_loss: bool = True
    gradient_checkpointing: bool = True
    resident_gradients: bool = False
    bucket_view: bool = False
    dropout: bool = True
    autocast: bool = True
    casts: bool = False
    sampled_rows: int = 0
    attention: AttentionMemory = "kernel"
    device: Device = "cuda"

    def __post_init__(self) -> None:
        for field in ("lora_r", "rows", "row_tokens", "gpus"):
            if getattr(self, field) < 1:
                raise MemoryPlanError(f"{field}: {getattr(self, field)} is below 1")
        if self.sampled_rows < 0:
            raise MemoryPlanError(f"sampled_rows: {self.sampled_rows} is below 0")
        unknown = set(self.target_modules) - set(MODULES)
        if unknown:
            raise MemoryPlanError(f"target_modules: unknown {sorted(unknown)}, known {MODULES}")
        if self.parallel == "fsdp2" and self.gpus == 1:
            raise MemoryPlanError("parallel: fsdp2 needs at least 2 GPUs")

    @property
    def shards(self) -> int:
        """Processes that parameters, gradients and states are divided among."""
        return self.gpus if self.parallel == "fsdp2" else 1

    @property
    def tokens(self) -> int:
        """Tokens of one micro-batch."""
        return self.rows * self.row_tokens

    @property
    def lora_parameters(self) -> int:
        """Adapter parameters of the whole model."""
        return self.architecture.lora_parameters(self.lora_r, self.target_modules)

    @property
    def lora_layer_parameters(self) -> int:
        """Adapter parameters of one decoder layer."""
        return self.architecture.lora_layer_parameters(self.lora_r, self.target_modules)

    @property
    def forward_adapter_bytes(self) -> int:
        """Width of an adapter as the forward pass sees it: FSDP2 gathers it in bf16."""
        return BF16 if self.parallel == "fsdp2" else self.optimizer.adapter_bytes

    def layer(self) -> LayerMemory:
        """The bytes per token of one decoder layer."""
        casts = self.casts or not self.autocast
        dropped = self.forward_adapter_bytes if casts else BF16
        return LayerMemory(
            self.architecture,
            self.lora_r,
            self.target_modules,
            self.forward_adapter_bytes,
            self.autocast,
            self.dropout,
            casts=casts,
            mask_bytes=1 if self.device == "cuda" else dropped,
            attention=self.attention,
            row_tokens=self.row_tokens,
        )
