"""A scenario: one YAML file that says what world a comparison is made in.

Validated whole before anything runs; an error names the file, the key, what was found and what is
allowed. ``json_schema`` is what editors complete and check with.
"""

from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)

from shared.box import UNDECLARED, BoxDeclaration
from shared.decisions import Policy
from shared.errors import InputError
from shared.layout import MOST_SLOTS
from shared.presets import PRESETS, Preset, preset_named
from shared.units import MS_PER_MINUTE
from shared.wire import box_of
from shared.wire_faults import one_line
from sim.arrivals.config import ArrivalConfig, FileArrivals, NetworkArrivals
from sim.market.config import MarketConfig
from sim.service import FractionService, GivenService, ServiceConfig

LONGEST_FILE = 1 << 20
"""Bytes of a scenario or a box declaration; far over any real one."""

Text = Annotated[str, Field(min_length=1, max_length=80)]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, allow_inf_nan=False)


class PresetVariant(_Part):
    """A preset with some of its numbers changed."""

    base: str = Field(description=f"The preset it starts from: {', '.join(PRESETS)}.")
    name: Text | None = Field(default=None, description="Its name here; default: base and changes.")
    cap: Annotated[int, Field(ge=1, le=MOST_SLOTS)] | None = Field(
        default=None, description="Slots, 1 to 24."
    )
    threshold: Annotated[float, Field(ge=0, le=1)] | None = Field(
        default=None, description="Offers over this priority are taken."
    )
    time_limit_hours: Annotated[float, Field(gt=0, le=10_000)] | None = Field(
        default=None, description="Longest job taken, in hours."
    )

    def preset(self) -> Preset:
        """The changed preset. Raises InputError for an unknown base."""
        changes = (
            ("cap", self.cap),
            ("threshold", self.threshold),
            ("time_limit_hours", self.time_limit_hours),
        )
        suffix = "".join(f"_{key}_{value:g}" for key, value in changes if value is not None)
        return preset_named(self.base).varied(
            name=self.name or self.base + suffix,
            cap=self.cap,
            threshold=self.threshold,
            time_limit_hours=self.time_limit_hours,
        )


def _form(entry: object) -> str:
    return "name" if isinstance(entry, str) else "changed"


PresetEntry = Annotated[
    Annotated[str, Tag("name")] | Annotated[PresetVariant, Tag("changed")], Discriminator(_form)
]


class StartConfig(_Part):
    """What happens between an acceptance and the start request."""

    lag_minutes: Annotated[float, Field(ge=0, le=10_000)] = Field(
        default=5.0,
        description="Mean minutes until the start request, exponential; 0: at once. Assumed.",
    )
    never_share: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.0, description="Share of accepted offers whose start never comes; assumed."
    )
    reservation_ttl_minutes: Annotated[float, Field(gt=0, le=10_000)] = Field(
        default=30.0,
        description="Minutes after which a reservation without a start lapses; assumed.",
    )


class GpuFailures(_Part):
    """Random failures of single GPUs; each takes its slots out of service until repaired."""

    mean_hours_between: Annotated[float, Field(gt=0, le=1e6)] = Field(
        description="Mean hours between two failures of one GPU, exponential; assumed."
    )
    mean_repair_hours: Annotated[float, Field(gt=0, le=10_000)] = Field(
        description="Mean hours until it is back, exponential; assumed."
    )


class Period(_Part):
    """A stretch of time, from the start of the run."""

    from_hours: Annotated[float, Field(ge=0)] = Field(description="Begins, hours into the run.")
    hours: Annotated[float, Field(gt=0)] = Field(description="Lasts, hours.")


class GpuPeriod(Period):
    """A stretch of time in which one GPU is out of service."""

    gpu: Annotated[int, Field(ge=0, le=7)] = Field(description="The GPU's number, 0 to 7.")


Periods = Annotated[tuple[Period, ...], Field(strict=False)]


