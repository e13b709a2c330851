"""The largest plan of a training profile that fits a slot's GPUs.

The profile is the target. The micro-batch shrinks to what the longest row allows, accumulation
makes up the effective batch, and then concessions are made one at a time, in this order, until one
row fits: chunked loss, FSDP2, bf16 adapters with 8-bit Adam, a lower rank.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

from shared.architectures import Architecture
from shared.layer_memory import AttentionMemory
from shared.memory import LOWEST_RANK, MemoryBreakdown, peak_memory, strategies, usable_gb
from shared.profiles import TrainingProfile
from shared.training_step import ADAMW, ADAMW_8BIT, Optimizer, TrainingStep

Setting = str | int | bool


@dataclass(frozen=True, slots=True)
class Deviation:
    """One setting that the plan could not take from the profile, and why."""

    setting: str
    wanted: Setting
    given: Setting
    why: str


@dataclass(frozen=True, slots=True)
class Plan:
    """How a job trains on its slot.

    micro_batch: rows of one GPU at once. effective_batch = micro_batch * accumulation * gpus
    rows. sampled_rows: answers that one GPU samples at once, whole micro-batches of them; 0 where
    none are sampled. row_tokens: the longest row planned for, at most max_length tokens. optimizer:
    adamw or adamw8bit. predicted: the peak of one step on one GPU. step: that step.
    """

    micro_batch: int
    accumulation: int
    gpus: int
    parallel: str
    optimizer: str
    lora_r: int
    max_length: int
    row_tokens: int
    chunked_loss: bool
    sampled_rows: int
    predicted: MemoryBreakdown
    step: TrainingStep
    deviations: tuple[Deviation, ...]

    @property
    def effective_batch(self) -> int:
        """Rows of one optimizer step."""
        return self.micro_batch * self.accumulation * self.gpus

    @property
    def predicted_gb(self) -> float:
        """Predicted peak on each GPU in GB of 10**9 bytes, the fixed overhead included."""
        return self.predicted.total_gb


def micro_batches(profile: TrainingProfile) -> tuple[int, ...]:
    """Rows that keep the effective batch exactly, largest first, the profile's own at most.

    >>> from shared.profiles import ACCURACY_PROFILE
    >>> micro_batches(ACCURACY_PROFILE)
    (32, 16, 8, 4, 2, 1)
    """
    rows = profile.batch_size * profile.gradient_accumulation_steps
    return tuple(micro for micro in range(profile.batch_size, 0, -1) if rows % micro == 0)


def _lower_ranks(rank: int) -> Iterator[int]:
    while rank > LOWEST_RANK:
        rank = max(LOWEST_RANK, rank // 2)
        yield rank


def _concessions(step: TrainingStep) -> Iterator[TrainingStep]:
    """The step as wanted, then with each concession added to those before it."""
    yield step
    step = replace(step, chunked_loss=True)
    yield step
    step = replace(step, parallel=strategies(1 if step.sampled_rows else step.gpus)[-1])
    yield step
    step = replace(step, optimizer=ADAMW_8BIT)
    yield step
    for rank in _lower_ranks(step.lora_r):
        step = replace(step, lora_r=rank)
        yield step
    yield replace(step, parallel="ddp")  # a tiny model's gathered layers can outweigh its shards


def _with_rows(step: TrainingStep, micro: int, rows: int) -> TrainingStep:
    sampled = _fewest_sampled(micro, rows, step.gpus) if step.sampled_rows else 0
    return replace(step, rows=micro, resident_gradients=micro < rows, sampled_rows=sampled)


def _fewest_sampled(micro: int, rows: int, gpus: int) -> int:
    """Whole micro-batches of answers, so many that all GPUs together have two to compare."""
    enough = (n for n in range(micro, rows + 1, micro) if rows % n == 0 and n * gpus > 1)
    return next(enough, rows)


def _settings(step: TrainingStep) -> dict[str, Setting]:
    return {
        "chunked_loss": step.chunked_loss,
        "parallel": step.parallel,
        "optimizer": step.optimizer.name,
        "lora_r": step.lora_r,
    }


def _too_much(step: TrainingStep, gb_per_gpu: float) -> str:
    need, usable = peak_memory(step).total_gb, usable_gb(gb_per_gpu)
    rows = f"{step.rows} row{'s' if step.rows > 1 else ''} of {step.row_tokens} tokens"
    verb = "needs" if step.rows == 1 else "need"
    return f"{rows} {verb} {need:.1f} GB a GPU and {usable:.1f} GB is usable"


def _conceded(steps: list[TrainingStep], gb_per_gpu: float) -> Iterator[Deviation]:
    """Each setting in which the last step differs from the first, with the need that forced it."""
    wanted, given = _settings(steps[0]), _settings(steps[-1])
    for setting in wanted:
        if wanted[setting] == given[setting]:
            continue
        forced = [a for a, b in pairwise(steps) if _settings(a)[setting] != _settings(b)[setting]]
        why = f"otherwise {_too_much(forced[-1], gb_per_gpu)}"
        yield Deviation(setting, wanted[setting], given[setting], why)


def _shrunk(step: TrainingStep, profile: TrainingProfile, gb_per_gpu: float) -> list[Deviation]:
    """The micro-batch and the accumulation that makes up for it, where they are not as wanted."""
    if step.rows == profile.batch_size:
        return []
    rows = profile.batch_size * profile.gradient_accumulation_steps
    why = _too_much(_with_rows(step, profile.batch_size, rows), gb_per_gpu)
    wanted = profile.gradient_accumulation_steps
    return [
        Deviation("per_device_train_batch_size", profile.batch_size, step.rows, why),
        Deviation("gradient_accumulation_steps", wanted, rows // step.rows, "keeps the batch"),
    ]


def _largest(step: TrainingStep, profile: TrainingProfile, gb: float) -> TrainingStep | None:
    rows = profile.batch_size * profile.gradient_accumulation_steps
    tried = (_with_rows(step, micro, rows) for micro in micro_batches(profile))
    found = next((one for one in tried if peak_memory(one).total_gb <= usable_gb(gb)), None)
    return found and _sampling_most(found, rows, gb)


def _sampling_most(step: TrainingStep, rows: int, gb: float) -> TrainingStep:
    """The step with as many answers sampled at once as there is memory for, whole micro-batches."""
    if not step.sampled_rows:
        return step
    most = (n for n in range(rows, step.sampled_rows, -step.rows) if rows % n == 0)
    tried = (replace(step, sampled_rows=n) for n in most)
    return next((one for one in tried if peak_memory(one).total_gb <= usable_gb(gb)), step)


def _plan(step: TrainingStep, profile: TrainingProfile, deviations: tuple[Deviation, ...]) -> Plan:
    rows = profile.batch_size * profile.gradient_accumulation_steps
    return Plan(
        micro_batch=step.rows,
        accumulation=rows // step.rows,
        gpus=step.gpus,
        parallel=step.parallel,
        optimizer=step.optimizer.name,
        lora_r=step.lora_r,
        max_length=profile.max_length,
        row_tokens=step.row_tokens,
        chunked_loss=step.chunked_loss,
        sampled_rows=step.sampled_rows,
        predicted=peak_memory(step),
        step=step,
        deviations=deviations,
    )


def smaller(plan: Plan, micro: int, sampled_rows: int) -> Plan:
    """The plan with fewer rows at once, and more accumulation for it; ``micro`` divides its rows.

    For a plan that ran out of memory in spite of the prediction: no other concession is made.
    """
    rows = plan.micro_batch * plan.accumulation
    step = replace(
        plan.step, rows=micro, resident_gradients=micro < rows, sampled_rows=sampled_rows
    )
    return replace(
        plan,
        micro_batch=micro,
        accumulation=rows // micro,
        sampled_rows=sampled_rows,
        predicted=peak_memory(step),
        step=step,
    )


def wanted_step(
    architecture: Architecture,
    profile: TrainingProfile,
    *,
    gpus: int,
    row_tokens: int,
    chunked_loss: bool = False,
    optimizer: Optimizer = ADAMW,
    attention: AttentionMemory = "kernel",
) -> TrainingStep:
    """The profile's step with one row a micro-batch, before any concession."""
    rows = profile.batch_size * profile.gradient_accumulation_steps
    step = TrainingStep(
        architecture,
        profile.lora_r,
        1,
        row_tokens,
        profile.target_modules,
        gpus=gpus,
        optimizer=optimizer,
        chunked_loss=chunked_loss,
        gradient_checkpointing=profile.gradient_checkpointing,
        dropout=profile.lora_dropout > 0,
        attention=attention,
    )
    return _with_rows(step, 1, rows)


