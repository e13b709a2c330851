"""Why the answer is what it is: the steps from slots to income, each one computed."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from sim.comparison import Comparison
from sim.output_analysis import fitted
from sim.quality import slot_of
from sim.quality.columns import Jobs
from sim.quality.throughput import Trained, trained
from sim.report.dependence import loss_lower
from sim.report.findings import Findings
from sim.report.standing import FIRST_PLACE, REVENUE, question
from sim.report.words import mean_of, share_of, times
from sim.season import jobs_of
from sim.stream import Floats

_RARE = 0.1
"""A first-place rate under which the field is said to win nearly all."""
_FULLER = 1.1
"""How much more of a GPU than its nominal part a job must have had for it to be told."""


@dataclass(frozen=True)
class Compute:
    """What the language jobs of a preset had and trained in the first replication, by offer.

    gpus: GPUs' worth of compute on average over the job. rank: LoRA rank of the plan.
    """

    offer: Floats
    gpus: Floats
    tokens: Floats
    rank: Floats


def mechanism(findings: Findings) -> dict[str, list[str]]:
    """Sentences under each model for the pair that the answer is about; none without a pair."""
    pair = question(findings.comparison)
    if pair is None:
        return {}
    told = {}
    for model, view in findings.comparison.by_model.items():
        steps = [*_volume(view, *pair), *_losses(findings, view, *pair), *_failures(view, *pair)]
        if steps:
            told[model] = steps
    return told


def _mean(view: Comparison, name: str, metric: str) -> float:
    found = view.presets[name][metric]
    return float("nan") if found is None else found.mean


def _volume(view: Comparison, a: str, b: str) -> Iterator[str]:
    """Income is jobs times what a job earns."""
    if _mean(view, a, "jobs_completed") > _mean(view, b, "jobs_completed"):
        a, b = b, a
    few, many = (_mean(view, name, "jobs_completed") for name in (a, b))
    if not few > 0:
        return
    told = f"{b} completes {times(many / few)} the jobs of {a}"
    each = [_mean(view, name, REVENUE) / jobs for name, jobs in ((a, few), (b, many))]
    if each[0] > 0 and each[1] > 0:
        told += f", and each earns {times(each[1] / each[0])} what one of {a} earns"
    yield f"{told}."
    yield from _unpaid(view, a, b)


def _unpaid(view: Comparison, *names: str) -> Iterator[str]:
    """The market pays nothing for a mean score under 0."""
    for name in names:
        score = _mean(view, name, "mean_score")
        if score < 0 and _mean(view, name, REVENUE) <= 0:
            shown = mean_of(view.presets[name]["mean_score"], "mean_score")
            yield f"{name} earns nothing: its mean score is {shown}, and under 0 nothing is paid."


def _losses(findings: Findings, view: Comparison, a: str, b: str) -> Iterator[str]:
    if view.model == "physical":
        yield from _compute_told(findings, a, b)
    lower = loss_lower(view, a, b)
    if lower is not None:
        yield f"The test losses of {a} are {_lower(lower.mean)} those of {b}."
    if max(_mean(view, name, FIRST_PLACE) for name in (a, b)) < _RARE:
        yield (
            "Only the best of all entrants of a task is first, and with such losses that is nearly "
            "always somebody else: neither preset comes first in more than "
            f"{share_of(max(_mean(view, name, FIRST_PLACE) for name in (a, b)))} of its jobs."
        )


def _lower(share: float) -> str:
    size = share_of(abs(share))
    if size == share_of(0):
        return "within a tenth of a percent of"
    return f"{size} {'lower' if share >= 0 else 'higher'} than"


def _compute_told(findings: Findings, a: str, b: str) -> Iterator[str]:
    """Tokens a job: GPUs that it had, times tokens that a GPU gives at its rank."""
    view = findings.comparison.by_model["physical"]
    ratio = np.divide(view.values(a, "tokens_trained"), view.values(b, "tokens_trained"))
    found = fitted(ratio.tolist())
    if found is None:
        return
    bounds = "" if found.lo is None or found.hi is None else f" [{found.lo:.3g} to {found.hi:.3g}]"
    yield f"A job of {a} trains {found.mean:.3g}{bounds} times the tokens of one of {b}."
    ours, theirs = compute_of(findings, a), compute_of(findings, b)
    both, here, there = np.intersect1d(ours.offer, theirs.offer, return_indices=True)
    if not len(both):
        return
    gpus = float(ours.gpus[here].mean()), float(theirs.gpus[there].mean())
    ranks = float(ours.rank[here].mean()), float(theirs.rank[there].mean())
    had = np.log(ours.gpus[here] / theirs.gpus[there])
    all_in_all = np.log(ours.tokens[here] / theirs.tokens[there])
    yield (
        f"On the {len(both)} jobs that both took in replication {findings.first.number}, it had "
        f"{gpus[0]:.2f} GPUs against {gpus[1]:.2f}{_idle(findings, b, gpus[1])}, "
        f"{times(float(np.exp(had.mean())))} as much; a GPU trained "
        f"{times(float(np.exp((all_in_all - had).mean())))} the tokens, at a mean LoRA rank of "
        f"{ranks[0]:,.0f} against {ranks[1]:,.0f} (a token costs more at a higher rank) and with "
        f"{_together(findings, a, b)}."
    )


def _together(findings: Findings, a: str, b: str) -> str:
    """How many GPUs work together on one job."""
    counts = [len(findings.policies[name].preset.layout.gpus[0]) for name in (a, b)]
    if counts[0] == counts[1]:
        return "as many GPUs working together"
    return f"{counts[0]} GPUs working together against {counts[1]}"


def _idle(findings: Findings, name: str, gpus: float) -> str:
    """Slots that share a GPU and are partly empty leave more of it to those that run."""
    layout = findings.policies[name].preset.layout
    if gpus < _FULLER * layout.gpus_per_slot:
        return ""
    used = mean_of(findings.presets[name]["slot_utilisation"], "slot_utilisation")
    return (
        f" (not {layout.gpus_per_slot:.2f}: its slots are in use {used} of the time, and "
        "neighbours that are idle leave it their part)"
    )


def compute_of(findings: Findings, name: str) -> Compute:
    """The language jobs that trained at all, in the first replication."""
    preset = findings.policies[name].preset
    jobs, _ = jobs_of(findings.first.workload, findings.first.decisions[name], preset.layout)
    quality = findings.comparison.world.scenario.market.quality
    slot = slot_of(preset)
    done: Trained = trained(jobs, slot, quality.physical, quality.reference)
    kept = done.is_language & (done.tokens > 0)
    return Compute(
        jobs.offer[kept].astype(np.float64),
        _gpus(jobs, slot.gpus)[kept],
        done.tokens[kept],
        (done.lora_ratio * quality.reference.lora_r)[kept],
    )


def _gpus(jobs: Jobs, each: int) -> Floats:
    return jobs.gpu_share * each


def _failures(view: Comparison, a: str, b: str) -> Iterator[str]:
    """A failed job is a penalty, which the document's own success rate forgets."""
    success = [view.presets[name]["success_rate"] for name in (a, b)]
    penalty = [view.presets[name]["penalty_rate"] for name in (a, b)]
    if None in success or None in penalty:
        return
    failed = [share_of(1 - found.mean) for found in success if found]
    fined = [share_of(found.mean) for found in penalty if found]
    yield (
        f"{failed[0]} of {a}'s jobs fail and {failed[1]} of {b}'s; a failure is a penalty, so "
        f"{fined[0]} and {fined[1]} are penalised."
    )
