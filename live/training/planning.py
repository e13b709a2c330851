"""From the preset's profile to what this job is trained with, and what could not be had.

The memory plan is ``shared.plan``'s, the same that refuses offers at admission. Here the data's
longest row, the task's own needs and the machine at hand are put into it.
"""

from dataclasses import dataclass, replace

from live.job_files import JobSpec
from live.training.learning_rate import learning_rate
from live.training.left_out import dropout, left_out
from live.training.rows import DPO, GRPO
from live.training.terms import Settled
from live.training.ways import (
    EAGER,
    END_TO_END,
    Attention,
    Family,
    Machine,
    attention_for,
    other_attention,
    padding_free,
)
from shared.architectures import MODULES, Architecture
from shared.errors import InputError
from shared.layer_memory import AttentionMemory
from shared.plan import Deviation, Plan, Setting, largest_plan, smaller
from shared.profiles import TrainingProfile

CPU_RANK, CPU_ROWS, CPU_TOKENS = 8, 4, 256
"""The most that is trained on the CPU, where jobs are rehearsals: rank, rows, tokens a row."""
COMPILE_FROM_HOURS = 1.0
"""Compiling a layer takes a minute or two (98 s were measured on two busy cores, for one length and
for any, forward and backward), so a short job goes without."""
GENERATIONS = 8
"""Answers that a GRPO job samples for a prompt, at most: the trainer's default."""

CPU_ANSWERS = 16
"""Answers a rank samples for one GRPO step on the CPU: fewer tell good from bad too seldom."""


def settle(
    spec: JobSpec,
    shape: Architecture,
    family: Family,
    longest_row: int,
    machine: Machine,
    lacks_of_memory: int,
    faults: int = 0,
) -> Settled:
    """What the job is trained with.

    longest_row: tokens of the data's longest example, prompt and answer. lacks_of_memory: attempts
    of this job that ran out of memory; each halves the rows at once. faults: attempts that failed,
    whatever of. Raises InputError when not one row fits the slot, or there is no layer to adapt.
    """
    targets = _targets(spec, family.projections)
    attention = attention_for(spec.task_type, family, machine, faults - lacks_of_memory)
    if not machine.cuda:
        return _on_the_cpu(spec, shape, targets, attention, family)
    profile = _for_task(spec)
    if shape.experts > 1:  # those that are no layers of their own take no adapters
        there = tuple(name for name in profile.target_modules if name in targets)
        profile = replace(profile, target_modules=there or profile.target_modules)
    plan = largest_plan(
        shape,
        profile,
        gpus=spec.processes,
        gb_per_gpu=spec.memory_gb_per_gpu,
        longest_row=longest_row * _rows_each(spec.task_type),
        chunked_loss=True,
        samples=spec.task_type == GRPO,
        attention=_kind_of(attention),
    )
    if plan is None:
        raise InputError(
            f"model: {spec.model}: not one row of {longest_row} tokens fits {spec.processes} "
            f"GPU(s) of {spec.memory_gb_per_gpu:.1f} GB, every concession made"
        )
    other = [*_other_targets(spec.profile, targets), *other_attention(family, attention)]
    chosen = _Chosen(targets, attention, family, tuple(other))
    return _settled(spec, shape, chosen, plan, machine, (lacks_of_memory, faults))


def _kind_of(attention: Attention) -> AttentionMemory:
    """What memory a way of attention needs: padded rows have a mask."""
    return "kernel" if attention in END_TO_END else "matrix" if attention == EAGER else "masked"


@dataclass(frozen=True, slots=True)
class _Chosen:
    """What goes by the model's family. deviations: where that is not the profile's."""

    targets: tuple[str, ...]
    attention: Attention
    family: Family
    deviations: tuple[Deviation, ...]


def _rows_each(task_type: str) -> int:
    """Rows that one example takes at once: a preference has two answers."""
    return 2 if task_type == DPO else 1


