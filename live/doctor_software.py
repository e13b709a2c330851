"""The doctor on what is installed. Nothing is imported to find that out."""

import os
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec

import apsw
from packaging.requirements import Requirement

from live.doctor_lines import Check, Line, Scene, fault, hint, ok, warning

OLDEST_PYTHON = (3, 11)
OLDEST_SQLITE = (3, 51, 3)
"""Older ones can lose a commit when the write-ahead log is reset."""
PROJECT, EXTRAS = "four-slot", ("", "live")
MODULES = {
    "nvidia-ml-py": "pynvml",
    "py-sr25519-bindings": "sr25519",
    "pyyaml": "yaml",
    "salib": "SALib",
}
"""Distributions whose module bears another name."""
OPTIONAL = {
    "diffusers": ("image", "image tasks, whose offers are refused without it"),
    "flash-attn": ("gpu", "attention in less memory and time"),
    "bitsandbytes": ("gpu", "the 8-bit optimizer, where the plan of a large model asks for it"),
}
"""Distribution: the extra that brings it, and what it is good for."""


def _python(_: Scene) -> Iterator[Line]:
    said = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] < OLDEST_PYTHON:
        yield fault("python", said, "install Python 3.11 or later and run make setup again")
    else:
        yield ok("python", said)


def _packages(_: Scene) -> Iterator[Line]:
    """One line for all that are well, one for each that is not."""
    try:
        wanted = [Requirement(text) for text in requires(PROJECT) or ()]
    except PackageNotFoundError:
        yield fault("packages", f"{PROJECT} is not installed", "run make setup")
        return
    needed = [each for each in wanted if not each.marker or _asked_for(each)]
    wrong = [said for each in needed if (said := _wrong(each))]
    for said in wrong:
        yield fault("packages", said, "install the extra: pip install -c constraints.txt '.[live]'")
    if not wrong:
        yield ok("packages", f"{len(needed)} present, torch {version('torch')}")


def _asked_for(each: Requirement) -> bool:
    assert each.marker is not None
    return any(each.marker.evaluate({"extra": extra}) for extra in EXTRAS)


def _wrong(each: Requirement) -> str | None:
    """What is wrong with an installed distribution, or None."""
    if find_spec(MODULES.get(each.name, each.name.replace("-", "_"))) is None:
        return f"{each.name}: not importable"
    try:
        found = version(each.name)
    except PackageNotFoundError:
        return f"{each.name}: importable, but not installed as a package"
    if not each.specifier.contains(found, prereleases=True):
        return f"{each.name}: found {found}, allowed is {each.specifier}"
    return None


def _sqlite(_: Scene) -> Iterator[Line]:
    found = apsw.sqlite_lib_version()
    if tuple(map(int, found.split("."))) < OLDEST_SQLITE:
        least = ".".join(map(str, OLDEST_SQLITE))
        yield fault("sqlite", f"{found}, allowed is {least} or later", "install a newer apsw")
    else:
        yield ok("sqlite", f"{found} (apsw's own)")


def _optional(scene: Scene) -> Iterator[Line]:
    for name, (extra, good_for) in OPTIONAL.items():
        if find_spec(name.replace("-", "_")) is not None:
            yield ok(name, "present")
        elif scene.cuda and name == "bitsandbytes":
            found = "not installed: jobs of models whose plan asks for the 8-bit optimizer fail"
            yield warning(name, found, f"pip install '.[{extra}]'")
        elif scene.cuda or extra != "gpu":
            remedy = f"for {good_for}: pip install '.[{extra}]'"
            yield hint(name, "not installed; jobs run without it", remedy)
        else:
            yield hint(name, "not installed, and of no use without a GPU")


def _hub(scene: Scene) -> Iterator[Line]:
    """Jobs see none of the daemon's environment, so a token set here is a risk for nothing."""
    tokens = [name for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN") if os.environ.get(name)]
    if tokens:
        found = f"{', '.join(tokens)} is set here; jobs never see it"
        yield warning("hub", found, "take it out of the daemon's environment")
        return
    fetched = scene.config.training.fetch_models
    before = "models are fetched for them first" if fetched else "models must be on this machine"
    yield hint("hub", f"jobs run offline (HF_HUB_OFFLINE=1): {before}")


CHECKS: dict[str, Check] = {
    "python": _python,
    "packages": _packages,
    "sqlite": _sqlite,
    "optional": _optional,
    "hub": _hub,
}
