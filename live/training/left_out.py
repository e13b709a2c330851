"""Settings of the profile that reach no trainer, whatever the memory: for the job's record."""

from collections.abc import Iterator

from live.job_files import JobSpec
from live.training.rows import DPO, GRPO
from shared.plan import Deviation
from shared.profiles import TrainingProfile
from shared.training_step import ADAMW

UNUSED = "unused"
_NOISE = {
    DPO: "noise on one side of DPO's comparison with the model that has no adapter",
    GRPO: "answers would be sampled from another model than the one they are credited to",
}
"""Tasks without dropout, and why."""


def dropout(spec: JobSpec) -> float:
    """Of the adapter: none for DPO and GRPO.

    DPO's loss is a difference between the model with the adapter and without; dropout would be
    noise on one side of it, which is why TRL turns it off by itself. GRPO's goes by how likely an
    answer was when it was sampled; TRL samples in training mode, from another model at every token.
    """
    return 0.0 if spec.task_type in _NOISE else spec.profile.lora_dropout


def left_out(
    spec: JobSpec, parallel: str, optimizer: str, eval_batch: int
) -> tuple[Deviation, ...]:
    """What the profile asks for in vain. eval_batch: rows of a rank in evaluations."""
    profile = spec.profile
    told = (
        *_precision(spec, optimizer),
        *_buckets(spec, parallel),
        *_dropout(spec, profile),
        Deviation("per_device_eval_batch_size", profile.eval_batch_size, eval_batch,
                  "no more rows at once than are trained on: the memory is planned for those"),
    )  # fmt: skip
    return tuple(each for each in told if each.wanted != each.given)


def _dropout(spec: JobSpec, profile: TrainingProfile) -> Iterator[Deviation]:
    why = _NOISE.get(spec.task_type, "")
    yield Deviation("lora_dropout", f"{profile.lora_dropout:g}", f"{dropout(spec):g}", why)


def _buckets(spec: JobSpec, parallel: str) -> Iterator[Deviation]:
    wanted = spec.profile.ddp_bucket_cap_mb
    if parallel == "fsdp2":
        why = "shares exchange gradients layer by layer, in no buckets"
        yield Deviation("ddp_bucket_cap_mb", wanted, UNUSED, why)
    elif spec.processes == 1:
        why = "one process exchanges no gradients"
        yield Deviation("ddp_bucket_cap_mb", wanted, UNUSED, why)


def _precision(spec: JobSpec, optimizer: str) -> Iterator[Deviation]:
    wanted = spec.profile.precision
    if spec.device == "cpu":
        yield Deviation("precision", wanted, "fp32", "there is no GPU")
    elif optimizer == ADAMW.name:
        why = "adapters and their moments are fp32 over a bf16 base, so autocast narrows them"
        yield Deviation("precision", wanted, "bf16_autocast", why)
    else:
        yield Deviation("precision", wanted, "bf16", "8-bit moments come with bf16 adapters")