def largest_plan(
    architecture: Architecture,
    profile: TrainingProfile,
    *,
    gpus: int,
    gb_per_gpu: float,
    longest_row: int | None = None,
    chunked_loss: bool = False,
    samples: bool = False,
    attention: AttentionMemory = "kernel",
) -> Plan | None:
    """The first plan, in the order of concessions, of which at least one row fits; None without.

    gpus: whole GPUs the slot trains on (1 for a share of one: a share has no partner). gb_per_gpu:
    GB of each that the slot may use. longest_row: tokens of the data's longest row, where known;
    it is cut to the profile's max_length. chunked_loss: the trainer computes it so anyway, and no
    deviation is recorded for it. samples: whether the task samples answers, which takes memory
    and cannot be done from shares of a model, so not under FSDP2. attention: what its memory
    goes by.
    """
    row_tokens = min(longest_row or profile.max_length, profile.max_length)
    wanted = wanted_step(
        architecture, profile,
        gpus=gpus, row_tokens=row_tokens, chunked_loss=chunked_loss, attention=attention,
    )  # fmt: skip
    steps = []
    for step in _concessions(replace(wanted, sampled_rows=int(samples))):
        steps.append(step)
        largest = _largest(step, profile, gb_per_gpu)
        if largest is not None:
            made = (*_conceded(steps, gb_per_gpu), *_shrunk(largest, profile, gb_per_gpu))
            return _plan(largest, profile, made)
    return None
