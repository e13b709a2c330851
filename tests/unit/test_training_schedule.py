"""A job's schedule: it ends in time whatever its times do, and gives the same orders again."""

import json
import math
from dataclasses import replace
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.deadline_jobs import ENDLESS, drawn, simulated
from benchmarks.deadlines import figures
from live.training.schedule import Orders, Schedule, ScheduleSettings
from live.training.timing import most_evaluation_s
from shared.errors import InputError

INF = math.inf
PLAIN = ScheduleSettings(evaluation_s=5, save_s=2, finish_s=10, margin_s=300)


class Clock:
    """Drives a schedule by hand: steps of given lengths, what is ordered at fixed costs."""

    def __init__(self, schedule, left_s, evaluation_s=5.0, save_s=2.0):
        self.schedule, self.left_s = schedule, left_s
        self.costs = {"evaluation": evaluation_s, "save": save_s}
        self.step, self.orders, self.rates = 0, [], []

    def ask(self):
        orders = self.schedule.after_step(self.step, self.left_s)
        self.orders.append(orders)
        for what, told in (("evaluation", orders.evaluate), ("save", orders.save)):
            if told:
                self.left_s -= self.costs[what]
                self.schedule.took(what, self.costs[what])
        return orders

    def go(self, seconds):
        self.rates.append(self.schedule.learning_rate(self.step))
        self.step += 1
        self.left_s -= seconds
        self.schedule.took("step", seconds)
        return self.ask()

    def run(self, lengths):
        """Until told to stop, or the lengths are used up."""
        for seconds in lengths:
            if self.go(seconds).stop:
                break
        return self


def steps_at(orders, what):
    """Steps after which something was ordered; orders begin with those after step 1."""
    return [at for at, each in enumerate(orders, 1) if getattr(each, what)]


def test_a_hundred_jobs() -> None:
    found = figures([simulated(drawn(7, index, least_step_s=4)) for index in range(100)])
    assert found["missed"] == 0
    assert found["latest_share_of_margin"] <= 1
    assert found["without_final_evaluation"] == 0
    assert found["unused"]["mean"] <= 0.03
    assert 0.01 < found["evaluating"] < 0.10
    assert found["rate_of_last_step"] < 0.10


def test_trouble_at_the_very_end_stays_within_the_margin() -> None:
    for index in range(15):
        job = replace(drawn(3, index, least_step_s=8), drift=1.0, restart_at=None)
        slow = replace(job, stalls=((0.99, 100.0),), slow=(("evaluation", -1, 10.0),))
        assert not simulated(slow).missed


def test_without_a_deadline() -> None:
    clock = Clock(Schedule(PLAIN, 200), INF).run([1.0] * 300)
    even = [20, 40, 60, 80, 100, 120, 140, 160, 180, 200]
    assert clock.step == 200
    assert steps_at(clock.orders, "evaluate") == even
    assert steps_at(clock.orders, "save") == even
    assert steps_at(clock.orders, "stop") == [200]
    warm_up = [1 / 6 + 5 / 6 * done / 6 for done in range(6)]
    cosine = [
        0.01 + 0.99 * (1 + math.cos(math.pi * (step - 6) / 194)) / 2 for step in range(6, 200)
    ]
    assert clock.rates == pytest.approx(warm_up + cosine)


@pytest.mark.parametrize("most", [1, 2, 3, 9, 10, 11, 37])
def test_a_few_steps_without_a_deadline(most: int) -> None:
    clock = Clock(Schedule(PLAIN, most), INF).run([1.0] * 100)
    assert clock.step == most
    assert clock.orders[-1] == Orders(evaluate=True, save=True, stop=True)
    assert len(steps_at(clock.orders, "evaluate")) == min(10, most)


def test_enough_time_is_no_deadline_for_the_number_of_steps() -> None:
    clock = Clock(Schedule(PLAIN, 150), 36_000.0).run([1.0] * 100)
    assert clock.schedule.planned_steps == 150
    clock.run([1.0] * 100)
    assert clock.step == 150
    assert clock.schedule.planned_steps == 150


