"""What an operator sees of the daemon: slots, jobs, deadlines, GPUs."""

from typing import Any

from live.clock import Clock
from live.gpus import Gpus
from live.stamping import MachineView
from live.supervisor import JobStatus, Supervisor
from shared.jobs import Job
from shared.units import GB, MS_PER_SECOND

Json = dict[str, Any]


def status(
    machine: MachineView,
    supervisor: Supervisor,
    gpus: Gpus,
    clock: Clock,
    *,
    ledger_failing: bool = False,
) -> Json:
    """The whole of it, as the admin socket answers. Times: UTC epoch ms, and seconds of slack.

    machine: as the ledger has it; nothing is shown that a crash could still undo.
    """
    policy = machine.policy
    return {
        "preset": policy.preset.name,
        "cap": policy.preset.cap,
        "slots_in_use": machine.slots_in_use,
        "draining": machine.draining,
        "storage_full": machine.storage_full,
        "ledger_failing": ledger_failing,
        "now_ms": clock.now_ms(),
        "next_timer_ms": machine.next_timer(),
        "slots": _slots(machine, supervisor, clock),
        "gpus": [_gpu(number, supervisor, gpus, machine.failed_gpus)
                 for number in range(policy.preset.gpus)],
    }  # fmt: skip


def _slots(machine: MachineView, supervisor: Supervisor, clock: Clock) -> list[Json]:
    """Every slot of the layout, then the jobs of an earlier layout, which hold none of these."""
    watched = {each.task_id: each for each in supervisor.status()}
    layout = machine.policy.preset.layout
    held = {
        (job.slot, job.gpus): (task_id, job) for task_id, job in machine.jobs.items()
    }  # a slot number alone can stand for two layouts
    rows = []
    for slot, gpus in enumerate(layout.gpus):
        found = held.pop((slot, gpus), None)
        out = not machine.failed_gpus.isdisjoint(gpus)
        free = {"slot": slot, "gpus": list(gpus), "state": "out" if out else "free"}
        rows.append(free if found is None else _job(*found, watched.get(found[0]), clock))
    rows += [
        {**_job(task_id, job, watched.get(task_id), clock), "earlier_layout": True}
        for task_id, job in held.values()
    ]
    return rows


def _job(task_id: str, job: Job, watched: JobStatus | None, clock: Clock) -> Json:
    told: Json = {
        "slot": job.slot,
        "gpus": list(job.gpus),
        "state": job.state,
        "task_id": task_id,
        "source": job.source,
        "deadline_ms": job.deadline_ms,
    }
    if job.deadline_ms is None:
        return {**told, "lapses_ms": job.lapses_ms}
    told["slack_s"] = (job.deadline_ms - clock.now_ms()) / MS_PER_SECOND
    if watched is not None:
        told["folder"] = str(watched.folder)
        told["attempt"] = watched.launcher.attempt if watched.launcher else 0
        told["progress"] = watched.progress.model_dump() if watched.progress else None
    return told


def _gpu(number: int, supervisor: Supervisor, gpus: Gpus, failed: frozenset[int]) -> Json:
    told: Json = {"gpu": number, "healthy": number not in failed}
    reason = supervisor.gpu_watch.reasons.get(number)
    if number >= gpus.count:
        reason = "this box has no such GPU"
    if reason:
        told["reason"] = reason
    if number < gpus.count:
        seen = supervisor.gpu_watch.seen.get(number)
        if seen is not None:
            told["name"], told["used_gb"] = seen[0], seen[1] / GB
    return told
