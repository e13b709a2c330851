"""Break-even, cap curve, tornado and global indices, held against functions whose answer is known.

Tolerances are derived from the sampling error where one is involved.
"""

import math
from collections import Counter

import numpy as np
import pytest

from shared.errors import InputError
from sim.sensitivity import (
    Choice,
    Parameter,
    Portion,
    Span,
    break_even,
    cap_curve,
    morris,
    sobol,
    tornado,
    with_value,
)

NOISE = np.random.default_rng(7).normal(0, 1, 20)
NOISE -= NOISE.mean()


def rising(x):
    return (10 * (x - 0.3) + NOISE).tolist()


def falling(x):
    return (-10 * (x - 0.3) + NOISE).tolist()


@pytest.mark.parametrize("line", [rising, falling])
def test_the_break_even_of_a_noisy_line_and_its_interval(line):
    found = break_even(line, 0.0, 1.0, tolerance=0.01)
    # the bounds of a line lie a constant half width above and below: they cross 0 that far aside
    half = 2.0930 * NOISE.std(ddof=1) / 20**0.5 / 10
    assert found.value.mean == pytest.approx(0.3, abs=1e-9)  # exact: interpolation of a line
    assert found.value.lo == pytest.approx(0.3 - half, abs=1e-5)
    assert found.value.hi == pytest.approx(0.3 + half, abs=1e-5)
    assert found.bracket[0] <= 0.3 <= found.bracket[1]
    assert found.bracket[1] - found.bracket[0] <= 0.01


def test_a_curve_is_followed_to_the_tolerance():
    found = break_even(lambda x: (x**3 - 0.2 + 0.01 * NOISE).tolist(), 0, 1, tolerance=0.002)
    assert found.value.mean == pytest.approx(0.2 ** (1 / 3), abs=0.002)
    assert found.value.lo < 0.2 ** (1 / 3) < found.value.hi


def test_the_interval_covers_the_true_break_even_as_often_as_it_says():
    rng, covered, runs = np.random.default_rng(3), 0, 300
    for _ in range(runs):
        noise = rng.normal(0, 1, 12)
        found = break_even(lambda x, n=noise: (8 * (x - 0.5) + n).tolist(), 0, 1, tolerance=0.05)
        covered += found.value.lo <= 0.5 <= found.value.hi
    # binomial: four standard errors of 300 draws at 0.95 are 0.050
    assert covered / runs == pytest.approx(0.95, abs=4 * (0.95 * 0.05 / runs) ** 0.5)


def test_a_dent_in_the_curve_is_no_harm():
    found = break_even(lambda x: (x - 0.6 + 0.02 * np.sin(60 * x) + 0.001 * NOISE).tolist(), 0, 1)
    assert found.value.mean == pytest.approx(0.6, abs=0.03)


@pytest.mark.parametrize(
    ("line", "why"),
    [
        (lambda x: [x + 1, x + 2], "over 0 at both ends"),
        (lambda x: [-x - 1, -x - 2], "under 0 at both ends"),
        (lambda x: [0.0, 0.0], "nothing to cross"),
    ],
)
def test_no_crossing_is_said_after_two_evaluations(line, why):
    found = break_even(line, 0.0, 1.0)
    assert (found.value, found.bracket, found.evaluations) == (None, None, 2)
    assert why in found.why


def test_an_interval_beyond_the_range_searched_has_no_bound_there():
    found = break_even(lambda x: (x - 0.01 + NOISE).tolist(), 0.0, 1.0)
    assert found.value.mean == pytest.approx(0.01)
    assert found.value.lo is None
    assert found.value.hi == pytest.approx(0.01 + 2.0930 * NOISE.std(ddof=1) / 20**0.5, abs=1e-4)
    assert "beyond the range searched" in found.why


def test_no_point_is_evaluated_twice_and_the_count_is_told():
    asked = Counter()

    def line(x):
        asked[x] += 1
        return rising(x)

    found = break_even(line, 0.0, 1.0, tolerance=0.05)
    assert set(asked.values()) == {1}
    assert found.evaluations == len(asked) <= 15


def test_a_range_the_wrong_way_round_and_a_point_without_values_are_errors():
    with pytest.raises(ValueError, match="low"):
        break_even(rising, 1.0, 0.0)
    with pytest.raises(ValueError, match="no replication"):
        break_even(lambda x: [math.nan], 0.0, 1.0)


