"""Attention over rows laid end to end, so that no token is padding, without flash-attn.

torch ships a flash kernel for rows of unequal lengths; transformers knows it not, so it is
registered here under ``PACKED``, for the trainers that lay rows end to end (they tell where each
begins). On the CPU a mask keeps the rows apart, and that is what the kernel is held against on the
GPU at hand before it is used.
"""

from inspect import signature
from typing import Any

import torch
from torch.nn.attention import varlen
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, flash_attention_mask

from live.training.ways import EAGER, FLASH, PACKED, SDPA, Attention

WIDEST_HEAD = 256
"""Elements of a head that the flash kernels take, in steps of 8."""
ALIKE = 0.02
"""Relative error within which two bf16 attentions are one: bf16 itself is good for 0.004."""
TAKES_GROUPS = "enable_gqa" in signature(varlen.varlen_attn).parameters
"""Whether torch's kernel takes fewer key heads than query heads."""
_PLAIN_LAYERS = {"full_attention", "sliding_attention"}


def attentions_of(model: Any) -> tuple[Attention, ...]:
    """What a model's family can be trained with, best first. model: may be on ``meta``."""
    kind, config = type(model), model.config.get_text_config()
    capped = bool(getattr(config, "attn_logit_softcapping", None))
    able: list[Attention] = []
    if kind._supports_flash_attn:
        able.append(FLASH)
    if kind._supports_sdpa and not capped:
        able += [PACKED, SDPA] if _packs(model) else [SDPA]
    return (*able, EAGER)


def stay_apart(model: Any) -> bool:
    """Whether rows laid end to end stay apart: in layers that mix tokens by attention alone."""
    kinds = getattr(model.config.get_text_config(), "layer_types", None)
    return set(kinds or ()) <= _PLAIN_LAYERS and not getattr(model, "_is_stateful", False)


def heads_of(model: Any) -> tuple[int, int, int] | None:
    """Query heads, key heads, elements of a head; None where these differ within the model."""
    config = model.config.get_text_config()
    if getattr(config, "v_head_dim", None) or getattr(config, "qk_rope_head_dim", None):
        return None
    try:
        heads = config.num_attention_heads
        width = getattr(config, "head_dim", None) or config.hidden_size // heads
        return heads, getattr(config, "num_key_value_heads", None) or heads, width
    except (AttributeError, RuntimeError, TypeError):  # a family may know it by layer alone
        return None


def _packs(model: Any) -> bool:
    """Whether torch's kernel can be called in place of the family's attention."""
    kind, heads = type(model), heads_of(model)
    if not (kind._supports_flash_attn and kind._supports_attention_backend and stay_apart(model)):
        return False
    if heads is None or getattr(model.config.get_text_config(), "attention_dropout", None):
        return False
    return heads[2] % 8 == 0 and heads[2] <= WIDEST_HEAD


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    cu_seq_lens_q: torch.Tensor | None = None,
    max_length_q: int | None = None,
    **told: Any,
) -> tuple[torch.Tensor, None]:
    """An attention function of transformers. query, key, value: rows x heads x tokens x width.

    cu_seq_lens_q: where each row begins, and the end of the last; None: rows lie one a line, and
    ``attention_mask`` (rows x tokens) tells their padding.
    """
    if cu_seq_lens_q is None:
        mask = _square(attention_mask, sliding_window, query)
        answer: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, mask, scaling=scaling, **told
        )
        return answer
    assert max_length_q is not None
    query, key, value = (each.squeeze(0).transpose(0, 1) for each in (query, key, value))
    attend = in_the_kernel if query.is_cuda else by_mask
    made = attend(query, key, value, cu_seq_lens_q, max_length_q, scaling, sliding_window)
    return made.unsqueeze(0), None


