"""Reward functions of GRPO tasks: a stranger's source, run in a jailed process each.

A pool is off unless its settings turn it on. What the jail keeps in and out is told in
docs/rewards.md; this module starts it, asks it, and bounds what a bad function can cost.
"""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from live.training.reward_child import RewardChild, RewardFailed, RewardFault
from live.training.reward_source import COMPLETIONS, EXTRA, PROMPTS, RewardSource, read_source
from shared.errors import InputError
from shared.wire import found

__all__ = [
    "RewardFailed", "RewardFunction", "RewardPool", "RewardSettings", "read_functions",
]  # fmt: skip

MOST_WEIGHT = 1e6
KEPT_LINES = 50
"""How many of the last faults a pool can tell of."""
TrlReward = Callable[..., list[float | None]]


@dataclass(frozen=True, slots=True)
class RewardSettings:
    """Limits of a pool. seconds: of one call, wall clock; memory_bytes: of address space, a
    process; most_in_a_row and most_faults: of one function, before the pool gives up.
    """

    enabled: bool = False
    seconds: float = 5.0
    memory_bytes: int = 512 << 20
    most_functions: int = 16
    most_in_a_row: int = 5
    most_faults: int = 200


@dataclass(frozen=True, slots=True)
class RewardFunction:
    """A function that may run, and how much its values count."""

    source: RewardSource
    weight: float


def read_functions(asked: object) -> tuple[list[RewardFunction], list[str]]:
    """The functions of a request that may run, and one line for each that may not.

    Raises InputError when it is no list of objects with reward_func and reward_weight.
    """
    if not isinstance(asked, list | tuple) or not asked:
        raise InputError(f"reward_functions: found {found(asked)}, allowed is a list of functions")
    good, refused = [], []
    for at, one in enumerate(asked):
        where = f"reward_functions.{at}"
        source, weight = _told(where, one)
        try:
            good.append(RewardFunction(read_source(source), weight))
        except InputError as why:
            refused.append(f"{where}.reward_func: {why}")
    return good, refused


def _told(where: str, one: object) -> tuple[str, float]:
    if not isinstance(one, Mapping):
        raise InputError(f"{where}: found {found(one)}, allowed is an object")
    source, weight = one.get("reward_func"), one.get("reward_weight")
    if not isinstance(source, str):
        raise InputError(f"{where}.reward_func: found {found(source)}, allowed is Python source")
    if isinstance(weight, bool) or not isinstance(weight, int | float):
        raise InputError(f"{where}.reward_weight: found {found(weight)}, allowed is a number")
    if not (math.isfinite(weight) and 0 <= weight <= MOST_WEIGHT):
        raise InputError(f"{where}.reward_weight: found {weight}, allowed is 0 to {MOST_WEIGHT:g}")
    return source, float(weight)


