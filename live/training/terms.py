"""What a trainer is told: the plan as settled for one job."""

from dataclasses import asdict, dataclass
from typing import Any

from live.training.ways import Attention
from shared.plan import Deviation, Plan


@dataclass(frozen=True, slots=True)
class Terms:
    """What every trainer is told. not_taken: profile settings that it is not, and why.

    micro, accumulation: rows of a rank at once, and how often; eval_batch: rows of a rank in
    evaluations. predicted_gb: the peak of one GPU, GB of 10**9 bytes; None on the CPU, where no
    slot's memory is at stake.
    """

    micro: int
    accumulation: int
    eval_batch: int
    lora_r: int
    lora_alpha: float
    lora_dropout: float
    target_modules: tuple[str, ...]
    parallel: str
    optimizer: str
    compile: bool
    checkpointing: bool
    bucket_mb: int
    learning_rate: float
    predicted_gb: float | None
    not_taken: tuple[Deviation, ...]

    def record(self) -> dict[str, Any]:
        """For the job's record: JSON values."""
        told = asdict(self)
        del told["not_taken"]
        told["micro_batch"] = told.pop("micro")
        return told


@dataclass(frozen=True, slots=True)
class Settled(Terms):
    """All that a trainer of texts is told.

    max_length: tokens a row is cut to. sampled_rows: answers that a rank samples at once, whole
    micro-batches of one step; 0 where none are sampled. generations: answers to a prompt, or 1.
    padding_free: rows are laid end to end. plan: the memory plan behind it, of the slot's GPUs
    (None on the CPU).
    """

    max_length: int
    sampled_rows: int
    generations: int
    attention: Attention
    padding_free: bool
    plan: Plan | None

    def record(self) -> dict[str, Any]:
        """For the job's record: JSON values."""
        told = Terms.record(self)
        del told["plan"]
        told["chunked_loss"] = True  # the trainers know no other
        told["row_tokens"] = None if self.plan is None else self.plan.row_tokens
        return told
