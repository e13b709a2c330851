"""``sim replay``: an offers file through one preset."""

import argparse
import json
from pathlib import Path
from typing import Any

from shared.box import UNDECLARED
from shared.decisions import Policy
from shared.presets import preset_named
from shared.units import MS_PER_HOUR
from sim.engine.eventful import run_columns
from sim.engine.outcome import Decisions
from sim.engine.workload import Workload
from sim.files import check_outputs
from sim.metrics import gate_totals
from sim.offers_file import read_offers
from sim.stream import OfferStream


def run(call: argparse.Namespace) -> int:
    """Replay the file; write what was asked for and print the summary."""
    policy = _policy(call)
    outputs = [path for path in (call.out, call.ledger) if path]
    check_outputs(outputs, [path for path in (call.offers, call.box) if path])
    stream = read_offers(call.offers)
    workload = Workload(stream)
    decisions = run_columns(workload, policy)
    if call.out:
        from sim.decisions_file import write_decisions

        write_decisions(stream, decisions, policy, call.out)
    if call.ledger:
        _write_ledger(workload, policy, call.ledger)
    summary = _summary(stream, decisions, policy)
    print(json.dumps(summary) if call.json else _text(summary))
    return 0


def _policy(call: argparse.Namespace) -> Policy:
    preset = preset_named(call.preset).varied(cap=call.cap, threshold=call.threshold)
    if call.box is None:
        return Policy(preset, UNDECLARED)
    from sim.scenario import read_box

    return Policy(preset, read_box(call.box))


def _write_ledger(workload: Workload, policy: Policy, path: Path) -> None:
    from sim.engine.shell import run_machine
    from sim.ledger_file import write_ledger

    write_ledger(run_machine(workload, policy), path)


def _summary(stream: OfferStream, decisions: Decisions, policy: Policy) -> dict[str, Any]:
    """Counts over all offers, repeats included, and the slots' use from first arrival to last end.

    An accepted repeat counts as accepted and takes no slot.
    """
    gates = gate_totals(decisions)
    took = decisions.took_slot
    busy_ms = int((decisions.end_ms[took] - stream.at_ms[took]).sum())
    last_ms = int(decisions.end_ms.max()) if took.any() else int(stream.at_ms[-1])
    span_ms = max(last_ms, int(stream.at_ms[-1])) - int(stream.at_ms[0])
    slot_ms = policy.preset.cap * span_ms
    return {
        "offers": len(stream),
        "accepted": gates["accepted"],
        "gates": gates,
        "slot_hours_busy": busy_ms / MS_PER_HOUR,
        "utilisation": busy_ms / slot_ms if slot_ms else 0.0,
        "repeats": int(decisions.repeat.sum()),
        "preset": policy.preset.name,
        "cap": policy.preset.cap,
    }


def _text(summary: dict[str, Any]) -> str:
    gates = ", ".join(f"{gate} {count}" for gate, count in summary["gates"].items() if count)
    return (
        f"{summary['preset']}, {summary['cap']} slots: {summary['accepted']} of "
        f"{summary['offers']} offers accepted ({gates})\n"
        f"{summary['slot_hours_busy']:.1f} slot hours busy, "
        f"utilisation {summary['utilisation']:.1%}"
    )
