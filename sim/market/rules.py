"""The market's rules as data: named, versioned, frozen.

Every number here is from the validator's published rules, mid-2025, unless its line says
"ours". They changed several times before and will change again; that is why a rule set is a value
that a scenario names, and not a handful of constants in the formulas.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from math import fsum, isfinite
from types import MappingProxyType

from shared.errors import InputError


class Ranking(Enum):
    """How the submissions of a task are put in order."""

    WORSE_OF_TWO = "max(test, synth), lower is better"
    REWARD = "a weighted sum of test and synth, or test alone; higher is better"
    TEST_ONLY = "the test loss alone, lower is better"


@dataclass(frozen=True, slots=True)
class TaskGroup:
    """Task types that are ranked alike and share one weight in the income.

    ``synth_places`` is how many submissions get a synthetic evaluation (None: the group has none
    and every submission stays in). ``pool`` is the least and the largest number of miners that a
    task of the group goes to.
    """

    name: str
    task_types: tuple[str, ...]
    weight: float
    ranking: Ranking
    synth_places: int | None
    pool: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Window:
    """Tasks created in the last ``days`` days count with ``weight``."""

    days: float
    weight: float


@dataclass(frozen=True, slots=True)
class RewardMix:
    """The rule of GRPO tasks.

    The sum of ``test`` and ``synth`` times these weights ranks a task in which at least
    ``least_share`` of the submissions left have test > 0 and synth/test <= ``largest_ratio``;
    in any other the test value alone does.
    """

    test: float = 0.7
    synth: float = 0.3
    least_share: float = 0.4
    largest_ratio: float = 1.5


@dataclass(frozen=True, slots=True)
class Points:
    """What a place earns.

    ``places[k]`` is the score of place k + 1; later places score 0. When more than
    ``penalty_above`` submissions are left, the last ``max(1, int(penalty_share * n))`` of the n
    left score ``penalty``. A failed submission scores ``penalty`` when at least one is left.
    """

    places: tuple[float, ...] = (3.0,)
    penalty: float = -1.0
    penalty_above: int = 8
    penalty_share: float = 0.25


@dataclass(frozen=True, slots=True)
class Work:
    """Work of a task: ``max(least, factor * sqrt(hours * billions))``.

    ``billions`` is the parameter count in whole billions, rounded down, clipped to
    ``least_billions``..``most_billions``; a count read from the model's name is at most
    ``most_named_billions``.
    """

    least: float = 1.0
    factor: float = 2.0
    least_billions: int = 1
    most_billions: int = 40
    most_named_billions: int = 8


@dataclass(frozen=True, slots=True)
class Curve:
    """Points of a cell for ``x`` > 0, the part of the cell's largest; 0 for ``x`` <= 0.

    ``height * sigmoid(steepness * (x - middle)) ** power + slope * x``
    """

    height: float = 0.7
    steepness: float = 9.0
    middle: float = 0.5
    power: float = 0.75
    slope: float = 0.05


@dataclass(frozen=True, slots=True)
class TournamentRules:
    """A tournament's shape and prizes.

    ``group_size`` and ``group_tasks`` are ours: the rules name a group stage, not its size.
    """

    most_entrants: int = 32
    least_entrants: int = 8
    group_size: int = 8
    group_tasks: int = 3
    knockout_places: int = 8
    final_tasks: int = 6
    wins_needed: int = 4
    prize_decay: float = 0.3


@dataclass(frozen=True, slots=True)
class Emission:
    """What the subnet pays its miners: ``per_day`` tokens a day at ``price`` each.

    Neither has a default: both are the scenario's assumption, and no rule states them.
    """

    per_day: float
    price: float

    def __post_init__(self) -> None:
        _at_least_zero("emission.per_day", self.per_day)
        _at_least_zero("emission.price", self.price)


@dataclass(frozen=True, slots=True)
class RuleSet:
    """One version of the market's rules.

    ``history_days`` is the span over which a group's origins are counted and a miner's organic and
    synthetic means are compared; ``flag_deviations`` is how many standard deviations of its
    synthetic scores a miner's organic mean may lie above its synthetic mean. Only scores of
    ``least_counted`` or more and scores below 0 enter the income.

    Raises ``InputError`` naming the field when weights do not sum to 1 or a value makes no sense.
    """

    name: str
    groups: tuple[TaskGroup, ...]
    windows: tuple[Window, ...]
    reward: RewardMix = field(default_factory=RewardMix)
    points: Points = field(default_factory=Points)
    work: Work = field(default_factory=Work)
    curve: Curve = field(default_factory=Curve)
    tournament: TournamentRules = field(default_factory=TournamentRules)
    history_days: float = 7.0
    flag_deviations: float = 0.5
    least_counted: float = 1.0
    pool_weights: tuple[float, float] = (3.0, 1.0)

    def __post_init__(self) -> None:
        _weights_sum_to_one("groups", [group.weight for group in self.groups])
        _weights_sum_to_one("windows", [window.weight for window in self.windows])
        _check_groups(self.groups)
        _check_windows(self.windows)
        _check_tournament(self.tournament)

    @property
    def task_types(self) -> tuple[str, ...]:
        """Every task type these rules know, in the order of the groups."""
        return tuple(name for group in self.groups for name in group.task_types)

    def group_of(self, task_type: str) -> int:
        """Index into ``groups`` of a task type; ``InputError`` for one that no group has."""
        for index, group in enumerate(self.groups):
            if task_type in group.task_types:
                return index
        allowed = ", ".join(self.task_types)
        raise InputError(f"task_type: found {task_type!r}, allowed: {allowed}")


def _at_least_zero(where: str, value: float) -> None:
    if not (isfinite(value) and value >= 0):
        raise InputError(f"{where}: found {value!r}, allowed: a number of 0 or more")


def _weights_sum_to_one(where: str, weights: list[float]) -> None:
    for position, weight in enumerate(weights):
        _at_least_zero(f"{where}[{position}].weight", weight)
    if not weights or abs(fsum(weights) - 1.0) > 1e-9:
        raise InputError(
            f"{where}: found weights {weights} with sum {fsum(weights):g}, allowed: a sum of 1"
        )


def _check_groups(groups: tuple[TaskGroup, ...]) -> None:
    _check_names("groups", [group.name for group in groups])
    _check_names("groups.task_types", [name for group in groups for name in group.task_types])
    for group in groups:
        if (group.synth_places is None) != (group.ranking is Ranking.TEST_ONLY):
            raise InputError(
                f"groups.{group.name}.synth_places: found {group.synth_places!r} with ranking "
                f"{group.ranking.name}, allowed: none with TEST_ONLY, else a number of 1 or more"
            )
        if group.synth_places is not None and group.synth_places < 1:
            raise InputError(
                f"groups.{group.name}.synth_places: found {group.synth_places}, allowed: 1 or more"
            )


def _check_names(where: str, names: Iterable[str]) -> None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InputError(f"{where}: found {name!r} twice, allowed: each name once")
        seen.add(name)


def _check_windows(windows: tuple[Window, ...]) -> None:
    for position, window in enumerate(windows):
        if not (isfinite(window.days) and window.days > 0):
            raise InputError(
                f"windows[{position}].days: found {window.days!r}, allowed: a number over 0"
            )


def _check_tournament(rules: TournamentRules) -> None:
    places = rules.knockout_places
    if places < 2 or places & (places - 1):
        raise InputError(
            f"tournament.knockout_places: found {places}, allowed: a power of two, 2 or more"
        )
    if not places <= rules.least_entrants <= rules.most_entrants:
        raise InputError(
            f"tournament.least_entrants: found {rules.least_entrants}, "
            f"allowed: {places} to {rules.most_entrants}"
        )
    if not 1 <= rules.wins_needed <= rules.final_tasks:
        raise InputError(
            f"tournament.wins_needed: found {rules.wins_needed}, allowed: 1 to {rules.final_tasks}"
        )
    for name in ("group_size", "group_tasks"):
        if getattr(rules, name) < 1:
            raise InputError(f"tournament.{name}: found {getattr(rules, name)}, allowed: 1 or more")


MID_2025 = RuleSet(
    name="gradients-2025-mid",
    groups=(
        TaskGroup(
            "instruct+chat",
            ("InstructTextTask", "ChatTask"),
            0.25,
            Ranking.WORSE_OF_TWO,
            4,
            (8, 15),
        ),
        TaskGroup("dpo", ("DpoTask",), 0.15, Ranking.WORSE_OF_TWO, 4, (8, 15)),
        TaskGroup("image", ("ImageTask",), 0.25, Ranking.TEST_ONLY, None, (15, 25)),
        TaskGroup("grpo", ("GrpoTask",), 0.35, Ranking.REWARD, 4, (8, 15)),
    ),
    windows=(Window(1.0, 0.3), Window(3.0, 0.3), Window(7.0, 0.4)),
)
"""The rules in force in mid-2025, the era of real-time serving."""

RULE_SETS: Mapping[str, RuleSet] = MappingProxyType({MID_2025.name: MID_2025})
"""Every rule set this version ships, by name; a second one is one more entry."""


def rule_set(name: str) -> RuleSet:
    """The rule set of that name; ``InputError`` naming the known ones when there is none."""
    try:
        return RULE_SETS[name]
    except KeyError:
        known = ", ".join(RULE_SETS)
        raise InputError(f"rule_set: found {name!r}, allowed: {known}") from None
