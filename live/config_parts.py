"""The tables of the configuration file, each with its keys, bounds and defaults."""

from typing import Annotated, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from live.intake.signatures import need_loopback
from shared.layout import MOST_SLOTS
from shared.presets import ACCURACY_4, PRESETS

DEFAULT_PORT = 7999

Minutes = Annotated[float, Field(gt=0, le=10_000)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
Place = Annotated[str, Field(min_length=1, max_length=4096, pattern=r"^[^\x00]*$")]


def no_number(*, truth: bool) -> str:
    """What is said of true or false where a number is wanted."""
    return f"found {str(truth).lower()}, which is no number and no text"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, value: object, about: ValidationInfo) -> object:
        """Pydantic takes true for 1."""
        kind = cls.model_fields[str(about.field_name)].annotation
        if isinstance(value, bool) and kind is not bool:
            raise ValueError(no_number(truth=value))
        return value


class PolicyPart(_Part):
    """The policy: a preset, and what differs from it."""

    preset: str = Field(default=ACCURACY_4.name, description=f"One of {', '.join(PRESETS)}.")
    cap: Annotated[int, Field(ge=1, le=MOST_SLOTS)] | None = Field(
        default=None, description="Slots, 1 to 24, when not the preset's."
    )
    threshold: Annotated[float, Field(ge=0, le=1)] | None = Field(
        default=None, description="Offers over this priority are taken, when not the preset's."
    )
    time_limit_hours: Annotated[float, Field(gt=0, le=10_000)] | None = Field(
        default=None, description="Longest job taken, when not the preset's."
    )
    box: Place | None = Field(
        default=None,
        description="File of the box declaration (YAML), relative to this file; none: no limits.",
    )
    reservation_ttl_minutes: Minutes = Field(
        default=30.0, description="A reservation without a start lapses after this."
    )
    repeat_window_s: Annotated[float, Field(ge=0, le=86_400)] = Field(
        default=60.0, description="For so long an offer asked again gets its first answer."
    )


class HttpPart(_Part):
    """Where the market's requests come in."""

    enabled: bool = Field(default=True, description="False: the spool folder alone.")
    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: Annotated[int, Field(ge=0, le=65_535)] = Field(
        default=DEFAULT_PORT, description="0: any free one, told in the log."
    )
    auth: Literal["none", "fiber"] = Field(
        default="none", description="none: no signatures, allowed on a loopback address alone."
    )
    protocol: Literal["early", "late"] = Field(
        default="late",
        description="How a submission is answered. early: a JSON string; late: an object.",
    )
    hotkey: str = Field(default="", description="Our own hotkey (SS58), needed for auth fiber.")
    validators: dict[str, float] = Field(
        default_factory=dict, description="Validators that may ask: hotkey to stake."
    )
    min_stake: Annotated[float, Field(ge=0)] = Field(
        default=0.0, description="Validators with less may not ask."
    )
    metrics_port: Annotated[int, Field(ge=0, le=65_535)] | None = Field(
        default=9799, description="Prometheus metrics on 127.0.0.1; 0: any free one."
    )

    @model_validator(mode="after")
    def _callers_are_known(self) -> "HttpPart":
        if self.auth == "none" and self.enabled:
            need_loopback(self.host, "auth none")
        if self.auth == "fiber" and not self.hotkey:
            raise ValueError("hotkey: found nothing, allowed with auth fiber is our own hotkey")
        if self.auth == "fiber" and not self.validators:
            raise ValueError("validators: found none, allowed with auth fiber is one or more")
        return self


class SpoolPart(_Part):
    """Offers as files."""

    enabled: bool = True
    folder: Place | None = Field(default=None, description="Default: spool in the data folder.")
    poll_s: Seconds = Field(default=0.5, description="How often the folder is looked at.")


class JobsPart(_Part):
    """How jobs are run."""

    worker: Literal["train", "stub"] = Field(
        default="train", description="stub: nothing is trained; for trials of the daemon alone."
    )
    processes: Annotated[int, Field(ge=1, le=64)] | None = Field(
        default=None, description="Ranks of a job; none: one for each GPU of its slot."
    )
    margin_minutes: Minutes = Field(
        default=5.0, description="From the warning to the deadline: time to save and deliver."
    )
    max_restarts: Annotated[int, Field(ge=0, le=100)] = 2
    heartbeat_timeout_s: Seconds = 25.0
    start_timeout_s: Seconds = 120.0
    stop_grace_s: Seconds = 20.0
    release_timeout_s: Seconds = 10.0
    stable_s: Seconds = 30.0
    checkpoint_every: Annotated[int, Field(ge=1)] = 50
    log_bytes: Annotated[int, Field(ge=4096)] = 20_000_000
    on_stop: Literal["hand_over", "finish", "interrupt"] = Field(
        default="hand_over",
        description="Running jobs when the daemon is told to stop. hand_over: they go on alone and "
        "are found again; finish: wait for their ends; interrupt: they save and go on later.",
    )
