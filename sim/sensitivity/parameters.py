"""Which of a scenario's numbers the result depends on: tornado, Morris, Sobol'."""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from shared.errors import InputError


@dataclass(frozen=True, slots=True)
class Parameter:
    """A number of a scenario and its plausible range.

    key: dotted path, such as start.lag_minutes; a number in it counts list entries from 0.
    whole: the scenario takes whole numbers only, so values between are rounded.
    """

    key: str
    low: float
    high: float
    label: str
    whole: bool = False

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise InputError(f"{self.key}: found low {self.low:g}, allowed is under {self.high:g}")

    def set_in(self, base: Mapping[str, Any], value: float) -> dict[str, Any]:
        """A copy of the scenario's mapping with this parameter at a value."""
        return with_value(base, self.key, round(value) if self.whole else value)


Evaluate = Callable[[Mapping[str, Any]], float]


def with_value(base: Mapping[str, Any], key: str, value: float) -> dict[str, Any]:
    """A copy of a scenario's mapping with one value changed; missing mappings on the way are made.

    Raises InputError naming the key when its path leads through something that has no keys.
    """
    changed: dict[str, Any] = deepcopy(dict(base))
    here: Any = changed
    *path, last = key.split(".")
    for step in path:
        here = _inside(here, step, key)
    if isinstance(here, dict):
        here[last] = value
    else:
        _inside(here, last, key)
        here[int(last)] = value
    return changed


def _inside(here: Any, step: str, key: str) -> Any:
    if isinstance(here, dict):
        if here.get(step) is None:
            here[step] = {}
        return here[step]
    if isinstance(here, list) and step.isdecimal() and int(step) < len(here):
        return here[int(step)]
    raise InputError(f"{key}: found no place for {step!r}, allowed is a path of the scenario")


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar of a tornado: the result at the parameter's low and high, all else as it is."""

    parameter: Parameter
    at_low: float
    at_high: float

    @property
    def swing(self) -> float:
        """How far the result moves."""
        return abs(self.at_high - self.at_low)


def tornado(
    base: Mapping[str, Any], parameters: Sequence[Parameter], evaluate: Evaluate
) -> list[Bar]:
    """One parameter at a time at its low and its high, the widest swing first."""
    bars = [
        Bar(each, *(float(evaluate(each.set_in(base, x))) for x in (each.low, each.high)))
        for each in parameters
    ]
    return sorted(bars, key=lambda bar: bar.swing, reverse=True)


@dataclass(frozen=True, slots=True)
class SobolIndex:
    """A parameter's share of the result's variance, alone and with all its interactions.

    ``*_half``: half width of the 95% bootstrap interval.
    """

    parameter: Parameter
    first: float
    first_half: float
    total: float
    total_half: float


@dataclass(frozen=True, slots=True)
class MorrisEffect:
    """How the result moves with a parameter, in the result's unit over the parameter's range.

    mu_star: mean size of an elementary effect, half: half width of its 95% interval. sigma: the
    effects' spread, which interactions and curvature cause.
    """

    parameter: Parameter
    mu_star: float
    sigma: float
    half: float


def sobol(
    base: Mapping[str, Any],
    parameters: Sequence[Parameter],
    evaluate: Evaluate,
    *,
    samples: int = 64,
    seed: int = 1,
) -> list[SobolIndex]:
    """Sobol' indices by Saltelli's scheme: samples * (parameters + 2) evaluations.

    samples: a power of 2 (the low-discrepancy sequence asks for it). Sources: Sobol' 2001;
    Saltelli et al. 2010; the estimators are SALib's.
    """
    if samples < 2 or samples & (samples - 1):
        raise ValueError(f"samples: found {samples}, allowed is a power of 2")
    from SALib.analyze import sobol as analysis  # here: it takes two seconds to import
    from SALib.sample import sobol as sampling

    problem = _problem(parameters)
    points = sampling.sample(problem, samples, calc_second_order=False, seed=seed)
    results = _evaluated(base, parameters, evaluate, points)
    if not np.ptp(results):
        return [SobolIndex(each, 0.0, 0.0, 0.0, 0.0) for each in parameters]
    found = analysis.analyze(problem, results, calc_second_order=False, seed=seed)
    columns = (found[key] for key in ("S1", "S1_conf", "ST", "ST_conf"))
    rows = zip(parameters, *columns, strict=True)
    return [SobolIndex(each, *(float(number) for number in numbers)) for each, *numbers in rows]


def morris(
    base: Mapping[str, Any],
    parameters: Sequence[Parameter],
    evaluate: Evaluate,
    *,
    trajectories: int = 10,
    seed: int = 1,
) -> list[MorrisEffect]:
    """Morris screening: trajectories * (parameters + 1) evaluations, far fewer than Sobol's.

    Sources: Morris 1991; Campolongo et al. 2007 (mu_star).
    """
    from SALib.analyze import morris as analysis  # here: as above
    from SALib.sample import morris as sampling

    problem = _problem(parameters)
    points = sampling.sample(problem, trajectories, num_levels=4, seed=seed)
    results = _evaluated(base, parameters, evaluate, points)
    found = analysis.analyze(problem, points, results, num_levels=4, seed=seed)
    columns = (found[key] for key in ("mu_star", "sigma", "mu_star_conf"))
    rows = zip(parameters, *columns, strict=True)
    return [MorrisEffect(each, *(float(number) for number in numbers)) for each, *numbers in rows]


def _problem(parameters: Sequence[Parameter]) -> dict[str, Any]:
    return {
        "num_vars": len(parameters),
        "names": [each.key for each in parameters],
        "bounds": [[each.low, each.high] for each in parameters],
    }


def _evaluated(
    base: Mapping[str, Any],
    parameters: Sequence[Parameter],
    evaluate: Evaluate,
    points: NDArray[np.float64],
) -> NDArray[np.float64]:
    results = []
    for point in points.tolist():
        changed: Mapping[str, Any] = base
        for each, value in zip(parameters, point, strict=True):
            changed = each.set_in(changed, value)
        results.append(float(evaluate(changed)))
    return np.asarray(results, dtype=np.float64)