def test_the_first_evaluation_and_save_come_when_steps_are_measured() -> None:
    clock = Clock(Schedule(PLAIN, ENDLESS), 3000.0).run([30.0] + [1.0] * 10)
    assert steps_at(clock.orders, "evaluate")[0] == 5
    assert steps_at(clock.orders, "save")[0] == 5
    # 3000 s less the first steps, the finals and what evaluations and saves take
    assert 2600 < clock.schedule.planned_steps < 2900


def test_few_long_steps_are_measured_once() -> None:
    clock = Clock(Schedule(PLAIN, ENDLESS), 600.0).run([60.0] * 2)
    assert steps_at(clock.orders, "evaluate") == [2]


def test_the_first_step_of_a_process_is_no_pace() -> None:
    plans = []
    for first_s in (1.0, 100.0):
        clock = Clock(Schedule(PLAIN, ENDLESS), 3000.0 + first_s).run([first_s] + [1.0] * 20)
        plans.append(clock.schedule.planned_steps)
    assert plans[1] == pytest.approx(plans[0], rel=0.02)


def test_evaluations_are_few_even_and_bounded() -> None:
    clock = Clock(Schedule(PLAIN, ENDLESS), 3600.0).run([1.0] * 5000)
    at = steps_at(clock.orders, "evaluate")
    assert 0.04 < len(at) * 5 / 3600 < 0.065
    gaps = [after - before for before, after in pairwise(at)]
    assert max(gaps) < 1.2 * min(gaps)
    assert at[-1] == clock.step


def test_dear_evaluations_are_fewer_than_a_few() -> None:
    dear = Clock(Schedule(PLAIN, ENDLESS), 3600.0, evaluation_s=400.0).run([1.0] * 5000)
    assert len(steps_at(dear.orders, "evaluate")) == 2
    few = Clock(Schedule(PLAIN, ENDLESS), 3600.0, evaluation_s=90.0).run([1.0] * 5000)
    assert len(steps_at(few.orders, "evaluate")) == 4
    cheap = Clock(Schedule(PLAIN, ENDLESS), 3600.0, evaluation_s=0.01).run([1.0] * 5000)
    assert len(steps_at(cheap.orders, "evaluate")) == 40


def test_saves_go_by_what_they_cost() -> None:
    for save_s, interval_s in ((2.0, 587.9), (18.0, 1763.6)):
        clock = Clock(Schedule(PLAIN, ENDLESS), 36_000.0, save_s=save_s).run([10.0] * 5000)
        at = steps_at(clock.orders, "save")[:-1]
        gaps = [(after - before) * 10 for before, after in pairwise(at)]
        assert sum(gaps) / len(gaps) == pytest.approx(interval_s, rel=0.05)


def test_one_stall_does_not_wreck_the_plan() -> None:
    clock = Clock(Schedule(PLAIN, ENDLESS), 10_000.0).run([1.0] * 100)
    before = clock.schedule.planned_steps
    clock.run([300.0])
    assert before - clock.schedule.planned_steps < 1200
    clock.run([1.0] * 30)
    assert before - 340 < clock.schedule.planned_steps < before - 260


def test_a_drift_is_followed() -> None:
    clock = Clock(Schedule(PLAIN, ENDLESS), 10_000.0).run([1.0] * 100)
    before = clock.schedule.planned_steps
    clock.run([2.0] * 30)
    assert clock.schedule.planned_steps == pytest.approx(before / 2 + 50, rel=0.05)
    clock.run([1.0] * 30)
    assert clock.schedule.planned_steps > before * 0.9


def test_it_stops_before_a_step_as_slow_as_the_slowest_recent_one() -> None:
    margin = ScheduleSettings(evaluation_s=5, save_s=2, finish_s=10, margin_s=10_000)
    clock = Clock(Schedule(margin, ENDLESS), 1000.0).run([1.0] * 20 + [40.0] + [1.0] * 2)
    still = clock.schedule.state()
    finals_s = 5 + 2 + 10
    for left_s, stop in ((40 + finals_s + 0.5, False), (40 + finals_s - 0.1, True)):
        assert again_from(still, margin).after_step(clock.step, left_s).stop is stop


AMPLE = ScheduleSettings(evaluation_s=5, save_s=2, finish_s=10, margin_s=10_000)


def least_left_s(schedule, step):
    """The least time left with which it trains on, to a hundredth, asked of copies."""
    low, high = 0.0, 5000.0
    while high - low > 0.01:
        middle = (low + high) / 2
        stops = again_from(schedule.state(), AMPLE).after_step(step, middle).stop
        low, high = (middle, high) if stops else (low, middle)
    return high


