"""A job and the slot it holds, and what the machine answers to each input."""

from dataclasses import dataclass

from shared.decisions import Decision
from shared.inputs import StartRequested


@dataclass(frozen=True, slots=True)
class Job:
    """An accepted offer and the slot it holds, from its reservation until its processes are gone.

    state: ``reserved``, ``running`` or ``stopping``. lapses_ms: when a reservation ends by itself.
    deadline_ms: when the result is due; None before the start request. gpus: what the slot held
    when the job was accepted; a later change of policy does not move a job. After such a change
    two jobs may bear one slot number, of two layouts: a job is told by its task id and its GPUs.
    """

    decision: Decision
    hours_to_complete: float
    source: str
    gpus: tuple[int, ...]
    state: str
    lapses_ms: int
    deadline_ms: int | None = None

    @property
    def slot(self) -> int:
        """The slot this job holds."""
        assert self.decision.slot is not None
        return self.decision.slot


@dataclass(frozen=True, slots=True)
class Effect:
    """What an input other than an offer did.

    effect: ``started``, ``start_refused``, ``stopping``, ``released``, ``lapsed``,
    ``gpu_out``, ``gpu_back``, ``draining``, ``accepting``, ``storage_full``, ``storage_available``
    or ``policy``. in_use: slots that count against capacity afterwards.
    """

    at_ms: int
    effect: str
    in_use: int
    task_id: str | None = None
    slot: int | None = None
    gpu: int | None = None
    deadline_ms: int | None = None
    reason: str | None = None


Answer = Decision | Effect


def start_refusal(job: Job | None, entry: StartRequested, failed: frozenset[int]) -> str | None:
    """Why a start request is refused, or None."""
    if job is None:
        return "no accepted offer for this task"
    if job.source != entry.source:
        return "the offer came from another source"
    if not failed.isdisjoint(job.gpus):
        return "a GPU of its slot is out of service"
    return None if job.state == "reserved" else f"the job is already {job.state}"
