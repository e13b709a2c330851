"""What must hold of every sample: intervals hold their mean, move with the data, never misorder."""

import math

import numpy as np
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from sim.output_analysis import (
    Sequential,
    estimate,
    fitted,
    holm,
    paired,
    probability_of_beating,
    relative_half_width,
    warm_up,
)

NUMBERS = st.floats(-1e6, 1e6).map(lambda x: round(x, 3))
SAMPLES = st.lists(NUMBERS, min_size=1, max_size=40)
PAIRS = st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=40)
SHARES = st.floats(0, 1)


@settings(deadline=None)
@given(SAMPLES)
def test_an_interval_holds_its_mean(values):
    for found in (estimate(values), fitted(values)):
        assert math.isclose(found.mean, float(np.mean(values)), rel_tol=1e-12, abs_tol=1e-9)
        if len(values) < 2:
            assert found.lo is found.hi is None
        else:
            assert found.lo <= found.mean + 1e-6
            assert found.mean - 1e-6 <= found.hi


@settings(deadline=None)
@given(st.lists(SHARES, min_size=2, max_size=40))
def test_a_rate_s_interval_stays_in_its_range(values):
    found = fitted(values, (0.0, 1.0))
    assert 0 <= found.lo <= found.hi <= 1


@settings(deadline=None)
@given(SAMPLES, st.floats(0.01, 100), NUMBERS)
def test_an_interval_moves_and_stretches_with_the_data(values, scale, shift):
    assume(len(values) > 1)
    found = estimate(values)
    moved = estimate([scale * value + shift for value in values])
    for before, after in ((found.mean, moved.mean), (found.lo, moved.lo), (found.hi, moved.hi)):
        assert math.isclose(after, scale * before + shift, rel_tol=1e-7, abs_tol=1e-2)


@settings(max_examples=30, deadline=None)
@given(SAMPLES, st.randoms())
def test_nothing_depends_on_nan_values_nor_t_on_the_order(values, random):
    assert fitted([*values, math.nan]) == fitted(values)
    shuffled = list(values)
    random.shuffle(shuffled)
    first, again = estimate(values), estimate(shuffled)
    assert math.isclose(first.mean, again.mean, rel_tol=1e-9, abs_tol=1e-6)


@settings(deadline=None)
@given(PAIRS)
@example(pairs=[(0.0, 0.0)] * 7)  # the lower end came out over the share, by rounding
def test_one_beats_the_other_or_the_other_way_round_or_they_tie(pairs):
    first, second = zip(*pairs, strict=True)
    wins, losses = probability_of_beating(first, second), probability_of_beating(second, first)
    ties = sum(a == b for a, b in pairs) / len(pairs)
    assert math.isclose(wins.mean + losses.mean + ties, 1)
    assert 0 <= wins.lo <= wins.mean <= wins.hi <= 1
    if not ties:
        assert math.isclose(wins.lo, 1 - losses.hi, abs_tol=1e-12)


@settings(deadline=None)
@given(PAIRS)
def test_a_paired_difference_changes_its_sign_with_its_sides(pairs):
    first, second = zip(*pairs, strict=True)
    gap, back = paired(first, second), paired(second, first)
    assert gap.mean == -back.mean
    if gap.lo is not None:
        assert (gap.lo, gap.hi) == (-back.hi, -back.lo)


@settings(deadline=None)
@given(st.dictionaries(st.text(max_size=3), SHARES, max_size=8))
def test_holm_raises_p_values_and_keeps_their_order(p_values):
    adjusted = holm(p_values)
    assert adjusted.keys() == p_values.keys()
    by_p = sorted(p_values, key=p_values.__getitem__)
    assert all(p_values[name] <= adjusted[name] <= 1 for name in p_values)
    assert [adjusted[name] for name in by_p] == sorted(adjusted.values())


@settings(deadline=None)
@given(st.lists(NUMBERS, max_size=200))
def test_a_warm_up_is_whole_batches_and_at_most_half(series):
    found = warm_up(series)
    assert found.truncation % 5 == 0
    assert 2 * found.truncation <= len(series)


@settings(deadline=None)
@given(
    st.floats(0.01, 0.9), st.integers(2, 20), st.integers(0, 30), st.integers(1, 9), st.integers(0)
)
def test_a_sequential_run_looks_only_where_it_said(precision, least, more, step, seed):
    rule = Sequential(precision, least, least + more, step)
    values = np.random.default_rng(seed).normal(1, 1, rule.most).tolist()
    stopped = rule.run(lambda numbers: [values[number] for number in numbers])
    done = len(stopped.values)
    assert list(stopped.values) == values[:done]
    assert done == rule.most or (done - least) % step == 0
    assert stopped.reached == (relative_half_width(estimate(values[:done])) <= precision)
    assert stopped.reached or done == rule.most
    for looked in range(least, done, step):
        assert relative_half_width(estimate(values[:looked])) > precision
