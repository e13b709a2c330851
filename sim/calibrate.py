"""From a live ledger's finished jobs to a calibration file. `docs/quality.md` says what each is.

Jobs that were cancelled or lost their GPU say nothing of training and are no outcomes.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from itertools import pairwise
from math import inf
from statistics import median
from typing import Any

from shared.errors import InputError
from sim.finished_jobs import FinishedJob, FinishedJobs
from sim.output_analysis import Estimate, estimate, fitted, probability_of_beating
from sim.quality.calibration import ANY_TYPE, Calibration
from sim.quality.config import Noise

MOST_FOR_BOOTSTRAP = 2_000
"""Over so many values Student's t is exact enough, and resampling them takes memory."""
ENOUGH_MEASURED = 10
"""Losses and speeds that a mean is made of, at least (fewer where fewer outcomes are asked for)."""
PARAMS_EDGES = (0, 2 * 10**9, 5 * 10**9, 10**10, 2 * 10**10, 4 * 10**10, 8 * 10**10, 2**53)
"""Parameters of the base model: the ranges that speeds are given for."""
SYNTH_SPREAD = Noise().synth
"""Of the synthetic loss against the test loss, a share of it; assumed, as in the other models."""
MOST = 1000.0
"""Of a ratio: one run that diverged must not be the mean of all others."""
GRPO, REWARD = "GrpoTask", "reward"

Json = dict[str, Any]
Ratios = dict[int, float]
"""A job's place among the outcomes to its test ratio."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A task type in slots of one size with too little to stand for itself."""

    task_type: str
    gpus: float
    outcomes: int
    losses: int


@dataclass(frozen=True, slots=True)
class Calibrated:
    """calibration: the file's content, valid. summary: what it was made of, as JSON values."""

    calibration: Json
    summary: Json


def calibrate(found: FinishedJobs, least: int) -> Calibrated:
    """The calibration that finished jobs give, with ``least`` outcomes in every entry.

    The pooled entry has the slot sizes with enough outcomes of all types together; a type has its
    own where it has enough at every one of those sizes, so that no two sizes of one comparison are
    read from different sets of types. Raises InputError when there is no entry.
    """
    jobs = [job for job in found.jobs if job.outcome in ("completed", "failed")]
    ratios = test_ratios(jobs)
    measured = min(ENOUGH_MEASURED, least)
    left: list[LeftOut] = []

    def slots_of(task_type: str) -> list[Json]:
        mine = [at for at, job in enumerate(jobs) if task_type in (ANY_TYPE, job.task_type)]
        sizes = sorted({jobs[at].gpus for at in mine})
        made = []
        for gpus in sizes:
            here = [at for at in mine if jobs[at].gpus == gpus]
            losses = [ratios[at] for at in here if at in ratios]
            if len(here) < least or len(losses) < max(2, measured):
                left.append(LeftOut(task_type, gpus, len(here), len(losses)))
            else:
                made.append(_slot(gpus, [jobs[at] for at in here], losses, measured))
        return made

    pooled = slots_of(ANY_TYPE)
    if not pooled:
        raise InputError(_too_few(left, least))
    sizes = [slot["gpus"] for slot in pooled]
    types = {name: slots_of(name) for name in sorted({job.task_type for job in jobs})}
    own = {
        name: {"slots": slots}
        for name, slots in types.items()
        if [slot["gpus"] for slot in slots] == sizes
    }
    content = {
        "version": 1,
        "note": _note(found, jobs),
        "service": _service(jobs),
        "task_types": {**own, ANY_TYPE: {"slots": pooled}},
    }
    Calibration.model_validate(content)
    return Calibrated(content, _summary(found, jobs, ratios, left, own))


def test_ratios(jobs: Sequence[FinishedJob]) -> Ratios:
    """Each handed-in job's loss over its base model's, over the median of that in its task type.

    Jobs without a loss over 0 on both sides have none. Of a reward it is the base model's over the
    job's: lower is better in every type. At most ``MOST``.
    """
    raw = {at: found for at, job in enumerate(jobs) if (found := _over_base(job)) is not None}
    medians = {
        name: median(raw[at] for at in raw if jobs[at].task_type == name)
        for name in {jobs[at].task_type for at in raw}
    }
    return {at: min(MOST, found / medians[jobs[at].task_type]) for at, found in raw.items()}


def _over_base(job: FinishedJob) -> float | None:
    record = job.record
    if not job.handed_in or record is None:
        return None
    before, after = record.held_out_loss_base, record.held_out_loss
    if before is None or after is None or not (before > 0 and after > 0):
        return None
    rewarded = REWARD in record.held_out_metric if record.held_out_metric else _is_grpo(job)
    return before / after if rewarded else after / before


def _is_grpo(job: FinishedJob) -> bool:
    return job.task_type == GRPO


# One slot size.


def _slot(gpus: float, jobs: Sequence[FinishedJob], losses: Sequence[float], least: int) -> Json:
    test = measured(losses)
    return {
        "gpus": gpus,
        "outcomes": len(jobs),
        "test_ratio": test,
        "synth_ratio": _synth(test),
        "success": success(sum(job.handed_in for job in jobs), len(jobs)),
        "tokens_per_second": [*_speeds(jobs, max(2, least))],
    }


def measured(values: Sequence[float]) -> Json:
    """Mean, standard deviation and the 95% interval of the mean, of two positive values or more."""
    many = len(values) > MOST_FOR_BOOTSTRAP
    found = estimate(values) if many else fitted(values, (0.0, inf))
    if found is None or found.lo is None or found.hi is None:
        raise ValueError(f"found {len(values)} values, allowed is 2 or more")
    sd = (sum((value - found.mean) ** 2 for value in values) / (len(values) - 1)) ** 0.5
    return {"mean": _short(found.mean), "sd": _short(sd), **_bounds(found)}