def _for_task(spec: JobSpec) -> TrainingProfile:
    """DPO's two rows are counted as one of twice the length: memory goes by tokens."""
    most = spec.profile.max_length * _rows_each(spec.task_type)
    return replace(spec.profile, max_length=most, lora_dropout=dropout(spec))


def _targets(spec: JobSpec, projections: tuple[str, ...]) -> tuple[str, ...]:
    """The layers that are adapted: the profile's, or all there are where it means all of them.

    Families name them otherwise (Phi-3 has two fused into ``qkv_proj``), and the experts of a
    mixture are no layers of their own. Raises InputError when none is left.
    """
    wanted = spec.profile.target_modules
    all_meant = set(MODULES) <= set(wanted) and not set(wanted) <= set(projections)
    targets = projections if all_meant else tuple(n for n in wanted if n in projections)
    if not targets:
        raise InputError(f"model: found no layer named {', '.join(wanted)}, allowed are families "
                         "that have one of them")  # fmt: skip
    return targets


def _other_targets(profile: TrainingProfile, targets: tuple[str, ...]) -> list[Deviation]:
    wanted, given = ", ".join(profile.target_modules), ", ".join(targets)
    why = "these are the model's linear layers; experts that are no layers of their own stay as are"
    return [Deviation("target_modules", wanted, given, why)] if wanted != given else []


def _settled(
    spec: JobSpec,
    shape: Architecture,
    chosen: _Chosen,
    plan: Plan,
    machine: Machine,
    before: tuple[int, int],
) -> Settled:
    """before: attempts that ran out of memory, and that failed at all."""
    profile, (lacks, faults) = spec.profile, before
    missing = [*plan.deviations, *chosen.deviations]
    micro = max(1, plan.micro_batch >> lacks)
    rows = profile.batch_size * profile.gradient_accumulation_steps
    while rows % micro:
        micro -= 1
    sampled = _sampled(plan, lacks, micro) if plan.sampled_rows else 0
    if micro != plan.micro_batch:
        why = f"{lacks} attempt(s) ran out of memory with more"
        missing += [
            Deviation("per_device_train_batch_size", plan.micro_batch, micro, why),
            Deviation("gradient_accumulation_steps", plan.accumulation, rows // micro,
                      "keeps the batch"),
        ]  # fmt: skip
    if lacks:
        plan = smaller(plan, micro, sampled)
    alpha = profile.lora_alpha * plan.lora_r / profile.lora_r
    if plan.lora_r != profile.lora_r:
        missing.append(Deviation("lora_alpha", profile.lora_alpha, round(alpha),
                                 "keeps alpha over rank"))  # fmt: skip
    if plan.optimizer == "adamw8bit" and not machine.bits8:
        raise InputError("bitsandbytes: not installed, and the plan needs its 8-bit Adam")
    compiled = _compiles(spec, plan.parallel, faults, missing)
    eval_batch = min(profile.eval_batch_size, micro)
    missing += left_out(spec, plan.parallel, plan.optimizer, eval_batch)
    return Settled(
        sampled_rows=sampled,
        generations=_generations(sampled * spec.processes) if sampled else 1,
        micro=micro,
        accumulation=rows // micro,
        eval_batch=eval_batch,
        lora_r=plan.lora_r,
        lora_alpha=alpha,
        lora_dropout=dropout(spec),
        target_modules=chosen.targets,
        max_length=profile.max_length,
        parallel=plan.parallel,
        optimizer=plan.optimizer,
        attention=chosen.attention,
        padding_free=padding_free(chosen.attention, spec.task_type, chosen.family, micro),
        compile=compiled,
        checkpointing=profile.gradient_checkpointing,
        bucket_mb=profile.ddp_bucket_cap_mb,
        learning_rate=learning_rate(spec.model, shape.hidden_size, alpha, spec.task_type),
        plan=plan,
        predicted_gb=plan.predicted_gb,
        not_taken=tuple(missing),
    )


