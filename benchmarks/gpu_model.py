"""What a case of a GPU bench trains: a randomly initialised Llama, rows of random tokens."""

from math import exp
from random import Random
from typing import Any

import torch

from benchmarks.gpu_common import WIDTHS

WORD_ROW_MU, WORD_ROW_SIGMA, SHORTEST = 6.0, 0.9, 16
"""Lengths of mixed rows are log-normal: half are under 403 tokens. Assumed, as instruction data are
often so; cut at the case's longest row."""


def config_of(asked: dict[str, Any], attention: str | None = None) -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(
        **WIDTHS[asked["width"]], max_position_embeddings=8192, tie_word_embeddings=False,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, attn_implementation=attention,
        architectures=["LlamaForCausalLM"],
    )  # fmt: skip


def model_of(asked: dict[str, Any], attention: str, device: torch.device) -> Any:
    """Random weights, made on the device in the width they are trained in.

    In fp32 the making alone would take twice what a slot holds.
    """
    from transformers import LlamaForCausalLM

    config = config_of(asked, attention)
    torch.manual_seed(0)
    usual = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32 if device.type == "cpu" else torch.bfloat16)
    try:
        with torch.device(device):
            return LlamaForCausalLM(config)
    finally:
        torch.set_default_dtype(usual)


def lengths_of(asked: dict[str, Any], count: int, early: int = 0) -> list[int]:
    """Tokens of each row: all full, or mixed as real data are.

    early: rows of the steps that are not counted. The worker trains on the longest first, so these
    are full, lest what is counted be short ones alone; and the second half of them a token short of
    it, so that compiled code has met lengths that differ.
    """
    longest = asked["row_tokens"]
    if asked.get("lengths") != "mixed":
        return [longest] * count
    dice = Random(1)
    scale = longest / 2048  # of a toy's rows as of real ones
    found = [scale * exp(dice.gauss(WORD_ROW_MU, WORD_ROW_SIGMA)) for _ in range(count)]
    least = max(2, round(SHORTEST * scale))
    mixed = [min(longest, max(least, round(each))) for each in found]
    return [*(longest - (2 * at >= early) for at in range(early)), *mixed[early:]]


def rows_of(asked: dict[str, Any], count: int, early: int) -> list[list[int]]:
    """Rows of tokens, none of which is padding."""
    dice = torch.Generator().manual_seed(1)
    vocabulary = WIDTHS[asked["width"]]["vocab_size"]
    lengths = lengths_of(asked, count, early)
    ids = torch.randint(3, vocabulary, (sum(lengths),), generator=dice).split(lengths)
    return [row.tolist() for row in ids]


def batch_of(rows: list[list[int]], device: torch.device) -> dict[str, torch.Tensor]:
    """As a plain collator makes it: padded to its longest row, the padding masked."""
    longest = max(map(len, rows))
    padded = [[*row, *[0] * (longest - len(row))] for row in rows]
    ids = torch.tensor(padded, device=device)
    if all(len(row) == longest for row in rows):
        return {"input_ids": ids, "labels": ids}
    mask = torch.arange(longest) < torch.tensor([len(row) for row in rows])[:, None]
    mask = mask.to(device)
    return {"input_ids": ids, "attention_mask": mask.long(),
            "labels": ids.masked_fill(~mask, -100)}  # fmt: skip
