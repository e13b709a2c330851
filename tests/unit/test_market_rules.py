"""Rule sets, work, and what the array functions refuse."""

import dataclasses
import time

import numpy as np
import pytest

from shared.errors import InputError
from sim.market.income import TaskFacts, collect, income
from sim.market.ranking import Submissions, score_tasks
from sim.market.rules import MID_2025, Emission, Ranking, RuleSet, Window, rule_set
from sim.market.tournament import play, tasks_needed, tournament_win_rate
from sim.market.work import task_billions, task_work


def test_the_shipped_rules_by_name() -> None:
    assert rule_set("gradients-2025-mid") is MID_2025
    with pytest.raises(InputError, match=r"rule_set: found 'other', allowed: gradients-2025-mid"):
        rule_set("other")


def test_groups_of_task_types() -> None:
    groups = [MID_2025.groups[MID_2025.group_of(name)].name for name in MID_2025.task_types]
    assert groups == ["instruct+chat", "instruct+chat", "dpo", "image", "grpo"]
    with pytest.raises(InputError, match="task_type: found 'Other', allowed: InstructTextTask, "):
        MID_2025.group_of("Other")


def changed(index: int, **group: object) -> tuple[object, ...]:
    groups = list(MID_2025.groups)
    groups[index] = dataclasses.replace(groups[index], **group)
    return tuple(groups)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"windows": (Window(1, 0.3), Window(7, 0.6))}, r"windows: .* sum 0\.9, allowed: a sum"),
        ({"windows": ()}, "windows: found weights"),
        ({"windows": (Window(1, -0.5), Window(7, 1.5))}, r"windows\[0\]\.weight: found -0\.5"),
        ({"windows": (Window(1, float("nan")),)}, r"windows\[0\]\.weight: found nan"),
        ({"windows": (Window(0, 1.0),)}, r"windows\[0\]\.days: found 0"),
        ({"groups": changed(0, weight=0.3)}, r"groups: .* sum 1\.05"),
        ({"groups": changed(1, name="image")}, "groups: found 'image' twice"),
        ({"groups": changed(1, task_types=("ChatTask",))}, "task_types: found 'ChatTask' twice"),
        ({"groups": changed(1, synth_places=None)}, r"groups\.dpo\.synth_places: found None"),
        ({"groups": changed(2, synth_places=4)}, r"groups\.image\.synth_places: found 4"),
        ({"groups": changed(3, synth_places=0)}, r"groups\.grpo\.synth_places: found 0"),
    ],
)
def test_rule_sets_that_make_no_sense(change: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        dataclasses.replace(MID_2025, **change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"knockout_places": 6}, "knockout_places: found 6, allowed: a power of two"),
        ({"knockout_places": 1}, "knockout_places: found 1"),
        ({"least_entrants": 4}, "least_entrants: found 4, allowed: 8 to 32"),
        ({"most_entrants": 7}, "least_entrants: found 8, allowed: 8 to 7"),
        ({"wins_needed": 7}, "wins_needed: found 7, allowed: 1 to 6"),
        ({"wins_needed": 0}, "wins_needed: found 0"),
        ({"group_size": 0}, "group_size: found 0"),
        ({"group_tasks": 0}, "group_tasks: found 0"),
    ],
)
def test_tournaments_that_make_no_sense(change: dict[str, int], message: str) -> None:
    shape = dataclasses.replace(MID_2025.tournament, **change)
    with pytest.raises(InputError, match=message):
        dataclasses.replace(MID_2025, tournament=shape)


@pytest.mark.parametrize(("field", "value"), [("price", -1.0), ("per_day", float("inf"))])
def test_an_emission_that_makes_no_sense(field: str, value: float) -> None:
    with pytest.raises(InputError, match=rf"emission\.{field}: found {value}"):
        Emission(**({"per_day": 1.0, "price": 1.0} | {field: value}))


@pytest.mark.parametrize(
    ("model", "count", "billions"),
    [
        ("org/base-4b", 7_999_999_999, 7),
        ("org/base-4b", 0, 1),
        ("org/base", 71_000_000_000, 40),
        ("Qwen/Qwen2.5-1.5B-Instruct", None, 5),
        ("llama-3b-70B", None, 3),
        ("meta/llama-70B", None, 8),
        ("org/8bit-2b", None, 8),
        ("org/base 7 b", None, 1),
        ("org/base-0b", None, 1),
        ("org/base", None, 1),
    ],
)
def test_billions_of_a_task(model: str, count: int | None, billions: int) -> None:
    assert task_billions(model, count, MID_2025.work) == billions


def test_work() -> None:
    hours, billions = np.array([4.0, 0.25, 0.2, 9.0]), np.array([4, 1, 1, 40])
    found = task_work(hours, billions, MID_2025.work)
    assert found == pytest.approx([8.0, 1.0, 1.0, 2 * 360**0.5])


def submissions(test: list[float], synth: list[float], group: int) -> Submissions:
    shape = (1, len(test))
    everybody = np.ones(shape, dtype=bool)
    return Submissions(np.array([group]), np.array([test]), np.array([synth]), everybody, everybody)


def test_infinite_losses_are_missing_losses() -> None:
    inf = float("inf")
    one = submissions([inf, 1.0, 2.0, -inf], [1.0, inf, 2.0, 1.0], group=1)
    assert score_tasks(one, MID_2025).score.tolist() == [[-1, -1, 3, -1]]


