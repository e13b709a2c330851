"""Intervals, stopping, comparisons and warm-up: against worked numbers and simulated coverage.

Coverage tolerances: the share of m simulated intervals that cover the mean has the standard error
sqrt(c (1 - c) / m); four of them are allowed, so that a true coverage of c fails once in 16,000.
"""

import math

import numpy as np
import pytest
from scipy import stats

from sim.output_analysis import (
    Estimate,
    Sequential,
    estimate,
    fitted,
    holm,
    method,
    p_value,
    paired,
    probability_of_beating,
    relative_half_width,
    warm_up,
)


def coverage(draw, mean, runs, interval):
    """Share of samples whose interval covers the mean."""
    covered = 0
    for _ in range(runs):
        found = interval(draw())
        covered += found.lo <= mean <= found.hi
    return covered / runs


def allowed(share, runs):
    return 4 * (share * (1 - share) / runs) ** 0.5


def test_t_by_hand():
    # mean 3, variance 2.5, t(4) at 0.975 is 2.7764
    found = estimate([1.0, 2.0, 3.0, 4.0, 5.0])
    half = 2.7764451 * math.sqrt(2.5 / 5)
    assert found.mean == 3.0
    assert (found.lo, found.hi) == (pytest.approx(3 - half), pytest.approx(3 + half))


def test_few_values():
    assert estimate([]) is estimate([math.nan]) is fitted([]) is None
    assert fitted([2.0], (0, 1)) == Estimate(2.0, None, None)


@pytest.mark.parametrize("n", [5, 20])
def test_t_covers_a_normal_mean_as_often_as_it_says(n):
    rng, runs = np.random.default_rng(n), 2000
    share = coverage(lambda: rng.normal(3, 2, n), 3.0, runs, estimate)
    assert share == pytest.approx(0.95, abs=allowed(0.95, runs))


def test_pairing_takes_out_what_both_share():
    rng = np.random.default_rng(1)
    shared = rng.normal(0, 100, 20)
    first, second = shared + rng.normal(1, 0.1, 20), shared + rng.normal(0, 0.1, 20)
    gap = paired(first.tolist(), second.tolist())
    assert gap.mean == pytest.approx(1.0, abs=4 * 0.1 * (2 / 20) ** 0.5)
    assert gap.hi - gap.lo < 0.5 < estimate(first.tolist()).hi - estimate(first.tolist()).lo


SKEWED = np.exp(2 * np.random.default_rng(4).normal(size=30)).tolist()
NORMAL = np.random.default_rng(4).normal(5, 1, 30).tolist()
RARE = [0.0] * 25 + [0.01] * 5


@pytest.mark.parametrize(
    ("values", "bounds", "expected"),
    [
        (NORMAL, None, "t"),
        (NORMAL, (0.0, 100.0), "t"),
        (NORMAL, (4.9, 5.3), "bootstrap"),
        (SKEWED, None, "bootstrap"),
        (SKEWED[:19], None, "t"),
        (RARE, (0.0, 1.0), "bootstrap"),
        ([1.0, 2.0] * 15, None, "bootstrap"),
        ([0.0] * 30, (0.0, 1.0), "t"),
        ([1.0, 2.0], None, "t"),
    ],
)
def test_the_rule_that_chooses_the_interval(values, bounds, expected):
    assert method(values, bounds) == expected


def test_the_fitted_interval_is_t_where_t_fits_and_the_library_s_bca_where_not():
    assert fitted(NORMAL) == estimate(NORMAL)
    found = fitted(SKEWED)
    library = stats.bootstrap(
        (SKEWED,), np.mean, n_resamples=1999, method="BCa", rng=np.random.default_rng(0)
    ).confidence_interval
    assert (found.lo, found.hi) == (library.low, library.high)
    assert found.hi - found.mean > found.mean - found.lo  # the long tail is above


