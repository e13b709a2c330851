"""What steps, evaluations and saves of a job take, as measured, and what they may yet take."""

from dataclasses import dataclass, field
from math import inf
from statistics import median_low
from typing import Literal

from live.training.curve import STATE
from shared.errors import InputError

RECENT_STEPS = 24
"""Steps that the pace is taken from."""
SLOWEST_STEPS = 8
"""Steps that the slowest recent one is the slowest of."""
RECENT_OTHERS = 5
"""Evaluations, saves and hand-ins that theirs are taken from."""
OUTLIER = 2.0
"""A step counts for the pace with at most so many times the median: a stall is no new pace."""
SUDDEN = 3.0
"""How many times slower than the pace a step may suddenly be."""

What = Literal["step", "evaluation", "save", "finish"]


@dataclass(frozen=True, slots=True)
class ScheduleSettings:
    """What a schedule goes by; names in ``_s`` are seconds, shares are of the time to the warning.

    evaluation_s, save_s, finish_s: what one evaluation, one checkpoint and the hand-in (checks of
    the submission, upload) are taken to cost until they are measured. evaluation_share: what
    evaluations may take; at least a few are made all the same. margin_s: from the warning to the
    deadline. stall_s, slow: the longest stall, and how many times its usual time one evaluation or
    save may take, that still have to end before the deadline; caution: what may be kept free for
    that where the margin is too short. mtbf_s: mean time between failures of a job's processes,
    for the interval of saves. even: how many evaluations, and how many saves, a job without a
    deadline makes. warm_up, floor: of the learning rate, as shares of the steps and of the peak;
    warm_up_steps: its most until the first plan. Raises InputError.
    """

    evaluation_s: float = 30.0
    save_s: float = 15.0
    finish_s: float = 60.0
    evaluation_share: float = 0.06
    margin_s: float = 300.0
    stall_s: float = 120.0
    slow: float = 10.0
    caution: float = 0.04
    mtbf_s: float = 86_400.0
    even: int = 10
    warm_up: float = 0.03
    warm_up_steps: int = 20
    floor: float = 0.01

    def __post_init__(self) -> None:
        for name in ("evaluation_s", "save_s", "finish_s", "margin_s", "stall_s"):
            _within(name, getattr(self, name), 0, inf)
        for name in ("evaluation_share", "caution", "warm_up"):
            _within(name, getattr(self, name), 0, 0.5)
        _within("slow", self.slow, 1, 1000)
        _within("mtbf_s", self.mtbf_s, 1, inf)
        _within("even", self.even, 1, 10_000)
        _within("warm_up_steps", self.warm_up_steps, 1, 10_000)
        _within("floor", self.floor, 1e-6, 1)


def _within(name: str, value: float, low: float, high: float) -> None:
    if not (low <= value <= high and value < inf):
        most = "or more" if high == inf else f"to {high:g}"
        raise InputError(f"{name}: found {value}, allowed is {low:g} {most}")


def most_evaluation_s(settings: ScheduleSettings, total_s: float) -> float:
    """How long one evaluation should take at most, for a job of ``total_s`` to the warning.

    Such a one, on a GPU that has become as slow as ``SUDDEN`` says and slow itself, fits into the
    margin and what may be kept free. A caller keeps to it by the rows it evaluates on.
    """
    free_s = settings.margin_s + settings.caution * total_s
    return free_s / (SUDDEN * settings.slow)


@dataclass(slots=True)
class Times:
    """Seconds of recent steps, evaluations, saves and hand-ins, as a checkpoint keeps them.

    start_s: the first step of a process, which compiles and reserves memory. pace: the mean of the
    recent steps, outliers cut; slowest: of the recent steps. evaluation_s, save_s, finish_s: as
    they usually are; evaluation_upper_s, save_upper_s: as they may well be; estimates until
    measured. evaluation_pace: the pace when the last evaluation was measured.
    """

    __pydantic_config__ = STATE

    evaluation_s: float
    evaluation_upper_s: float
    save_s: float
    save_upper_s: float
    finish_s: float
    start_s: float = 0.0
    pace: float = 0.0
    slowest: float = 0.0
    evaluation_pace: float = 0.0
    steps: list[float] = field(default_factory=list)
    evaluations: list[float] = field(default_factory=list)
    saves: list[float] = field(default_factory=list)
    finishes: list[float] = field(default_factory=list)

    def step(self, seconds: float, *, first: bool) -> None:
        """Note a step; first: of its process."""
        if first:
            self.start_s = seconds
            self.slowest = self.slowest or seconds
            return
        steps = self.steps
        _keep(steps, seconds, RECENT_STEPS)
        most = OUTLIER * sorted(steps)[len(steps) // 2]
        self.pace = sum([min(each, most) for each in steps]) / len(steps)
        self.slowest = max(steps[-SLOWEST_STEPS:])

    def other(self, what: What, seconds: float) -> None:
        """Note an evaluation, a save or a hand-in."""
        match what:
            case "evaluation":
                _keep(self.evaluations, seconds, RECENT_OTHERS)
                self.evaluation_s = median_low(self.evaluations)
                self.evaluation_upper_s = _upper(self.evaluations)
                self.evaluation_pace = self.pace
            case "save":
                _keep(self.saves, seconds, RECENT_OTHERS)
                self.save_s, self.save_upper_s = median_low(self.saves), _upper(self.saves)
            case _:
                _keep(self.finishes, seconds, RECENT_OTHERS)
                self.finish_s = max(self.finishes)

    @property
    def slower(self) -> float:
        """How much slower steps are than at the last evaluation: it is the same GPU's work."""
        return max(1.0, self.pace / self.evaluation_pace) if self.evaluation_pace else 1.0

    def need_s(self, settings: ScheduleSettings, total_s: float, *, fresh: bool) -> float:
        """Seconds to the warning without which no step is begun.

        With a step as slow as the slowest recent one all ends before the warning; with a stall and
        a slow evaluation or save on top, before the deadline. total_s: of the job, to the warning.
        fresh: whether the step is the first of its process.
        """
        slower, pace = self.slower, self.pace
        slowest = max(self.slowest, self.start_s) if fresh else self.slowest
        need_s = slowest + self.evaluation_upper_s * slower + self.save_upper_s + self.finish_s
        step_s = pace + max(settings.stall_s, (SUDDEN - 1) * pace, slowest - pace)
        evaluation_s, save_s = SUDDEN * self.evaluation_s * slower, self.save_s
        finals_s = evaluation_s + save_s + (settings.slow - 1) * max(evaluation_s, save_s)
        worst_s = step_s + finals_s + self.finish_s - settings.margin_s
        return max(need_s, min(worst_s, need_s + settings.caution * total_s))


def unmeasured(settings: ScheduleSettings) -> Times:
    """The times of a job that has not begun: the estimates."""
    evaluation_s, save_s = settings.evaluation_s, settings.save_s
    return Times(evaluation_s, evaluation_s, save_s, save_s, settings.finish_s)


def _keep(times: list[float], seconds: float, most: int) -> None:
    times.append(float(seconds))
    if len(times) > most:
        del times[0]


def _upper(times: list[float]) -> float:
    """The slowest, or of three and more the second: slow once is not slow."""
    return sorted(times)[-2] if len(times) > 2 else max(times)
