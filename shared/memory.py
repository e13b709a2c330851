"""Peak GPU memory of one LoRA training step, derived from what the step allocates.

The step is the one that transformers, peft and torch run: base in bf16, adapters in fp32 under
bf16 autocast (or in bf16), fused AdamW, a flash attention kernel (no tokens x tokens matrix, but
where ``attention`` says so), eager modules. Nothing is fitted: every term names the tensor it
stands for, in bytes, and the sum is taken at each instant at which the step can peak.
``tests/validation`` holds it against torch's MemTracker. GB is 10**9 bytes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from shared.architectures import architecture_of
from shared.layer_memory import BF16, FP32, AttentionMemory
from shared.training_step import ADAMW_8BIT, Parallel, TrainingStep
from shared.units import GB

CUDA_CONTEXT_BYTES = 600_000_000
"""CUDA context, loaded kernels and the cuBLAS workspace of one process. Assumption: an idle torch
process on an H100 shows 500 to 600 MB in nvidia-smi; to be replaced by the GPU bench's figure."""

NCCL_BYTES = 1_000_000_000
"""Communicator buffers of one process that talks to others. Assumption, on the high side."""

ALLOCATOR_HEADROOM = 0.05
"""Share of a slot's memory that no plan may use: blocks the caching allocator has rounded up or
cannot reuse. Assumption (with expandable segments); to be replaced by the GPU bench's figure."""

LOWEST_RANK = 8
"""The rank below which the planner does not go: it refuses the job instead."""

CHUNK_TOKENS, CHUNK_COLUMNS = 4096, 32768
"""The tile in which TRL 1.16 projects onto the vocabulary (TOKEN_CHUNK_SIZE in
trl/kernels/chunked_logprob.py, _CHUNKED_LOGPROB_CHUNK_SIZE in trl/trainer/utils.py)."""

CPU_TILE_BYTES = 29
"""Per logit of a tile, the fp32 temporaries of that loss where there is no Triton kernel: five
tensors and a mask that live through _backward_tile, and two intermediate ones."""


_MASK_BYTES: dict[AttentionMemory, int] = {"kernel": 0, "masked": 1, "matrix": BF16}
"""Bytes of an element of the mask that all layers share: bools, or what is added to the scores."""


@dataclass(frozen=True, slots=True)
class MemoryBreakdown:
    """Bytes on one GPU at the instant of the peak, which ``instant`` names.

    gathered: FSDP2's unsharded layers and gradients. buckets: DDP's copy of the gradients.
    overhead: what torch does not count (context, NCCL); 0 on the CPU.
    """

    instant: str
    base_weights: int
    adapters: int
    optimizer: int
    gradients: int
    buckets: int
    gathered: int
    activations: int
    logits: int
    overhead: int

    @property
    def tensor_bytes(self) -> int:
        """What torch allocates, without the fixed overhead."""
        weights = self.base_weights + self.adapters + self.gathered
        training = self.optimizer + self.gradients + self.buckets
        return weights + training + self.activations + self.logits

    @property
    def total_gb(self) -> float:
        """Everything, in GB of 10**9 bytes."""
        return (self.tensor_bytes + self.overhead) / GB

    @property
    def tensors_gb(self) -> float:
        """``tensor_bytes`` in GB: what MemTracker and max_memory_allocated count."""
        return self.tensor_bytes / GB


@dataclass(frozen=True, slots=True)
class _Instant:
    """One moment of the step: gradients, activations and logits alive at it, in bytes.

    whole_layers: layers that FSDP2 holds gathered then: one runs, the next is fetched; while the
    loss is made, the last one comes back for its backward.
    """

    name: str
    gradients: int
    activations: int
    logits: int = 0
    whole_layers: int = 2


