"""The static gates of a whole stream: numpy columns for the shared column form."""

import numpy as np
from numpy.typing import NDArray

from shared.columns import ColumnOps, priority_column, static_gate_column
from shared.decisions import Policy
from shared.families import family_of
from shared.offers import DEFAULT_PARAMS_B, size_in_name
from shared.priority import Facts
from sim.stream import UNKNOWN, Floats, OfferStream

NUMPY_OPS = ColumnOps(least=np.minimum, most=np.maximum, choose=np.where)


def static_columns(stream: OfferStream, policy: Policy) -> tuple[NDArray[np.uint8], Floats]:
    """Static gate codes (uint8) and priorities (float64) of all offers under a policy."""
    priority = priority_column(policy, _facts(stream, policy), NUMPY_OPS)
    gate = static_gate_column(
        policy, stream.hours, _unsupported(stream, policy), priority, NUMPY_OPS
    )
    return np.broadcast_to(gate, len(stream)).astype(np.uint8), priority


def _facts(stream: OfferStream, policy: Policy) -> Facts:
    tables = policy.preset.tables
    types, models = stream.task_type, stream.model
    weight = np.array([tables.weight_of(name) for name in types.names])
    success = np.array([tables.success_of(name) for name in types.names])
    family = np.array([tables.performance_of(family_of(name)) for name in models.names])
    return Facts(
        task_weight=weight[types.codes],
        family_performance=family[models.codes],
        task_success=success[types.codes],
        hours=stream.hours,
        params_b=_params_b(stream),
    )


def _params_b(stream: OfferStream) -> Floats:
    """Billions of parameters, as ``shared.offers.params_b`` has it: float64."""
    sizes = (size_in_name(name) for name in stream.model.names)
    named = np.array([DEFAULT_PARAMS_B if size is None else size for size in sizes])
    counted = stream.params / 1e9
    return np.where(stream.params == UNKNOWN, named[stream.model.codes], counted)


def _unsupported(stream: OfferStream, policy: Policy) -> NDArray[np.bool_]:
    """Which offers the box has declared it cannot train: each distinct kind is asked once."""
    box, layout = policy.box, policy.preset.layout
    if box.task_types is None and box.shortest_row is None:
        return np.zeros(len(stream), dtype=np.bool_)
    kinds = stream.task_type.codes.astype(np.int64) * len(stream.model.names) + stream.model.codes
    counts, count_codes = np.unique(stream.params, return_inverse=True)
    _, first, kind = np.unique(
        kinds * len(counts) + count_codes, return_index=True, return_inverse=True
    )
    asked = [box.why_unsupported(stream.offer(i), layout) is not None for i in first.tolist()]
    return np.array(asked, dtype=np.bool_)[kind]