def measured():
    """A schedule of which everything is measured: steps of 1 s, evaluations of 5, saves of 2."""
    clock = Clock(Schedule(AMPLE, ENDLESS), 5000.0).run([1.0] * 300)
    for what, seconds in (("evaluation", 5.0), ("save", 2.0)):
        for _ in range(5):
            clock.schedule.took(what, seconds)
    return clock


def test_slow_once_is_not_slow_but_twice_is() -> None:
    for what, seconds in (("evaluation", 50.0), ("save", 20.0)):
        clock = measured()
        before = least_left_s(clock.schedule, clock.step)
        assert before == pytest.approx(1 + 5 + 2 + 10, abs=0.1)
        clock.schedule.took(what, seconds)
        assert least_left_s(clock.schedule, clock.step) == pytest.approx(before, abs=0.1)
        clock.schedule.took(what, seconds)
        slower_s = seconds * 0.9
        assert least_left_s(clock.schedule, clock.step) == pytest.approx(before + slower_s, abs=0.1)


def test_evaluations_become_slower_with_the_steps() -> None:
    clock = measured()
    for _ in range(24):
        clock.schedule.took("step", 3.0)
    slower = least_left_s(clock.schedule, clock.step)
    assert slower == pytest.approx(3 + 3 * 5 + 2 + 10, rel=0.1)


def test_a_measured_hand_in_counts_instead_of_its_estimate() -> None:
    clock = measured()
    before = least_left_s(clock.schedule, clock.step)
    clock.schedule.took("finish", 25.0)
    assert least_left_s(clock.schedule, clock.step) == pytest.approx(before + 15, abs=0.1)


def test_what_is_due_waits_where_it_would_take_the_last_steps_time() -> None:
    clock = Clock(Schedule(AMPLE, ENDLESS), 400.0).run([1.0] * 4)
    state = clock.schedule.state()
    # what the two cost is an estimate still, 5 s and 2 s; need: 1 + 5 + 2 + 10
    for spare_s, evaluate, save in ((1, False, False), (3, False, True), (8, True, True)):
        orders = again_from(state, AMPLE).after_step(30, 18.0 + spare_s)
        assert orders == Orders(evaluate, save, stop=False)


def again_from(state, told=PLAIN):
    """A restored schedule whose first step is behind it."""
    schedule = Schedule(told, ENDLESS, json.loads(json.dumps(state)))
    schedule.took("step", 1.0)
    return schedule


def test_a_slow_final_evaluation_would_still_end_before_the_deadline() -> None:
    tight = ScheduleSettings(evaluation_s=5, save_s=2, finish_s=10, margin_s=60, caution=0.5)
    clock = Clock(Schedule(tight, ENDLESS), 2000.0).run([1.0] * 5000)
    # what was free before the last step: a stall, the finals, one evaluation 10 times slow, drifted
    assert clock.left_s + 5 + 2 + 1 >= 120 + 150 + 2 + 10 - 60


def test_what_may_be_kept_free_is_bounded() -> None:
    tight = ScheduleSettings(evaluation_s=5, save_s=2, finish_s=10, margin_s=0, caution=0.01)
    clock = Clock(Schedule(tight, ENDLESS), 2000.0, evaluation_s=30.0).run([1.0] * 5000)
    assert clock.left_s - 10 <= 20 + 2


def test_after_a_restart_the_first_step_is_allowed_for() -> None:
    margin = ScheduleSettings(evaluation_s=5, save_s=2, finish_s=10, margin_s=10_000)
    clock = Clock(Schedule(margin, ENDLESS), 3000.0).run([90.0] + [1.0] * 30)
    again = Schedule(margin, ENDLESS, clock.schedule.state())
    assert again.after_step(clock.step, 100.0).stop
    assert not again_from(clock.schedule.state(), margin).after_step(clock.step, 100.0).stop


def test_less_time_after_a_restart_is_a_shorter_plan() -> None:
    clock = Clock(Schedule(PLAIN, ENDLESS), 3600.0).run([1.0] * 500)
    again = Schedule(PLAIN, ENDLESS, clock.schedule.state())
    again.after_step(clock.step, clock.left_s - 1000)
    assert again.planned_steps == pytest.approx(clock.schedule.planned_steps - 1000, abs=60)