class Scenario(_Part):
    """Everything a comparison depends on. Lists stay short: a scenario is read by people."""

    name: Text = Field(description="What the report calls it.")
    description: str = Field(default="", description="One paragraph for the report.")
    presets: Annotated[tuple[PresetEntry, ...], Field(strict=False, min_length=1)] = Field(
        default=("accuracy_4", "throughput_24"),
        description="The strategies compared; differences are against the first.",
    )
    days: Annotated[float, Field(gt=0, le=3660)] = Field(
        default=30.0, description="Length of a run in days, the warm-up included."
    )
    warm_up_days: Annotated[float, Field(ge=0)] = Field(
        default=1.0, description="Days at the beginning that are run but not counted."
    )
    start_ms: Annotated[int, Field(ge=0, le=253_402_300_799_999)] = Field(
        default=1_748_736_000_000,
        description="When generated offers begin, UTC epoch milliseconds (default 2025-06-01).",
    )
    replications: Annotated[int, Field(ge=1, le=100_000)] = Field(
        default=20, description="Independent runs; with a precision, at most so many."
    )
    precision: Annotated[float, Field(gt=0, lt=1)] | None = Field(
        default=None,
        description="Stop replicating once the interval of the revenue difference between the "
        "first two presets is so narrow: half its width as a share of the mean; null: run all.",
    )
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(default=1, description="The random seed.")
    arrivals: ArrivalConfig = Field(
        default_factory=NetworkArrivals, description="Where offers come from."
    )
    service: ServiceConfig | None = Field(
        default=None,
        description="How long a job really keeps its slot; null: as the offers file gives it, "
        "and for generated offers a fraction of the hours to complete.",
    )
    market: MarketConfig = Field(
        default_factory=MarketConfig,
        description="How decisions become ranks and income: rules, competitors, quality model.",
    )
    start: StartConfig = Field(default_factory=StartConfig, description="From accepted to started.")
    gpu_failures: GpuFailures | None = Field(default=None, description="Random GPU failures.")
    gpus_out: Annotated[tuple[GpuPeriod, ...], Field(strict=False)] = Field(
        default=(), description="GPUs out of service at stated times."
    )
    drains: Periods = Field(default=(), description="When the operator stops acceptance.")
    storage_full: Periods = Field(default=(), description="When there is no room for a job.")
    box: str | None = Field(
        default=None,
        description="File with the box declaration, relative to the scenario; null: no limits.",
    )

    @field_validator("presets")
    @classmethod
    def _known_and_distinct(cls, presets: tuple[PresetEntry, ...]) -> tuple[PresetEntry, ...]:
        names = [_preset_of(entry).name for entry in presets]
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise ValueError(f"two presets are called {sorted(twice)[0]}")
        return presets

    @model_validator(mode="after")
    def _counts_something(self) -> "Scenario":
        if self.warm_up_days >= self.days:
            raise ValueError(f"warm_up_days must be under days ({self.days:g})")
        return self

    def policies(self, box: BoxDeclaration = UNDECLARED) -> dict[str, Policy]:
        """The policy of each preset, by its name, in the scenario's order."""
        ttl_ms = max(2, round(self.start.reservation_ttl_minutes * MS_PER_MINUTE))
        presets = [_preset_of(entry) for entry in self.presets]
        return {preset.name: Policy(preset, box, ttl_ms) for preset in presets}

    def changed(self, **changes: float | None) -> "Scenario":
        """This scenario with some values of the command line. Raises InputError."""
        told = {key: value for key, value in changes.items() if value is not None}
        try:
            return Scenario.model_validate({**dict(self), **told})
        except ValidationError as wrong:
            raise InputError(one_line(wrong, told)) from None

    def calibrated_by(self, path: str) -> "Scenario":
        """This scenario with another calibration file; an absolute path stands as it is."""
        market = self.market.model_copy(update={"calibration": path})
        return self.model_copy(update={"market": market})

    def service_of(self, *, recorded: bool) -> ServiceConfig:
        """The service model in force, for offers of a file or generated ones."""
        if self.service is not None:
            return self.service
        return GivenService() if recorded else FractionService()

    @property
    def reads_file(self) -> bool:
        """Whether the offers come from a file."""
        return isinstance(self.arrivals, FileArrivals)


def _preset_of(entry: PresetEntry) -> Preset:
    return preset_named(entry) if isinstance(entry, str) else entry.preset()


def read_scenario(path: Path) -> tuple[Scenario, BoxDeclaration]:
    """A scenario file and the box declaration that it names.

    Raises InputError, in one line, when either cannot be read or is not valid.
    """
    scenario = parse_scenario(read_yaml(path), str(path))
    if scenario.box is None:
        return scenario, UNDECLARED
    return scenario, read_box(path.parent / scenario.box)


def read_box(path: Path) -> BoxDeclaration:
    """A box declaration file. Raises InputError when it cannot be read or is not valid."""
    content = read_yaml(path)
    try:
        return box_of(content)
    except InputError as wrong:
        raise InputError(f"{path}: {wrong}") from None


def parse_scenario(content: object, where: str) -> Scenario:
    """A scenario from parsed YAML. Raises InputError naming ``where`` and the key."""
    if not isinstance(content, dict):
        raise InputError(f"{where}: found no keys, allowed is a scenario (see its JSON Schema)")
    try:
        return Scenario.model_validate(content)
    except ValidationError as wrong:
        raise InputError(f"{where}: {one_line(wrong, content)}") from None


def read_yaml(path: Path) -> Any:
    """What a YAML file holds. Raises InputError when it cannot be read or parsed."""
    try:
        with path.open("rb") as file:
            content = file.read(LONGEST_FILE + 1)
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{path}: found bytes that are no UTF-8, allowed is YAML text") from None
    except OSError as why:
        raise InputError(f"{path}: cannot be read: {(why.strerror or str(why)).lower()}") from None
    if len(content) > LONGEST_FILE:
        raise InputError(f"{path}: found over {LONGEST_FILE} bytes, allowed is {LONGEST_FILE}")
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506  (a SafeLoader)
    except yaml.MarkedYAMLError as wrong:
        line = wrong.problem_mark.line + 1 if wrong.problem_mark else 1
        raise InputError(f"{path}:{line}: no valid YAML: {wrong.problem}") from None
    except RecursionError:
        raise InputError(f"{path}: no valid YAML: nested too deep") from None
    except yaml.YAMLError as wrong:
        raise InputError(f"{path}: no valid YAML: {' '.join(str(wrong).split())}") from None


class _Loader(yaml.SafeLoader):
    """Safe YAML in which a key given twice is an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Build a mapping as PyYAML does, after looking for a key that stands twice."""
        seen = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.MarkedYAMLError(
                    problem=f"key {key.value} stands twice", problem_mark=key.start_mark
                )
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a scenario file."""
    schema = Scenario.model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
