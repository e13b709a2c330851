"""What the doctor says, and what it looks at."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from live.config import Config, policy_of
from live.gpus import Gpus
from shared.decisions import Policy

Level = Literal["ok", "hint", "warning", "fault"]
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Line:
    """One finding. remedy: what to do about it; empty where nothing has to be done.

    A hint is good to know, a warning is not for production, a fault must be mended.
    """

    check: str
    level: Level
    found: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Scene:
    """What is looked at.

    folder: of the configuration file. daemon: the status of the daemon that runs on the data
    folder, or None. gpus: the box's, or why there are none.
    """

    config: Config
    folder: Path
    daemon: Json | None
    gpus: Gpus | str

    def policy(self) -> Policy:
        """The policy that is configured. Raises InputError."""
        return policy_of(self.config, self.folder)

    @property
    def cuda(self) -> bool:
        """Whether jobs would run on GPUs."""
        return not isinstance(self.gpus, str) and self.gpus.device == "cuda"

    @property
    def on_gpus(self) -> bool:
        """Whether jobs are meant to run on GPUs, which may fail to answer just now."""
        return self.cuda or isinstance(self.gpus, str)


Check = Callable[[Scene], Iterator[Line]]
"""Raises nothing but FourSlotError and OSError, which become a fault of the check's name."""


def ok(check: str, found: str) -> Line:
    """All is well."""
    return Line(check, "ok", found)


def hint(check: str, found: str, remedy: str = "") -> Line:
    """Good to know."""
    return Line(check, "hint", found, remedy)


def warning(check: str, found: str, remedy: str) -> Line:
    """Not for production."""
    return Line(check, "warning", found, remedy)


def fault(check: str, found: str, remedy: str) -> Line:
    """Must be mended."""
    return Line(check, "fault", found, remedy)