def test_the_end_leaves_out_what_would_miss_the_deadline() -> None:
    clock = Clock(Schedule(PLAIN, ENDLESS), 3600.0).run([1.0] * 500)
    state = clock.schedule.state()
    ends = {left_s: again_from(state).after_step(500, left_s) for left_s in (-50, -280, -295)}
    assert ends[-50] == Orders(evaluate=True, save=True, stop=True)
    assert ends[-280] == Orders(evaluate=False, save=True, stop=True)
    assert ends[-295] == Orders(evaluate=False, save=False, stop=True)


def test_no_time_at_all() -> None:
    orders = Schedule(PLAIN, 10).after_step(0, 0.0)
    assert orders.stop
    assert orders.save  # nothing has been saved yet
    assert Schedule(PLAIN, 10).after_step(0, -1e9).stop


def test_the_rate_is_at_its_floor_in_the_end_whatever_the_drift() -> None:
    for last_s in (0.4, 1.0, 3.0):
        lengths = [1 + (last_s - 1) * min(1, at / 2000) for at in range(20_000)]
        clock = Clock(Schedule(PLAIN, ENDLESS), 3600.0).run(lengths)
        assert clock.orders[-1].stop
        assert clock.rates[-1] < 0.02
        peak = clock.rates.index(max(clock.rates))
        assert max(clock.rates) == pytest.approx(1, abs=0.01)
        assert peak < 0.1 * clock.step
        assert all(b <= a + 1e-12 for a, b in pairwise(clock.rates[peak:]))


def test_warm_up_is_a_share_of_the_plan() -> None:
    clock = Clock(Schedule(PLAIN, ENDLESS), 3600.0).run([1.0] * 200)
    assert clock.rates[4] > clock.rates[0] > 0
    assert clock.rates[50] < 0.7
    assert clock.rates[110] > 0.99


def test_the_plan_counts_what_is_done_on_the_way() -> None:
    clock = Clock(Schedule(PLAIN, ENDLESS), 36_000.0, evaluation_s=60.0, save_s=60.0)
    clock.run([10.0] * 30)
    planned = clock.schedule.planned_steps
    assert clock.run([10.0] * 5000).step == pytest.approx(planned, rel=0.005)


def test_a_new_plan_does_not_change_the_rate_of_the_step_to_come() -> None:
    clock = Clock(Schedule(PLAIN, ENDLESS), 3600.0).run([1.0] * 300)
    before, plan = clock.schedule.learning_rate(300), clock.schedule.planned_steps
    clock.schedule.after_step(300, clock.left_s / 2)
    assert clock.schedule.planned_steps < plan * 0.7
    assert clock.schedule.learning_rate(300) == before


def test_how_long_an_evaluation_may_be() -> None:
    told = ScheduleSettings(margin_s=300, caution=0.04, slow=10)
    assert most_evaluation_s(told, 3300) == pytest.approx((300 + 132) / 30)


LENGTHS = st.lists(st.floats(0.01, 50), min_size=1, max_size=80)
LEFT = st.floats(0, 5000)


@settings(deadline=None)
@given(LENGTHS, LEFT, st.floats(0.1, 100), st.floats(0.1, 50))
def test_no_step_is_begun_that_may_end_late(
    lengths: list[float], left_s: float, evaluation_s: float, save_s: float
) -> None:
    clock = Clock(Schedule(PLAIN, ENDLESS), left_s, evaluation_s, save_s)
    if clock.ask().stop:
        return
    for seconds in lengths:
        if clock.go(seconds).stop:
            break
        recent = lengths[1 : clock.step][-8:] or lengths[:1]
        measured = {
            "evaluation": evaluation_s if steps_at(clock.orders, "evaluate") else 5,
            "save": save_s if steps_at(clock.orders, "save") else 2,
        }
        if not (clock.orders[-1].evaluate or clock.orders[-1].save):
            assert clock.left_s >= max(recent) + sum(measured.values()) + 10 - 1e-6