def test_a_rare_rate_s_interval_stays_over_zero():
    assert estimate([*RARE[:24], *RARE[-1:]]).lo < 0
    found = fitted(RARE, (0.0, 1.0))
    assert 0 <= found.lo < found.mean < found.hi
    few = fitted([0.0, 0.0, 0.0, 0.01], (0.0, 1.0))  # too few for the bootstrap: t, cut
    assert few.lo == 0.0


def test_the_fitted_interval_covers_a_rare_rate_about_as_often_as_it_says():
    # 40 replications of 25 jobs with failures of 0.4%: each replication has none, one or two
    rng, runs = np.random.default_rng(8), 150
    share = coverage(
        lambda: rng.binomial(25, 0.004, 40) / 25, 0.004, runs, lambda v: fitted(v, (0.0, 1.0))
    )
    # not exact for any interval of so coarse a number: no less than 0.93, up to sampling error
    assert share >= 0.93 - allowed(0.93, runs)


def test_relative_half_width():
    assert relative_half_width(Estimate(10.0, 9.0, 11.0)) == pytest.approx(0.1)
    assert relative_half_width(Estimate(-10.0, -12.0, -8.0)) == pytest.approx(0.2)
    assert relative_half_width(Estimate(5.0, 5.0, 5.0)) == 0.0
    assert relative_half_width(Estimate(0.0, 0.0, 0.0)) == 0.0
    assert relative_half_width(Estimate(0.0, -1.0, 1.0)) is None
    assert relative_half_width(Estimate(5.0, None, None)) is relative_half_width(None) is None


def test_a_sequential_run_stops_when_the_precision_is_reached():
    asked = []

    def more(numbers):
        asked.append(list(numbers))
        return [100.0 + number % 2 for number in numbers]

    stopped = Sequential(0.02, least=4, most=40, step=3).run(more)
    assert (asked, stopped.reached) == ([[0, 1, 2, 3]], True)
    assert "2% reached" in stopped.why


def test_two_equal_values_are_not_enough_when_more_were_asked_for():
    rule = Sequential(0.1, least=4, most=8)
    assert not rule.enough([5.0] * 3)
    assert rule.enough([5.0] * 4)


def test_a_sequential_run_ends_at_most_and_says_that_it_is_not_precise_enough():
    asked = []

    def more(numbers):
        asked.append(list(numbers))
        return [(-1.0) ** number * 100 + 1 for number in numbers]

    stopped = Sequential(0.1, least=4, most=9, step=3).run(more)
    assert asked == [[0, 1, 2, 3], [4, 5, 6], [7, 8]]
    assert not stopped.reached
    assert "10% not reached" in stopped.why


def test_a_sequential_run_of_a_difference_around_zero_gives_no_precision():
    stopped = Sequential(0.1, least=2, most=4, step=2).run(lambda n: [(-1.0) ** i for i in n])
    assert not stopped.reached
    assert "no relative precision" in stopped.why


def test_a_sequential_run_covers_the_mean_a_little_less_often_than_it_says():
    rng, runs, covered = np.random.default_rng(2), 1000, 0
    rule = Sequential(0.1, least=10, most=60, step=5)
    for _ in range(runs):
        found = estimate(rule.run(lambda n: rng.normal(1, 0.3, len(n)).tolist()).values)
        covered += found.lo <= 1 <= found.hi
    # 94.3% in 8,000 runs, as the docstring says
    assert covered / runs == pytest.approx(0.943, abs=allowed(0.943, runs))


@pytest.mark.parametrize(
    ("numbers", "key"),
    [((0.0,), "precision"), ((1.0,), "precision"), ((0.1, 1), "least"), ((0.1, 9, 8), "least"),
     ((0.1, 2, 8, 0), "step")],
)  # fmt: skip
def test_a_senseless_rule_names_its_number(numbers, key):
    with pytest.raises(ValueError, match=key):
        Sequential(*numbers)


def test_the_probability_of_beating_is_wilson_s():
    found = probability_of_beating([2.0] * 8 + [0.0] * 2, [1.0] * 10)
    wilson = stats.binomtest(8, 10).proportion_ci(0.95, method="wilson")
    assert found.mean == 0.8
    assert (found.lo, found.hi) == (pytest.approx(wilson.low), pytest.approx(wilson.high))