def success(handed_in: int, outcomes: int) -> Json:
    """The share of outcomes that handed a model in, with Wilson's 95% interval."""
    flags = [1.0] * handed_in + [0.0] * (outcomes - handed_in)
    found = probability_of_beating(flags, [0.5] * outcomes)  # a share and Wilson's interval
    assert found is not None
    return {"rate": _short(found.mean), **_bounds(found)}


def _bounds(found: Estimate) -> Json:
    """The interval around the mean, which rounding must not leave outside."""
    assert found.lo is not None
    assert found.hi is not None
    mean = _short(found.mean)
    return {"lo": min(mean, _short(max(0.0, found.lo))), "hi": max(mean, _short(found.hi))}


def _synth(test: Json) -> Json:
    """The synthetic loss is not measured: the test's, its spread and interval wider as assumed."""
    mean = test["mean"]
    more = SYNTH_SPREAD * mean
    return {
        "mean": mean,
        "sd": _short((test["sd"] ** 2 + more**2) ** 0.5),
        "lo": _short(max(0.0, test["lo"] - more)),
        "hi": _short(test["hi"] + more),
    }


def _speeds(jobs: Sequence[FinishedJob], least: int) -> Iterable[Json]:
    """Tokens a second of one GPU's worth that a job really had, by the model's size."""
    for low, below in pairwise(PARAMS_EDGES):
        values = [speed for job in jobs if (speed := _speed(job, low, below)) is not None]
        if len(values) >= least:
            yield {"params_from": low, "params_below": below, **measured(values)}


def _speed(job: FinishedJob, low: int, below: int) -> float | None:
    record = job.record
    if record is None or not (record.tokens_per_second or 0.0) > 0 or job.had <= 0:
        return None
    params = record.base_params or job.params
    assert record.tokens_per_second is not None
    return record.tokens_per_second / job.had if low <= params < below else None


# All jobs.


def _service(jobs: Sequence[FinishedJob]) -> Json:
    """How much of its hours a job keeps its slot: mean and interval, and a uniform of that mean.

    The uniform has the measured deviation where that leaves it between 0 and 1.
    """
    found = measured([job.used for job in jobs])
    mean, sd = found["mean"], found["sd"]
    half = min(3**0.5 * sd, mean, 1.0 - mean)
    return {
        "outcomes": len(jobs),
        "fraction": {**found, "hi": min(1.0, found["hi"])},
        "low": _short(mean - half),
        "high": _short(mean + half),
    }


def _note(found: FinishedJobs, jobs: Sequence[FinishedJob]) -> str:
    lost = sum(job.outcome == "gpu_failed" for job in found.jobs)
    told = (
        f"{len(jobs)} jobs of a live ledger, ended {_day(jobs[0])} to {_day(jobs[-1])}. "
        "Ratios are the held-out loss over the base model's, over the median of that in the task "
        "type: 1 is our own median job, no reference run was trained. "
        "The synthetic loss was not measured: it is the test loss with a spread and an interval "
        f"{SYNTH_SPREAD:.0%} wider (assumed)."
    )
    more = f" {lost} more jobs lost their GPU: a scenario's gpu_failures has to say that."
    return told + more if lost else told


def _day(job: FinishedJob) -> str:
    return f"{datetime.fromtimestamp(job.end_ms / 1000, UTC):%Y-%m-%d}"


def _summary(
    found: FinishedJobs,
    jobs: Sequence[FinishedJob],
    ratios: Ratios,
    left: Sequence[LeftOut],
    own: Json,
) -> Json:
    def count(holds: Callable[[FinishedJob], bool]) -> int:
        return sum(map(holds, found.jobs))

    records = [job.record for job in jobs if job.record is not None]
    setup = [r.load_s + r.finish_s for r in records if None not in (r.load_s, r.finish_s)]  # type: ignore[operator]
    return {
        "outcomes": len(jobs),
        "handed_in": count(lambda job: job.handed_in),
        "late": count(lambda job: job.outcome == "completed" and not job.handed_in),
        "failed": count(lambda job: job.outcome == "failed"),
        "gpu_failed": count(lambda job: job.outcome == "gpu_failed"),
        "cancelled": count(lambda job: job.outcome == "cancelled"),
        "still_open": found.left_out,
        "without_record": len(jobs) - len(records),
        "unreadable_records": found.unreadable,
        "with_a_ratio": len(ratios),
        "beat_the_base": sum(record.beats_base is True for record in records),
        "setup_minutes": _short(median(setup) / 60) if setup else None,
        "types_of_their_own": [*own],
        "too_few": [asdict(each) for each in left],
    }


def _too_few(left: Sequence[LeftOut], least: int) -> str:
    """The best of the slot sizes, and what it lacks."""
    best = max(left, key=lambda each: (each.losses, each.outcomes), default=None)
    if best is None:
        return f"found no job that trained to its end, allowed is {least} or more of a slot size"
    return (
        f"found {best.outcomes} outcomes, {best.losses} of them with losses, in slots of "
        f"{best.gpus:.4g} GPUs, allowed is {least} and {max(2, min(ENOUGH_MEASURED, least))} or "
        "more of a slot size"
    )


def _short(value: float) -> float:
    """Six digits: the same on every machine, and more than the interval leaves."""
    return float(f"{value:.6g}")