@settings(deadline=None)
@given(LENGTHS, LEFT, st.integers(0, 79))
def test_a_restored_schedule_gives_the_same_orders(
    lengths: list[float], left_s: float, cut: int
) -> None:
    clock = Clock(Schedule(PLAIN, ENDLESS), left_s).run(lengths[:cut])
    if clock.orders and clock.orders[-1].stop:
        return
    state = json.loads(json.dumps(clock.schedule.state()))
    pair = [Clock(Schedule(PLAIN, ENDLESS, state), clock.left_s) for _ in range(2)]
    pair.append(Clock(Schedule(PLAIN, ENDLESS, pair[0].schedule.state()), clock.left_s))
    assert pair[0].schedule.state() == clock.schedule.state()
    for each in (*pair, clock):
        each.step = clock.step
    for each in pair:
        each.run([1.0, *lengths[cut:]])
    assert pair[0].orders == pair[1].orders == pair[2].orders
    assert pair[0].rates == pair[1].rates == pair[2].rates


@settings(deadline=None)
@given(LENGTHS, LEFT, st.integers(1, 200))
def test_the_rate_is_a_share_that_never_rises_once_it_falls(
    lengths: list[float], left_s: float, most: int
) -> None:
    clock = Clock(Schedule(PLAIN, most), left_s).run(lengths)
    assert all(0 < rate <= 1 for rate in clock.rates)
    falls = [b < a for a, b in pairwise(clock.rates)]
    if True in falls:
        first = falls.index(True)
        later = clock.rates[first:]
        assert all(b <= a + 1e-12 for a, b in pairwise(later))
    for step in range(0, 400, 7):
        assert 0 < clock.schedule.learning_rate(step) <= 1


@settings(deadline=None)
@given(LENGTHS, st.floats(500, 5000), st.floats(0, 400), st.floats(1, 3))
def test_less_time_and_slower_steps_never_make_a_longer_plan(
    lengths: list[float], left_s: float, less_s: float, slower: float
) -> None:
    clock = Clock(Schedule(PLAIN, ENDLESS), left_s).run(lengths)
    if clock.orders[-1].stop:
        return
    state = clock.schedule.state()
    plans = []
    for seconds, gone_s in ((1.0, 0.0), (1.0, less_s), (slower, 0.0)):
        each = again_from(state)
        for _ in range(24):
            each.took("step", seconds)
        each.after_step(clock.step + 1, max(0.0, clock.left_s - gone_s))
        plans.append(each.planned_steps)
    close = 1 + 0.02 * plans[0]
    assert plans[1] <= plans[0] + close
    assert plans[2] <= plans[0] + close


@settings(deadline=None)
@given(st.integers(1, 300), LENGTHS)
def test_without_a_deadline_the_times_change_nothing(most: int, lengths: list[float]) -> None:
    rng = Random(most)
    clock = Clock(Schedule(PLAIN, most), INF).run(rng.choice(lengths) for _ in range(400))
    plain = Clock(Schedule(PLAIN, most), INF).run([1.0] * 400)
    assert clock.step == plain.step == most
    assert clock.orders == plain.orders
    assert clock.rates == plain.rates


def test_bad_input_is_one_line() -> None:
    state = Schedule(PLAIN, 10).state()
    with pytest.raises(InputError, match=r"^most_steps: found 0, allowed is 1 or more$"):
        Schedule(PLAIN, 0)
    with pytest.raises(InputError, match=r"^slow: found 0.5, allowed is 1 to 1000$"):
        ScheduleSettings(slow=0.5)
    with pytest.raises(InputError, match=r"^save_s: found nan, allowed is 0 or more$"):
        ScheduleSettings(save_s=math.nan)
    with pytest.raises(InputError, match=r"^schedule: evaluated: found '3', it should be"):
        Schedule(PLAIN, 10, {**state, "evaluated": "3"})
    with pytest.raises(InputError, match=r"^schedule: more: found 1, "):
        Schedule(PLAIN, 10, {**state, "more": 1})
    with pytest.raises(InputError, match=r"^schedule: curve: found nothing, it is required$"):
        Schedule(PLAIN, 10, {key: state[key] for key in state if key != "curve"})
    for seconds in (-1.0, math.nan, INF):
        with pytest.raises(ValueError, match="step: found"):
            Schedule(PLAIN, 10).took("step", seconds)
    with pytest.raises(ValueError, match="found step 1 and nan"):
        Schedule(PLAIN, 10).after_step(1, math.nan)
