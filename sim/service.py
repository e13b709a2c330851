"""How long a slot is really busy once its job is accepted: the `service` part of a scenario.

The market's deadline says when a job must end, not when it does. Each model maps one uniform of
the offer to a time through an inverse CDF, so two presets meet the same time on the same offer.
"""

from dataclasses import replace
from typing import Annotated, Literal, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from shared.units import MS_PER_HOUR
from sim.stream import Floats, Ints, OfferStream
from sim.streams import exponential, lognormal, uniforms

PURPOSE = "service"
"""The named stream that training times are drawn from."""

MOST_MS = 10**15
"""Longest training time (about 30,000 years), so that a far tail cannot leave int64."""

Hours = Annotated[float, Field(gt=0, le=10_000)]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class DeadlineService(_Part):
    """Every job takes the whole of its hours_to_complete."""

    kind: Literal["deadline"] = "deadline"


class FractionService(_Part):
    """A job takes a uniform fraction of its hours_to_complete.

    The default assumes what the daemon aims at: train up to a margin before the deadline.
    """

    kind: Literal["fraction"] = "fraction"
    low: float = Field(default=0.90, ge=0, le=10, description="Least fraction, no unit; assumed.")
    high: float = Field(
        default=1.00, ge=0, le=10, description="Largest fraction, no unit; over 1 is late; assumed."
    )

    @model_validator(mode="after")
    def _ascends(self) -> Self:
        if self.high < self.low:
            raise ValueError(f"high must be at least low ({self.low})")
        return self


class LognormalService(_Part):
    """Lognormal times that do not depend on the deadline."""

    kind: Literal["lognormal"] = "lognormal"
    mean: Hours = Field(default=5.0, description="Mean hours (of the hours, not their logarithm).")
    sigma: float = Field(
        default=0.5, ge=0, le=3, description="Standard deviation of the logarithm, no unit."
    )


class ExponentialService(_Part):
    """Exponential times that do not depend on the deadline."""

    kind: Literal["exponential"] = "exponential"
    mean: Hours = Field(default=5.0, description="Mean hours.")


class GivenService(_Part):
    """The offers file's train_hours; where it has none, the whole hours_to_complete."""

    kind: Literal["given"] = "given"


ServiceConfig = Annotated[
    DeadlineService | FractionService | LognormalService | ExponentialService | GivenService,
    Field(discriminator="kind"),
]


def train_ms(config: ServiceConfig, hours: Floats, u: Floats, given_ms: Ints | None = None) -> Ints:
    """Training times of n offers, int64 milliseconds (n,), halves to even, 0 or more.

    hours: float64 (n,), hours to complete. u: float64 (n,) in [0, 1), one uniform an offer.
    given_ms: int64 (n,), the file's own times; without them ``given`` takes the whole hours.
    """
    if isinstance(config, GivenService) and given_ms is not None:
        return given_ms
    ms = np.rint(_hours(config, hours, u) * MS_PER_HOUR)
    return np.clip(ms, 0, MOST_MS).astype(np.int64)


def _hours(config: ServiceConfig, hours: Floats, u: Floats) -> Floats:
    match config:
        case DeadlineService() | GivenService():
            return hours
        case FractionService():
            return hours * (config.low + u * (config.high - config.low))
        case LognormalService():
            return lognormal(u, config.mean, config.sigma)
        case ExponentialService():
            return exponential(u, config.mean)


def with_service(
    stream: OfferStream, config: ServiceConfig, *, seed: int, replication: int = 0
) -> OfferStream:
    """The same offers with the training times of this model; draw i belongs to offer i."""
    u = uniforms(seed, replication, PURPOSE, len(stream))
    return replace(stream, train_ms=train_ms(config, stream.hours, u, stream.train_ms))
