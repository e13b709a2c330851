"""What a task asks for: type, model, sizes and hours, drawn by column.

A ``Draw`` gives the uniforms of one purpose: element i belongs to task i alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shared.units import MS_PER_HOUR
from sim.arrivals.config import (
    HOURS_LIMIT,
    ConstantHours,
    ExponentialHours,
    HoursConfig,
    LognormalHours,
    MarketHours,
    Mix,
    RowRange,
    UniformHours,
    class_of,
)
from sim.stream import Codes, Floats, Ints, Labels
from sim.streams import exponential, lognormal

Bools = NDArray[np.bool_]
Draw = Callable[[str, int], Floats]
"""(purpose, n) -> n uniforms in [0, 1)."""

SHORTEST_HOURS = 1 / MS_PER_HOUR
IMAGE = "ImageTask"


@dataclass(frozen=True, slots=True)
class TaskColumns:
    """n tasks. params, ds_size: int64. is_image: bool. Type and model by name."""

    task_type: Labels
    model: Labels
    params: Ints
    ds_size: Ints
    is_image: Bools

    def taken(self, order: Ints) -> "TaskColumns":
        """The same tasks in another order, or a part of them."""
        return TaskColumns(
            self.task_type.taken(order),
            self.model.taken(order),
            self.params[order],
            self.ds_size[order],
            self.is_image[order],
        )


def draw_tasks(mix: Mix, n: int, draw: Draw) -> TaskColumns:
    """Draw n tasks of a mix; the first k of them equal the tasks drawn for k."""
    names = tuple(mix.shares)
    task_type = Labels(pick(draw("task_type", n), tuple(mix.shares.values())), names)
    is_image = task_type.codes == names.index(IMAGE)
    model = _draw_models(mix, is_image, draw)
    params = np.array([entry.params for entry in mix.catalogue], dtype=np.int64)
    pairs = whole_between(draw("pairs", n), mix.pairs_low, mix.pairs_high)
    ds_size = np.where(is_image, pairs, np.int64(mix.text_ds_size))
    return TaskColumns(task_type, model, params[model.codes], ds_size, is_image)


def _draw_models(mix: Mix, is_image: Bools, draw: Draw) -> Labels:
    """The model of each task: its class first, then by weight inside the class."""
    n = len(is_image)
    is_big = ~is_image & (draw("big_model", n) < mix.big_model)
    members = {"image": is_image, "big": is_big, "ordinary": ~is_image & ~is_big}
    u = draw("model", n)
    codes = np.zeros(n, dtype=np.int32)
    for wanted, rows in members.items():
        weights = [entry.weight * (class_of(entry) == wanted) for entry in mix.catalogue]
        if rows.any():
            codes[rows] = pick(u[rows], weights)
    return Labels(codes, tuple(entry.id for entry in mix.catalogue))


def draw_hours(config: HoursConfig, is_image: Bools, draw: Draw) -> Floats:
    """Hours to complete of n tasks, float64 (n,), over 0 and at most 10,000."""
    n = len(is_image)
    match config:
        case MarketHours():
            return draw_market_hours(config, config.row_ranges, is_image, draw)
        case ConstantHours():
            return np.full(n, config.hours)
        case UniformHours():
            hours = config.low + draw("hours", n) * (config.high - config.low)
        case ExponentialHours():
            hours = exponential(draw("hours", n), config.mean)
        case LognormalHours():
            hours = lognormal(draw("hours", n), config.mean, config.sigma)
    return np.clip(hours, SHORTEST_HOURS, HOURS_LIMIT)


def draw_market_hours(
    config: MarketHours, row_ranges: Sequence[RowRange], is_image: Bools, draw: Draw
) -> Floats:
    """Whole hours by the validator's table: a range, rows in it, then hours of the rows' line."""
    n = len(is_image)
    u, choice = draw("hours", n), pick(draw("row_range", n), [1.0] * len(row_ranges))
    lowest, below = _columns([(part.rows_from, part.rows_below) for part in row_ranges])
    rows = whole_between(draw("rows", n), lowest[choice], below[choice] - 1)
    ends, low, high = _columns([(x.rows_below, x.low, x.high) for x in config.by_rows])
    line = np.searchsorted(ends, rows, side="right")
    text = whole_between(u, low[line], high[line])
    image = whole_between(u, config.image_low, config.image_high)
    return np.where(is_image, image, text).astype(np.float64)


def _columns(rows: Sequence[tuple[int, ...]]) -> Ints:
    return np.array(rows, dtype=np.int64).T


def pick(u: Floats, weights: Sequence[float]) -> Codes:
    """The index each uniform falls on when [0, 1) is cut in proportion to the weights."""
    edges = np.cumsum(weights)
    index = np.searchsorted(edges, u * edges[-1], side="right")
    last = max(i for i, weight in enumerate(weights) if weight > 0)
    codes: Codes = np.minimum(index, last).astype(np.int32)  # u * total may round up to the total
    return codes


def whole_between(u: Floats, low: Ints | int, high: Ints | int) -> Ints:
    """A uniform whole number from low to high, both included, int64."""
    width = np.asarray(high) - np.asarray(low)
    steps = np.floor(u * (width + 1)).astype(np.int64)
    whole: Ints = np.asarray(low) + np.minimum(steps, width)
    return whole


def whole_ms(hours: Floats) -> Ints:
    """Hours as whole milliseconds, halves to even, int64: ``units.hours_to_ms`` by column."""
    return np.rint(hours * MS_PER_HOUR).astype(np.int64)
