"""The jobs of a live ledger that came to an end, each with what its training recorded.

Jobs that were started after the oldest one that still runs are left out, ended or not: of those
only the short ones have ended, and failures are short.
"""

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shared.decisions import Policy
from shared.errors import InputError
from shared.inputs import JobEnded, OfferArrived, Outcome, PolicyPut, StartRequested
from shared.layout import DEFAULT_GPUS, SlotLayout
from shared.ledger import LedgerEntry
from shared.offers import Offer, params_b
from sim.ledger_file import read_ledger
from sim.sharing import gpu_shares

_RECORDS = "SELECT seq, payload FROM training WHERE seq <= ? ORDER BY seq"


class Trained(BaseModel):
    """What is read of a training's record; the daemon's ``TrainingRecord`` has more.

    tokens_per_second: of the whole slot. held_out_loss, held_out_loss_base: by the measure that
    held_out_metric names, of the model handed in and of the base model; a reward where it says so.
    """

    model_config = ConfigDict(extra="ignore", frozen=True, allow_inf_nan=False)

    base_params: int | None = None
    tokens_per_second: Annotated[float, Field(ge=0, le=1e9)] | None = None
    load_s: float | None = None
    finish_s: float | None = None
    held_out_loss_base: float | None = None
    held_out_loss: float | None = None
    held_out_metric: str = ""
    beats_base: bool | None = None


@dataclass(frozen=True, slots=True)
class FinishedJob:
    """One job from its start to the moment its slot was free again.

    gpus: GPUs' worth of its slot, nominal. held: the GPUs it ran on. had: GPUs' worth it really
    had, mean over its time: a GPU is divided equally among the jobs that run on it. params: of the
    base model. start_ms, result_ms, end_ms, deadline_ms: UTC epoch ms; result_ms is when its result
    was in or its time was up. record: None where there is none.
    """

    task_type: str
    gpus: float
    held: tuple[int, ...]
    params: int
    start_ms: int
    deadline_ms: int
    result_ms: int
    end_ms: int
    outcome: Outcome
    record: Trained | None = None
    had: float = 0.0

    @property
    def handed_in(self) -> bool:
        """Whether it handed a model in on time."""
        return self.outcome == "completed" and self.result_ms <= self.deadline_ms

    @property
    def used(self) -> float:
        """Share of its hours that it kept its slot; 1 at most, as what is late has failed."""
        offered_ms = max(1, self.deadline_ms - self.start_ms)
        return min(1.0, (self.end_ms - self.start_ms) / offered_ms)


@dataclass(slots=True)
class _Open:
    """A job that runs: how its start found it, and when its end was first told."""

    seq: int
    offer: Offer
    layout: SlotLayout
    slot: int
    start_ms: int
    deadline_ms: int
    result_ms: int | None = None


@dataclass(frozen=True, slots=True)
class FinishedJobs:
    """jobs: in the order of their ends. left_out: jobs that ran or began while others still ran.

    unreadable: training records that could not be read.
    """

    jobs: tuple[FinishedJob, ...]
    left_out: int
    unreadable: int


def finished_jobs(ledger: Path) -> FinishedJobs:
    """Read them from a daemon's ledger, which may be running.

    Raises InputError in one line when it cannot be read, is no daemon's or has no training records.
    """
    walked = _Walk()
    walked.through(read_ledger(ledger), ledger)
    if not walked.last_seq:
        raise InputError(f"{ledger}: found no entry, allowed is a daemon's ledger")
    records, unreadable = _records(ledger, walked.last_seq)
    if not records:
        raise InputError(f"{ledger}: found no training records, so there is nothing to learn from")
    ended = [(seq, replace(job, record=records.get(seq))) for seq, job in walked.ended]
    had = _had([job for _, job in ended], [*walked.running.values()], walked.last_ms)
    oldest_ms = min((each.start_ms for each in walked.running.values()), default=walked.last_ms + 1)
    jobs = [replace(job, had=part) for (_, job), part in zip(ended, had, strict=True)]
    kept = tuple(job for job in jobs if job.start_ms < oldest_ms)
    return FinishedJobs(kept, len(jobs) - len(kept) + len(walked.running), unreadable)