def curve_of(means, spread, metric="revenue_per_day", n=20):
    rng = np.random.default_rng(5)
    shared = rng.normal(0, 10, n)
    measures = {
        f"cap_{cap}": {metric: (mean + shared + rng.normal(0, spread, n)).tolist()}
        for cap, mean in means.items()
    }
    return cap_curve(measures, {f"cap_{cap}": cap for cap in means}, [metric])


def test_the_best_cap_is_sure_where_the_pairs_agree():
    # the shared part is far wider than the gap of 1: only paired, the best cap can be told
    curve = curve_of({24: 100.0, 1: 90.0, 8: 101.0}, 0.1)
    assert [point.cap for point in curve.points] == [1, 8, 24]
    best = curve.best["revenue_per_day"]
    assert (best.cap, best.rivals) == (8, ())
    assert best.confidence == 1.0


def test_a_cap_that_cannot_be_told_from_the_best_is_its_rival():
    best = curve_of({4: 100.0, 8: 100.0, 24: 50.0}, 5.0).best["revenue_per_day"]
    assert {best.cap, *best.rivals} == {4, 8}
    # equal means: the winner of one sample wins again in a part of the resamples only
    assert 0.5 <= best.confidence < 0.99


def test_a_rate_s_interval_stays_a_rate_and_a_measure_without_values_has_no_best():
    curve = cap_curve(
        {"a": {"first_place_rate": [0.99, 1.0, 0.95]}, "b": {"first_place_rate": [math.nan] * 3}},
        {"a": 4, "b": 24},
        ["first_place_rate"],
    )
    assert curve.points[0].measures["first_place_rate"].hi == 1.0
    assert curve.points[1].measures["first_place_rate"] is None
    assert curve.best == {}


LAG = Parameter("start.lag_minutes", 0.0, 20.0, "start lag")
DAYS = Parameter("days", 10.0, 50.0, "days")
CAP = Parameter("presets.1.cap", 8, 24, "cap", whole=True)


def test_a_dotted_key_changes_a_copy():
    base = {"start": {"lag_minutes": 5.0}, "presets": ["accuracy_4", {"cap": 24}], "list": [1, 2]}
    assert with_value(base, "start.lag_minutes", 7.0)["start"] == {"lag_minutes": 7.0}
    assert with_value(base, "presets.1.cap", 8)["presets"] == ["accuracy_4", {"cap": 8}]
    assert with_value(base, "list.1", 3.0)["list"] == [1, 3.0]
    assert with_value(base, "field.strength", 1.0)["field"] == {"strength": 1.0}
    assert with_value({"gpu": None}, "gpu.hours", 1.0) == {"gpu": {"hours": 1.0}}
    assert base == {
        "start": {"lag_minutes": 5.0}, "presets": ["accuracy_4", {"cap": 24}], "list": [1, 2],
    }  # fmt: skip


@pytest.mark.parametrize("key", ["presets.0.cap", "presets.9.cap", "presets.x", "presets.9"])
def test_a_path_that_leads_nowhere_names_the_key(key):
    with pytest.raises(InputError, match=key):
        with_value({"presets": ["accuracy_4"]}, key, 1.0)


def test_a_range_the_wrong_way_round_names_the_parameter():
    with pytest.raises(InputError, match="days"):
        Parameter("days", 5.0, 5.0, "days")


def test_a_whole_parameter_is_set_to_whole_numbers():
    changed = CAP.set_in({"presets": ["accuracy_4", {"cap": 24}]}, 11.7)
    assert changed["presets"][1]["cap"] == 12
    assert isinstance(changed["presets"][1]["cap"], int)


def each(evaluate):
    return lambda scenarios: [evaluate(scenario) for scenario in scenarios]


def test_the_tornado_moves_one_parameter_at_a_time_and_puts_the_widest_first():
    base = {"days": 30.0, "start": {"lag_minutes": 5.0}}

    def values(at):
        mean = at["days"] + 10 * at["start"]["lag_minutes"] - 70
        return [mean - 1, mean + 1]

    lag, days = tornado(base, [DAYS, LAG], each(values))
    assert (lag.parameter, lag.value, lag.at_low.mean, lag.at_high.mean) == (LAG, 5, -40, 160)
    assert (days.parameter, days.swing, days.change.mean) == (DAYS, 40, 40)
    assert days.change.lo == days.change.hi == 40  # paired: the noise is the same at both ends
    assert (lag.answer, days.answer) == ("flips", "in doubt")


