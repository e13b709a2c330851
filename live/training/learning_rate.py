"""The peak learning rate of an adapter, by the literature's rule."""

from live.training.rows import DPO, GRPO

BASE_RATE, LORA_FACTOR, REFERENCE_WIDTH, REFERENCE_ALPHA = 5e-5, 10.0, 2000, 32
WIDTH_EXPONENT = {"llama": 0.781, "qwen": 0.0775}
ASSUMED_EXPONENT = 0.5
RATE_SHARES = {DPO: 0.1, GRPO: 0.3}
"""Share of the rate where answers are only weighed; *assumed*, to be calibrated. TRL's defaults
have a twentieth, with which jobs of hours hardly move; at the whole rate answers degenerate."""


def learning_rate(model: str, hidden_size: int, alpha: float, task_type: str) -> float:
    """Peak rate for an adapter of this ``alpha``, by the literature's rule.

    Ten times the rate of full tuning whatever the rank, falling with the model's width by a power
    of its family ("LoRA Without Regret", Thinking Machines 2025, and its cookbook: 5e-5 * 10 *
    (2000/width)**0.781 for Llama, **0.0775 for Qwen), there at an alpha of 32. Under Adam the
    first steps move the product of the two matrices by alpha * rate, so the rate falls as alpha
    grows. Other families: 0.5, *assumed*.
    """
    name = model.lower()
    power = next((p for family, p in WIDTH_EXPONENT.items() if family in name), ASSUMED_EXPONENT)
    rate = BASE_RATE * LORA_FACTOR * (REFERENCE_WIDTH / hidden_size) ** power
    rate *= REFERENCE_ALPHA / alpha
    return float(rate * RATE_SHARES.get(task_type, 1.0))
