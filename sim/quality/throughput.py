"""Tokens that a job trains before its deadline: arithmetic of compute and memory.

FLOPs per token: 4 base + 6 lora for the model's own work, 6 base + 8 lora with checkpointing's
recomputation. The utilisation counts what the hardware does (HFU), so the formula with the
recomputation is the one used where the profile checkpoints. Peak 989 TFLOP/s bf16 dense (H100).
At 40% one H100 does 7,777 tokens a second of an 8B model with rank 128.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from shared.architectures import Architecture, architecture_of
from shared.plan import Plan, largest_plan
from shared.profiles import TrainingProfile
from shared.units import MS_PER_MINUTE, MS_PER_SECOND, hours_to_ms
from sim.quality.columns import GRPO, IMAGE, Bools, Jobs, Slot
from sim.quality.config import PhysicalConfig, ReferenceRun
from sim.stream import UNKNOWN, Floats, Ints


@dataclass(frozen=True, slots=True)
class Trained:
    """What n jobs trained, float64 and bool (n,).

    tokens: before the deadline, NaN for image models; 0 where nothing fits. reference_tokens:
    the reference run's of the same task. lora_ratio: adapter parameters over the reference's, 1
    where nothing fits. batch_rows: rows of one optimizer step. is_language: the arithmetic applies.
    """

    tokens: Floats
    reference_tokens: Floats
    lora_ratio: Floats
    batch_rows: Floats
    is_language: Bools


def trained(jobs: Jobs, slot: Slot, config: PhysicalConfig, reference: ReferenceRun) -> Trained:
    """The compute of each job and of the reference run of its task."""
    planned, row = _planned(jobs, slot, config, reference)
    of_token, of_reference, lora_ratio, batch_rows, speed = planned[:, row]
    language = ~_is(jobs, IMAGE)
    deadline_ms = np.rint(jobs.hours * hours_to_ms(1))
    part = np.where(_is(jobs, GRPO), config.grpo_train_share, 1.0)
    per_gpu = config.peak_tflops * 1e12 * config.hfu * part
    gpus = slot.gpus * jobs.gpu_share * speed
    own = _seconds(np.minimum(jobs.train_ms, deadline_ms), config) * gpus * per_gpu / of_token
    theirs = _seconds(deadline_ms, config) * reference.gpus * per_gpu / of_reference
    return Trained(np.where(language, own, np.nan), theirs, lora_ratio, batch_rows, language)


def _seconds(ms: Floats, config: PhysicalConfig) -> Floats:
    return np.maximum(ms - config.setup_minutes * MS_PER_MINUTE, 0.0) / MS_PER_SECOND


def _is(jobs: Jobs, task_type: str) -> Bools:
    names = jobs.task_type.names
    known = np.array([name == task_type for name in names], dtype=np.bool_)
    return np.asarray(known[jobs.task_type.codes], dtype=np.bool_)


def _planned(
    jobs: Jobs, slot: Slot, config: PhysicalConfig, reference: ReferenceRun
) -> tuple[Floats, Ints]:
    """Five numbers of each distinct (model, size, whether answers are sampled), and each job's.

    Shapes (5, distinct) and (n,): the column among them.
    """
    samples = _is(jobs, GRPO).astype(np.int64)
    triples = np.stack((jobs.model.codes.astype(np.int64), jobs.params, samples))
    distinct, row = np.unique(triples, axis=1, return_inverse=True)
    columns = [
        _of_model(
            jobs.model.names[code],
            None if params == UNKNOWN else params,
            bool(sampled),
            slot,
            (config.longest_row, config.shortest_row),
            config.ddp_efficiency,
            config.fsdp2_efficiency,
            config.sharing_efficiency,
            reference,
        )
        for code, params, sampled in distinct.T.tolist()
    ]
    return np.array(columns, dtype=np.float64).reshape(-1, 5).T, row.reshape(-1)


@lru_cache(maxsize=8192)
def _of_model(
    model: str,
    params: int | None,
    samples: bool,
    slot: Slot,
    rows: tuple[int, int],
    ddp: float,
    fsdp2: float,
    sharing: float,
    reference: ReferenceRun,
) -> tuple[float, float, float, float, float]:
    """FLOPs of a token, the reference's, adapter ratio, batch rows, speed of each GPU (0 to 1)."""
    arch, profile = architecture_of(model, params), slot.profile
    theirs = flops_per_token(arch, profile, reference.lora_r)
    plan = plan_of(arch, slot, rows, samples=samples)
    if plan is None:
        return theirs, theirs, 1.0, float(reference.batch_rows), 0.0
    several = {"ddp": ddp, "fsdp2": fsdp2}[plan.parallel] if slot.gpus > 1 else 1.0
    return (
        flops_per_token(arch, profile, plan.lora_r),
        theirs,
        plan.lora_r / reference.lora_r,
        float(plan.effective_batch),
        several * (sharing if slot.gpu_share < 1 else 1.0),
    )


def plan_of(
    architecture: Architecture, slot: Slot, rows: tuple[int, int], *, samples: bool
) -> Plan | None:
    """The planner's plan for a slot, rows (longest, shortest) cut in halves until one fits.

    samples: whether the task samples answers.
    """
    for row in _halves(*rows):
        plan = largest_plan(
            architecture,
            slot.profile,
            gpus=slot.gpus,
            gb_per_gpu=slot.gb_per_gpu,
            longest_row=row,
            chunked_loss=True,
            samples=samples,
        )
        if plan is not None:
            return plan
    return None


def _halves(longest: int, shortest: int) -> Iterator[int]:
    row = longest
    while row > shortest:
        yield row
        row //= 2
    yield shortest


def flops_per_token(architecture: Architecture, profile: TrainingProfile, rank: int) -> float:
    """FLOPs that the hardware does to train on one token; of a mixture, the experts it visits."""
    visited = replace(architecture, experts=architecture.experts_per_token)
    base, lora = visited.base_parameters, visited.lora_parameters(rank, profile.target_modules)
    if profile.gradient_checkpointing:
        return 6.0 * base + 8.0 * lora
    return 4.0 * base + 6.0 * lora
