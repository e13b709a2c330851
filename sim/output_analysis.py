"""What replications say: means, intervals, comparisons, and when to stop replicating.

One value a replication; the values of two presets are paired, since replications share their
random numbers. Every function is a pure function of the values.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isnan

import numpy as np
from numpy.typing import NDArray

CONFIDENCE = 0.95

LEAST_FOR_BOOTSTRAP = 20
"""Below so many values a bootstrap interval is too narrow (of 10 normal values it covers the mean
in 87 to 89 of 100 cases, Student's t in 95): t is used whatever the values look like."""
RESAMPLES = 1999
FEW_DISTINCT = 5
"""Up to so many distinct values a measure is a count in disguise, such as a rare failure's rate."""
BATCH = 5
"""MSER-5 looks at means of five observations."""

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean and the bounds of its 95% interval; bounds are None with fewer than two values."""

    mean: float
    lo: float | None
    hi: float | None


def estimate(values: Sequence[float]) -> Estimate | None:
    """Mean and Student's t interval over independent replications; NaN values are left out.

    None when no value is left. Source: Law, Simulation Modeling and Analysis, section 9.4.1.
    """
    known = _known(values)
    if not len(known):
        return None
    mean = float(known.mean())
    if len(known) < 2:
        return Estimate(mean, None, None)
    half = _t_quantile(len(known) - 1) * _standard_error(known)
    return Estimate(mean, mean - half, mean + half)


def paired(first: Sequence[float], second: Sequence[float]) -> Estimate | None:
    """The mean of first minus second, pair by pair: replications share their random numbers."""
    return estimate(np.subtract(first, second).tolist())


def fitted(values: Sequence[float], bounds: tuple[float, float] | None = None) -> Estimate | None:
    """Mean and the interval that suits the values: Student's t, or BCa bootstrap (see ``method``).

    bounds: the range that the measure cannot leave, (0, 1) for a rate; the interval is cut to it,
    which loses nothing, since the true mean is inside.
    """
    found = _bootstrap(_known(values)) if method(values, bounds) == "bootstrap" else None
    found = found or estimate(values)
    if found is None or found.lo is None or found.hi is None or bounds is None:
        return found
    return Estimate(found.mean, max(found.lo, bounds[0]), min(found.hi, bounds[1]))


def method(values: Sequence[float], bounds: tuple[float, float] | None = None) -> str:
    """Which interval suits the values: ``t`` or ``bootstrap``.

    The bootstrap from LEAST_FOR_BOOTSTRAP values on, if t's assumption is visibly broken: at most
    FEW_DISTINCT distinct values; or t's interval leaves ``bounds``; or the sample skewness g is
    significant (over twice its standard error) and n is under Cochran's 25 g^2 (Sampling
    Techniques, 3rd edition, section 2.15). Equal values have no bootstrap distribution: t.
    """
    known = _known(values)
    distinct = len(np.unique(known))
    if len(known) < LEAST_FOR_BOOTSTRAP or distinct == 1:
        return "t"
    broken = distinct <= FEW_DISTINCT or _leaves(known, bounds) or _skewed(known)
    return "bootstrap" if broken else "t"


def relative_half_width(found: Estimate | None) -> float | None:
    """Half the interval's width as a share of the mean's size; None when it is not known."""
    if found is None or found.lo is None or found.hi is None:
        return None
    half = (found.hi - found.lo) / 2
    if not half:
        return 0.0
    return half / abs(found.mean) if found.mean else None


@dataclass(frozen=True, slots=True)
class Stopped:
    """How a sequential run ended: its values, whether the precision was reached, and why."""

    values: tuple[float, ...]
    reached: bool
    why: str


@dataclass(frozen=True, slots=True)
class Sequential:
    """Replicate until an interval's half-width is ``precision`` times the mean, or ``most`` ran.

    Looked at after ``least`` replications and then after every ``step`` more, never in between:
    the result must not depend on how many processes happened to finish. Source: Law, section
    9.4.1 (relative precision), which asks for at least 10 replications and at most 0.15.

    Stopping as soon as the interval looks narrow favours samples whose spread came out small, so
    the interval covers the mean less often than 95%, the less the fewer ``least`` asks for: of
    8,000 simulated runs on normal values (38 replications on average) 94.5% did with least = 20,
    94.3% with 10, 93.5% with 5. What is to be exact takes a fixed count of replications.
    """

    precision: float
    least: int = 10
    most: int = 40
    step: int = 5

    def __post_init__(self) -> None:
        if not 0 < self.precision < 1:
            raise ValueError(f"precision: found {self.precision}, allowed is over 0 and under 1")
        if not 2 <= self.least <= self.most:
            raise ValueError(f"least: found {self.least}, allowed is 2 to most ({self.most})")
        if self.step < 1:
            raise ValueError(f"step: found {self.step}, allowed is 1 or more")

    def enough(self, values: Sequence[float]) -> bool:
        """Whether the precision is reached by values that reach a looking point."""
        width = relative_half_width(estimate(values))
        return len(values) >= self.least and width is not None and width <= self.precision

    def next_count(self, done: int) -> int:
        """How many replications to have before looking again; ``most`` when at its end."""
        if done < self.least:
            return self.least
        return min(self.most, done + self.step)

    def run(self, more: Callable[[range], Sequence[float]]) -> Stopped:
        """Ask ``more`` for the values of replications, by number, until enough or ``most``."""
        values: list[float] = []
        while len(values) < self.most and not self.enough(values):
            values += more(range(len(values), self.next_count(len(values))))
        return Stopped(tuple(values), self.enough(values), self.why(values))

    def why(self, values: Sequence[float]) -> str:
        """In words: what was reached, or what was not."""
        width = relative_half_width(estimate(values))
        if width is None:
            return f"no relative precision can be given after {len(values)} replications"
        reached = "reached" if self.enough(values) else "not reached"
        share = f"the interval is +-{100 * width:.1f}% of the mean after {len(values)} replications"
        return f"{share}: {100 * self.precision:g}% {reached}"


def probability_of_beating(first: Sequence[float], second: Sequence[float]) -> Estimate | None:
    """P(first > second) over paired replications, with Wilson's interval; a tie is no win.

    Pairs with a NaN are left out. The interval is as good as many pairs allow: 10 wins of 10 give
    0.72 to 1. Source: Wilson 1927; Brown, Cai and DasGupta 2001 recommend it for small samples.
    """
    gaps = _known(np.subtract(first, second).tolist())
    if not len(gaps):
        return None
    share, n, z = float((gaps > 0).mean()), len(gaps), _normal_quantile()
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5
    # At 0 and 1 the interval ends there, but for rounding.
    return Estimate(share, max(0.0, min(centre - half, share)), min(1.0, max(centre + half, share)))


def p_value(differences: Sequence[float]) -> float:
    """Two-sided p of the paired t test that the mean difference is 0; NaN under two values."""
    known = _known(differences)
    if len(known) < 2:
        return float("nan")
    mean, error = float(known.mean()), _standard_error(known)
    if not error:
        return float(mean == 0)
    from scipy.special import stdtr  # here: scipy is slow to import and --help needs none

    return float(2 * stdtr(len(known) - 1, -abs(mean) / error))


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Holm's adjusted p values: compare each with 0.05 when many presets are compared at once.

    The chance of even one false alarm stays under 5%, whatever the tests' dependence. NaN stays
    NaN and does not count. Source: Holm 1979.
    """
    known = sorted((p, name) for name, p in p_values.items() if not isnan(p))
    adjusted, largest = dict(p_values), 0.0
    for rank, (p, name) in enumerate(known):
        largest = max(largest, min(1.0, (len(known) - rank) * p))
        adjusted[name] = largest
    return adjusted


