"""The `quality` part of a scenario: what the four models of a training's outcome are told.

A number without a public source says "assumed" in its description; `docs/quality.md` says what
each one does and what follows from it.
"""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

ModelName = Literal["claims", "physical", "neutral", "calibrated"]

Share = Annotated[float, Field(ge=0, le=1)]
PositiveShare = Annotated[float, Field(gt=0, le=1)]
Spread = Annotated[float, Field(ge=0, le=2)]


class Part(BaseModel):
    """Base of every part: no unknown keys, no text for numbers, no NaN, fixed once made."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class Noise(Part):
    """Luck of one run, ours or a competitor's: standard deviations of the logarithm of a loss."""

    run: Spread = Field(
        default=0.03, description="Run to run, in both losses alike, no unit; assumed."
    )
    synth: Spread = Field(
        default=0.02, description="Of the synthetic loss against the test loss, no unit; assumed."
    )


class ReferenceRun(Part):
    """The run whose loss is 1.0 in every task: on whole H100s for all of the task's hours."""

    gpus: Annotated[float, Field(gt=0, le=64)] = Field(
        default=1.0, description="GPUs of the reference run; assumed."
    )
    lora_r: Annotated[int, Field(ge=1, le=65_536)] = Field(
        default=128, description="LoRA rank of the reference run; assumed."
    )
    batch_rows: Annotated[int, Field(ge=1, le=65_536)] = Field(
        default=32, description="Rows of one optimizer step of the reference run; assumed."
    )


class Range(Part):
    """Where a uniform draw lies."""

    low: Annotated[float, Field(ge=0, lt=1)] = Field(description="Least, no unit.")
    high: Annotated[float, Field(ge=0, lt=1)] = Field(description="Largest, no unit.")

    @model_validator(mode="after")
    def _ascends(self) -> Self:
        if self.high < self.low:
            raise ValueError(f"high must be at least low ({self.low})")
        return self


class ClaimsConfig(Part):
    """The strategy document's percentages, taken at their word."""

    test_lower: Range = Field(
        default=Range(low=0.25, high=0.40),
        description="By what share 4 jobs' test loss is lower than 24 jobs' (the document's).",
    )
    synth_lower: Range = Field(
        default=Range(low=0.20, high=0.30),
        description="By what share 4 jobs' synthetic loss is lower (the document's).",
    )
    success_4: Share = Field(
        default=0.95, description="Share of 4 jobs' runs that succeed (the document's)."
    )
    success_24: Share = Field(
        default=0.90,
        description="Share of 24 jobs' runs that succeed (the document's: penalties over 10%).",
    )


Dataset = Literal["wmt14", "wmt19", "mlsum"]

EXPONENTS: dict[Dataset, tuple[float, float]] = {
    "wmt14": (-0.0017, 0.081),
    "wmt19": (0.0044, 0.025),
    "mlsum": (0.00022, 0.03),
}
"""LoRA's exponents (of the adapter's parameters, of the data) in L = A / (X^a D^b) + E.

Source: arXiv 2402.17193, table 4. The three data sets it measured, machine translation twice and
summarisation; the spread between them is the honest uncertainty.
"""


class PhysicalConfig(Part):
    """Tokens before the deadline, and the loss that published laws make of them."""

    peak_tflops: Annotated[float, Field(gt=0, le=1e5)] = Field(
        default=989.0, description="Dense bf16 peak of one GPU in TFLOP/s (NVIDIA's H100 figure)."
    )
    hfu: PositiveShare = Field(
        default=0.40,
        description="Share of the peak that training uses, recomputation counted; assumed.",
    )
    ddp_efficiency: PositiveShare = Field(
        default=0.95, description="Of one GPU's speed, for each of several under DDP; assumed."
    )
    fsdp2_efficiency: PositiveShare = Field(
        default=0.85, description="Of one GPU's speed, for each of several under FSDP2; assumed."
    )
    sharing_efficiency: PositiveShare = Field(
        default=1.0,
        description="Of a GPU's speed, for all the jobs that share it together; assumed: nobody "
        "has published a figure.",
    )
    setup_minutes: Annotated[float, Field(ge=0, le=600)] = Field(
        default=10.0, description="Minutes of a job that do not train: load, compile; assumed."
    )
    grpo_train_share: PositiveShare = Field(
        default=0.30,
        description="Share of a GRPO job's time that trains, the rest generates; assumed.",
    )
    longest_row: Annotated[int, Field(ge=16, le=131_072)] = Field(
        default=2048, description="Tokens of the longest row of a task's data; assumed."
    )
    shortest_row: Annotated[int, Field(ge=16, le=131_072)] = Field(
        default=512, description="Tokens below which rows are not cut to make a job fit."
    )
    mean_row: Annotated[int, Field(ge=1, le=131_072)] = Field(
        default=400, description="Tokens of a row on average; assumed."
    )
    dataset_rows: Annotated[int, Field(ge=1, le=2**53)] = Field(
        default=100_000,
        description="Rows of a task's data: the market tells this constant; assumed of the data.",
    )
    repeat_epochs: Annotated[float, Field(gt=0, le=1e6)] = Field(
        default=15.4,
        description="Epochs after which another pass has lost 1 - 1/e of its worth "
        "(arXiv 2305.16264, measured in pretraining).",
    )
    exponents: Dataset = Field(
        default="mlsum",
        description="Data set whose LoRA exponents are used (arXiv 2402.17193, table 4).",
    )
    irreducible_share: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.5,
        description="Share of the reference run's loss that no training takes; assumed.",
    )
    critical_batch_rows: Annotated[float, Field(gt=0, le=1e9)] = Field(
        default=64.0,
        description="Critical batch size in rows (law: arXiv 1812.06162); the number is assumed.",
    )
    oom_rate: Share = Field(
        default=0.01, description="Share of planned jobs that run out of memory; assumed."
    )
    unstable_rate: Share = Field(
        default=0.01, description="Share of jobs whose training diverges; assumed."
    )

    @model_validator(mode="after")
    def _rows_descend(self) -> Self:
        if self.shortest_row > self.longest_row:
            raise ValueError(f"shortest_row must be at most longest_row ({self.longest_row})")
        return self


class NeutralConfig(Part):
    """No effect of a slot's size: the null hypothesis."""

    failure_rate: Share = Field(
        default=0.02, description="Share of jobs that fail, whatever the slot; assumed."
    )


class CalibratedConfig(Part):
    """Outcomes of a live ledger."""

    least_outcomes: Annotated[int, Field(ge=1, le=10**9)] = Field(
        default=20, description="Fewest outcomes of a slot size that may be used."
    )


class QualityConfig(Part):
    """What becomes of an accepted job, by four interchangeable models."""

    reference: ReferenceRun = Field(
        default=ReferenceRun(), description="The run whose loss is 1.0 in every task."
    )
    noise: Noise = Field(default=Noise(), description="Luck of our own runs.")
    claims: ClaimsConfig = Field(default=ClaimsConfig(), description="The document's word.")
    physical: PhysicalConfig = Field(default=PhysicalConfig(), description="Compute and memory.")
    neutral: NeutralConfig = Field(default=NeutralConfig(), description="The null hypothesis.")
    calibrated: CalibratedConfig = Field(
        default=CalibratedConfig(), description="Measured outcomes."
    )