class RewardPool:
    """One jailed process a function, from ``with`` to its end.

    Raises InputError when rewards are off, a function is refused or there are too many; on entering
    RewardFailed when a process cannot be jailed or a source does not load. The thread that enters
    has to outlive the pool: the processes die with the thread that started them.
    """

    def __init__(
        self,
        functions: Sequence[RewardFunction | Mapping[str, Any]],
        settings: RewardSettings,
        on_fault: Callable[[str], None] | None = None,
    ) -> None:
        self.functions = _checked(functions, settings)
        self.settings = settings
        self.weights = [function.weight for function in self.functions]
        self.names = _names(self.functions)
        self.fault_lines: list[str] = []
        self._faults = [0] * len(self.functions)
        self._in_a_row = [0] * len(self.functions)
        self._on_fault = on_fault
        self._children = [
            RewardChild(function.source, settings.seconds, settings.memory_bytes)
            for function in self.functions
        ]

    def __enter__(self) -> Self:
        try:
            for name, child in zip(self.names, self._children, strict=True):
                try:
                    child.start()
                except RewardFault as why:
                    raise RewardFailed(f"the reward {name} does not load: {why}") from None
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the processes."""
        for child in self._children:
            child.stop()

    @property
    def faults(self) -> dict[str, int]:
        """How many calls of each function went wrong."""
        return dict(zip(self.names, self._faults, strict=True))

    @property
    def held(self) -> tuple[str, ...]:
        """What encloses every one of the processes, by name."""
        first, *others = (child.held for child in self._children)
        return tuple(name for name in first if all(name in held for held in others))

    def score(
        self, prompts: Sequence[Any], completions: Sequence[Any], extra: Sequence[Any] | None = None
    ) -> list[list[float]]:
        """Unweighted rewards, function by completion; 0.0 throughout where a call went wrong.

        Prompts and completions are texts or lists of messages; extra, one value a completion, goes
        to the functions that have a parameter extra_data. Raises RewardFailed.
        """
        zeros = [0.0] * len(completions)
        every = range(len(self.functions))
        return [self._score(at, prompts, completions, extra) or zeros for at in every]

    def as_trl(self) -> list[TrlReward]:
        """One callable a function, as TRL's trainers take them in ``reward_funcs``.

        Where a call went wrong they return None for each completion, which TRL leaves out of its
        means: a 0.0 would stand beside real values of the other ranks. Raise RewardFailed.
        """
        return [self._trl(at) for at in range(len(self.functions))]

    def _trl(self, at: int) -> TrlReward:
        def reward(
            prompts: Sequence[Any],
            completions: Sequence[Any],
            completion_ids: object = None,  # noqa: ARG001
            **kwargs: Any,
        ) -> list[float | None]:
            values = self._score(at, prompts, completions, kwargs.get(EXTRA))
            return [None] * len(completions) if values is None else list(values)

        reward.__name__ = reward.__qualname__ = self.names[at]
        return reward

    def _score(
        self,
        at: int,
        prompts: Sequence[Any],
        completions: Sequence[Any],
        extra: Sequence[Any] | None,
    ) -> list[float] | None:
        texts = [text_of(one) for one in completions]
        given = {COMPLETIONS: texts, PROMPTS: [text_of(one) for one in prompts]}
        if extra is not None:
            given[EXTRA] = list(extra)
        takes = self.functions[at].source.takes
        keywords = {name: given[name] for name in takes if name in given}
        arguments = [] if COMPLETIONS in takes else [texts]
        try:
            values = self._children[at].values(arguments, keywords, len(texts))
        except RewardFault as why:
            self._count(at, str(why))
            return None
        self._in_a_row[at] = 0
        return values

    def _count(self, at: int, why: str) -> None:
        self._faults[at] += 1
        self._in_a_row[at] += 1
        line = f"the reward {self.names[at]} failed ({self._faults[at]}): {why}"
        self.fault_lines = [*self.fault_lines, line][-KEPT_LINES:]
        if self._on_fault is not None:
            self._on_fault(line)
        bad = self._in_a_row[at] >= self.settings.most_in_a_row
        if bad or self._faults[at] >= self.settings.most_faults:
            raise RewardFailed(f"{line}; {self._in_a_row[at]} in a row")


def _checked(
    functions: Sequence[RewardFunction | Mapping[str, Any]], settings: RewardSettings
) -> list[RewardFunction]:
    if not settings.enabled:
        raise InputError("reward_functions: found some, allowed are none: rewards are turned off")
    if not 0 < len(functions) <= settings.most_functions:
        allowed = f"allowed are 1 to {settings.most_functions}"
        raise InputError(f"reward_functions: found {len(functions)}, {allowed}")
    good: list[RewardFunction] = []
    for at, one in enumerate(functions):
        if not isinstance(one, RewardFunction):
            source, weight = _told(f"reward_functions.{at}", one)
            one = RewardFunction(_source(at, source), weight)
        good.append(one)
    return good


def _source(at: int, text: str) -> RewardSource:
    try:
        return read_source(text)
    except InputError as why:
        raise InputError(f"reward_functions.{at}.reward_func: {why}") from None


def _names(functions: Sequence[RewardFunction]) -> list[str]:
    """A name each, made of what a log can hold, no two alike."""
    names: list[str] = []
    for function in functions:
        plain = re.sub(r"[^A-Za-z0-9_]", "_", function.source.name)[:60]
        alike = sum(name == plain or name.startswith(f"{plain}.") for name in names)
        names.append(f"{plain}.{alike + 1}" if alike else plain)
    return names


def text_of(one: object) -> str:
    """A prompt's or completion's text: itself, or the last message's content of a conversation."""
    if isinstance(one, str):
        return one
    if isinstance(one, Sequence) and one and isinstance(one[-1], Mapping):
        content = one[-1].get("content")
        if isinstance(content, Sequence) and not isinstance(content, str):
            parts = (part.get("text") for part in content if isinstance(part, Mapping))
            return "".join(part for part in parts if isinstance(part, str))
        return content if isinstance(content, str) else ""
    return ""