def test_a_result_that_is_nothing_at_an_end_vanishes_and_one_that_keeps_its_side_stays():
    bars = [tornado({"days": 30.0}, [DAYS], each(f))[0] for f in (
        lambda at: [0.0, 0.0] if at["days"] < 20 else [5.0, 6.0],
        lambda at: [at["days"], at["days"] + 0.1],
    )]  # fmt: skip
    assert [bar.answer for bar in bars] == ["vanishes", "stays"]


def test_the_special_parameters_keep_their_scenario_valid():
    span, share = Span("s", 0.1, 0.9, "s"), Portion("m.a", 0.1, 0.6, "a", rest=("b", "c"))
    moved = span.set_in({"s": {"low": 0.2, "high": 0.4}}, 0.05)["s"]
    assert (moved["low"], moved["high"]) == (0.0, 0.1)
    mix = share.set_in({"m": {"a": 0.5, "b": 0.4, "c": 0.1}}, 0.25)["m"]
    assert (mix["b"], mix["c"]) == (pytest.approx(0.6), pytest.approx(0.15))
    name = Choice("k", 0, 1, "k", whole=True, names=("x", "y"))
    assert name.set_in({"k": "x"}, 0.9) == {"k": "y"}
    assert name.found_in({"k": "y"}) == 1


ISHIGAMI = [Parameter(name, -math.pi, math.pi, name) for name in ("x1", "x2", "x3")]


def ishigami(at):
    return (
        math.sin(at["x1"]) + 7 * math.sin(at["x2"]) ** 2 + 0.1 * at["x3"] ** 4 * math.sin(at["x1"])
    )


def ishigami_indices(a=7.0, b=0.1):
    """First and total indices in closed form (Ishigami and Homma 1990)."""
    one = 0.5 * (1 + b * math.pi**4 / 5) ** 2
    two = a * a / 8
    both = 8 * b * b * math.pi**8 / 225
    whole = one + two + both
    return [one / whole, two / whole, 0.0], [(one + both) / whole, two / whole, both / whole]


def test_sobol_gives_ishigami_s_indices():
    found = sobol({}, ISHIGAMI, each(ishigami), samples=1024)
    first, total = ishigami_indices()
    for index, s1, st in zip(found, first, total, strict=True):
        # SALib's half width is 1.96 bootstrap standard errors: twice it is almost four
        assert index.first == pytest.approx(s1, abs=2 * index.first_half)
        assert index.total == pytest.approx(st, abs=2 * index.total_half + 1e-9)
        assert index.first_half < 0.12
        assert index.total_half < 0.12


def test_sobol_repeats_itself_and_follows_its_seed():
    runs = [sobol({}, ISHIGAMI, each(ishigami), samples=32, seed=seed) for seed in (1, 1, 2)]
    assert runs[0] == runs[1]
    assert runs[0][0].first != runs[2][0].first


def test_sobol_of_a_constant_finds_nothing_and_wants_a_power_of_two():
    assert all(index.total == 0 for index in sobol({}, ISHIGAMI, each(lambda at: 3.0), samples=8))
    with pytest.raises(ValueError, match="samples"):
        sobol({}, ISHIGAMI, each(ishigami), samples=24)


def test_morris_gives_the_slopes_of_a_line_and_sees_an_interaction():
    parameters = [Parameter(name, 0.0, 2.0, name) for name in ("a", "b", "c", "d")]
    found = morris({}, parameters, each(lambda at: 3 * at["a"] - at["b"] + at["c"] * at["d"]))
    a, b, c, d = found
    # a line's elementary effect is its slope times the range of 2, at every point
    assert (a.mu_star, b.mu_star) == (pytest.approx(6.0), pytest.approx(2.0))
    assert (a.sigma, b.sigma) == (pytest.approx(0, abs=1e-9), pytest.approx(0, abs=1e-9))
    assert c.sigma > 0.1
    assert d.sigma > 0.1
