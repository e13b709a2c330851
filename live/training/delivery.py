"""The two ways to the hub: a base model that comes, and an adapter that goes."""

from pathlib import Path

from live.training.facts import Facts
from live.training.pacing import Told
from live.worker_files import WorkerFiles
from shared.errors import InputError


def fetched_model(files: WorkerFiles) -> Path:
    """The folder of the base model, fetched if it is not there. Raises InputError."""
    raise InputError(f"model: found {files.spec.model!r}, allowed is a folder of this machine")


def delivered(files: WorkerFiles, facts: Facts, told: Told, folder: Path) -> str:
    """Where the adapter can be had: its folder, or the repository it was uploaded to."""
    return str(folder)
