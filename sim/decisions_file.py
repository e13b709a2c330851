"""Decisions written out: one JSON line an offer, or a Parquet table."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from shared.decisions import Decision, Gate, Policy, reason_of
from shared.ledger import answer_json, dumps
from sim.engine.outcome import NO_SLOT, Decisions
from sim.files import written_whole
from sim.stream import OfferStream

_CHUNK = 50_000


def write_decisions(stream: OfferStream, decisions: Decisions, policy: Policy, path: Path) -> None:
    """Write one JSON line an offer, in handling order: the fields of a ledger's decision."""
    with (
        written_whole(path) as aside,
        aside.open("w", encoding="utf-8", newline="\n") as file,
    ):
        file.writelines(
            f"{dumps(answer_json(decision))}\n"
            for decision in decision_records(stream, decisions, policy)
        )


def decision_records(
    stream: OfferStream, decisions: Decisions, policy: Policy
) -> Iterator[Decision]:
    """The decisions as records, equal field by field to what ``Machine.handle`` answers."""
    reasons = Reasons(stream, policy)
    for start in range(0, len(stream), _CHUNK):
        part = slice(start, start + _CHUNK)
        columns = (
            stream.at_ms[part].tolist(),
            stream.task_id.slice(start, _CHUNK).to_pylist(),
            decisions.gate[part].tolist(),
            decisions.priority[part].tolist(),
            decisions.slot[part].tolist(),
            decisions.repeat[part].tolist(),
        )
        for index, (at_ms, task_id, gate, priority, slot, repeat) in enumerate(
            zip(*columns, strict=True), start=start
        ):
            yield Decision(
                at_ms=at_ms,
                task_id=task_id,
                accepted=gate == Gate.ACCEPTED,
                gate=_LABELS[gate],
                reason=reasons.of(index, gate, priority),
                priority=priority,
                slot=None if slot == NO_SLOT else slot,
                repeat=repeat,
            )


_LABELS = [gate.label for gate in Gate]


class Reasons:
    """The message of each decision; a message that recurs is made once."""

    def __init__(self, stream: OfferStream, policy: Policy) -> None:
        """Messages in the words of this policy's preset."""
        self._stream, self._policy = stream, policy
        self._known: dict[tuple[int, float], str] = {}

    def of(self, index: int, gate: int, priority: float) -> str:
        """The message of offer ``index``, decided by this gate at this priority."""
        if gate == Gate.UNSUPPORTED:  # says which task type or model
            return reason_of(Gate(gate), self._stream.offer(index), priority, self._policy)
        key = (gate, priority)
        if key not in self._known:
            offer = self._stream.offer(index)
            self._known[key] = reason_of(Gate(gate), offer, priority, self._policy)
        return self._known[key]


def write_decisions_table(
    stream: OfferStream, by_preset: dict[str, tuple[Policy, Decisions]], path: Path
) -> None:
    """Write the decisions of all presets as one Parquet table, a row an offer and preset.

    A preset's rows are made, written and dropped before the next one's.
    """
    with written_whole(path) as aside, ExitStack() as open_file:
        writer: pq.ParquetWriter | None = None
        for name, (policy, decisions) in by_preset.items():
            table = _table(stream, name, policy, decisions)
            if writer is None:
                writer = open_file.enter_context(pq.ParquetWriter(aside, table.schema))
            writer.write_table(table)


def _table(stream: OfferStream, name: str, policy: Policy, decisions: Decisions) -> pa.Table:
    reasons = Reasons(stream, policy)
    messages = [
        reasons.of(index, gate, priority)
        for index, (gate, priority) in enumerate(
            zip(decisions.gate.tolist(), decisions.priority.tolist(), strict=True)
        )
    ]
    refused = decisions.slot == NO_SLOT
    held = decisions.took_slot
    columns = {
        "preset": pa.repeat(pa.scalar(name), len(stream)),
        "at_ms": stream.at_ms,
        "task_id": stream.task_id,
        "accepted": decisions.gate == Gate.ACCEPTED,
        "gate": pa.array([_LABELS[gate] for gate in decisions.gate.tolist()], pa.string()),
        "reason": pa.array(messages, pa.string()),
        "priority": decisions.priority,
        "slot": pa.array(decisions.slot, mask=refused),
        "repeat": decisions.repeat,
        "end_ms": pa.array(decisions.end_ms, mask=~held),
        "gpu_failed": decisions.gpu_failed,
        "lapsed": decisions.lapsed,
    }
    return pa.table(columns)