def _square(
    padding: torch.Tensor | None, window: int | None, query: torch.Tensor
) -> torch.Tensor | None:
    """Who may look at whom: rows x 1 x tokens x tokens, or None for everybody before."""
    tokens = query.shape[2]
    if padding is None and (window is None or window >= tokens):
        return None
    seen = _band(tokens, window, query.device)[None, None]
    return seen if padding is None else seen & padding[:, None, None, :]


def _band(tokens: int, window: int | None, device: torch.device) -> torch.Tensor:
    seen = torch.ones(tokens, tokens, dtype=torch.bool, device=device).tril()
    return seen if window is None else seen.triu(1 - window)


def in_the_kernel(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    begins: torch.Tensor,
    longest: int,
    scaling: float | None,
    window: int | None,
) -> torch.Tensor:
    """By torch's flash kernel; tokens x heads x width, bf16."""
    query, key = query.to(value.dtype), key.to(value.dtype)
    seen = (-1 if window is None else window - 1, 0)
    told: dict[str, Any] = {"scale": scaling, "window_size": seen}
    if query.shape[1] != key.shape[1]:
        if TAKES_GROUPS:
            told["enable_gqa"] = True
        else:  # torch before 2.12
            groups = query.shape[1] // key.shape[1]
            key, value = (each.repeat_interleave(groups, 1) for each in (key, value))
    made: Any = varlen.varlen_attn(
        query.contiguous(), key.contiguous(), value.contiguous(),
        begins, begins, longest, longest, **told,
    )  # fmt: skip
    return made  # type: ignore[no-any-return]


def by_mask(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    begins: torch.Tensor,
    longest: int,
    scaling: float | None,
    window: int | None,
) -> torch.Tensor:
    """The same under a mask of tokens x tokens, for any device and type."""
    del longest
    tokens = query.shape[0]
    row = torch.searchsorted(begins, torch.arange(tokens, device=query.device), right=True)
    seen = _band(tokens, window, query.device) & (row[:, None] == row)
    q, k, v = (each.transpose(0, 1)[None] for each in (query, key, value))
    grouped = q.shape[1] != k.shape[1]
    made = scaled_dot_product_attention(q, k, v, seen, scale=scaling, enable_gqa=grouped)
    return made[0].transpose(0, 1)


def register() -> None:
    """Have transformers know ``PACKED`` by its name. Again does no harm."""
    AttentionInterface.register(PACKED, packed_attention)
    AttentionMaskInterface.register(PACKED, flash_attention_mask)


def kernel_fault(device: torch.device, heads: int, kv_heads: int, width: int) -> str | None:
    """Why the flash kernel is not to be used for heads of this shape on this GPU, or None.

    It is tried on three small rows, values and gradients, plain and with a window and a scale.
    """
    dice = torch.Generator(device).manual_seed(1)
    begins = torch.tensor([0, 5, 6, 72], dtype=torch.int32, device=device)
    rows = [
        torch.randn(72, count, width, generator=dice, device=device, dtype=torch.bfloat16)
        for count in (heads, kv_heads, kv_heads)
    ]
    off = 0.0
    try:
        for how in ((None, None), (0.1, 9)):
            one, other = (_values(way, rows, begins, *how) for way in (in_the_kernel, by_mask))
            off = max(off, *(_apart(a, b) for a, b in zip(one, other, strict=True)))
    except Exception as why:  # whatever it is: a missing kernel, an old card, another release
        return f"torch's flash kernel cannot be used here ({type(why).__name__})"
    return None if off < ALIKE else f"torch's flash kernel computes otherwise here, by {off:.1%}"


def _apart(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((one - other).norm() / other.norm())


def _values(
    way: Any,
    rows: list[torch.Tensor],
    begins: torch.Tensor,
    scaling: float | None,
    window: int | None,
) -> list[torch.Tensor]:
    """What comes out, and the gradients of what went in, as float64."""
    leaves = [each.clone().requires_grad_() for each in rows]
    made = way(*leaves, begins, 66, scaling, window)
    made.float().square().sum().backward()
    return [
        made.detach().double(),
        *(each.grad.double() for each in leaves if each.grad is not None),
    ]
