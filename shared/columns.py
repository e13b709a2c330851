"""The static gates by column: the same decisions as ``decisions``, for a whole stream at once.

Nothing here knows which array library holds the columns; the few functions that plain operators
do not cover come in as ``ColumnOps``.
"""

from dataclasses import dataclass
from typing import Any

from shared.decisions import Gate, Policy
from shared.priority import Facts, Pick

Column = Any
"""A column: an array of one value an offer."""


@dataclass(frozen=True, slots=True)
class ColumnOps:
    """What plain operators cannot say: element-wise least, most and choice (as in numpy)."""

    least: Pick
    most: Pick
    choose: Any


def priority_column(policy: Policy, facts: Facts, ops: ColumnOps) -> Column:
    """Priorities of all offers, float64, equal to the scalar form's to the last bit."""
    return policy.preset.formula.score(facts, ops.least, ops.most)


def static_gate_column(
    policy: Policy, hours: Column, unsupported: Column, priority: Column, ops: ColumnOps
) -> Column:
    """Gate codes of all offers as far as their own fields decide them.

    hours: hours to complete, float64. unsupported: bool. priority: float64.
    """
    threshold = policy.preset.threshold
    passed: Any = int(Gate.ACCEPTED)
    if threshold is not None:
        passed = ops.choose(priority > threshold, passed, int(Gate.PRIORITY))
    supported = ops.choose(unsupported, int(Gate.UNSUPPORTED), passed)
    return ops.choose(hours > policy.preset.time_limit_hours, int(Gate.TIME), supported)
