"""The learning rate over the steps of a job whose end may move."""

from dataclasses import dataclass
from math import cos, pi

from pydantic import ConfigDict

STATE = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
"""How what a checkpoint keeps of a schedule is read back."""
LEAST = 1e-9


@dataclass(slots=True)
class Curve:
    """Linear warm-up, then half a cosine from the peak down to a floor at the planned end.

    planned: the step after which training ends. warm_end: where warm-up ends. turned_at, rise,
    fall: the step from which the present curve holds, and how far warm-up and decay were there
    (0 to 1). A changed plan bends the curve from where it is: it never jumps, never rises again
    once it falls, and is at the floor at the new end.
    """

    __pydantic_config__ = STATE

    planned: int
    warm_end: int
    rise: float
    turned_at: int = 0
    fall: float = 0.0

    def factor(self, step: int, floor: float) -> float:
        """The share of the peak, over 0 and at most 1, of the step after ``step`` done ones."""
        height = floor + (1 - floor) * (1 + cos(pi * self._fall(step))) / 2
        return min(1.0, max(LEAST, self._rise(step) * height))

    def turn(self, step: int, planned: int, warm_up: float) -> None:
        """Bend it at a step, to end elsewhere. warm_up: the share of the steps that warms up."""
        self.rise, self.fall = self._rise(step), self._fall(step)
        self.turned_at, self.planned = step, planned
        if step < self.warm_end:
            self.warm_end = max(step + 1, round(warm_up * planned))

    def _rise(self, step: int) -> float:
        step = max(step, self.turned_at)
        if step >= self.warm_end:
            return 1.0
        done = (step - self.turned_at) / (self.warm_end - self.turned_at)
        return self.rise + (1 - self.rise) * done

    def _fall(self, step: int) -> float:
        begin = max(self.turned_at, self.warm_end)
        done = min(1.0, max(0, step - begin) / max(1, self.planned - begin))
        return self.fall + (1 - self.fall) * done


def begun(planned: int, warm_up: float, most: int) -> Curve:
    """The curve of a job that has not begun; most: steps of warm-up at most."""
    warm_end = max(1, min(round(warm_up * planned), most))
    return Curve(planned=planned, warm_end=warm_end, rise=1 / warm_end)
