"""What scores the answers of a GRPO job: the request's functions in their jails, or a stand-in."""

import logging
from collections.abc import Callable
from contextlib import ExitStack
from functools import wraps
from typing import Any

from live.training import stand_ins
from live.training.rewards import (
    RewardFailed,
    RewardPool,
    RewardSettings,
    TrlReward,
    read_functions,
)
from live.training.rows import GRPO
from live.worker_files import WorkerFiles
from shared.errors import InputError

log = logging.getLogger(__name__)
MOST_FAULT_LINES = 20
SLACK_S = 120.0
"""For the process to be started anew, and the step to go on."""


def reward_functions(files: WorkerFiles, held: ExitStack) -> dict[str, Any]:
    """``functions`` as the trainer calls them, and their ``weights``; empty for other tasks.

    The jails stay open until ``held`` closes. Functions that may not run are left out and told of;
    without any other the job fails. One that fails too often in the middle of the run ends it: what
    was trained by then is handed in. Raises InputError.
    """
    spec = files.spec
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
    try:
        pool = held.enter_context(RewardPool(functions, settings))
    except RewardFailed as why:
        raise InputError(str(why)) from None
    at_most_s = settings.seconds + SLACK_S
    scored = [
        giving_up(each, files.give_up, lambda: files.beat(at_most_s)) for each in pool.as_trl()
    ]
    return {"functions": scored, "weights": list(pool.weights)}


def giving_up(
    function: TrlReward, give_up: Callable[[str], None], beat: Callable[[], None] = lambda: None
) -> TrlReward:
    """The same function, with a sign of life before each call.

    From its last failure on it scores nothing, and the run is told to end.
    An exception here would leave the other ranks waiting, and what was trained in the folder.
    """
    over = False

    @wraps(function)
    def reward(*given: Any, **named: Any) -> list[float | None]:
        nonlocal over
        beat()
        if not over:
            try:
                return function(*given, **named)
            except RewardFailed as why:
                over = True
                log.error("%s; the run ends with what it has", why)
                give_up(str(why))
        return [None] * len(named["completions"] if "completions" in named else given[1])

    return reward
