"""The model hub, as the worker uses it: errands of a process that alone has token and network."""

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from live.job_environment import passed
from live.job_files import MARKER, sync_folder, write_atomic
from shared.errors import FourSlotError, InputError

_REPOSITORY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
MODEL = "model.json"
TRIES = 5
PAUSE_S, LONGEST_PAUSE_S = 2.0, 60.0
LOOK_S = 0.2

Beat = Callable[[], None]
LeftS = Callable[[], float]


class HubFailed(FourSlotError):
    """The hub could not be reached, or did not do what it was asked, in the time there was."""


@dataclass(frozen=True, slots=True)
class HubSettings:
    """endpoint: None for the usual one. token_file: read by the errand's process alone."""

    endpoint: str | None = None
    token_file: str | None = None
    namespace: str | None = None
    private: bool = False
    most_bytes: int = 200_000_000_000


def model_folder(
    model: str,
    store: Path,
    settings: HubSettings,
    *,
    index: str = "config.json",
    left_s: LeftS,
    beat: Beat,
) -> Path:
    """The folder of a base model, fetched where it is not there yet.

    index: the file at its top that its kind is told by, ``config.json`` or ``model_index.json``.
    Jobs that want one model at once wait for the first. A model is there whole or not at all; what
    came of one that broke off is taken up again. Raises InputError for a model that cannot be used,
    HubFailed when it did not come in time.
    """
    if not _REPOSITORY.fullmatch(model):
        raise InputError(f"model: found {model[:120]!r}, allowed is owner/name of the hub")
    name = model.replace("/", "--")
    final = store / name
    store.mkdir(parents=True, exist_ok=True)
    with _alone(store / f".{name}.lock", left_s, beat):
        if (final / MODEL).is_file():
            return final
        scratch = store / f".{name}"
        errand = {"what": "model", "repo": model, "folder": str(scratch), "index": index}
        try:
            told = _done({**errand, "most_bytes": settings.most_bytes}, settings, left_s, beat)
        except InputError as why:
            shutil.rmtree(scratch, ignore_errors=True)
            raise InputError(f"model: {model}: {why}") from None
        shutil.rmtree(scratch / ".cache", ignore_errors=True)
        write_atomic(scratch / MODEL, json.dumps({"model": model, **told}) + "\n")
        scratch.rename(final)
        sync_folder(store)
        return final


def dataset_folder(
    name: str,
    folder: Path,
    settings: HubSettings,
    most_bytes: int,
    *,
    left_s: LeftS,
    beat: Beat,
) -> None:
    """Bring the rows of a dataset into a folder, which appears when it is whole.

    Raises InputError for a dataset that cannot be used, HubFailed when it did not come in time.
    """
    if not _REPOSITORY.fullmatch(name):
        raise InputError(f"dataset: found {name[:120]!r}, allowed is owner/name of the hub")
    scratch = folder.with_name(f".{folder.name}.part")
    errand = {"what": "dataset", "repo": name, "folder": str(scratch), "most_bytes": most_bytes}
    try:
        told = _done(errand, settings, left_s, beat)
    except InputError as why:
        shutil.rmtree(scratch, ignore_errors=True)
        raise InputError(f"dataset: {name}: {why}") from None
    came = scratch / "rows"
    came.mkdir()
    for number, file in enumerate(told["files"]):
        (scratch / file).rename(came / f"{number:05d}")
    came.rename(folder)
    shutil.rmtree(scratch, ignore_errors=True)
    sync_folder(folder.parent)


def repository_of(expected: object, settings: HubSettings) -> str:
    """Where an adapter goes: the name that the market expects, in our own account.

    Raises InputError when it names another account, or there is none of ours.
    """
    if settings.namespace is None:
        raise InputError("training.namespace: found none, needed to upload")
    if not isinstance(expected, str) or not expected:
        raise InputError("expected_repo_name: found none, needed to upload")
    owner, _, name = expected.rpartition("/")
    if owner not in ("", settings.namespace):
        raise InputError(
            f"expected_repo_name: found {expected[:120]!r}, allowed is one in {settings.namespace}"
        )
    repository = f"{settings.namespace}/{name}"
    if not _REPOSITORY.fullmatch(repository):
        raise InputError(f"expected_repo_name: found {expected[:120]!r}, allowed is a name")
    return repository


