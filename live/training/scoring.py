"""What scores the answers of a GRPO job: the request's functions in their jails, or a stand-in."""

import logging
from contextlib import ExitStack
from typing import Any

from live.job_files import JobSpec
from live.training import stand_ins
from live.training.planning import GRPO
from live.training.rewards import RewardPool, RewardSettings, read_functions
from shared.errors import InputError

log = logging.getLogger(__name__)
MOST_FAULT_LINES = 20


def reward_functions(spec: JobSpec, held: ExitStack) -> dict[str, Any]:
    """``functions`` as the trainer calls them, and their ``weights``; empty for other tasks.

    The jails stay open until ``held`` closes. Functions that may not run are left out and told of;
    without any other the job fails. Raises InputError.
    """
    if spec.task_type != GRPO:
        return {}
    kind = spec.request.get("dataset_type")
    asked = kind.get("reward_functions") if isinstance(kind, dict) else None
    if not spec.training.rewards:
        if spec.device == "cpu" and not asked:
            return {"functions": [stand_ins.reward], "weights": [1.0]}
        raise InputError("training.rewards: reward functions are off in the configuration")
    functions, refused = read_functions(asked)
    for line in refused:
        log.warning("%s", line)
    if not functions:
        raise InputError(f"none of the reward functions may run: {refused[0]}")
    settings = RewardSettings(enabled=True, seconds=spec.training.reward_seconds)
    pool = held.enter_context(RewardPool(functions, settings))
    return {"functions": pool.as_trl(), "weights": list(pool.weights)}
