"""Claims about single factors: what the physical model's own laws give for that factor alone.

The document says "accuracy" and never how it becomes loss. Read here as the share by which the
reducible loss falls. The results are computed, not simulated: they have no 95% interval, and the
range over what is not known stands in the words.
"""

from collections.abc import Callable, Iterable

import numpy as np

from shared.presets import Preset
from sim.claims.document import FACTORS, SPEED_RATIO, Claimed
from sim.claims.evidence import Evidence, Finding, Unjudgeable
from sim.claims.measured import Part, judged, percent, plain
from sim.output_analysis import Estimate, fitted

RANK_EXPONENTS = {"WMT14": -0.0017, "WMT19": 0.0044, "MLSum": 0.00022}
DATA_EXPONENTS = {"WMT14": 0.081, "WMT19": 0.025, "MLSum": 0.03}
"""alpha and beta of L = A / (X^alpha D^beta) + E, X the LoRA parameters and D the data, fitted on
three data sets: Zhang et al., When Scaling Meets LLM Finetuning (arXiv 2402.17193), table 4."""

SPEED_MODELS = ("physical", "calibrated")
"""The quality models that say how many tokens a job trains."""


def rank_effects(ratio: float) -> dict[str, float]:
    """Share by which a rank ``ratio`` times as high lowers the reducible loss, by data set.

    >>> {name: round(100 * effect, 2) for name, effect in rank_effects(16).items()}
    {'WMT14': -0.47, 'WMT19': 1.21, 'MLSum': 0.06}
    """
    return {name: 1 - ratio**-alpha for name, alpha in RANK_EXPONENTS.items()}


def batch_effects(ratio: float) -> tuple[float, float]:
    """The same for a batch ``ratio`` times as large at the same tokens: its least and its most.

    A batch B needs 1 + B / B_critical times the least data (McCandlish et al., arXiv 1812.06162:
    (S/Smin - 1)(E/Emin - 1) = 1). B_critical is not known: far under the batch, the data are worth
    1 / ratio; far over it, nothing changes.
    """
    ends = [1 - ratio**beta for beta in DATA_EXPONENTS.values()]
    return min(0.0, *ends), max(0.0, *ends)


def _only_physical(model: str) -> None:
    if model != "physical":
        raise Unjudgeable(f"the {model} model has no law for one factor alone")


def _factor(claim: str, effects: Iterable[float], how: str) -> Finding:
    known, claimed = sorted(effects), Claimed(FACTORS[claim], open=False)
    lo, hi, mean = known[0], known[-1], float(np.mean(known))
    verdict = Part(claim, Estimate(mean, lo, hi), claimed).verdict
    why = f"read as the reducible loss at least {percent(claimed.low)} lower: {how}"
    return Finding(Estimate(mean, None, None), verdict, why)


def rank(evidence: Evidence, model: str) -> Finding:
    """The highest rank with 4 slots against the lowest with 24, by the fine-tuning law."""
    _only_physical(model)
    most = evidence.preset(4).profile.lora_r_range[1]
    least = evidence.preset(24).profile.lora_r_range[0]
    effects = rank_effects(most / least)
    found = ", ".join(f"{percent(effect)} ({name})" for name, effect in effects.items())
    how = f"rank {least} to {most} alone lowers it by {found} (arXiv 2402.17193, table 4)"
    return _factor("rank", effects.values(), how)


def effective_batch(preset: Preset) -> int:
    """Rows of one optimizer step, as the profile asks: all GPUs and accumulation included."""
    profile = preset.profile
    gpus = len(preset.layout.gpus[0])
    return profile.batch_size * profile.gradient_accumulation_steps * gpus


def batch(evidence: Evidence, model: str) -> Finding:
    """The rows of an optimizer step, by the critical batch size."""
    _only_physical(model)
    four, many = (effective_batch(evidence.preset(cap)) for cap in (4, 24))
    lo, hi = batch_effects(four / many)
    how = (
        f"{four} rows a step instead of {many}, the tokens being the same, lower it by "
        f"{percent(lo)} to {percent(hi)}, whatever the critical batch size (arXiv 1812.06162)"
    )
    return _factor("batch", (lo, hi), how)


def gradient(_evidence: Evidence, model: str) -> Finding:
    """Accumulation adds up the same gradient."""
    _only_physical(model)
    how = "micro-batches add up to the gradient of the whole batch: accumulation changes nothing"
    return _factor("gradient", (0.0,), how)


def memory_effect(_evidence: Evidence, _model: str) -> Finding:
    """Memory is in no law of loss."""
    raise Unjudgeable(
        "memory by itself is in no law of loss: it acts through the rank, the batch and the row "
        "that fit, which have rows of their own"
    )


def convergence(evidence: Evidence, model: str) -> Finding:
    """Tokens trained per job, 4 slots over 24; the accuracy half has no mapping."""
    if model not in SPEED_MODELS:
        raise Unjudgeable(f"the {model} model does not say how fast a job converges")
    ratio = np.divide(_tokens(evidence, model, 4), _tokens(evidence, model, 24))
    part = Part("tokens trained per job, ratio", fitted(ratio.tolist()), SPEED_RATIO, plain)
    return judged(part, note=f"Judged by speed: {percent(FACTORS['convergence'])} has no mapping")


def _tokens(evidence: Evidence, model: str, cap: int) -> list[float]:
    """Mean tokens of a job; NaN where a replication has none."""
    tokens = np.asarray(evidence.values(model, cap, "tokens_trained"), dtype=np.float64)
    if evidence.tokens_are_totals:
        jobs = np.asarray(evidence.values(model, cap, "jobs_completed"), dtype=np.float64)
        tokens = tokens / np.where(jobs > 0, jobs, np.nan)
    return [float(each) for each in np.where(tokens > 0, tokens, np.nan)]


def fragmentation(evidence: Evidence, _model: str) -> Finding:
    """Judged by a measured slow-down alone; the models assume that N jobs get 1/N each."""
    if not len(evidence.sharing_slowdown):
        raise Unjudgeable(
            "no measured slow-down of jobs that share a GPU; the models assume 1/N of its compute "
            "each, without a loss"
        )
    part = Part(
        "slow-down beyond the share", fitted(evidence.sharing_slowdown), Claimed(1.0), plain
    )
    return judged(part)


FACTOR_ROWS: dict[str, Callable[[Evidence, str], Finding]] = {
    "batch": batch,
    "rank": rank,
    "memory-effect": memory_effect,
    "gradient": gradient,
    "convergence": convergence,
    "fragmentation": fragmentation,
}
