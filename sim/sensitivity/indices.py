"""Parameters varied all together: Morris screening and Sobol' indices, by SALib."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sim.sensitivity.parameters import Parameter

Evaluate = Callable[[Sequence[Mapping[str, Any]]], Sequence[float]]
"""Scenarios to results, one number each."""


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


def sobol_evaluations(parameters: int, samples: int) -> int:
    """How many scenarios ``sobol`` evaluates."""
    return samples * (parameters + 2)


def morris_evaluations(parameters: int, trajectories: int) -> int:
    """How many scenarios ``morris`` evaluates."""
    return trajectories * (parameters + 1)


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
    changed = [_at(base, parameters, point) for point in points.tolist()]
    return np.asarray(evaluate(changed), dtype=np.float64)


def _at(
    base: Mapping[str, Any], parameters: Sequence[Parameter], point: Sequence[float]
) -> Mapping[str, Any]:
    for each, value in zip(parameters, point, strict=True):
        base = each.set_in(base, value)
    return base
