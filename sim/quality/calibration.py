"""The calibration file: what a live ledger's outcomes say, as JSON. `docs/quality.md` shows one."""

import json
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, model_validator

from shared.errors import InputError
from shared.wire_faults import one_line
from sim.quality.config import Part

ANY_TYPE = "*"
"""The entry that stands for every task type without one of its own."""

Positive = Annotated[float, Field(gt=0, le=1e12)]
Share = Annotated[float, Field(ge=0, le=1)]


class Measured(Part):
    """A positive quantity, its spread over the outcomes, and the 95% interval of its mean."""

    mean: Positive = Field(description="Mean.")
    sd: Annotated[float, Field(ge=0, le=1e12)] = Field(description="Standard deviation.")
    lo: Annotated[float, Field(ge=0, le=1e12)] = Field(description="Lower bound of the mean.")
    hi: Positive = Field(description="Upper bound of the mean.")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.lo <= self.mean <= self.hi:
            raise ValueError("lo, mean and hi must ascend")
        return self


class Rate(Part):
    """A share of the outcomes and its 95% interval."""

    rate: Share = Field(description="Share of the outcomes.")
    lo: Share = Field(description="Lower bound.")
    hi: Share = Field(description="Upper bound.")

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.lo <= self.rate <= self.hi:
            raise ValueError("lo, rate and hi must ascend")
        return self


class Speed(Measured):
    """Tokens a second for one GPU's worth of compute, of models in a range of sizes."""

    params_from: Annotated[int, Field(ge=0, le=2**53)] = Field(description="Fewest parameters.")
    params_below: Annotated[int, Field(ge=1, le=2**53)] = Field(
        description="Parameters stay below this number."
    )


Speeds = Annotated[tuple[Speed, ...], Field(strict=False)]


class SlotOutcomes(Part):
    """What jobs of one task type did in slots of one size."""

    gpus: Annotated[float, Field(gt=0, le=64)] = Field(
        description="GPUs' worth of compute of the slot: 2 for a pair, 0.3333 for a third."
    )
    outcomes: Annotated[int, Field(ge=0, le=10**12)] = Field(description="Jobs with a result.")
    test_ratio: Measured = Field(description="Test loss over the reference run's.")
    synth_ratio: Measured = Field(description="Synthetic loss over the reference run's.")
    success: Rate = Field(description="Share of the jobs that handed a model in on time.")
    tokens_per_second: Speeds = Field(
        default=(), description="Per GPU's worth of compute, by size of the model."
    )


Slots = Annotated[tuple[SlotOutcomes, ...], Field(min_length=1, strict=False)]


class TypeOutcomes(Part):
    """One task type's outcomes, slot sizes ascending."""

    slots: Slots = Field(description="One entry a slot size, ascending.")

    @model_validator(mode="after")
    def _ascend(self) -> Self:
        sizes = [slot.gpus for slot in self.slots]
        if sizes != sorted(set(sizes)):
            raise ValueError("slots must ascend in gpus, each size once")
        return self


class ServiceTimes(Part):
    """Share of a job's hours that it kept its slot, over all jobs of all slot sizes.

    low, high: of the uniform distribution that stands for it; it has the measured mean.
    """

    outcomes: Annotated[int, Field(ge=0, le=10**12)] = Field(description="Jobs with a result.")
    fraction: Measured = Field(description="Hours used over hours to complete, as measured.")
    low: Share = Field(description="Least fraction of the uniform distribution.")
    high: Share = Field(description="Largest fraction of the uniform distribution.")

    @model_validator(mode="after")
    def _ascends(self) -> Self:
        if self.high < self.low:
            raise ValueError(f"high must be at least low ({self.low})")
        return self


class Calibration(Part):
    """A whole calibration file."""

    version: Literal[1] = Field(description="Of this format.")
    note: str = Field(default="", description="Where it comes from, for the report.")
    service: ServiceTimes | None = Field(
        default=None, description="How long jobs kept their slots; absent: the scenario's model."
    )
    task_types: Annotated[dict[str, TypeOutcomes], Field(min_length=1)] = Field(
        description="Task type to its outcomes; * stands for every type without an entry."
    )


def read_calibration(path: Path, least_outcomes: int) -> Calibration:
    """A calibration file; every slot size needs ``least_outcomes`` outcomes.

    Raises InputError naming the file and the key.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as why:
        raise InputError(f"{path}: cannot be read: {(why.strerror or str(why)).lower()}") from None
    except ValueError as wrong:  # no UTF-8, or no JSON
        raise InputError(f"{path}: no valid JSON: {wrong}") from None
    try:
        calibration = Calibration.model_validate(content)
    except ValidationError as wrong:
        raise InputError(f"{path}: {one_line(wrong, content)}") from None
    _enough(calibration, path, least_outcomes)
    return calibration


def _enough(calibration: Calibration, path: Path, least: int) -> None:
    for task_type, entry in calibration.task_types.items():
        for position, slot in enumerate(entry.slots):
            if slot.outcomes < least:
                raise InputError(
                    f"{path}: task_types.{task_type}.slots.{position}.outcomes: found "
                    f"{slot.outcomes}, allowed is {least} or more"
                )
