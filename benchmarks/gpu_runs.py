"""How the GPU benches run their cases: each in processes of its own, within a budget of time, told
in one JSON line as it ends.

Whatever ends a bench early, what was measured by then has been printed, and no case outlives it.
"""

import argparse
import ctypes
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from benchmarks.gpu_common import ROOT, estimate_s, missing, peak_of

WORKERS = {
    "OMP_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "PYTHONUNBUFFERED": "1",
    "HF_HUB_OFFLINE": "1",
    "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
    "PYTORCH_ALLOC_CONF": "expandable_segments:True",
}
"""What ``live.job_environment`` sets for a worker: a case is measured under the same."""
VERSIONS = ("torch", "transformers", "peft", "trl", "accelerate", "datasets", "flash-attn",
            "bitsandbytes")  # fmt: skip
CARD_S = 120.0
LAST_WORDS = 1500
"""Characters of a failed case's own words that are told."""
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)

Settings = dict[str, Any]
Found = dict[str, Any]


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent ends, so that none keeps a GPU."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def environment() -> dict[str, str]:
    """A worker's settings, and this checkout to import from: wherever a child goes, even with
    PYTHONSAFEPATH, nothing is installed.
    """
    before = os.environ.get("PYTHONPATH")
    path = os.pathsep.join([str(ROOT), before] if before else [str(ROOT)])
    return {**os.environ, **WORKERS, "PYTHONPATH": path}