@dataclass(frozen=True, slots=True)
class WarmUp:
    """Observations to cut off a series' beginning; settled: whether the series was long enough."""

    truncation: int
    settled: bool


def warm_up(series: Sequence[float]) -> WarmUp:
    """MSER-5: the cut that minimises the squared standard error of what is left.

    The series is averaged in fives, and cuts up to its half are tried. When the best cut is the
    last one tried, the series never settles in what was run: a longer run is needed. Source:
    White, Cobb and Spratt, A comparison of five steady-state truncation heuristics, WSC 2000.
    """
    whole = np.asarray(series, dtype=np.float64)
    batches = whole[: len(whole) // BATCH * BATCH].reshape(-1, BATCH).mean(axis=1)
    tried = len(batches) // 2
    if not tried:
        return WarmUp(0, settled=False)
    errors = [_mser(batches[cut:]) for cut in range(tried + 1)]
    best = int(np.argmin(errors))
    return WarmUp(best * BATCH, settled=best < tried)


def _mser(rest: Floats) -> float:
    return float(((rest - rest.mean()) ** 2).sum()) / len(rest) ** 2


def _known(values: Sequence[float]) -> Floats:
    known = np.asarray(values, dtype=np.float64)
    return known[~np.isnan(known)]


def _standard_error(known: Floats) -> float:
    return float(known.std(ddof=1)) / float(len(known) ** 0.5)


def _leaves(known: Floats, bounds: tuple[float, float] | None) -> bool:
    if bounds is None:
        return False
    half = _t_quantile(len(known) - 1) * _standard_error(known)
    return bool(known.mean() - half < bounds[0] or known.mean() + half > bounds[1])


def _skewed(known: Floats) -> bool:
    n, centred = len(known), known - known.mean()
    skewness = float((centred**3).mean()) / float((centred**2).mean()) ** 1.5
    error = (6 * n * (n - 1) / ((n - 2) * (n + 1) * (n + 3))) ** 0.5
    return bool(abs(skewness) > 2 * error and n < 25 * skewness**2)


def _bootstrap(known: Floats) -> Estimate | None:
    """BCa interval (Efron 1987) with a fixed seed: the same values give the same interval."""
    from scipy.stats import bootstrap  # here: scipy.stats takes a second to import

    interval = bootstrap(
        (known,),
        np.mean,
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        method="BCa",
        rng=np.random.default_rng(0),
    ).confidence_interval
    lo, hi = float(interval.low), float(interval.high)
    return None if isnan(lo) or isnan(hi) else Estimate(float(known.mean()), lo, hi)


def _t_quantile(degrees: int) -> float:
    from scipy.special import stdtrit  # here: scipy is slow to import and --help needs none

    return float(stdtrit(degrees, 0.5 + CONFIDENCE / 2))


def _normal_quantile() -> float:
    from scipy.special import ndtri  # here: as above

    return float(ndtri(0.5 + CONFIDENCE / 2))