def _split(total: int, shards: int) -> int:
    return -(-total // shards)


def _gradient_bytes(step: TrainingStep) -> int:
    return _split(step.lora_parameters * step.optimizer.adapter_bytes, step.shards)


def _resident_bytes(step: TrainingStep) -> int:
    """Gradients there from the step's start: accumulated ones, or views into DDP's buckets."""
    views = step.parallel == "ddp" and step.gpus > 1 and step.bucket_view
    return _gradient_bytes(step) if step.resident_gradients or views else 0


def _autocast_copies(step: TrainingStep, layers: int) -> int:
    """The bf16 copies that autocast makes of fp32 adapters and keeps until the forward ends."""
    casts = step.autocast and step.forward_adapter_bytes == FP32
    return BF16 * layers * step.lora_layer_parameters if casts else 0


def _kept_by_layer(step: TrainingStep) -> int:
    """What an earlier layer keeps until its own backward: its input, or all that autograd saved."""
    if step.gradient_checkpointing:
        return BF16 * step.architecture.hidden_size * step.tokens
    return step.layer().saved() * step.tokens + _autocast_copies(step, 1)


def _kept_by_all(step: TrainingStep) -> int:
    """What all layers but the last keep, and the inputs: ids and labels (int64), cos and sin, a
    mask of tokens x tokens.
    """
    arch = step.architecture
    inputs = 3 * 8 * step.tokens + 2 * BF16 * arch.head_dim * step.row_tokens
    inputs += _MASK_BYTES[step.attention] * step.tokens * step.row_tokens
    spared = 0 if step.gradient_checkpointing else step.layer().spared_by_first() * step.tokens
    return (arch.layers - 1) * _kept_by_layer(step) - spared + inputs


def _loss_bytes(step: TrainingStep) -> tuple[int, int]:
    """(activations, logits) alive while the loss is differentiated, in bytes.

    The final norm keeps its fp32 input. Full logits: log-softmax output, its gradient and the
    logits' gradient, fp32 each (12 bytes a logit; the forward, with logits in bf16 and fp32 and
    the log-softmax, has 10). Chunked: the hidden states, their gradient in fp32 and bf16, a tile.
    """
    hidden, vocab = step.architecture.hidden_size, step.architecture.vocab_size
    if not step.chunked_loss:
        return FP32 * hidden * step.tokens, 3 * FP32 * vocab * step.tokens
    tile = BF16 * CHUNK_COLUMNS
    if step.device == "cpu":
        tile += CPU_TILE_BYTES * min(vocab, CHUNK_COLUMNS)
    return (2 * FP32 + 2 * BF16) * hidden * step.tokens, min(step.tokens, CHUNK_TOKENS) * tile


def _forward_instants(step: TrainingStep) -> Iterator[_Instant]:
    """The last layer's forward, and the loss's: autocast still holds its copies of the adapters."""
    arch, layer, earlier = step.architecture, step.layer(), _kept_by_all(step)
    resident = _resident_bytes(step)
    if step.gradient_checkpointing:
        held = earlier + _kept_by_layer(step) + _autocast_copies(step, arch.layers)
        yield _Instant("forward", resident, held + layer.unsaved_peak() * step.tokens)
    else:
        held = earlier + _autocast_copies(step, 1)
        yield _Instant("forward", resident, held + layer.forward_peak() * step.tokens)
        held = earlier + _kept_by_layer(step)
    hidden = (FP32 + BF16) * arch.hidden_size * step.tokens
    logits = (BF16 + 2 * FP32) * arch.vocab_size * step.tokens
    logits = 0 if step.chunked_loss else logits
    yield _Instant("loss forward", resident, held + hidden, logits, whole_layers=1)


def _backward_instants(step: TrainingStep) -> Iterator[_Instant]:
    """The loss, the last layer and the first: layers' inputs go as their gradients come."""
    gradients, kept = _gradient_bytes(step), _kept_by_layer(step)
    resident = _resident_bytes(step)
    arch, everything = step.architecture, _kept_by_all(step) + kept
    activations, logits = _loss_bytes(step)
    yield _Instant("loss backward", resident, everything + activations, logits, whole_layers=1)
    running = _running_layer(step)
    yield _Instant("last layer backward", resident, everything + running)
    others = resident or gradients - gradients // arch.layers
    first = everything - (arch.layers - 1) * kept
    yield _Instant("first layer backward", others, first + running, whole_layers=1)
    held = first - kept + _last_norm(step)
    yield _Instant("backward's end", gradients, held, whole_layers=0)


def _last_norm(step: TrainingStep) -> int:
    """Bytes at the end of backward: three fp32 tensors of the first norm, the stream, its gradient.

    And one adapter matrix's gradient before its cast to fp32.
    """
    hidden = step.architecture.hidden_size
    return (3 * FP32 + 2 * BF16) * hidden * step.tokens + BF16 * step.lora_r * hidden


def _running_layer(step: TrainingStep) -> int:
    """Bytes of the layer in backward, beyond what it kept: recomputed where checkpointed."""
    layer = step.layer()
    if step.gradient_checkpointing:
        peak = max(layer.forward_peak(recomputing=True), layer.backward_peak())
        return (peak + layer.incoming()) * step.tokens + _autocast_copies(step, 1)
    return (layer.backward_peak() - layer.saved() + layer.incoming()) * step.tokens


def _gathered_bytes(step: TrainingStep, layers: int) -> int:
    """FSDP2: the embeddings and some layers gathered in bf16, and the gradients on their way.

    Those are one layer's whole gradient and the reduce-scatter inputs of it and of the layer
    before. Derived from torch's fully_shard (which frees a layer before it reduces its gradients)
    with param and reduce dtype bf16, accelerate's policy.
    """
    if step.shards == 1:
        return 0
    arch, lora = step.architecture, step.lora_layer_parameters
    whole = layers * (arch.layer_parameters + lora)
    return BF16 * (arch.embedding_parameters + whole) + 3 * BF16 * lora


def _bucket_bytes(step: TrainingStep) -> int:
    """DDP's buckets: a second copy of the gradients unless these are views into them."""
    own = step.parallel == "ddp" and step.gpus > 1 and not step.bucket_view
    return _gradient_bytes(step) if own else 0


def _overhead_bytes(step: TrainingStep) -> int:
    if step.device == "cpu":
        return 0
    return CUDA_CONTEXT_BYTES + (NCCL_BYTES if step.gpus > 1 else 0)


def _sampling_instants(step: TrainingStep) -> Iterator[_Instant]:
    """Answers being sampled: keys and values of every layer and token, and what one layer adds.

    That is, while the prompts are read, a layer without autograd; later, in the attention of one
    layer, its keys and values joined to the new token's and repeated for each query head. Derived
    from transformers' DynamicCache, which joins by copying; prompts are counted at full length.
    Autocast's copies of the adapters stay until the last token.
    """
    if not step.sampled_rows:
        return
    arch, tokens = step.architecture, step.sampled_rows * step.row_tokens
    layer = 2 * BF16 * arch.kv_width * tokens
    repeated = 2 * BF16 * arch.q_width * tokens
    running = max(step.layer().unsaved_peak() * tokens, layer + repeated)
    logits = (BF16 + 2 * FP32) * arch.vocab_size * step.sampled_rows
    stream = BF16 * arch.hidden_size * tokens  # the layer's input, which its caller holds
    held = arch.layers * layer + stream + running + _autocast_copies(step, arch.layers)
    yield _Instant("sampling", _resident_bytes(step), held, logits, whole_layers=0)


def _instants(step: TrainingStep) -> Iterator[_Instant]:
    yield from _forward_instants(step)
    yield from _backward_instants(step)
    yield from _sampling_instants(step)


@lru_cache(maxsize=4096)
def peak_memory(step: TrainingStep) -> MemoryBreakdown:
    """The largest memory one process holds during the step, and what it consists of."""
    gathered, peak = max(
        ((_gathered_bytes(step, i.whole_layers), i) for i in _instants(step)),
        key=lambda at: at[0] + at[1].gradients + at[1].activations + at[1].logits,
    )
    lora = step.lora_parameters
    return MemoryBreakdown(
        instant=peak.name,
        base_weights=_split(BF16 * step.architecture.base_parameters, step.shards),
        adapters=_split(step.optimizer.adapter_bytes * lora, step.shards),
        optimizer=_split(round(step.optimizer.state_bytes * lora), step.shards),
        gradients=peak.gradients,
        buckets=_bucket_bytes(step),
        gathered=gathered,
        activations=peak.activations,
        logits=peak.logits,
        overhead=_overhead_bytes(step),
    )


def usable_gb(gb_per_gpu: float) -> float:
    """The part of a GPU's memory (GB) that a plan may use."""
    return gb_per_gpu * (1 - ALLOCATOR_HEADROOM)


def strategies(gpus: int) -> Sequence[Parallel]:
    """The ways of training on that many GPUs, in the order in which they are tried."""
    return ("ddp", "fsdp2") if gpus > 1 else ("ddp",)


@lru_cache(maxsize=65536)
def fits(
    model_id: str,
    params: int | None,
    gpus: int,
    gb_per_gpu: float,
    row_tokens: int,
    *,
    samples: bool = False,
) -> bool:
    """Whether one row of so many tokens can be trained at all, with every concession made.

    That is rank LOWEST_RANK on every projection, bf16 adapters with 8-bit Adam, chunked loss,
    one row a micro-batch, accumulation, and FSDP2 where there are GPUs for it and it needs less.
    samples: whether the task samples answers, which it cannot do from shares of a model.
    """
    architecture = architecture_of(model_id, params)
    return any(
        peak_memory(
            TrainingStep(
                architecture, LOWEST_RANK, 1, row_tokens,
                gpus=gpus, parallel=parallel, optimizer=ADAMW_8BIT, resident_gradients=True,
                sampled_rows=max(1, 2 // gpus) if samples else 0,
            )
        ).total_gb <= usable_gb(gb_per_gpu)
        for parallel in strategies(1 if samples else gpus)
    )  # fmt: skip