@dataclass(slots=True)
class Child:
    """A case's processes, and what they have said so far."""

    process: subprocess.Popen[bytes]
    out: Any
    err: Any

    @classmethod
    def begun(cls, command: Sequence[str]) -> "Child":
        """Start them, in a group of their own that ends with this process."""
        out, err = tempfile.TemporaryFile(), tempfile.TemporaryFile()  # noqa: SIM115
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, env=environment(),
            cwd=ROOT, start_new_session=True, preexec_fn=die_with_parent,
        )  # fmt: skip
        return cls(process, out, err)

    def kill(self) -> None:
        """Kill the whole group and wait until its first process is gone."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def found(self, limit_s: float) -> Found:
        """What it found, or why it found nothing; whatever runs on after that long is killed."""
        began_s, late = monotonic(), False
        try:
            self.process.wait(timeout=max(0.0, limit_s))
        except subprocess.TimeoutExpired:
            late = True
        self.kill()  # what its first process left behind holds the GPU as well
        out, err = self.said()
        how = f"ended with {self.process.returncode}"
        if late:
            how = f"killed after {monotonic() - began_s:.0f} s"
        found = last_object(out)
        if found is not None:
            return found if self.process.returncode == 0 else {**found, "then": how}
        if not late and ("OutOfMemoryError" in err or "out of memory" in err):
            how = "out of memory"
        return {"failed": how, "last_words": err[-LAST_WORDS:].strip() or "none"}

    def said(self) -> tuple[str, str]:
        """All of its output and of its errors; asked for once, at its end."""
        told = []
        for file in (self.out, self.err):
            file.seek(0)
            told.append(file.read().decode(errors="replace"))
            file.close()
        return told[0], told[1]


def last_object(text: str) -> Found | None:
    """The last line that is a JSON object; libraries print what they like around it."""
    for line in reversed(text.splitlines()):
        with suppress(ValueError):
            found = json.loads(line)
            if isinstance(found, dict):
                return found
    return None


def module(name: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", name, *arguments]


def case_command(settings: Settings) -> list[str]:
    return module("benchmarks.gpu_case", json.dumps(settings))


@dataclass(slots=True)
class Bench:
    """One bench under way. packages: what its cases need. card: as ``gpu_card`` tells it."""

    name: str
    call: argparse.Namespace
    card: Found
    peak_tflops: float
    began_s: float
    ran: dict[str, Found] = field(default_factory=dict)
    not_run: list[str] = field(default_factory=list)

    def left_s(self) -> float:
        return float(self.call.budget_s) - (monotonic() - self.began_s)

    def wanted(self, name: str) -> bool:
        only = self.call.only
        return not only or any(fnmatchcase(name, each) for each in only)

    def begins(self, name: str, needs_s: float) -> bool:
        """Whether a case is to be run now; one without time left is noted."""
        if not self.wanted(name):
            return False
        if needs_s > self.left_s():
            self.not_run.append(name)
            return False
        return True

    def limit_s(self, needs_s: float) -> float:
        """When a case is killed that was thought to need so long."""
        usual = 2 * needs_s + 60 if self.call.case_s is None else float(self.call.case_s)
        return min(usual, self.left_s())

    def case(
        self, name: str, settings: Settings, packages: tuple[str, ...],
        command: Callable[[Settings], list[str]] = case_command,
    ) -> Found | None:  # fmt: skip
        """Run a case and tell its line; None where it is not run."""
        needs_s = estimate_s(settings)
        if not self.begins(name, needs_s):
            return None
        lacking, began_s = missing(packages), monotonic()
        if lacking:
            found: Found = {"missing": lacking}
        else:
            asked = {**settings, "peak_flops": self.peak_tflops * 1e12}
            found = Child.begun(command(asked)).found(self.limit_s(needs_s))
        took = {"estimate_s": round(needs_s), "took_s": round(monotonic() - began_s, 1)}
        return self.told_case(name, {**settings, **found, **took})

    def told_case(self, name: str, found: Found) -> Found:
        self.ran[name] = found
        self.tell({"case": name, **found})
        return found

    def tell(self, line: Found) -> None:
        """Print a line at once, and append it where that is asked for."""
        tell(self.call, {"bench": self.name, **line})

    def ended(self, **summary: Any) -> None:
        """The last line: what the cases came to, and which were not run for want of time."""
        failed = {name: each["failed"] for name, each in self.ran.items() if "failed" in each}
        lacking = sorted({name for each in self.ran.values() for name in each.get("missing", ())})
        self.tell({
            "summary": True, **summary, "ran": len(self.ran), "failed": failed,
            "missing": lacking, "not_run": self.not_run,
            "took_s": round(monotonic() - self.began_s, 1),
        })  # fmt: skip


def tell(call: argparse.Namespace, line: Found) -> None:
    text = json.dumps(_short(line))
    print(text, flush=True)
    if call.out:
        with call.out.open("a", encoding="utf-8") as file:
            file.write(text + "\n")


def _short(value: Any) -> Any:
    """Figures to six digits: a line is read by people too, from a log of limited length."""
    if isinstance(value, float):
        return float(f"{value:.6g}")
    if isinstance(value, dict):
        return {key: _short(each) for key, each in value.items()}
    return [_short(each) for each in value] if isinstance(value, list | tuple) else value


def begun(
    name: str, call: argparse.Namespace, packages: tuple[str, ...], needed: int = 1
) -> Bench | None:
    """The bench, with its first line told; None, and a line, where nothing can be measured."""
    began_s = monotonic()
    lacking = missing(("torch",))
    card: Found = {} if call.trial or lacking else _card()
    if "failed" in card:
        tell(call, {"bench": name, "skipped": "the GPU cannot be used", **card})
        return None
    if not call.trial and not lacking and card["devices"] < needed:
        print(f"found {card['devices']} CUDA device(s), needed {needed}: nothing measured")
        return None
    lacking = missing(packages)
    if lacking:
        tell(call, {"bench": name, "skipped": f"not installed: {', '.join(lacking)}"})
        return None
    peak, of = peak_of(card.get("device", "the CPU"), call.peak_tflops)
    made = Bench(name, call, card, peak, began_s)
    made.tell({"machine": machine(call.trial, card), "peak_tflops": peak, "peak_of": of})
    return made


def _card() -> Found:
    return Child.begun(module("benchmarks.gpu_card")).found(CARD_S)


def machine(trial: bool, card: Found) -> Found:
    """What the figures are of."""
    device = {"device": platform.processor() or platform.machine()}
    found = {name: _version(name) for name in VERSIONS}
    return {**device, **card, "trial": trial, "python": platform.python_version(), **found}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def listed(cases: Iterable[tuple[str, Settings]]) -> int:
    """Print the cases and what each may take; an exit code."""
    for name, settings in cases:
        print(f"{name}  {estimate_s(settings):.0f} s")
    return 0


def wait_for(path: Path, count: int, limit_s: float) -> int:
    """Wait until so many files are in a folder, no longer than that; how many there are."""
    until = monotonic() + limit_s
    while (there := len(list(path.iterdir()))) < count and monotonic() < until:
        sleep(0.02)
    return there
