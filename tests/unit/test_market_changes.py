"""The rules' numbers as a scenario changes them."""

import pytest

from shared.errors import InputError
from sim.market.rules import MID_2025, Window
from sim.scenario import parse_scenario


def rules(**changes: object):
    scenario = parse_scenario({"name": "x", "market": {"rules": changes}}, "f")
    return scenario.market.rules_in_force


def test_without_changes_the_named_rules_are_in_force() -> None:
    assert rules() == MID_2025


def test_what_is_left_out_stays() -> None:
    found = rules(
        windows=[{"days": 2, "weight": 0.25}, {"days": 5, "weight": 0.75}],
        group_weights={"instruct+chat": 0.1, "dpo": 0.2, "image": 0.3, "grpo": 0.4},
        points={"places": [3.0, 1.0]},
        curve={"steepness": 0.0},
        flag_deviations=1.5,
    )
    assert found.windows == (Window(2, 0.25), Window(5, 0.75))
    assert [group.weight for group in found.groups] == [0.1, 0.2, 0.3, 0.4]
    assert [group.pool for group in found.groups] == [group.pool for group in MID_2025.groups]
    assert (found.points.places, found.points.penalty) == ((3.0, 1.0), -1.0)
    assert (found.curve.steepness, found.curve.height) == (0.0, MID_2025.curve.height)
    assert (found.flag_deviations, found.history_days) == (1.5, 7.0)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"windows": [{"days": 1, "weight": 0.5}]},
            r"market: rules.windows: found weights \[0.5\] with sum 0.5, allowed: a sum of 1",
        ),
        (
            {"group_weights": {"instruct+chat": 1, "dpo": 1, "image": 0, "grpo": 0}},
            "market: rules.group_weights: found weights .* with sum 2, allowed: a sum of 1",
        ),
        ({"group_weights": {"dpo": 1.0}}, "rules.group_weights: found dpo, allowed is a weight"),
        ({"windows": [{"days": 0, "weight": 1}]}, "market.rules.windows.0.days: found 0"),
        ({"points": {"penalty": 1}}, "market.rules.points.penalty: found 1"),
        ({"curves": {}}, "market.rules.curves: unknown key"),
    ],
)
def test_bad_rules_are_told_by_their_key(changes: dict[str, object], says: str) -> None:
    with pytest.raises(InputError, match=says):
        rules(**changes)