def test_ratios_too_large_for_a_float_are_not_sound() -> None:
    one = submissions([1e-300, 1e-301], [1e300, 1e300], group=3)
    assert score_tasks(one, MID_2025).score.tolist() == [[3, 0]]


def test_the_share_of_sound_ratios_includes_its_bound() -> None:
    wide = dataclasses.replace(MID_2025, groups=changed(3, synth_places=5))
    one = submissions([0.9, 0.8, 0.5, 0.4, 0.3], [0.2, 1.2, 9.0, 9.1, 9.2], group=3)
    assert score_tasks(one, wide).score.tolist() == [[0, 0, 3, 0, 0]]
    less = submissions([0.9, 0.8, 0.5, 0.4, 0.3], [0.2, 1.21, 9.0, 9.1, 9.2], group=3)
    assert score_tasks(less, wide).score.tolist() == [[3, 0, 0, 0, 0]]


def test_other_rules_pay_other_places() -> None:
    points = dataclasses.replace(MID_2025.points, places=(3.0, 2.0, 1.0), penalty=-2.0)
    paid = dataclasses.replace(MID_2025, points=points)
    one = submissions([4.0, 1.0, 3.0, 2.0, float("nan")], [0.0] * 5, group=0)
    assert score_tasks(one, paid).score.tolist() == [[0, 3, 1, 2, -2]]
    assert score_tasks(submissions([1.0], [1.0], 0), paid).score.tolist() == [[3]]


def test_ranks_as_percentiles() -> None:
    nan = float("nan")
    scores = score_tasks(submissions([5, 4, 3, 2, 1, nan], [1, 1, nan, 1, 1, nan], 0), MID_2025)
    # Left: 1, 2, 4; the fifth test loss is out; a missing loss is last whoever is behind it.
    assert scores.place.tolist() == [[4, 3, 6, 2, 1, 6]]
    assert scores.percentile.tolist() == [[0.4, 0.6, 0.0, 0.8, 1.0, 0.0]]
    assert scores.top4.tolist() == [[False, True, False, True, True, False]]
    assert scores.penalised.tolist() == [[False, False, True, False, False, True]]
    alone = score_tasks(submissions([1.0], [1.0], 0), MID_2025)
    assert alone.percentile.tolist() == [[1.0]]
    nowhere = score_tasks(submissions([nan, nan], [1.0, 2.0], 0), MID_2025)
    assert np.isnan(nowhere.percentile).all()


def test_shapes_that_do_not_fit() -> None:
    flat, wide = np.zeros((2, 3)), np.zeros((2, 4))
    mask = np.ones((2, 3), dtype=bool)
    with pytest.raises(ValueError, match="one shape"):
        Submissions(np.zeros(2, dtype=int), flat, wide, mask, mask)
    with pytest.raises(ValueError, match=r"group must have shape \(2,\)"):
        Submissions(np.zeros(3, dtype=int), flat, flat, mask, mask)


def test_tournaments_that_cannot_be_held() -> None:
    rules = MID_2025.tournament
    with pytest.raises(InputError, match=r"tournament\.entrants: found 7, allowed: 8 or more"):
        play(np.zeros((1, 8, tasks_needed(rules))), rules)
    with pytest.raises(ValueError, match="losses must be of shape"):
        play(np.zeros((1, 9, 3)), rules)
    with pytest.raises(ValueError, match="needs shape="):
        tournament_win_rate(lambda *shape: np.zeros(shape), 0, rules)


def test_losses_drawn_by_a_function() -> None:
    rules = MID_2025.tournament

    def draw(replications: int, players: int, tasks: int) -> np.ndarray:
        losses = np.ones((replications, players, tasks))
        losses[: replications // 4, 3] = 0.0
        return losses

    assert tournament_win_rate(draw, 3, rules, shape=(20, 10)) == 0.25
    assert tournament_win_rate(draw, -1, rules, shape=(20, 10)) == 0.75


def test_rankings_are_told_apart_by_group() -> None:
    kinds = [group.ranking for group in MID_2025.groups]
    two = Ranking.WORSE_OF_TWO
    assert kinds == [two, two, Ranking.TEST_ONLY, Ranking.REWARD]
    assert isinstance(MID_2025, RuleSet)


def test_ten_thousand_tasks_in_two_seconds() -> None:
    rng = np.random.default_rng(1)
    shape, miners, now = (10_000, 12), 40, 1_750_000_000_000
    group = rng.integers(0, 4, shape[0])
    everybody = np.ones(shape, dtype=bool)
    facts = TaskFacts(
        group,
        rng.random(shape[0]) < 0.3,
        now - rng.integers(0, 7 * 86_400_000, shape[0]),
        rng.uniform(1.0, 40.0, shape[0]),
    )
    miner = np.argsort(rng.random((shape[0], miners)), axis=1)[:, : shape[1]]
    one = Submissions(group, rng.random(shape), rng.random(shape), everybody, everybody)
    start = time.perf_counter()
    results = collect(facts, miner, score_tasks(one, MID_2025))
    share = income(results, now, miners, MID_2025).share
    assert time.perf_counter() - start < 2.0
    assert share.sum() == pytest.approx(1.0)
