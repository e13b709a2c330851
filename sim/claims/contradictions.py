"""Where the document's own numbers exclude each other, computed from them."""

from math import prod

from shared.profiles import ACCURACY_PROFILE, THROUGHPUT_PROFILE, TrainingProfile
from sim.claims.document import FACTORS, RATES, SUCCESS, TEST_LOSS_REDUCTION
from sim.claims.measured import percent


def contradictions() -> list[str]:
    """One sentence or two for each contradiction inside the document."""
    return [_factors(), _success(), _batches()]


def _factors() -> str:
    product = prod(1 + gain for gain in FACTORS.values())
    gains = ", ".join(f"+{100 * gain:.0f}%" for gain in FACTORS.values())
    low, high = (percent(bound) for bound in (TEST_LOSS_REDUCTION.low, TEST_LOSS_REDUCTION.high))
    return (
        f"The factor table ({gains} accuracy) multiplies to {product:.1f} times and has no stated "
        f"mapping to loss: if accuracy were the inverse of loss, the loss would be "
        f"{percent(1 - 1 / product)} lower, not the {low} to {high} claimed beside it."
    )


def _success() -> str:
    failing, penalty = 1 - SUCCESS.low, RATES["penalty"][1].high
    return (
        f"{percent(SUCCESS.low)} of jobs succeed and a penalty in under {percent(penalty)} of "
        f"tasks cannot both hold: a failure is a penalty, so {percent(failing)} of failures are "
        f"{failing / penalty:.0f} times the penalties allowed; both would need a success rate of "
        f"over {percent(1 - penalty)}."
    )


def _rows(profile: TrainingProfile) -> tuple[int, int]:
    sizes, steps = profile.batch_size_range, profile.gradient_accumulation_range
    return sizes[0] * steps[0], sizes[1] * steps[1]


def _batches() -> str:
    four, many = _rows(ACCURACY_PROFILE), _rows(THROUGHPUT_PROFILE)
    same = "the same" if four == many else "nearly the same"
    return (
        f"The batch is said to differ, but with the gradient accumulation of the same table an "
        f"optimizer step sees {four[0]} to {four[1]} rows a GPU with 4 jobs and {many[0]} to "
        f"{many[1]} with 24: {same} batches, in which the "
        f"{100 * FACTORS['batch']:.0f}% gain has no cause."
    )
