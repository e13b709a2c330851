"""A job's time: when to evaluate, save and stop, and how the learning rate falls until then.

Pure: seconds come in, orders go out. A job has to be trained, evaluated, saved and handed in before
its warning, a margin before the deadline. Steps, evaluations and saves are measured as they happen,
and at each step boundary the rest of the time is laid out anew.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import inf, isnan, sqrt
from typing import Any

from pydantic import TypeAdapter, ValidationError

from live.training.curve import STATE, Curve, begun
from live.training.timing import ScheduleSettings, Times, What, unmeasured
from shared.errors import InputError
from shared.wire_faults import one_line

__all__ = ["Orders", "Schedule", "ScheduleSettings", "What"]

CALIBRATION_STEPS = 4
"""Steps measured before the first plan."""
CALIBRATION_SHARE = 0.05
"""Of the time, after which one measured step has to do."""
FEWEST_EVALUATIONS, MOST_EVALUATIONS = 4, 40
DEAR_SHARE = 0.25
"""The fewest evaluations may take this share of the time; dear ones are fewer."""
STEADY = 0.01
"""The plan stays while the steps left change by no more than this share."""
LEAST_S = 1e-9


@dataclass(frozen=True, slots=True)
class Orders:
    """What to do at the step boundary just reached: evaluate, then save, then stop and hand in."""

    evaluate: bool
    save: bool
    stop: bool


@dataclass(slots=True)
class _Memory:
    """All that a schedule knows, as a checkpoint keeps it.

    total_s: to the warning, when first asked; None without a deadline. calibrated: whether there
    is a plan. evaluated, saved: how many were ordered; ..._at: after which step; saved_left_s:
    seconds to the warning at the last save.
    """

    __pydantic_config__ = STATE

    curve: Curve
    times: Times
    total_s: float | None = None
    calibrated: bool = False
    evaluated: int = 0
    evaluated_at: int = 0
    saved: int = 0
    saved_at: int = 0
    saved_left_s: float | None = None


_MEMORY: TypeAdapter[_Memory] = TypeAdapter(_Memory)


class Schedule:
    """The schedule of one job. Equal calls give equal answers; nothing else is looked at.

    most_steps: optimizer steps of the wanted epochs. state: what ``state`` gave, to go on from it.
    Raises InputError for steps or a state that cannot be.
    """

    def __init__(
        self,
        settings: ScheduleSettings,
        most_steps: int,
        state: Mapping[str, Any] | None = None,
    ) -> None:
        if most_steps < 1:
            raise InputError(f"most_steps: found {most_steps}, allowed is 1 or more")
        self._settings, self._most = settings, most_steps
        self._fresh = True
        curve = begun(most_steps, settings.warm_up, settings.warm_up_steps)
        fresh = _Memory(curve, unmeasured(settings))
        self._memory = fresh if state is None else _restored(state)

    @property
    def planned_steps(self) -> int:
        """The optimizer step after which training is to end, as things stand."""
        return self._memory.curve.planned

    def learning_rate(self, step: int) -> float:
        """The share of the peak, over 0 and at most 1, for the step after ``step`` done ones."""
        return self._memory.curve.factor(step, self._settings.floor)

    def state(self) -> dict[str, Any]:
        """All it knows, as JSON can hold it, for a checkpoint of the boundary just passed."""
        return asdict(self._memory)

    def took(self, what: What, seconds: float) -> None:
        """Measure something that has just ended. A step: all of the time since the boundary before,
        its evaluation and save aside. Raises ValueError for a time that is none.
        """
        if not 0 <= seconds < inf:
            raise ValueError(f"{what}: found {seconds} seconds")
        if what == "step":
            self._memory.times.step(seconds, first=self._fresh)
            self._fresh = False
        else:
            self._memory.times.other(what, seconds)

    def after_step(self, step: int, left_s: float) -> Orders:
        """What to do now that ``step`` optimizer steps are done and the warning is ``left_s`` away
        (infinite: never). Ask once a boundary, and before the first step of a process. Raises
        ValueError for what is no step or time.
        """
        if step < 0 or isnan(left_s):
            raise ValueError(f"found step {step} and {left_s} seconds left")
        memory = self._memory
        if memory.total_s is None and left_s < inf:
            memory.total_s = max(left_s, 0.0)
        need_s = memory.times.need_s(self._settings, memory.total_s or 0.0, fresh=self._fresh)
        if step >= self._most or left_s < need_s:
            return self._end(step, left_s)
        self._plan(step, left_s, left_s - need_s)
        return self._go_on(step, left_s, left_s - need_s)

    def _end(self, step: int, left_s: float) -> Orders:
        """Stop. What might end after the deadline is left out: the submission is worth more."""
        memory, settings, times = self._memory, self._settings, self._memory.times
        self._turn(step, step)
        free_s = left_s - times.save_upper_s - times.finish_s
        late_s = free_s + settings.margin_s
        in_time = free_s >= times.evaluation_upper_s * times.slower
        evaluate = in_time or late_s >= settings.slow * times.evaluation_s * times.slower
        save = memory.saved == 0 or late_s >= 0
        return self._note(step, left_s, Orders(evaluate, save, stop=True))

    def _go_on(self, step: int, left_s: float, spare_s: float) -> Orders:
        """Train on, after an evaluation and a save where they are due and leave time to."""
        times = self._memory.times
        evaluation_s, save_s = times.evaluation_upper_s * times.slower, times.save_upper_s
        evaluate = self._evaluation_due(step) and spare_s >= evaluation_s
        spare_s -= evaluation_s if evaluate else 0.0
        save = self._save_due(step, left_s) and spare_s >= save_s
        return self._note(step, left_s, Orders(evaluate, save, stop=False))

    def _note(self, step: int, left_s: float, orders: Orders) -> Orders:
        memory = self._memory
        if orders.evaluate:
            memory.evaluated, memory.evaluated_at = memory.evaluated + 1, step
        if orders.save:
            memory.saved, memory.saved_at = memory.saved + 1, step
            memory.saved_left_s = left_s if left_s < inf else None
        return orders

    def _plan(self, step: int, left_s: float, spare_s: float) -> None:
        """Lay out the steps that the spare time is good for; one more is paid for already."""
        times, planned = self._memory.times, self._most
        if left_s < inf:
            if not self._calibrated(left_s):
                return
            spare_s -= (self._evaluations_left() - 1) * times.evaluation_s * times.slower
            interval_s = self._save_interval_s()
            spare_s *= interval_s / (LEAST_S + interval_s + times.save_s)
            more = int(max(0.0, spare_s) / max(times.pace, LEAST_S))
            planned = min(self._most, step + 1 + more)
        if abs(planned - self.planned_steps) > STEADY * (self.planned_steps - step):
            self._turn(step, planned)

    def _turn(self, step: int, planned: int) -> None:
        self._memory.curve.turn(step, planned, self._settings.warm_up)

    def _calibrated(self, left_s: float) -> bool:
        memory = self._memory
        if not memory.calibrated:
            total_s = memory.total_s or 0.0
            enough = 1 if total_s - left_s >= CALIBRATION_SHARE * total_s else CALIBRATION_STEPS
            memory.calibrated = len(memory.times.steps) >= enough
        return memory.calibrated

    def _evaluations_left(self) -> int:
        """Evaluations to come, the last one, when training ends, with them."""
        memory, settings = self._memory, self._settings
        if memory.total_s is None:
            return max(1, settings.even - memory.evaluated)
        in_all = memory.total_s / max(memory.times.evaluation_s * memory.times.slower, LEAST_S)
        fewest = min(FEWEST_EVALUATIONS, int(DEAR_SHARE * in_all))
        wanted = min(MOST_EVALUATIONS, int(settings.evaluation_share * in_all))
        return max(1, max(fewest, wanted) - memory.evaluated)

    def _evaluation_due(self, step: int) -> bool:
        """Evenly over the steps; the first one at once when calibrated, to know what it takes."""
        memory = self._memory
        if memory.total_s is not None and memory.evaluated == 0:
            return memory.calibrated
        return _even(step, memory.evaluated_at, self.planned_steps, self._evaluations_left())

    def _save_due(self, step: int, left_s: float) -> bool:
        memory = self._memory
        if left_s == inf:
            left = max(1, self._settings.even - memory.saved)
            return _even(step, memory.saved_at, self.planned_steps, left)
        if memory.saved_left_s is None:
            return memory.calibrated
        return memory.saved_left_s - left_s >= self._save_interval_s()

    def _save_interval_s(self) -> float:
        """Seconds from save to save that lose the least, in saves and in work done twice.

        sqrt(2 * cost * MTBF): J. W. Young, A first order approximation to the optimum checkpoint
        interval, CACM 17(9), 1974. J. T. Daly, Future Generation Computer Systems 22(3), 2006,
        gives the higher orders, which are small while a save is short beside the MTBF.
        """
        return sqrt(2 * self._memory.times.save_s * self._settings.mtbf_s)


def _restored(state: Mapping[str, Any]) -> _Memory:
    """A memory from a checkpoint. Raises InputError."""
    try:
        return _MEMORY.validate_json(json.dumps(dict(state)))
    except ValidationError as wrong:
        raise InputError(f"schedule: {one_line(wrong, state)}") from None


def _even(step: int, last: int, end: int, left: int) -> bool:
    """Whether the next of ``left`` things spread evenly from ``last`` to ``end`` is due."""
    return left > 1 and step > last and (step - last) * left >= end - last
