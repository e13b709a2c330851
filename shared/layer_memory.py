"""Bytes per token that one decoder layer holds while it runs, tensor by tensor.

The order is that of transformers' Llama, Qwen2 and Qwen3 layers with peft's LoRA linear:
``result = base(x); x = cast(x); result = result + B(A(dropout(x))) * scaling``. The base is frozen,
so a linear layer keeps nothing of its own; what autograd keeps comes from the adapters, the norms,
the activation function and the attention kernel.
"""

from dataclasses import dataclass
from typing import Literal

from shared.architectures import MLP_MODULES, MODULES, Architecture

BF16, FP32 = 2, 4
"""Bytes of one element."""


AttentionMemory = Literal["kernel", "masked", "matrix"]
"""A flash kernel over rows without padding; a kernel that is given a mask of tokens x tokens; or
transformers' eager attention, which makes the matrix of scores."""


@dataclass(frozen=True, slots=True)
class LayerMemory:
    """One decoder layer under LoRA; every method answers in bytes per token.

    adapter_bytes: width of the adapters in the forward pass. autocast: an fp32 adapter computes
    in bf16. mask_bytes: width of a dropout mask's element (CUDA keeps bools, the CPU kernel a
    tensor of the input's type). casts: peft makes an fp32 adapter's input fp32, before autocast
    makes it bf16 again. row_tokens: of a row, which ``masked`` and ``matrix`` go by.
    """

    architecture: Architecture
    rank: int
    modules: tuple[str, ...]
    adapter_bytes: int
    autocast: bool
    dropout: bool
    mask_bytes: int
    casts: bool = False
    attention: AttentionMemory = "kernel"
    row_tokens: int = 0

    @property
    def _path(self) -> int:
        """Width of an element on the adapter's path: autocast computes fp32 adapters in bf16."""
        return BF16 if self.autocast else self.adapter_bytes

    @property
    def _mask(self) -> int:
        return self.mask_bytes if self.dropout else 0

    def _visits(self, module: str) -> int:
        return self.architecture.experts_per_token if module in MLP_MODULES else 1

    def _adapter_saved(self, module: str) -> int:
        """Kept of one adapter: the dropout mask, A's input, B's input.

        Without dropout bf16 adapters share their inputs; that is left out, so it is a little much.
        """
        if module not in self.modules:
            return 0
        width, _ = self.architecture.module_widths(module)
        each = (self._mask + self._path) * width + self._path * self.rank
        return each * self._visits(module)

    def _running_in_a(self, module: str) -> int:
        """Live while A runs, beyond the module's input and what is kept.

        The base's result and, where inputs are cast, the fp32 form of x and that after dropout
        (unless that is itself what is kept).
        """
        width, out = self.architecture.module_widths(module)
        if module not in self.modules:
            return BF16 * out
        splits = self.casts and self.dropout and self.autocast and self.adapter_bytes == FP32
        return BF16 * out + self._cast(module) + (FP32 * width if splits else 0)

    def _running_in_b(self, module: str) -> int:
        """Live when B is done: the base's result, B's output and the scaled one, the cast x."""
        _, out = self.architecture.module_widths(module)
        return (BF16 + 2 * self._path) * out + self._cast(module)

    def _cast(self, module: str) -> int:
        """The fp32 cast of a module's input, where it is not itself what autograd keeps."""
        apart = self.casts and self.adapter_bytes == FP32 and (self.dropout or self.autocast)
        return FP32 * self.architecture.module_widths(module)[0] if apart else 0

    def _adapter_running(self, module: str) -> int:
        if module not in self.modules:
            return self._running_in_a(module)
        return max(self._running_in_a(module), self._running_in_b(module))

    def _kept_before(self, module: str) -> int:
        """What autograd keeps outside the adapters between the layer's start and this module.

        Norms keep their input in fp32 and one fp32 scale; the kernel keeps q, k, v, its output
        and an fp32 log-sum per head; the gate its input and output.
        """
        arch = self.architecture
        norm = FP32 * arch.hidden_size + FP32
        q, kv, mlp = BF16 * arch.q_width, BF16 * arch.kv_width, BF16 * arch.intermediate_size
        heads = FP32 * (arch.q_width + arch.kv_width + arch.heads + arch.kv_heads)
        attention = q + self._attention_kept() + q + (heads if arch.qk_norm else 0)
        mlp *= arch.experts_per_token
        return {
            "q_proj": norm,
            "k_proj": norm + q,
            "v_proj": norm + q + kv,
            "o_proj": norm + attention,
            "gate_proj": 2 * norm + attention,
            "up_proj": 2 * norm + attention + 2 * mlp,
            "down_proj": 2 * norm + attention + 3 * mlp,
        }[module]

    def _attention_kept(self) -> int:
        """What attention keeps besides q and its output.

        A flash kernel: k, v and an fp32 log-sum per head. With a mask: k and v repeated for each
        query head, the log-sum, and the mask in bf16. Eager: those k and v, the softmax in fp32
        and in bf16.
        """
        arch = self.architecture
        if self.attention == "kernel":
            return 2 * BF16 * arch.kv_width + FP32 * arch.heads
        repeated = 2 * BF16 * arch.q_width
        if self.attention == "masked":
            return repeated + FP32 * arch.heads + BF16 * self.row_tokens
        return repeated + (FP32 + BF16) * self._scores

    @property
    def _scores(self) -> int:
        """Elements of the matrix of scores, a token; 0 where there is none."""
        return self.architecture.heads * self.row_tokens if self.attention == "matrix" else 0

    def _while_attending(self, beyond: int) -> int:
        """Live in eager attention, with ``beyond`` bytes an element of the scores besides what it
        keeps. Forward 4 (the scores in bf16 and fp32 while the softmax is made, which comes after
        in bf16), backward 6 (the softmax's gradient in fp32, and in bf16 as it came).
        """
        adapters = sum(map(self._adapter_saved, MODULES[:3]))
        return self._kept_before("o_proj") + adapters + beyond * self._scores

    def _live_beside(self, module: str) -> int:
        """The residual stream, the norm's output and, at the end, the gated product."""
        arch = self.architecture
        stream = BF16 * arch.hidden_size * (1 if module == "o_proj" else 2)
        return stream + (BF16 * arch.intermediate_size if module == "down_proj" else 0)

    def saved(self) -> int:
        """All that autograd keeps of the layer."""
        return self._kept_before(MODULES[-1]) + sum(map(self._adapter_saved, MODULES))

    def spared_by_first(self) -> int:
        """What the first layer keeps less where its input needs no gradient: a norm, three masks.

        So without checkpointing; with it, the embeddings' output is made to need one.
        """
        masks = sum(module in self.modules for module in MODULES[:3])
        return (FP32 + masks * self._mask) * self.architecture.hidden_size + FP32

    def forward_peak(self, *, recomputing: bool = False) -> int:
        """The most that is alive during a forward that autograd records.

        Recomputing, torch stops as soon as all that autograd needs is there: before the last B.
        """
        peak, adapters = 0, 0
        for module in MODULES:
            adapters += self._adapter_saved(module)
            stops = recomputing and module == MODULES[-1]
            running = self._running_in_a(module) if stops else self._adapter_running(module)
            held = self._kept_before(module) + adapters + self._live_beside(module)
            peak = max(peak, held + running)
        return max(peak, self._while_attending(4) + self._live_beside("o_proj"))

    def unsaved_peak(self) -> int:
        """The same where nothing is kept: the first pass through a checkpointed layer.

        The gate's activation waits for the up projection.
        """
        arch = self.architecture
        waits = {"up_proj": BF16 * arch.intermediate_size}
        attending = 3 * BF16 * arch.q_width + (2 * FP32 + BF16) * self._scores
        running = (
            self._live_beside(m)
            + waits.get(m, 0)
            + self._adapter_running(m)
            + self._adapter_saved(m)
            for m in MODULES
        )
        return max(self._live_beside("o_proj") + attending, *running)

    def backward_peak(self) -> int:
        """Right after the down projection: gradients of the product and of its two factors.

        Or in eager attention.
        """
        product = 3 * BF16 * self.architecture.intermediate_size
        after = self.saved() - self._adapter_saved(MODULES[-1]) + product
        return max(after, self._while_attending(6) if self._scores else 0)

    def incoming(self) -> int:
        """The gradient that comes from the next layer and, for an adapted end, its scaled form.

        Where the adapter computes in fp32, the base also gets a bf16 copy of its own.
        """
        hidden, path = self.architecture.hidden_size, self._path
        if MODULES[-1] not in self.modules:
            return BF16 * hidden
        return (BF16 + path + (BF16 if path == FP32 else 0)) * hidden
