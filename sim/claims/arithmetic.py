"""Claims that arithmetic settles: the box's memory, and what fits a pair of GPUs."""

from itertools import product

from shared.architectures import architecture_of
from shared.layout import H100_MEMORY_GB
from shared.memory import peak_memory, strategies, usable_gb
from shared.plan import largest_plan
from shared.profiles import ACCURACY_PROFILE
from shared.training_step import ADAMW, ADAMW_8BIT, TrainingStep
from sim.claims.document import (
    BOX_GB,
    FIT_GPUS,
    FIT_RANK,
    FIT_ROW_TOKENS,
    FIT_ROWS,
    FOUR_GB,
    TWENTY_FOUR_GB,
)
from sim.claims.evidence import Evidence, Finding, Verdict
from sim.output_analysis import Estimate

ABOUT = 0.05
"""How far a number may be from one that the document calls "about"."""

MODELS = (
    "meta-llama/Llama-3.2-1B",
    "meta-llama/Llama-3.1-8B",
    "Qwen/Qwen2.5-14B",
    "meta-llama/Llama-3.1-70B",
)
"""The document names no model: the smallest and the largest that the tasks bring, two between."""


def memory(evidence: Evidence, _model: str) -> Finding:
    """The layouts' own numbers."""
    four, many = evidence.layout(4), evidence.layout(24)
    box = four.memory_gb * len(four.gpus)
    exact = (box, four.memory_gb) == (BOX_GB, FOUR_GB)
    near = abs(many.memory_gb - TWENTY_FOUR_GB) <= ABOUT * TWENTY_FOUR_GB
    why = (
        f"{box:g} GB in all: {four.memory_gb:g} GB a job with 4, {many.memory_gb:.1f} GB with 24 "
        f"(about: within {100 * ABOUT:g}%)"
    )
    verdict: Verdict = "holds" if exact and near else "fails"
    return Finding(Estimate(four.memory_gb, None, None), verdict, f"by arithmetic: {why}")


def least_gb(model_id: str) -> float:
    """The least GB a GPU of the claimed step: any way of training that changes none of its numbers.

    Chunked loss, FSDP2 and bf16 adapters with 8-bit Adam are granted.
    """
    shape = architecture_of(model_id)
    ways = product(strategies(FIT_GPUS), (ADAMW, ADAMW_8BIT))
    return min(
        peak_memory(
            TrainingStep(
                shape, FIT_RANK, FIT_ROWS, FIT_ROW_TOKENS,
                gpus=FIT_GPUS, parallel=parallel, optimizer=optimizer, chunked_loss=True,
            )
        ).total_gb
        for parallel, optimizer in ways
    )  # fmt: skip


def fits(_evidence: Evidence, _model: str) -> Finding:
    """The memory planner's answer for models from the smallest to the largest."""
    usable = usable_gb(H100_MEMORY_GB)
    needs = {model_id: least_gb(model_id) for model_id in MODELS}
    parts = [
        f"{name.split('/')[1]} {need:.0f} GB ({_instead(name)})" for name, need in needs.items()
    ]
    verdict: Verdict = "holds" if max(needs.values()) <= usable else "fails"
    why = (
        f"{usable:g} GB of each GPU is usable and the step needs, with every concession that "
        f"leaves batch, row and rank alone: {', '.join(parts)}"
    )
    return Finding(Estimate(min(needs.values()), None, None), verdict, f"by arithmetic: {why}")


def _instead(model_id: str) -> str:
    plan = largest_plan(
        architecture_of(model_id),
        ACCURACY_PROFILE,
        gpus=FIT_GPUS,
        gb_per_gpu=H100_MEMORY_GB,
        longest_row=FIT_ROW_TOKENS,
    )
    if plan is None:
        return "planner: not one row"
    return f"planner: {plan.micro_batch} rows at rank {plan.lora_r}, {plan.parallel}"
