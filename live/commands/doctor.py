"""``live doctor``: everything that must hold before production, one line each."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from live.config import read_config
from live.doctor import document, examine, faults_in, scene_of
from live.doctor_lines import Line

FINE, DOES_NOT_HOLD = 0, 1


def run(call: argparse.Namespace) -> int:
    """Examine and print; 1 when there is a fault."""
    config = read_config(call.config)
    folder = Path() if call.config is None else call.config.parent
    lines = examine(scene_of(config, folder))
    if call.json:
        print(json.dumps(document(lines)))
    else:
        print("\n".join(text_of(line) for line in lines))
        print(_sum(lines))
    return DOES_NOT_HOLD if faults_in(lines) else FINE


def text_of(line: Line) -> str:
    """One finding as one line."""
    remedy = f" -> {line.remedy}" if line.remedy else ""
    text = f"{line.level:<8}{line.check}: {line.found}{remedy}"
    return "".join(each if each.isprintable() else "?" for each in text)


def _sum(lines: Sequence[Line]) -> str:
    faults, warnings = faults_in(lines), sum(line.level == "warning" for line in lines)
    return f"{len(lines)} lines: {faults} faults, {warnings} warnings"