@dataclass(slots=True)
class _Walk:
    """The ledger's entries, one after the other."""

    policy: Policy | None = None
    accepted: dict[str, tuple[Offer, SlotLayout, int]] = field(default_factory=dict)
    running: dict[str, _Open] = field(default_factory=dict)
    ended: list[tuple[int, FinishedJob]] = field(default_factory=list)
    last_seq: int = 0
    last_ms: int = 0

    def through(self, entries: Iterable[LedgerEntry], ledger: Path) -> None:
        """Take in every entry. Raises InputError naming one whose decisions are none of ours."""
        for entry in entries:
            try:
                self._take(entry)
            except (LookupError, TypeError, AttributeError):
                raise InputError(
                    f"{ledger}:{entry.seq}: decisions: found none of a daemon's for this input"
                ) from None
            self.last_seq, self.last_ms = entry.seq, entry.at_ms

    def _take(self, entry: LedgerEntry) -> None:
        match entry.entry:
            case PolicyPut(policy):
                self.policy = policy
            case OfferArrived(offer):
                self._offered(offer, entry.decisions[0])
            case StartRequested(task_id):
                for told in entry.decisions:
                    if told["effect"] == "started":
                        self._started(entry, task_id, told["deadline_ms"])
            case JobEnded(task_id, outcome, phase) if task_id in self.running:
                self._ended(entry, task_id, outcome, gone=phase == "gone")

    def _offered(self, offer: Offer, decision: dict[str, Any]) -> None:
        if decision["accepted"] and not decision["repeat"] and self.policy is not None:
            self.accepted[offer.task_id] = (offer, self.policy.preset.layout, decision["slot"])

    def _started(self, entry: LedgerEntry, task_id: str, deadline_ms: int) -> None:
        offer, layout, slot = self.accepted.pop(task_id)
        self.running[task_id] = _Open(entry.seq, offer, layout, slot, entry.at_ms, deadline_ms)

    def _ended(self, entry: LedgerEntry, task_id: str, outcome: Outcome, *, gone: bool) -> None:
        job = self.running[task_id]
        if job.result_ms is None:
            job.result_ms = entry.at_ms
        if gone:
            del self.running[task_id]
            self.ended.append((entry.seq, _finished(job, outcome, job.result_ms, entry.at_ms)))


def _finished(job: _Open, outcome: Outcome, result_ms: int, end_ms: int) -> FinishedJob:
    return FinishedJob(
        task_type=job.offer.task_type,
        gpus=job.layout.gpus_per_slot,
        held=job.layout.gpus[job.slot],
        params=round(params_b(job.offer.model, job.offer.model_params_count) * 1e9),
        start_ms=job.start_ms,
        deadline_ms=job.deadline_ms,
        result_ms=result_ms,
        end_ms=end_ms,
        outcome=outcome,
    )


def _had(ended: list[FinishedJob], running: list[_Open], last_ms: int) -> list[float]:
    """GPUs' worth that each ended job really had, those that still run counted beside them."""
    held = [(job.held, job.start_ms, job.end_ms) for job in ended]
    held += [(job.layout.gpus[job.slot], job.start_ms, last_ms) for job in running]
    rows = [(at, gpu, start, end) for at, (on, start, end) in enumerate(held) for gpu in on]
    if not rows:
        return []
    of, gpu, start, end = (np.array(column, dtype=np.int64) for column in zip(*rows, strict=True))
    shares = gpu_shares(_one_each(int(gpu.max()) + 1), gpu, start, end)
    worth: list[float] = np.bincount(of, weights=shares, minlength=len(held)).tolist()
    return worth[: len(ended)]


def _one_each(gpus: int) -> SlotLayout:
    """A layout in which slot i stands for GPU i and whatever runs there shares it."""
    return SlotLayout(tuple((gpu,) for gpu in range(max(gpus, DEFAULT_GPUS))), 1.0, 0.5)


def _records(ledger: Path, last_seq: int) -> tuple[dict[int, Trained], int]:
    """The training records up to an entry, by the entry their job was gone at; how many are bad."""
    found: dict[int, Trained] = {}
    bad = 0
    try:
        with closing(sqlite3.connect(f"{ledger.absolute().as_uri()}?mode=ro", uri=True)) as file:
            for seq, payload in file.execute(_RECORDS, (last_seq,)):
                try:
                    found[seq] = Trained.model_validate_json(str(payload))
                except ValidationError:
                    bad += 1
    except sqlite3.DatabaseError as why:
        if "no such table" in str(why):
            return {}, 0
        if "not a database" in str(why):
            raise InputError(
                f"{ledger}: found JSON lines, allowed is the daemon's own file: they have no "
                "training records"
            ) from None
        raise InputError(f"{ledger}: training: cannot be read: {why}") from None
    return found, bad
