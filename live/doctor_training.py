"""The doctor on what every job needs: data, models, a token, ranks that have a GPU each."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from live.doctor_lines import Check, Line, Scene, fault, hint, ok, warning
from live.service import need_processes
from shared.errors import InputError


def _worker(scene: Scene) -> Iterator[Line]:
    if scene.config.jobs.worker == "train":
        yield ok("worker", "trains")
        return
    found, remedy = "jobs.worker is stub: jobs complete and nothing is trained", "take it out"
    yield (fault if scene.on_gpus else warning)("worker", found, remedy)


def _ranks(scene: Scene) -> Iterator[Line]:
    try:
        policy = scene.policy()
    except InputError:
        return  # told under "policy"
    try:
        need_processes(scene.config, policy, "cuda" if scene.on_gpus else "cpu")
    except InputError as why:
        yield fault("ranks", f"{why}: the daemon does not start", "take jobs.processes out")
        return
    asked = scene.config.jobs.processes
    yield ok("ranks", "one for each GPU of a slot" if asked is None else f"{asked} a job")


def _data(scene: Scene) -> Iterator[Line]:
    """Without a host every job whose dataset is an address fails; on the CPU rows are built in."""
    part = scene.config.training
    if part.data_hosts:
        yield ok("data", f"from {', '.join(part.data_hosts)}")
    elif not _trains_on_gpus(scene):
        yield hint("data", f"no data_hosts: {_instead(scene, 'train on built-in rows')}")
    else:
        found = "training.data_hosts is empty: every job whose dataset is a URL fails"
        remedy = "name the hosts that the market's datasets come from, or *.HOST"
        more = "; those with a name of the hub do not" if part.hub_datasets else ""
        yield (warning if part.hub_datasets else fault)("data", f"{found}{more}", remedy)


def _models(scene: Scene) -> Iterator[Line]:
    part = scene.config.training_settings
    folder = Path(str(part.models))
    if part.fetch_models:
        where = part.endpoint or "the hub"
        yield ok("models", f"fetched from {where} by a process of their own, kept in {folder}")
        return
    try:
        some = any(folder.iterdir())
    except OSError as why:
        some, said = False, (why.strerror or str(why)).lower()
    else:
        said = "is empty"
    if some:
        yield ok("models", f"those in {folder} alone: training.fetch_models is false")
    elif _trains_on_gpus(scene):
        found = f"{folder}: {said}, and training.fetch_models is false: every job fails"
        yield fault("models", found, "put models there, or set training.fetch_models = true")
    else:
        instead = _instead(scene, "train a tiny model instead")
        yield hint("models", f"{folder}: {said}; {instead}")


def _token(scene: Scene) -> Iterator[Line]:
    part = scene.config.training_settings
    if part.submit != "hub" or part.token_file is None:
        yield hint("token", "adapters stay in their job's folder: training.submit is folder")
        return
    path = Path(part.token_file)
    remedy = "write the hub's token there, readable by the daemon's user alone (chmod 600)"
    try:
        empty, mode = not path.read_text().strip(), stat.S_IMODE(path.stat().st_mode)
    except (OSError, UnicodeDecodeError) as why:
        said = (getattr(why, "strerror", None) or "is no text").lower()
        yield fault("token", f"{path}: {said}: no adapter can be handed in", remedy)
        return
    if empty:
        yield fault("token", f"{path} is empty: no adapter can be handed in", remedy)
    elif mode & 0o077:
        yield warning("token", f"{path} has mode {mode:04o}: others can read it", remedy)
    else:
        yield ok("token", f"{path}, mode {mode:04o}")


def _environment(scene: Scene) -> Iterator[Line]:
    """What is set beside the daemon and does not reach a job."""
    said = os.environ.get("CUDA_VISIBLE_DEVICES")
    if said is not None and scene.on_gpus:
        found = f"CUDA_VISIBLE_DEVICES={said[:60]} is set here; jobs get the GPUs of their slot"
        remedy = "take it out; policy.cap and the preset say which GPUs are used"
        yield warning("environment", found, remedy)


def _instead(scene: Scene, what: str) -> str:
    stub = scene.config.jobs.worker == "stub"
    return "a stub trains nothing" if stub else f"jobs on the CPU {what}"


def _trains_on_gpus(scene: Scene) -> bool:
    return scene.on_gpus and scene.config.jobs.worker == "train"


CHECKS: dict[str, Check] = {
    "worker": _worker,
    "ranks": _ranks,
    "data": _data,
    "models": _models,
    "token": _token,
    "environment": _environment,
}
