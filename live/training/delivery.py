"""The two ways to the hub: a base model that comes, and an adapter that goes."""

from pathlib import Path

from live.job_files import write_atomic
from live.training.card import card
from live.training.fetch import FetchFailed
from live.training.hub import (
    HubFailed,
    HubSettings,
    dataset_folder,
    model_folder,
    repository_of,
    upload,
)
from live.training.record import TrainingRecord
from live.worker_files import WorkerFiles
from shared.errors import InputError

CARD = "README.md"


def _settings(files: WorkerFiles) -> HubSettings:
    told = files.spec.training
    return HubSettings(
        endpoint=told.endpoint,
        token_file=told.token_file,
        namespace=told.namespace,
        private=told.private,
        most_bytes=told.most_model_bytes,
    )


def fetched_model(files: WorkerFiles, index: str = "config.json") -> Path:
    """The folder of the base model, fetched if it is not there.

    index: the file at its top that its kind is told by. Raises InputError.
    """
    told, model = files.spec.training, files.spec.model
    if told.models is None:
        raise InputError("training.models: found none, needed to keep base models in")
    store = Path(told.models)
    if not told.fetch_models:
        there = store / model.replace("/", "--")
        if model and (there / index).is_file():
            return there
        raise InputError(f"model: found {model[:120]!r}, allowed is one that lies in {store}")
    try:
        return model_folder(
            model, store, _settings(files), index=index, left_s=files.left_s, beat=files.beat
        )
    except HubFailed as why:
        raise InputError(f"model: {why}") from None


def fetched_dataset(files: WorkerFiles, name: str, folder: Path) -> None:
    """Bring a dataset of the hub. Raises InputError, FetchFailed."""
    most, settings = files.spec.training.most_data_bytes, _settings(files)
    try:
        dataset_folder(name, folder, settings, most, left_s=files.left_s, beat=files.beat)
    except HubFailed as why:
        raise FetchFailed(f"dataset: {why}") from None


def delivered(files: WorkerFiles, record: TrainingRecord, adapter: Path) -> tuple[str, str]:
    """Where the adapter can be had, and what went wrong on the way, if anything.

    With its card, uploaded where that is asked for; where it cannot be, its folder.
    """
    write_atomic(adapter / CARD, card(record))
    if files.spec.training.submit == "folder":
        return str(adapter), ""
    settings = _settings(files)
    try:
        repository = repository_of(files.spec.request.get("expected_repo_name"), settings)
        upload(adapter, repository, settings, left_s=lambda: _left_s(files), beat=files.beat)
    except (InputError, HubFailed) as why:
        return str(adapter), f"not uploaded: {why}"
    return repository, ""


def _left_s(files: WorkerFiles) -> float:
    """An upload may go on into the margin: it is what the margin is for."""
    left = files.spec.time_left
    if left is None or left.warn_s is None or left.kill_s is None:
        return files.left_s()
    return files.left_s() + (left.kill_s - left.warn_s) * 0.9
