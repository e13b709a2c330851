"""What compute and memory alone do: tokens before the deadline, and the loss they lead to.

Nothing about a slot's size is asserted. A slot decides the tokens (its part of the GPUs), and
through the memory planner the adapter's rank and the batch; published laws make a loss of them.
"""

import numpy as np

from sim.quality.columns import GRPO, Jobs, Luck, Outcomes, Slot, outcomes_of
from sim.quality.config import EXPONENTS, PhysicalConfig, QualityConfig
from sim.quality.throughput import Trained, trained
from sim.stream import Floats


class Physical:
    """Scaling law, critical batch size and memory planner."""

    def __init__(self, config: QualityConfig) -> None:
        self._config = config

    def outcomes(self, jobs: Jobs, slot: Slot, luck: Luck) -> Outcomes:
        """Losses by the scaling law; a job that no plan fits, or that never trains, fails."""
        config = self._config
        compute = trained(jobs, slot, config.physical, config.reference)
        loss = _loss(jobs, compute, config)
        fails = config.physical.oom_rate + config.physical.unstable_rate
        trains = ~compute.is_language | (compute.tokens > 0)
        return outcomes_of(
            loss,
            loss,
            compute.tokens,
            trains & (luck.fate >= fails) & ~jobs.late,
            luck,
            config.noise,
        )


def _loss(jobs: Jobs, compute: Trained, config: QualityConfig) -> Floats:
    """L / L_ref = e + (1 - e) (X / X_ref)^-a (D / D_ref)^-b, by job; image models: 1.

    The law is L = A / (X^a D^b) + E (arXiv 2402.17193) and e the reference run's E / L. For GRPO
    the adapter does not count: reinforcement learning matches full tuning at rank 1 (LoRA Without
    Regret, 2025).
    """
    physical = config.physical
    of_adapter, of_data = EXPONENTS[physical.exponents]
    data = useful_tokens(compute.tokens, compute.batch_rows, physical)
    reference_rows = np.full(len(jobs), float(config.reference.batch_rows))
    reference = useful_tokens(compute.reference_tokens, reference_rows, physical)
    grpo = np.array([name == GRPO for name in jobs.task_type.names])[jobs.task_type.codes]
    adapter = np.where(grpo, 1.0, compute.lora_ratio)
    known = compute.is_language & (data > 0) & (reference > 0)
    ratio = np.divide(data, reference, out=np.ones(len(jobs)), where=known)
    reducible = adapter**-of_adapter * ratio**-of_data
    loss = physical.irreducible_share + (1 - physical.irreducible_share) * reducible
    return np.where(known, loss, 1.0)


def useful_tokens(tokens: Floats, batch_rows: Floats, config: PhysicalConfig) -> Floats:
    """Fresh tokens at a small batch that are worth as much as ``tokens``, same shape.

    Batch: E = Emin (1 + B / Bcrit) examples reach what Emin would at a small batch, which is
    (S/Smin - 1)(E/Emin - 1) = 1 solved for E (arXiv 1812.06162). Repetition: D' = U + U R (1 -
    exp(-(D/U - 1) / R)) for D over the U tokens of the data (arXiv 2305.16264).
    """
    spent = tokens / (1.0 + batch_rows / config.critical_batch_rows)
    unique, scale = float(config.dataset_rows * config.mean_row), config.repeat_epochs
    again = np.maximum(spent / unique - 1.0, 0.0)
    repeated = unique * scale * -np.expm1(-again / scale)
    return np.asarray(np.minimum(spent, unique) + repeated)
