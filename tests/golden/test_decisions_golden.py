"""The decisions on a few offers under every preset, in full, checked by hand against the policy.

``decisions_small.jsonl`` has one line an offer: the preset and the whole decision. To change it on
purpose, run this file as a program from the project's root,

    python tests/golden/test_decisions_golden.py

read the difference line by line, and say in CHANGELOG.md which decisions changed and why: whoever
has ledgers of an earlier version finds that they no longer verify.
"""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from shared.box import BoxDeclaration
from shared.decisions import Gate, Policy
from shared.inputs import GpuChanged, OperatorAsked, StorageChanged
from shared.ledger import dumps, first_difference
from shared.presets import PRESETS
from sim.decisions_file import write_decisions
from sim.engine.eventful import run_columns
from sim.engine.shell import run_machine
from sim.engine.workload import Workload
from sim.stream import UNKNOWN, Labels, OfferStream, in_handling_order
from sim.verify import verify

GOLDEN = Path(__file__).with_name("decisions_small.jsonl")
HOUR = 3_600_000
BOX = BoxDeclaration(task_types=frozenset({"InstructTextTask", "ChatTask", "GrpoTask"}))
LLAMA, T5, PHI = "meta-llama/Llama-3.1-8B", "google/flan-t5-xl", "microsoft/Phi-3.5-mini-instruct"
BIG = "Qwen/Qwen1.5-110B-Chat"
ALL_BUT_THE_LAST = (0, 1, 2, 3, 4, 5, 6)  # three slots of 24 are left: 7, 15 and 23
GPUS_OUT = {"accuracy_4": (1,), "maximum_2": ()}  # slots 1, 2 and 3 of 4, and both of 2
THRESHOLDS = {"accuracy_4": 0.94, "throughput_24": 0.94, "universal_24": 0.85, "maximum_2": None}

# minute, task, model, type, hours, params, hours of training
OFFERS = (
    (0, "b-second", LLAMA, "InstructTextTask", 10.0, None, 2.0),  # a tie: by id, not by line
    (0, "a-first", LLAMA, "ChatTask", 72.0, 8_030_261_248, 1.0),
    (0, "c-low", PHI, "ChatTask", 1.0, None, 5.0),
    (0.5, "c-low", PHI, "ChatTask", 1.0, None, 5.0),  # 30 seconds later: the first answer
    (1, "d-equal", T5, "ChatTask", 1.0, None, 5.0),
    (2, "e-unsupported", LLAMA, "ImageTask", 1.0, None, 1.0),
    (3, "f-long", LLAMA, "ImageTask", 96.00000000000001, None, 1.0),
    (59, "a-first", LLAMA, "ChatTask", 72.0, 8_030_261_248, 1.0),  # its job still runs
    (60, "g-at-the-end", BIG, "GrpoTask", 3.0, None, 5.0),  # takes the slot freed this instant
    (61, "h-next", LLAMA, "InstructTextTask", 0.5, 1_000_000_000, 5.0),
    (62, "i-full", LLAMA, "InstructTextTask", 500.0, None, 1.0),
    (180, "j-draining", LLAMA, "InstructTextTask", 500.0, None, 1.0),
    (240, "k-storage", LLAMA, "InstructTextTask", 500.0, None, 1.0),
    (600, "i-full", LLAMA, "InstructTextTask", 48.0, None, 1.0),  # asked anew, 9 hours later
)
SECTIONS = [(name, THRESHOLDS[name]) for name in PRESETS] + [("maximum_2", 1.0)]


def stream():
    minute, task, model, kind, hours, params, train = zip(*OFFERS, strict=True)
    models, kinds = tuple(dict.fromkeys(model)), tuple(dict.fromkeys(kind))
    return in_handling_order(
        OfferStream(
            at_ms=(np.array(minute) * 60_000).astype(np.int64),
            task_id=pa.array(task),
            model=Labels(np.array([models.index(m) for m in model], dtype=np.int32), models),
            task_type=Labels(np.array([kinds.index(k) for k in kind], dtype=np.int32), kinds),
            hours=np.array(hours),
            ds_size=np.full(len(OFFERS), UNKNOWN),
            params=np.array([UNKNOWN if p is None else p for p in params], dtype=np.int64),
            train_ms=(np.array(train) * HOUR).astype(np.int64),
        )
    )


def run_of(name, threshold):
    """The workload and the policy of one section. The last one is a box that nothing befalls."""
    policy = Policy(PRESETS[name].varied(threshold=threshold), BOX)
    if threshold == 1.0:
        return Workload(stream()), policy
    timeline = [(0, GpuChanged(gpu, healthy=False)) for gpu in GPUS_OUT.get(name, ALL_BUT_THE_LAST)]
    timeline += [
        (180 * 60_000, OperatorAsked("drain")),
        (180 * 60_000, StorageChanged(available=False)),
        (240 * 60_000, OperatorAsked("resume")),
        (300 * 60_000, StorageChanged(available=True)),
    ]
    return Workload(stream(), timeline=timeline), policy


def section_lines(name, threshold):
    """The lines of one section, as the machine decides."""
    ledger = run_machine(*run_of(name, threshold))
    assert first_difference(ledger) is None
    assert verify(ledger).difference is None
    decided = [entry.decisions[0] for entry in ledger if entry.entry.kind == "offer"]
    return [dumps({"preset": name, "threshold": threshold} | decision) for decision in decided]


def golden_lines():
    return GOLDEN.read_text("utf-8").splitlines()


def test_every_decision_is_as_it_was_checked():
    made = [line for section in SECTIONS for line in section_lines(*section)]
    for number, (line, golden) in enumerate(zip(made, golden_lines(), strict=True), start=1):
        assert line == golden, f"line {number}"


@pytest.mark.parametrize("section", SECTIONS, ids=str)
def test_the_columns_write_the_same_lines(section, tmp_path):
    name, threshold = section
    workload, policy = run_of(name, threshold)
    path = tmp_path / "decisions.jsonl"
    write_decisions(workload.stream, run_columns(workload, policy), policy, path)
    written = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    at = SECTIONS.index(section) * len(OFFERS)
    made = [dumps({"preset": name, "threshold": threshold} | each) for each in written]
    assert made == golden_lines()[at : at + len(OFFERS)]


def test_the_golden_file_has_every_gate_and_message():
    lines = [json.loads(line) for line in golden_lines()]
    for name in PRESETS:
        gates = {line["gate"] for line in lines if line["preset"] == name}
        assert gates == {gate.label for gate in Gate}
    assert sum(line["repeat"] for line in lines) >= len(PRESETS)


if __name__ == "__main__":
    text = "".join(f"{line}\n" for section in SECTIONS for line in section_lines(*section))
    GOLDEN.write_text(text, encoding="utf-8")