def test_a_tie_is_no_win_and_a_pair_without_a_value_counts_nowhere():
    assert probability_of_beating([1.0, 1.0], [1.0, 1.0]).mean == 0.0
    assert probability_of_beating([2.0, math.nan], [1.0, 1.0]).mean == 1.0
    assert probability_of_beating([math.nan], [1.0]) is None


def test_the_probability_of_beating_covers_the_true_one():
    rng, runs = np.random.default_rng(6), 1500
    truth = float(stats.norm.cdf(0.5 / math.sqrt(2)))  # N(0.5, 1) beats N(0, 1)

    def interval(n=40):
        return probability_of_beating(rng.normal(0.5, 1, n), rng.normal(0, 1, n))

    # Wilson's actual coverage at this n and p, summed over all outcomes
    outcomes = [stats.binomtest(k, 40).proportion_ci(0.95, "wilson") for k in range(41)]
    inside = [ci.low <= truth <= ci.high for ci in outcomes]
    exact = float(stats.binom.pmf(np.arange(41), 40, truth)[inside].sum())
    share = coverage(lambda: None, truth, runs, lambda _: interval())
    assert share == pytest.approx(exact, abs=allowed(exact, runs))


def test_p_values_are_the_paired_t_test_s():
    gaps = [0.5, 1.5, -0.2, 0.9, 2.0]
    assert p_value(gaps) == pytest.approx(stats.ttest_1samp(gaps, 0).pvalue)
    assert p_value([*gaps, math.nan]) == p_value(gaps)
    assert (p_value([0.0, 0.0]), p_value([1.0, 1.0])) == (1.0, 0.0)
    assert math.isnan(p_value([1.0]))


def test_holm_by_hand():
    # 4 x 0.01, 3 x 0.02, then 2 x 0.03 = 0.06 = the one before it, and 0.5
    adjusted = holm({"c": 0.03, "a": 0.01, "d": 0.5, "b": 0.02})
    assert adjusted == pytest.approx({"a": 0.04, "b": 0.06, "c": 0.06, "d": 0.5})


def test_holm_leaves_out_what_was_not_tested_and_stays_a_probability():
    adjusted = holm({"a": 0.03, "b": math.nan, "c": 0.9})
    assert math.isnan(adjusted.pop("b"))
    assert adjusted == pytest.approx({"a": 0.06, "c": 0.9})
    assert holm({"a": 0.8, "b": 0.9}) == {"a": 1.0, "b": 1.0}


def test_holm_keeps_false_alarms_of_many_comparisons_rare():
    rng, runs, alarms = np.random.default_rng(9), 600, 0
    for _ in range(runs):
        p_values = {str(k): p_value(rng.normal(0, 1, 10)) for k in range(5)}
        alarms += min(holm(p_values).values()) < 0.05
    assert alarms / runs <= 0.05 + allowed(0.05, runs)


def test_a_warm_up_is_found_and_a_settled_series_is_left_whole():
    rng = np.random.default_rng(10)
    level = np.concatenate([np.full(50, 30.0), np.zeros(450)])
    found = warm_up((level + rng.normal(0, 1, 500)).tolist())
    assert found.settled
    assert 50 <= found.truncation <= 60
    assert warm_up([4.0] * 100).truncation == 0


def test_mser_by_hand():
    # batch means 9, 1, 2, 1, 2, 1: squared standard errors 0.90.., 0.048, 0.0625, 0.0741
    series = [value for mean in (9, 1, 2, 1, 2, 1) for value in [float(mean)] * 5]
    assert warm_up(series).truncation == 5


def test_a_series_that_never_settles_and_one_too_short_say_so():
    assert not warm_up(list(map(float, range(200)))).settled
    assert warm_up([1.0] * 9) == warm_up([])
    assert not warm_up([1.0] * 9).settled
