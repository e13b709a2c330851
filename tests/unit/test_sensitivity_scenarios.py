"""What is varied in real scenarios, and the seasons that are run for it."""

from pathlib import Path

import pytest

from sim.experiment import World, replicate
from sim.field import FIELDS
from sim.scenario import parse_scenario, read_scenario
from sim.sensitivity.ranges import OF_MODEL, parameters_of
from sim.sensitivity.seasons import base_of, season

SCENARIOS = Path(__file__).parents[2] / "scenarios"


@pytest.mark.parametrize("name", ["four_vs_24", "quiet", "heavy", "philly"])
def test_every_end_of_every_range_is_a_scenario(name):
    scenario, _ = read_scenario(SCENARIOS / f"{name}.yaml")
    recorded = scenario.reads_file
    base = base_of(scenario, recorded=recorded)
    for model in OF_MODEL:
        parameters = parameters_of(scenario, model, recorded=recorded)
        assert not recorded or not any("arrivals" in each.key for each in parameters)
        for each in parameters:
            assert each.why
            for value in (each.low, each.high, each.found_in(base)):
                parse_scenario(each.set_in(base, value), each.key)


def test_a_shipped_field_becomes_its_numbers_and_nothing_changes():
    scenario, box = read_scenario(SCENARIOS / "four_vs_24.yaml")
    scenario = scenario.changed(days=3.0)
    base = base_of(scenario, recorded=False)
    assert base["market"]["field"]["median_loss"] == FIELDS["even"].median_loss
    same = World(parse_scenario(base, "same"), box)
    found = season(same, 1, ["physical"])["physical"]
    assert repr(found) == repr(replicate(World(scenario, box), 1).measures["physical"])
