"""The doctor: everything that must hold before production, one line each, with the remedy.

It changes nothing but a nameless file and an empty cgroup that are gone when it ends, and works
beside a running daemon. It imports no torch.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from live import (
    doctor_box,
    doctor_files,
    doctor_gpus,
    doctor_network,
    doctor_software,
    doctor_system,
    doctor_training,
)
from live.admin import SOCKET, ask
from live.config import Config
from live.discovery import discover
from live.doctor_lines import Check, Json, Line, Scene, fault
from live.gpus import Gpus
from live.in_time import in_time
from live.kept_faults import KeptFaults
from shared.errors import FourSlotError

DRIVER_S = 20.0
"""Seconds that the driver may take; a GPU that fell off the bus can take for ever."""

CHECKS: dict[str, Check] = {
    **doctor_software.CHECKS,
    **doctor_files.CHECKS,
    **doctor_box.CHECKS,
    **doctor_gpus.CHECKS,
    **doctor_training.CHECKS,
    **doctor_network.CHECKS,
    **doctor_system.CHECKS,
}


def scene_of(config: Config, folder: Path) -> Scene:
    """What there is to look at. folder: of the configuration file."""
    return Scene(config, folder, _daemon(config), _gpus(config))


def examine(scene: Scene) -> list[Line]:
    """Look at everything, in order."""
    return [line for name, check in CHECKS.items() for line in _looked(name, check, scene)]


def document(lines: Sequence[Line]) -> Json:
    """The document of ``doctor --json``."""
    rows = [
        {"check": line.check, "level": line.level, "found": line.found, "remedy": line.remedy}
        for line in lines
    ]
    return {"ok": not faults_in(lines), "faults": faults_in(lines), "checks": rows}


def faults_in(lines: Sequence[Line]) -> int:
    """How many lines are faults."""
    return sum(line.level == "fault" for line in lines)


def _looked(name: str, check: Check, scene: Scene) -> Iterator[Line]:
    """One check's lines; what it could not look at is a fault of its own."""
    try:
        yield from check(scene)
    except (FourSlotError, OSError) as why:
        said = " ".join(str(why).split())
        yield fault(name, said, "mend what the line says, then ask the doctor again")


def _daemon(config: Config) -> Json | None:
    """The status of the daemon on the data folder, if one answers."""
    if not (config.data_folder / SOCKET).exists():
        return None
    try:
        return ask(config.data_folder, {"ask": "status"})
    except FourSlotError:
        return None


def _gpus(config: Config) -> Gpus | str:
    """The box's GPUs, or why they cannot be used."""
    try:
        kept = KeptFaults(config.data_folder, writes=False)
        return in_time(DRIVER_S, lambda: discover(config.device, kept=kept))
    except TimeoutError:
        return f"the driver has not answered in {DRIVER_S:g} s"
    except FourSlotError as why:
        return str(why)
