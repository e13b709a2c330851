"""``live plan``: how a model would be trained in one slot of a preset."""

import argparse
import json
import re
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from shared.architectures import (
    Architecture,
    architecture_from_config,
    architecture_of,
    parameters_in_name,
)
from shared.errors import InputError
from shared.plan import Plan, largest_plan
from shared.presets import Preset, preset_named

Json = dict[str, Any]
_PATH = re.compile(r"^[./~]|\.json$|/.*/")
"""What is a file's name and no model's: those have an organisation at most before them."""


def run(call: argparse.Namespace) -> int:
    """Plan and print."""
    preset = preset_named(call.preset)
    if call.max_length is not None and call.max_length < 1:
        raise InputError(f"--max-length: found {call.max_length}, allowed is 1 or more")
    shape, assumed = _architecture(call.model)
    told = {**document(shape, preset, call.max_length), "assumed": assumed}
    if assumed is not None:
        print(f"live: --model: {assumed}", file=sys.stderr)
    print(json.dumps(told) if call.json else _text(call.model, told))
    return 0


def document(shape: Architecture, preset: Preset, max_length: int | None) -> Json:
    """The document of ``plan --json``. max_length: longest row in tokens; None: the profile's."""
    layout, profile = preset.layout, preset.profile
    rows = max_length or profile.max_length
    gpus = len(layout.gpus[0])
    found = largest_plan(
        shape, profile, gpus=gpus, gb_per_gpu=layout.memory_gb_per_gpu, longest_row=rows,
        chunked_loss=True,  # the trainers know no other
    )  # fmt: skip
    return {
        "fits": found is not None,
        "slot": {"gpus": gpus, "gb_per_gpu": layout.memory_gb_per_gpu},
        "target": {**asdict(profile), "max_length": rows},
        "plan": None if found is None else _plan(found),
        "deviations": [] if found is None else [asdict(each) for each in found.deviations],
    }


def _plan(plan: Plan) -> Json:
    return {
        "micro_batch": plan.micro_batch,
        "accumulation": plan.accumulation,
        "effective_batch": plan.effective_batch,
        "parallel": plan.parallel,
        "optimizer": plan.optimizer,
        "lora_r": plan.lora_r,
        "max_length": plan.max_length,
        "chunked_loss": plan.chunked_loss,
        "predicted_gb": plan.predicted_gb,
    }


def _architecture(model: str) -> tuple[Architecture, str | None]:
    """A model's shape by its id, or by a config.json or a folder that holds one; and what was
    assumed, None where the shape is known. Raises InputError.
    """
    path = Path(model)
    if path.is_dir():
        path = path / "config.json"
    if path.is_file() or _PATH.search(model):
        return _of_config(path), None
    shape = architecture_of(model)
    if shape.stated_parameters is None:
        return shape, None
    why = "by the number in its name" if parameters_in_name(model) else "since nothing tells"
    return shape, (
        f"{model!r} is not one of the models known here: planned as a Llama of "
        f"{shape.stated_parameters / 1e9:g} billion parameters, {why}; a config.json is exact"
    )


def _of_config(path: Path) -> Architecture:
    """A shape by a config.json. Raises InputError."""
    try:
        content = json.loads(path.read_bytes())
    except OSError as why:
        raise InputError(f"{path}: cannot be read: {(why.strerror or str(why)).lower()}") from None
    except ValueError as why:
        raise InputError(f"{path}: cannot be read as JSON: {why}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: found no JSON object, allowed is a model's config.json")
    return architecture_from_config(content)


def _text(model: str, told: Json) -> str:
    slot = told["slot"]
    where = f"{slot['gpus']} GPU(s) of {slot['gb_per_gpu']:.1f} GB"
    if told["plan"] is None:
        return f"{model}: does not fit {where}, not one row, every concession made"
    lines = [f"{model} on {where}:"]
    lines += [f"  {key}: {value}" for key, value in told["plan"].items()]
    lines += [
        f"  not as asked: {each['setting']} {each['wanted']} -> {each['given']}: {each['why']}"
        for each in told["deviations"]
    ]
    return "\n".join(lines)
