"""The flash kernel for rows of unequal lengths on the CPU: torch's interface, a mask inside."""

from typing import Any

import torch
from torch.nn.attention import varlen

from live.training import attention

BY_MASK = attention.by_mask


def use_a_kernel_of_the_cpu(monkeypatch: Any) -> None:
    """Have packed attention on the CPU go through the kernel's interface, as on a GPU."""
    varlen._varlen_attn.register_kernel("cpu")(_forward)
    varlen._varlen_attn_backward.register_kernel("cpu")(_backward)
    monkeypatch.setattr(attention, "by_mask", attention.in_the_kernel)


def _seen(causal: bool, window: list[int]) -> int | None:
    assert causal == (window == [-1, 0])
    assert window[1] == 0
    return None if window[0] < 0 else window[0] + 1


def _forward(
    query, key, value, begins, key_begins, longest, longest_key, is_causal=False, scale=None,
    window_size=None, enable_gqa=False, seqused_k=None, block_table=None, num_splits=None,
):  # fmt: skip
    assert enable_gqa == (query.shape[1] != key.shape[1])
    assert longest == longest_key == int(begins.diff().max())
    assert torch.equal(begins, key_begins)
    made = BY_MASK(query, key, value, begins, longest, scale, _seen(is_causal, window_size))
    return (
        made.contiguous(),
        torch.zeros(query.shape[1], query.shape[0]),
        torch.zeros(2, dtype=torch.uint64),
    )


def _backward(
    grad, query, key, value, out, lse, begins, key_begins, longest, longest_key, is_causal, rng,
    scale=None, window_size=None,
):  # fmt: skip
    """By hand, since autograd is off inside a kernel."""
    heads, width = query.shape[1:]
    scale = width**-0.5 if scale is None else scale
    q, g = (each.transpose(0, 1) for each in (query, grad))
    k, v = (each.transpose(0, 1).repeat_interleave(heads // each.shape[1], 0)
            for each in (key, value))  # fmt: skip
    row = torch.searchsorted(begins, torch.arange(query.shape[0]), right=True)
    window = _seen(is_causal, window_size)
    seen = attention._band(query.shape[0], window, query.device) & (row[:, None] == row)
    share = (q @ k.mT * scale).masked_fill(~seen, -torch.inf).softmax(-1)
    change = g @ v.mT
    scores = share * (change - (change * share).sum(-1, keepdim=True)) * scale
    of_heads = (scores @ k, scores.mT @ q, share.mT @ g)
    return tuple(
        each.unflatten(0, (kept.shape[1], -1)).sum(1).transpose(0, 1).contiguous()
        for each, kept in zip(of_heads, (query, key, value), strict=True)
    )
