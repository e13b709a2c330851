"""The daemon's configuration: a TOML file, with environment variables over it.

Every key has a default, so that no file is needed. A variable is named by its key's path:
``FOUR_SLOT_HTTP__PORT=8000`` is ``port`` of the table ``[http]``.
"""

import os
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import (
    Field,
    ValidationError,
    field_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from live.config_parts import HttpPart, JobsPart, Place, PolicyPart, SpoolPart, no_number
from live.job_settings import JobSettings
from live.training.settings import TrainingSettings
from live.worker import IMAGE_EXTRA, IMAGE_LIBRARY, trains
from shared.box import GRPO_TASK, IMAGE_TASK, UNDECLARED, BoxDeclaration
from shared.decisions import Policy
from shared.errors import InputError
from shared.presets import DEFAULT_TABLES, preset_named
from shared.units import MS_PER_MINUTE, MS_PER_SECOND
from shared.wire import box_of
from shared.wire_faults import one_line

PREFIX = "FOUR_SLOT_"
OWN_VARIABLES = frozenset({"FOUR_SLOT_FAULT", "FOUR_SLOT_JOB"})
"""Variables of the same prefix that are no configuration."""
LONGEST_FILE = 1 << 20


class Config(BaseSettings):
    """Everything that can be set. Lists and tables of the environment are JSON."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        env_parse_none_str="null",
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        nested_model_default_partial_update=True,
    )

    data: Place = Field(default="./live-data", description="Ledger, job folders, spool, socket.")
    device: Literal["auto", "cuda", "cpu"] = Field(
        default="auto", description="auto: the GPUs that NVML shows, else slots on the CPU."
    )
    log: Literal["auto", "console", "json"] = Field(
        default="auto", description="auto: for people at a terminal, JSON lines elsewhere."
    )
    policy: PolicyPart = PolicyPart()
    http: HttpPart = HttpPart()
    spool: SpoolPart = SpoolPart()
    jobs: JobsPart = JobsPart()
    training: TrainingSettings = TrainingSettings()

    @field_validator("training", mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, value: object) -> object:
        """As in the other parts, which this one does not share a base with."""
        for key, inside in value.items() if isinstance(value, dict) else ():
            field = TrainingSettings.model_fields.get(key)
            if isinstance(inside, bool) and field is not None and field.annotation is not bool:
                raise ValueError(f"{key}: {no_number(truth=inside)}")
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the signature is pydantic's
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment over what the file says."""
        return env_settings, init_settings

    @property
    def data_folder(self) -> Path:
        """The data folder, absolute."""
        return Path(self.data).absolute()

    @property
    def spool_folder(self) -> Path:
        """The spool folder, absolute."""
        told = self.spool.folder
        return self.data_folder / "spool" if told is None else Path(told).absolute()

    @property
    def training_settings(self) -> TrainingSettings:
        """The training part, its folders absolute."""
        part = self.training
        models = self.data_folder / "models" if part.models is None else Path(part.models)
        token = None if part.token_file is None else str(Path(part.token_file).absolute())
        return part.model_copy(update={"models": str(models.absolute()), "token_file": token})

    def job_settings(self, *, systemd: bool = True) -> JobSettings:
        """What launcher and supervisor go by. Raises InputError."""
        jobs = self.jobs
        stub = jobs.worker == "stub"
        return JobSettings(
            worker_module="live.worker_stub" if stub else "live.worker",
            torchrun=not stub,
            processes=jobs.processes,
            max_restarts=jobs.max_restarts,
            heartbeat_timeout_s=jobs.heartbeat_timeout_s,
            start_timeout_s=jobs.start_timeout_s,
            stop_grace_s=jobs.stop_grace_s,
            checkpoint_every=jobs.checkpoint_every,
            log_bytes=jobs.log_bytes,
            margin_ms=round(jobs.margin_minutes * MS_PER_MINUTE),
            release_timeout_s=jobs.release_timeout_s,
            stable_s=jobs.stable_s,
            systemd=systemd,
            training=self.training_settings,
        )


def read_config(path: Path | None) -> Config:
    """The configuration of a file, or of none, and of the environment.

    Raises InputError of one line naming the file or the variable, and the key.
    """
    _check_variables()
    content = {} if path is None else _read_toml(path)
    try:
        return Config(**content)
    except ValidationError as wrong:
        raise InputError(f"{_where(wrong, path)}: {one_line(wrong, _merged(content))}") from None
    except InputError as wrong:
        raise InputError(f"{path or 'configuration'}: {wrong}") from None
    except Exception as why:  # pydantic-settings wraps what a variable's JSON raised
        raise InputError(f"environment: {str(why).splitlines()[0]}") from None


def policy_of(config: Config, folder: Path) -> Policy:
    """The policy that a configuration in ``folder`` asks for. Raises InputError."""
    part = config.policy
    preset = preset_named(part.preset).varied(
        name=None, cap=part.cap, threshold=part.threshold, time_limit_hours=part.time_limit_hours
    )
    path = None if part.box is None else folder / part.box
    box = _less(UNDECLARED if path is None else read_box(path), _untrained(config), path)
    return Policy(
        preset,
        box,
        reservation_ttl_ms=round(part.reservation_ttl_minutes * MS_PER_MINUTE),
        repeat_window_ms=round(part.repeat_window_s * MS_PER_SECOND),
    )


def _untrained(config: Config) -> dict[str, str]:
    """Task types that this configuration trains nothing for, and what would change that."""
    if config.jobs.worker == "stub":
        return {}
    lacks = {}
    if not trains(IMAGE_TASK):
        lacks[IMAGE_TASK] = f"{IMAGE_LIBRARY} installed: {IMAGE_EXTRA}"
    if not config.training.rewards and config.device != "cpu":  # there a stand-in scores
        lacks[GRPO_TASK] = "training.rewards = true"
    return lacks


def _less(box: BoxDeclaration, lacks: dict[str, str], declared_in: Path | None) -> BoxDeclaration:
    """What is declared, less the task types that would be accepted and then fail.

    Raises InputError where one is declared by name: whoever simulates by that file counts on it.
    """
    if box.task_types is None:
        types = frozenset(DEFAULT_TABLES.task_weight.keys() - lacks.keys())
        return replace(box, task_types=types) if lacks else box
    for task_type in sorted(box.task_types & lacks.keys()):
        raise InputError(
            f"{declared_in}: task_types: found {task_type}, allowed only with {lacks[task_type]}"
        )
    return box


def read_box(path: Path) -> BoxDeclaration:
    """A box declaration file. Raises InputError when it cannot be read or is not valid."""
    text = _read(path)
    try:
        return box_of(yaml.safe_load(text))
    except (yaml.YAMLError, RecursionError) as wrong:
        raise InputError(f"{path}: no valid YAML: {' '.join(str(wrong).split())[:200]}") from None
    except InputError as wrong:
        raise InputError(f"{path}: {wrong}") from None


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        content = tomllib.loads(_read(path))
    except (tomllib.TOMLDecodeError, RecursionError) as wrong:
        raise InputError(f"{path}: no valid TOML: {wrong}") from None
    if unknown := next((key for key in content if key not in Config.model_fields), None):
        raise InputError(f"{path}: {unknown[:60]!r}: unknown key")  # pydantic has keys of its own
    return content


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(LONGEST_FILE + 1)
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{path}: found bytes that are no UTF-8, allowed is text") from None
    except OSError as why:
        raise InputError(f"{path}: cannot be read: {(why.strerror or str(why)).lower()}") from None
    if len(content) > LONGEST_FILE:
        raise InputError(f"{path}: found over {LONGEST_FILE} bytes, allowed is {LONGEST_FILE}")
    return text


def _check_variables() -> None:
    """A variable that is misspelt must not be passed over in silence."""
    for name in sorted(os.environ):
        if not name.startswith(PREFIX) or name in OWN_VARIABLES:
            continue
        key = name.removeprefix(PREFIX).lower().split("__")[0]
        if key not in Config.model_fields:
            known = ", ".join(PREFIX + each.upper() for each in Config.model_fields)
            raise InputError(f"environment: {name}: unknown variable, allowed are {known}")


def _merged(content: dict[str, Any]) -> dict[str, Any]:
    """The file's content with the environment's keys, so that a fault's path can be told."""
    merged: dict[str, Any] = {key: dict(value) if isinstance(value, dict) else value
                              for key, value in content.items()}  # fmt: skip
    for name, value in os.environ.items():
        if name.startswith(PREFIX) and name not in OWN_VARIABLES:
            key, *rest = name.removeprefix(PREFIX).lower().split("__")
            inside = merged.setdefault(key, {}) if rest else merged
            if isinstance(inside, dict):
                inside[rest[0] if rest else key] = value
    return merged


def _where(wrong: ValidationError, path: Path | None) -> str:
    loc = [str(part) for part in wrong.errors(include_url=False)[0]["loc"]]
    variable = PREFIX + "__".join(loc).upper()
    if variable in os.environ:
        return f"environment: {variable}"
    return str(path) if path is not None else "configuration"
