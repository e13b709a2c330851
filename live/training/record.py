"""What a job's training came to: ``training.json`` of the job folder, and a row of the ledger.

Written anew as it grows, so a job that ends early leaves what was known by then; nothing in it is
required. Whoever sizes the simulator reads it (``python -m sim calibrate``).
"""

import logging
from math import isfinite
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, JsonValue

from live.job_files import read_record, write_record
from shared.errors import InputError

log = logging.getLogger(__name__)

TRAINING = "training.json"
MOST_BYTES = 1 << 20
"""Of the file; a record is a few kilobytes. What is longer is not taken into the ledger."""


def _known(value: Any) -> Any:
    """A number as it is; an infinite one or NaN, which no JSON can hold, is not known."""
    return None if isinstance(value, float) and not isfinite(value) else value


def _all_known(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _all_known(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_all_known(part) for part in value]
    return _known(value)


Number = Annotated[float | None, BeforeValidator(_known)]
"""A finite number; an infinite one and NaN become None."""
Amount = Annotated[Annotated[float, Field(ge=0)] | None, BeforeValidator(_known)]
"""A finite number that is not negative; an infinite one and NaN become None."""
Count = Annotated[int, Field(ge=0, le=2**63 - 1)] | None
Setting = Annotated[str | int | float | bool | None, BeforeValidator(_known)]


class NotTaken(BaseModel):
    """One setting that was not as wanted, and why; also made of a ``shared.plan.Deviation``."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, from_attributes=True
    )

    setting: str
    wanted: Setting
    given: Setting
    why: str


class TrainingRecord(BaseModel):
    """What was trained, how, how fast, and what it came to. None where it is not known.

    base_params: parameters of the base model. gpus: GPUs' worth of the slot, 2 for a pair, 1/3 for
    a third of one. plan: the memory plan, as JSON values (micro_batch, accumulation, gpus,
    parallel, optimizer, lora_r, max_length, row_tokens, chunked_loss, predicted_gb, deviations;
    where answers are sampled sampled_rows and generations).
    not_taken: settings of the profile that did not reach the trainer. measured_peak_gb,
    predicted_gb: the peak of one GPU, GB of 10**9 bytes. steps: optimizer steps done, of
    planned_steps, those before a resume included. tokens_trained: of all ranks; seconds_training:
    the wall time they took, without loading and finishing; tokens_per_second: of the whole slot.
    step_s, evaluation_s: medians. load_s: from the worker's begin to the first step; finish_s: from
    the last step to the result. learning_rate: the peak.

    held_out_loss_base, held_out_loss: the measure that held_out_metric names, on the rows held out,
    of the base model and of what is handed in; of ``eval_reward`` higher is better. beats_base: by
    that measure. rows: of the data, usable ones; held_out: of those, evaluated on; bad_rows: left
    out. resumed_from: the steps that checkpoints were taken up at, in order. submission: folder or
    repository. failure: in one line why nothing good was handed in, empty without.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    model: str = ""
    base_params: Count = None
    task_type: str = ""
    preset: str = ""
    gpus: Annotated[Annotated[float, Field(gt=0)] | None, BeforeValidator(_known)] = None
    plan: Annotated[dict[str, JsonValue], BeforeValidator(_all_known)] = Field(default_factory=dict)
    not_taken: tuple[NotTaken, ...] = ()
    measured_peak_gb: Amount = None
    predicted_gb: Amount = None
    steps: Count = None
    planned_steps: Count = None
    tokens_trained: Count = None
    seconds_training: Amount = None
    step_s: Amount = None
    evaluation_s: Amount = None
    tokens_per_second: Amount = None
    load_s: Amount = None
    finish_s: Amount = None
    learning_rate: Amount = None
    first_loss: Number = None
    last_loss: Number = None
    held_out_loss_base: Number = None
    held_out_loss: Number = None
    held_out_metric: str = ""
    beats_base: bool | None = None
    rows: Count = None
    held_out: Count = None
    bad_rows: Count = None
    resumed_from: tuple[int, ...] = ()
    submission: str | None = None
    failure: str = ""


def write_training(folder: Path, record: TrainingRecord) -> None:
    """Write the record into the job folder, whole. Raises OSError."""
    write_record(folder, TRAINING, record)


def training_of(folder: Path) -> TrainingRecord | None:
    """The record of a job folder; None without one, or when it cannot be read (logged)."""
    path = folder / TRAINING
    try:
        if not path.is_file():
            return None
        if path.stat().st_size > MOST_BYTES:
            raise InputError(f"{path}: found over {MOST_BYTES} bytes, allowed is {MOST_BYTES}")
        return read_record(folder, TRAINING, TrainingRecord)
    except (InputError, OSError) as why:
        log.error("%s; the ledger goes without it", why)
        return None
