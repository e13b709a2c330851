"""What must hold of a ledger, of the answers that were received, and of the job folders."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from live.intake.desk import BUSY, GIVEN_BACK, LATE, START_LATE
from live.job_files import JOB, LOGS, JobSpec, exit_of, launcher_of, read_record
from live.rows import job_dir

UNWRITTEN = (BUSY, LATE, START_LATE, GIVEN_BACK)
"""Refusals that need no ledger entry of their own."""
CLOCK_MS = 1_000
"""The daemon's clock and the client's may differ by so much."""

Line = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Asked:
    """A request and its answer; ``accepted`` is None when none was received."""

    kind: str
    task_id: str
    sent_ms: int
    received_ms: int
    accepted: bool | None
    message: str

    @property
    def sure(self) -> bool:
        """Whether there must be a ledger entry of it."""
        return self.accepted is True or (self.accepted is False and self.message not in UNWRITTEN)

    def is_told(self, line: Line) -> bool:
        """Whether this ledger entry can be the one behind it."""
        if line["at_ms"] < self.sent_ms - CLOCK_MS:
            return False
        if not self.sure:
            return True
        told = line["decisions"][-1]
        if line["at_ms"] > self.received_ms + CLOCK_MS:
            return False
        if self.kind == "offer":
            return bool((told["accepted"], told["reason"]) == (self.accepted, self.message))
        if told["effect"] == "started":
            return self.accepted is True
        return self.accepted is False and told["reason"] == self.message


def check_answers(asked: Iterable[Asked], ledger: Sequence[Line]) -> None:
    """Every answer received has one ledger entry of its own, and no entry is nobody's."""
    requests: dict[tuple[str, str], list[Asked]] = defaultdict(list)
    entries: dict[tuple[str, str], list[Line]] = defaultdict(list)
    for each in asked:
        requests[each.kind, each.task_id].append(each)
    for line in ledger:
        if line["kind"] == "offer":
            entries["offer", line["input"]["offer"]["task_id"]].append(line)
        elif line["kind"] == "start":
            entries["start", line["input"]["task_id"]].append(line)
    for key in requests.keys() | entries.keys():
        assert _pairs(requests[key], entries[key]), (key, requests[key], entries[key])


def _pairs(asked: Sequence[Asked], lines: Sequence[Line]) -> bool:
    """Whether requests of one task, made one after the other, and ledger entries fit."""
    if not asked:
        return not lines
    if lines and asked[0].is_told(lines[0]) and _pairs(asked[1:], lines[1:]):
        return True
    return not asked[0].sure and _pairs(asked[1:], lines)


def check_slots(ledger: Sequence[Line]) -> None:
    """No slot is given to a second task before the first one has left it."""
    held: dict[int, str] = {}
    for line in ledger:
        for told in line["decisions"]:
            if told.get("accepted") and not told["repeat"]:
                assert told["slot"] not in held, (line["seq"], told, held)
                held[told["slot"]] = told["task_id"]
            elif told.get("effect") in ("released", "lapsed"):
                assert held.pop(told["slot"]) == told["task_id"], line
    assert not held, held


def check_jobs(folders: Sequence[Path], ledger: Sequence[Line], killed: set[str]) -> None:
    """Every start has one folder, ran once, and is completed.

    killed: names of the folders whose launcher was killed; those may have run again.
    """
    started, ended = {}, {}
    for line in ledger:
        for told in line["decisions"]:
            if told.get("effect") == "started":
                assert told["task_id"] not in started, line
                started[told["task_id"]] = job_dir(line["seq"])
            elif told.get("effect") == "released" and told["task_id"] in started:
                assert told["task_id"] not in ended, line
                ended[told["task_id"]] = told["reason"]
    assert sorted(started.values()) == [folder.name for folder in folders]
    assert started.keys() == ended.keys()
    assert set(ended.values()) <= {"completed"}, ended
    for folder in folders:
        spec = read_record(folder, JOB, JobSpec)
        assert spec is not None
        assert started[spec.task_id] == folder.name
        assert folder.name in killed or attempts(folder) == 1, (folder, attempts(folder))


def attempts(folder: Path) -> int:
    """How often the job's worker was started, by every record there is of it."""
    record, end = launcher_of(folder), exit_of(folder)
    logs = len(list((folder / LOGS).glob("attempt-?.log")))
    return max(logs, record.attempt if record else 0, end.attempts if end else 0)