def _sampled(plan: Plan, lacks: int, micro: int) -> int:
    """Answers of a rank at once: whole micro-batches that divide a step's, at least two in all.

    Raises InputError for a batch of one row on one GPU.
    """
    rows = plan.micro_batch * plan.accumulation
    allowed = [n for n in range(micro, rows + 1, micro) if rows % n == 0 and n * plan.gpus > 1]
    if not allowed:
        raise InputError("per_device_train_batch_size: found 1 row in all, allowed for answers "
                         "that are compared is 2 or more")  # fmt: skip
    return max((n for n in allowed if n <= plan.sampled_rows >> lacks), default=allowed[0])


def _generations(sampled: int) -> int:
    """Answers to a prompt, all of which are sampled at once, by all ranks together."""
    return max(n for n in range(1, GENERATIONS + 1) if sampled % n == 0)


def most_answer(spec: JobSpec, max_length: int) -> int:
    """Tokens of a sampled answer at most; what is left of a row is the prompt's."""
    return min(spec.training.most_completion, max_length // 2)


def _compiles(spec: JobSpec, parallel: str, faults: int, missing: list[Deviation]) -> bool:
    if not spec.profile.torch_compile:
        return False
    why = None
    if spec.hours_to_complete < COMPILE_FROM_HOURS:
        why = f"a job of under {COMPILE_FROM_HOURS:g} h loses more by it than it gains"
    elif spec.task_type == GRPO:
        why = "sampling changes the row's length at every token"
    elif parallel == "fsdp2":
        why = "compiled layers have not been tried under shares"
    elif faults:
        why = "an attempt before this one failed"
    if why:
        missing.append(Deviation("torch_compile", True, False, why))
    return why is None


def _on_the_cpu(
    spec: JobSpec,
    shape: Architecture,
    targets: tuple[str, ...],
    attention: Attention,
    family: Family,
) -> Settled:
    """A rehearsal's size, whatever the profile; every setting that is not taken is told."""
    profile = spec.profile
    rows = min(profile.batch_size * profile.gradient_accumulation_steps, CPU_ROWS)
    samples = spec.task_type == GRPO
    if samples:
        rows = CPU_ANSWERS
    rank = min(profile.lora_r, CPU_RANK)
    alpha = 4.0 * rank
    given: dict[str, tuple[Setting, Setting]] = {
        "per_device_train_batch_size": (profile.batch_size, rows),
        "gradient_accumulation_steps": (profile.gradient_accumulation_steps, 1),
        "lora_r": (profile.lora_r, rank),
        "lora_alpha": (profile.lora_alpha, round(alpha)),
        "max_length": (profile.max_length, CPU_TOKENS),
        "gradient_checkpointing": (profile.gradient_checkpointing, False),
        "torch_compile": (profile.torch_compile, False),
        "attention": (profile.attention, attention),
    }
    why = "there is no GPU: on the CPU a job is a rehearsal"
    missing = [Deviation(k, w, g, why) for k, (w, g) in given.items() if w != g]
    # To try them where there is no GPU.
    parallel = "fsdp2" if spec.request.get("parallel") == "fsdp2" else "ddp"
    optimizer = "adamw8bit" if spec.request.get("optimizer") == "adamw8bit" else "adamw"
    missing += left_out(spec, parallel, optimizer, rows)
    return Settled(
        sampled_rows=rows if samples else 0,
        generations=_generations(rows * spec.processes) if samples else 1,
        micro=rows,
        accumulation=1,
        eval_batch=rows,
        lora_r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout(spec),
        target_modules=targets,
        max_length=min(profile.max_length, CPU_TOKENS),
        parallel=parallel,
        optimizer=optimizer,
        attention=attention,
        padding_free=padding_free(attention, spec.task_type, family, rows),
        compile=False,
        checkpointing=False,
        bucket_mb=profile.ddp_bucket_cap_mb,
        learning_rate=learning_rate(spec.model, shape.hidden_size, alpha, spec.task_type),
        plan=None,
        predicted_gb=None,
        not_taken=(*missing, *_other_targets(profile, targets)),
    )
