"""The `arrivals` part of a scenario: how the market makes offers. Every number is a parameter.

Defaults come from the validator's published rules of mid-2025 where a description does not say
"assumed": those have no public source and stand for the analyst's own knowledge.
"""

from itertools import pairwise
from math import isclose
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from sim.catalogue import CATALOGUE, Model

HOURS_LIMIT = 10_000.0
"""Largest hours_to_complete an offers file may hold."""

Share = Annotated[float, Field(ge=0, le=1)]
Hours = Annotated[float, Field(gt=0, le=HOURS_LIMIT)]
WholeHours = Annotated[int, Field(ge=1, le=10_000)]
Rows = Annotated[int, Field(ge=1, le=2**53)]


class Part(BaseModel):
    """Base of every part: no unknown keys, no text for numbers, no NaN, fixed once made."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class RowRange(Part):
    """Dataset sizes that are drawn uniformly."""

    rows_from: Rows = Field(description="Smallest number of rows.")
    rows_below: Rows = Field(description="Rows stay below this number.")

    @model_validator(mode="after")
    def _ascends(self) -> Self:
        if self.rows_below <= self.rows_from:
            raise ValueError(f"rows_below must be above rows_from ({self.rows_from})")
        return self


class RowHours(RowRange):
    """Hours to complete of a text task whose dataset has so many rows."""

    low: WholeHours = Field(description="Fewest hours, whole.")
    high: WholeHours = Field(description="Most hours, whole, included.")

    @model_validator(mode="after")
    def _hours_ascend(self) -> Self:
        if self.high < self.low:
            raise ValueError(f"high must be at least low ({self.low})")
        return self


# strict=False lets a YAML list in; what is inside stays strict
RowRanges = Annotated[tuple[RowRange, ...], Field(min_length=1, strict=False)]
HourTable = Annotated[tuple[RowHours, ...], Field(min_length=1, strict=False)]


def _ranges(*bounds: tuple[int, int]) -> tuple[RowRange, ...]:
    return tuple(RowRange(rows_from=first, rows_below=below) for first, below in bounds)


_HOURS_BY_ROWS = tuple(
    RowHours(rows_from=first, rows_below=below, low=low, high=high)
    for first, below, low, high in (
        (1_000, 10_000, 1, 3),
        (10_000, 25_000, 3, 6),
        (25_000, 50_000, 4, 8),
        (50_000, 100_000, 5, 9),
        (100_000, 500_000, 7, 10),
    )
)
_SYNTHETIC_ROWS = _ranges((20_000, 50_000), (50_000, 100_000), (100_000, 500_000))
_ORGANIC_ROWS = _ranges(*((part.rows_from, part.rows_below) for part in _HOURS_BY_ROWS))


class MarketHours(Part):
    """Hours by the validator's table: rows are drawn, their line gives whole hours, uniform."""

    kind: Literal["market"] = "market"
    by_rows: HourTable = Field(
        default=_HOURS_BY_ROWS, description="Hours (whole) by dataset rows; lines join up."
    )
    row_ranges: RowRanges = Field(
        default=_SYNTHETIC_ROWS,
        description="Ranges of rows of the datasets drawn, each equally likely.",
    )
    image_low: WholeHours = Field(default=1, description="Fewest hours of an image task, whole.")
    image_high: WholeHours = Field(
        default=2, description="Most hours of an image task, whole, included."
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.image_high < self.image_low:
            raise ValueError(f"image_high must be at least image_low ({self.image_low})")
        for line, after in pairwise(self.by_rows):
            if line.rows_below != after.rows_from:
                raise ValueError(f"by_rows must join up: a line must begin at {line.rows_below}")
        check_covered(self.by_rows, self.row_ranges)
        return self


def check_covered(table: HourTable, ranges: RowRanges) -> None:
    """ValueError when a range holds a number of rows that the hour table does not tell of."""
    first, below = table[0].rows_from, table[-1].rows_below
    for part in ranges:
        if part.rows_from < first or part.rows_below > below:
            raise ValueError(f"row_ranges must lie inside by_rows, {first} to {below} rows")


class ConstantHours(Part):
    """Every offer allows the same time."""

    kind: Literal["constant"] = "constant"
    hours: Hours = Field(default=6.0, description="Hours to complete.")


class UniformHours(Part):
    """Uniform between two bounds."""

    kind: Literal["uniform"] = "uniform"
    low: Hours = Field(default=1.0, description="Fewest hours.")
    high: Hours = Field(default=10.0, description="Most hours.")

    @model_validator(mode="after")
    def _ascends(self) -> Self:
        if self.high < self.low:
            raise ValueError(f"high must be at least low ({self.low})")
        return self


class ExponentialHours(Part):
    """Exponential, cut to one millisecond at least and 10,000 hours at most."""

    kind: Literal["exponential"] = "exponential"
    mean: Hours = Field(default=6.0, description="Mean hours.")


class LognormalHours(Part):
    """Lognormal, cut to one millisecond at least and 10,000 hours at most."""

    kind: Literal["lognormal"] = "lognormal"
    mean: Hours = Field(default=6.0, description="Mean hours (of the hours, not their logarithm).")
    sigma: float = Field(
        default=0.5, ge=0, le=3, description="Standard deviation of the logarithm, no unit."
    )


HoursConfig = Annotated[
    MarketHours | ConstantHours | UniformHours | ExponentialHours | LognormalHours,
    Field(discriminator="kind"),
]


class Mix(Part):
    """What is asked for: task types, models, sizes. The five type shares add up to 1."""

    instruct: Share = Field(default=0.125, description="Share of InstructTextTask.")
    chat: Share = Field(default=0.125, description="Share of ChatTask.")
    dpo: Share = Field(default=0.10, description="Share of DpoTask.")
    grpo: Share = Field(default=0.30, description="Share of GrpoTask.")
    image: Share = Field(default=0.35, description="Share of ImageTask.")
    big_model: Share = Field(
        default=0.05, description="Share of text tasks on a big model (over 12 billion parameters)."
    )
    text_ds_size: int = Field(
        default=100_000, ge=0, le=2**53, description="Rows that every text offer tells; a constant."
    )
    pairs_low: Rows = Field(default=10, description="Fewest image-text pairs of an image task.")
    pairs_high: Rows = Field(default=50, description="Most image-text pairs, included.")
    models: Annotated[tuple[Model, ...], Field(strict=False)] | None = Field(
        default=None,
        description="Base models and weights; null: the shipped catalogue, weights assumed.",
    )

    @property
    def shares(self) -> dict[str, float]:
        """Task type to its share."""
        return {
            "InstructTextTask": self.instruct,
            "ChatTask": self.chat,
            "DpoTask": self.dpo,
            "GrpoTask": self.grpo,
            "ImageTask": self.image,
        }

    @property
    def catalogue(self) -> tuple[Model, ...]:
        """The models in force."""
        return CATALOGUE if self.models is None else self.models

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if not isclose(total := sum(self.shares.values()), 1.0, abs_tol=1e-9):
            raise ValueError(f"the shares of the five task types must add up to 1, not {total:g}")
        if self.pairs_high < self.pairs_low:
            raise ValueError(f"pairs_high must be at least pairs_low ({self.pairs_low})")
        for wanted, share in self._classes().items():
            if share > 0 and not any(wanted == class_of(model) for model in self.catalogue):
                raise ValueError(f"models must hold at least one {wanted} model")
        return self

    def _classes(self) -> dict[str, float]:
        text = 1.0 - self.image if self.image < 1 else 0.0
        return {
            "ordinary": text * (1.0 - self.big_model),
            "big": text * self.big_model,
            "image": self.image,
        }


def class_of(model: Model) -> str:
    """The class a model is drawn in: ordinary, big or image."""
    if model.kind == "image":
        return "image"
    return "big" if model.is_big else "ordinary"


class Synthetic(Part):
    """The closed loop: the validator keeps the network busy with tasks of its own."""

    every_minutes: float = Field(
        default=5.0, ge=0.1, le=1440, description="Minutes between two looks at the network."
    )
    below_active: int = Field(
        default=25, ge=0, le=100_000, description="A task is made when fewer tasks are active."
    )


class Organic(Part):
    """Paid tasks: a Poisson process whose rate follows the hour of the day."""

    per_day: float = Field(default=12.0, ge=0, le=1e5, description="Mean tasks a day; assumed.")
    amplitude: Share = Field(
        default=0.5, description="Swing of the daily rate: mean * (1 +- amplitude); assumed."
    )
    peak_hour: float = Field(
        default=15.0, ge=0, lt=24, description="Hour of the day (UTC) of the most tasks; assumed."
    )
    retry_minutes: float = Field(
        default=15.0, ge=2, le=1440, description="Minutes until a task nobody took is retried."
    )
    max_retries: int = Field(
        default=6, ge=0, le=100, description="Retries before such a task is dropped."
    )
    row_ranges: RowRanges = Field(
        default=_ORGANIC_ROWS,
        description="Ranges of rows of customers' datasets, each equally likely; assumed.",
    )


class NetworkArrivals(Part):
    """The whole network's tasks by the validator's rules, and those that reach this miner."""

    kind: Literal["network"] = "network"
    mix: Mix = Field(default=Mix(), description="Task types, models and sizes.")
    hours: MarketHours = Field(default=MarketHours(), description="Hours to complete.")
    synthetic: Synthetic = Field(default=Synthetic(), description="The closed loop.")
    organic: Organic = Field(default=Organic(), description="Paid tasks.")
    max_active: int = Field(
        default=60, ge=1, le=100_000, description="Most active tasks at once, organic included."
    )
    too_few_takers: float = Field(
        default=0.0, ge=0, lt=1, description="Probability that an attempt finds too few takers."
    )
    offered_share: float = Field(
        default=0.5, gt=0, le=1, description="Share of attempts offered to this miner; assumed."
    )
    warm_up_hours: float = Field(
        default=24.0, ge=0, le=8760, description="Hours the network runs before the first offer."
    )

    @model_validator(mode="after")
    def _organic_rows_covered(self) -> Self:
        check_covered(self.hours.by_rows, self.organic.row_ranges)
        return self


class PoissonArrivals(Part):
    """A plain open stream: offers come at a constant rate, whatever the network does."""

    kind: Literal["poisson"] = "poisson"
    offers_per_hour: float = Field(
        default=2.5, gt=0, le=1e6, description="Mean offers an hour to this miner."
    )
    mix: Mix = Field(default=Mix(), description="Task types, models and sizes.")
    hours: HoursConfig = Field(default=MarketHours(), description="Hours to complete.")


class FileArrivals(Part):
    """Offers read from a file."""

    kind: Literal["file"] = "file"
    path: str | None = Field(
        default=None, description="Offers file; null: the one named with --offers."
    )


ArrivalConfig = Annotated[
    NetworkArrivals | PoissonArrivals | FileArrivals, Field(discriminator="kind")
]
