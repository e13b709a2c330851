"""Clocks never go back, and a sleeper wakes neither early nor never."""

import asyncio

import pytest

from live.clock import ManualClock, ScaledClock, SystemClock, wall_ms

HOUR_MS = 3_600_000
YEAR_MS = 365 * 24 * HOUR_MS
MS = 1_000_000


class Hands:
    """A wall clock and a steady clock, each moved by hand."""

    def __init__(self, wall_ms=1_000_000_000_000, steady_ns=77):
        self.wall_ms, self.steady_ns = wall_ms, steady_ns

    def clock(self, at_least_ms=0):
        return SystemClock(
            at_least_ms=at_least_ms, wall=lambda: self.wall_ms, steady_ns=lambda: self.steady_ns
        )


@pytest.mark.parametrize("jump_ms", [2 * HOUR_MS, -2 * HOUR_MS, YEAR_MS, -YEAR_MS])
def test_a_jump_of_the_wall_clock_moves_no_deadline(jump_ms):
    hands = Hands()
    clock = hands.clock()
    begun = clock.now_ms()
    hands.wall_ms += jump_ms
    hands.steady_ns += 5 * MS
    assert clock.now_ms() == begun + 5
    assert clock.behind_wall_ms() == jump_ms - 5


def test_it_begins_with_the_wall_clock_but_never_before_the_ledger():
    hands = Hands()
    assert hands.clock().now_ms() == hands.wall_ms
    assert hands.clock(at_least_ms=5).now_ms() == hands.wall_ms
    clock = hands.clock(at_least_ms=hands.wall_ms + YEAR_MS)
    hands.steady_ns += 7 * MS
    assert clock.now_ms() == hands.wall_ms + YEAR_MS + 7


def test_the_real_clocks_agree_and_only_go_forward():
    before = wall_ms()
    clock = SystemClock()
    times = [clock.now_ms() for _ in range(1_000)]
    assert times == sorted(times)
    assert before <= times[0] + 1
    assert abs(clock.behind_wall_ms()) < HOUR_MS


@pytest.mark.parametrize("by_ms", [-5, 0, 1, 3])
def test_the_system_clock_sleeps_until_it_is_time(by_ms):
    clock = SystemClock()
    due = clock.now_ms() + by_ms
    asyncio.run(clock.sleep_until(due))
    assert clock.now_ms() >= due


def test_a_scaled_clock_runs_so_many_times_as_fast():
    hands = Hands()
    clock = ScaledClock(3_600.0, 500, steady_ns=lambda: hands.steady_ns)
    assert clock.now_ms() == 500
    hands.steady_ns += 1_000 * MS
    assert clock.now_ms() == 500 + HOUR_MS


def test_a_scaled_clock_sleeps_until_it_is_time():
    clock = ScaledClock(1e6, 0)
    asyncio.run(clock.sleep_until(HOUR_MS // 2))
    assert clock.now_ms() >= HOUR_MS // 2


@pytest.mark.parametrize("speed", [0.0, -1.0, float("inf"), float("nan")])
def test_a_speed_that_is_none(speed):
    with pytest.raises(ValueError, match="speed: found"):
        ScaledClock(speed, 0)


def test_a_manual_clock_wakes_who_is_due_in_order():
    async def main():
        clock = ManualClock(100)
        woken = []

        async def sleeper(at_ms):
            await clock.sleep_until(at_ms)
            woken.append((at_ms, clock.now_ms()))

        tasks = [asyncio.create_task(sleeper(at_ms)) for at_ms in (130, 110, 99, 120)]
        await asyncio.sleep(0)
        assert woken == [(99, 100)]
        tasks[3].cancel()
        clock.advance(25)
        await asyncio.sleep(0)
        assert woken == [(99, 100), (110, 125)]
        clock.move_to(130)
        await asyncio.gather(*tasks, return_exceptions=True)
        assert woken[2:] == [(130, 130)]
        with pytest.raises(ValueError, match="found 129, allowed is 130 or later"):
            clock.move_to(129)

    asyncio.run(main())
