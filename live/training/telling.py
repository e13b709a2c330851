"""The record of a run, made of what is known so far."""

from math import isfinite
from statistics import median

import torch
import torch.distributed as dist

from live.job_files import JobSpec
from live.training.facts import Facts
from live.training.pacing import Pacing, Told
from live.training.record import NotTaken, TrainingRecord
from shared.box import IMAGE_TASK
from shared.memory import CUDA_CONTEXT_BYTES
from shared.units import GB


def record_of(spec: JobSpec, facts: Facts, pacing: Pacing | None = None) -> TrainingRecord:
    """What is known of the job's training now. Call it on every rank: the peak is of all."""
    settled, data = facts.settled, facts.data_record
    told = pacing.told if pacing else None
    losses = [each for each in told.losses if isfinite(each)] if told else []
    step_s = told.step_s if told else []
    trained_s = sum(step_s)
    final, base = facts.final, told.base if told else None
    return TrainingRecord(
        model=facts.source.name,
        base_params=facts.base_params,
        task_type=spec.task_type,
        preset=spec.preset,
        gpus=len(spec.gpus) / spec.sharing,
        plan=settled.record(),
        not_taken=tuple(map(NotTaken.model_validate, settled.not_taken)),
        measured_peak_gb=peak_gb(spec),
        predicted_gb=settled.predicted_gb,
        steps=len(told.losses) if told else 0,
        planned_steps=pacing.schedule.planned_steps if pacing else facts.most_steps,
        tokens_trained=_tokens(spec, told),
        seconds_training=trained_s,
        step_s=median(step_s) if step_s else None,
        evaluation_s=median(told.evaluation_s) if told and told.evaluation_s else None,
        tokens_per_second=_rate(pacing, trained_s),
        load_s=facts.load_s,
        finish_s=facts.finish_s,
        learning_rate=settled.learning_rate,
        first_loss=losses[0] if losses else None,
        last_loss=losses[-1] if losses else None,
        held_out_loss_base=base,
        held_out_loss=final if final is not None or not told or not told.best else told.best.value,
        held_out_metric=facts.measure,
        beats_base=facts.beats_base,
        rows=facts.rows,
        held_out=facts.held_out,
        bad_rows=sum(each["count"] for each in data["bad"].values()) if data else 0,
        resumed_from=tuple(told.resumed_from) if told else (),
        submission=facts.submission,
        failure="; ".join(facts.faults),
    )


def _tokens(spec: JobSpec, told: Told | None) -> int | None:
    """Of all ranks; images have none."""
    if spec.task_type == IMAGE_TASK:
        return None
    return told.tokens if told else 0


def _rate(pacing: Pacing | None, trained_s: float) -> float | None:
    known = pacing is not None and pacing.tokens_here and trained_s
    return pacing.tokens_here / trained_s if pacing and known else None


def peak_gb(spec: JobSpec) -> float | None:
    """The highest peak of any rank's GPU so far, GB of 10**9 bytes; None on the CPU.

    What torch reserved, and what is on the GPU beside it: the context and NCCL's buffers. Where
    slots share a GPU the others' memory cannot be told apart, and the planner's assumption of a
    context stands for it.
    """
    if spec.device != "cuda":
        return None
    free, total = torch.cuda.mem_get_info()
    beside = total - free - torch.cuda.memory_reserved()
    if spec.sharing > 1:
        beside = CUDA_CONTEXT_BYTES
    peak = torch.tensor(
        (torch.cuda.max_memory_reserved() + beside) / GB, dtype=torch.float64, device="cuda"
    )
    dist.all_reduce(peak, op=dist.ReduceOp.MAX)
    return float(peak)
