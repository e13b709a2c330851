"""The priority of an offer, in the three forms that the presets use.

Every formula is written once, with operators alone, and takes plain floats or whole columns of
IEEE doubles; ``least`` and ``most`` are ``min`` and ``max`` or their column forms. Both therefore
agree to the last bit: the same operations, in the same order, from left to right as written.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from shared.errors import InputError
from shared.families import FAMILIES

Number = Any
"""A float, or a column of floats with the same operators."""
Pick = Callable[[Any, Any], Any]


@dataclass(frozen=True, slots=True)
class Facts:
    """What a formula may look at: floats, or columns of one length.

    task_weight, family_performance, task_success: looked up in the preset's tables.
    hours: hours to complete. params_b: billions of parameters.
    """

    task_weight: Number
    family_performance: Number
    task_success: Number
    hours: Number
    params_b: Number


@dataclass(frozen=True, slots=True)
class WeightedTerms:
    """min(tw*w + fp*w + ts*w + bonus + hardware_bonus, ceiling): the strategy document's form."""

    weight: float
    bonus: float
    hardware_bonus: float
    ceiling: float = 1.0
    form: Literal["weighted_terms"] = "weighted_terms"
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    def score(self, facts: Facts, least: Pick = min, most: Pick = max) -> Number:  # noqa: ARG002
        """The priority, of one offer or of a column of them."""
        total = (
            facts.task_weight * self.weight
            + facts.family_performance * self.weight
            + facts.task_success * self.weight
            + self.bonus
            + self.hardware_bonus
        )
        return least(total, self.ceiling)


@dataclass(frozen=True, slots=True)
class WeightedSum:
    """min(w*(tw+fp+ts) + bonus + hardware_bonus, ceiling): the two-job predecessor's form."""

    weight: float
    bonus: float
    hardware_bonus: float
    ceiling: float = 1.0
    form: Literal["weighted_sum"] = "weighted_sum"
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    def score(self, facts: Facts, least: Pick = min, most: Pick = max) -> Number:  # noqa: ARG002
        """The priority, of one offer or of a column of them."""
        terms = facts.task_weight + facts.family_performance + facts.task_success
        return least(self.weight * terms + self.bonus + self.hardware_bonus, self.ceiling)


@dataclass(frozen=True, slots=True)
class TimeAndSize:
    """max(w*(tw+fp+ts) + t/max(hours,1) + s*min(1,c/max(params_b,1)) + bonus, floor).

    The accept-everything predecessor's form: short jobs and small models score a little higher.
    """

    weight: float
    time_weight: float
    size_weight: float
    size_cap_b: float
    bonus: float
    floor: float
    form: Literal["time_and_size"] = "time_and_size"
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    def score(self, facts: Facts, least: Pick = min, most: Pick = max) -> Number:
        """The priority, of one offer or of a column of them."""
        terms = facts.task_weight + facts.family_performance + facts.task_success
        total = (
            self.weight * terms
            + self.time_weight / most(facts.hours, 1)
            + self.size_weight * least(1, self.size_cap_b / most(facts.params_b, 1))
            + self.bonus
        )
        return most(total, self.floor)


Formula = WeightedTerms | WeightedSum | TimeAndSize


@dataclass(frozen=True, slots=True)
class Tables:
    """What the formula looks up, by task type and by model family; unknown keys take a default.

    Raises InputError for a family that detection never gives, since its entry would do nothing.
    """

    task_weight: Mapping[str, float] = field(hash=False)
    family_performance: Mapping[str, float] = field(hash=False)
    task_success: Mapping[str, float] = field(hash=False)
    default_task_weight: float = 0.25
    default_family_performance: float = 0.75
    default_task_success: float = 0.90
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    def __post_init__(self) -> None:
        for family in self.family_performance:
            if family not in FAMILIES:
                raise InputError(
                    f"family_performance: found {family!r}, which is never detected; "
                    f"allowed is one of {', '.join(FAMILIES)}"
                )

    def weight_of(self, task_type: str) -> float:
        """The weight of a task type."""
        return self.task_weight.get(task_type, self.default_task_weight)

    def success_of(self, task_type: str) -> float:
        """The success rate of a task type."""
        return self.task_success.get(task_type, self.default_task_success)

    def performance_of(self, family: str | None) -> float:
        """The performance of a model family; None is an unknown one."""
        return self.family_performance.get(family or "", self.default_family_performance)