def upload(
    adapter: Path, repository: str, settings: HubSettings, *, left_s: LeftS, beat: Beat
) -> str:
    """Upload an adapter's folder; the commit. Raises InputError, HubFailed."""
    errand = {"what": "upload", "repo": repository, "folder": str(adapter)}
    try:
        told = _done({**errand, "private": settings.private}, settings, left_s, beat)
    except InputError as why:
        raise InputError(f"{repository}: {why}") from None
    return str(told["commit"])


def _done(
    errand: dict[str, Any], settings: HubSettings, left_s: LeftS, beat: Beat
) -> dict[str, Any]:
    """Try until it is done, refused, or out of time; a try goes on where the one before broke off.

    What the hub's library remembers for that is in the home that the tries have in common.
    """
    with tempfile.TemporaryDirectory(prefix="four-slot-hub-") as home:
        return _tried({**errand, "home": home}, settings, left_s, beat)


def _tried(
    errand: dict[str, Any], settings: HubSettings, left_s: LeftS, beat: Beat
) -> dict[str, Any]:
    more = {"endpoint": settings.endpoint, "token_file": settings.token_file}
    why, pause_s = "there is no time left", PAUSE_S
    for tries in range(TRIES):
        if left_s() <= pause_s * bool(tries):
            break
        if tries:
            _wait(pause_s, beat)
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        told = _errand({**errand, **more}, left_s, beat)
        if told.pop("ok"):
            return told
        why = str(told["why"])
        if told["refused"]:
            raise InputError(why)
    raise HubFailed(f"{errand['repo']}: {why}")


def _wait(seconds: float, beat: Beat) -> None:
    until_s = monotonic() + seconds
    while monotonic() < until_s:
        beat()
        sleep(min(LOOK_S, seconds))


def _errand(errand: dict[str, Any], left_s: LeftS, beat: Beat) -> dict[str, Any]:
    """One process, one errand."""
    failed: dict[str, Any] = {"ok": False, "refused": False}
    child = subprocess.Popen(
        [sys.executable, "-m", "live.training.hub_process"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # a traceback could tell the token
        env=_environment(errand["home"]),
        text=True,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    with child, child.stdin:
        child.stdin.write(json.dumps(errand))
        child.stdin.close()
        while child.poll() is None:
            beat()
            if left_s() <= 0:
                child.kill()
                return {**failed, "why": "there is no time left"}
            sleep(LOOK_S)
        said = child.stdout.read()
    try:
        told: dict[str, Any] = json.loads(said)
    except ValueError:
        return {**failed, "why": f"the errand ended with {child.returncode}, without an answer"}
    return told


def _environment(home: str) -> dict[str, str]:
    """Network, but nothing of the worker's: no GPU, no token, a home of its own."""
    marker = {MARKER: os.environ[MARKER]} if MARKER in os.environ else {}
    return {
        **passed(os.environ),
        **marker,
        "HOME": home,
        "HF_HOME": home,
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "DO_NOT_TRACK": "1",
        "PYTHONSAFEPATH": "1",
        **{name: os.environ[name] for name in ("HF_HUB_DISABLE_XET",) if name in os.environ},
    }


@contextmanager
def _alone(path: Path, left_s: LeftS, beat: Beat) -> Iterator[None]:
    """Hold a lock file, beating while another has it. Raises HubFailed."""
    with path.open("ab") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                beat()
                if left_s() <= 0:
                    raise HubFailed(f"{path.name}: another job fetches it still") from None
                sleep(LOOK_S)
        yield
