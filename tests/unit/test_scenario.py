import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from shared.box import UNDECLARED
from shared.errors import InputError
from sim.scenario import Scenario, json_schema, parse_scenario, read_box, read_scenario, read_yaml

ROOT = Path(__file__).parents[2]
SHIPPED = sorted((ROOT / "scenarios").glob("*.yaml"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"name": "x", "prests": 1}, "prests: unknown key"),
        ({}, "name: found nothing, it is required"),
        ({"name": "x", "presets": ["acc"]}, "presets: preset: found 'acc', allowed is one of acc"),
        ({"name": "x", "presets": [{"base": "accuracy_4", "cap": 30}]}, "presets.0.cap: found 30"),
        ({"name": "x", "presets": [{"base": "accuracy_4", "cup": 3}]}, "presets.0.cup: unknown"),
        (
            {"name": "x", "presets": ["accuracy_4"] * 2},
            "presets: two presets are called acc",
        ),
        ({"name": "x", "presets": []}, "presets: found"),
        (
            {"name": "x", "arrivals": {"kind": "netwrk"}},
            "arrivals.kind: found 'netwrk', allowed",
        ),
        ({"name": "x", "arrivals": {}}, "arrivals.kind: found nothing, it is required"),
        (
            {"name": "x", "arrivals": {"kind": "network", "synthetic": {"every_minutes": -1}}},
            "arrivals.synthetic.every_minutes: found -1, it should be greater",
        ),
        ({"name": "x", "days": float("nan")}, "days: found nan, it should be a finite number"),
        ({"name": "x", "days": "5"}, "days: found '5', it should be a valid number"),
        ({"name": "x", "days": True}, "days: found True"),
        ({"name": "x", "warm_up_days": 40}, "warm_up_days must be under days (30)"),
        ({"name": "x", "seed": -1}, "seed: found -1"),
        (
            {"name": "x", "service": {"kind": "fraction", "low": 2.0}},
            "service: high must be at least low (2.0)",
        ),
        ({"name": "x", "gpus_out": [{"gpu": 8, "from_hours": 0, "hours": 1}]}, "gpus_out.0.gpu: "),
        ([1], "found no keys"),
    ],
)
def test_a_wrong_scenario_is_explained_in_one_line(content: object, message: str) -> None:
    with pytest.raises(InputError) as wrong:
        parse_scenario(content, "f.yaml")
    assert str(wrong.value).startswith(f"f.yaml: {message}")
    assert "\n" not in str(wrong.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"name: x\nname: y\n", r"s\.yaml:2: no valid YAML: key name stands twice"),
        (b"name: [\n", r"s\.yaml:2: no valid YAML"),
        (b"name: \xff\n", r"s\.yaml: found bytes that are no UTF-8"),
        (b"a: \x00\n", r"s\.yaml: no valid YAML"),
        (b"", r"s\.yaml: found no keys"),
    ],
)
def test_a_file_that_is_no_scenario(tmp_path: Path, text: bytes, message: str) -> None:
    path = tmp_path / "s.yaml"
    path.write_bytes(text)
    with pytest.raises(InputError, match=message):
        read_scenario(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.yaml: cannot be read: no such file"):
        read_scenario(tmp_path / "none.yaml")


def test_a_box_file_is_read_beside_the_scenario(tmp_path: Path) -> None:
    (tmp_path / "box.yaml").write_text("task_types: [DpoTask]\nshortest_row: 256\n")
    (tmp_path / "s.yaml").write_text("name: x\nbox: box.yaml\n")
    _, box = read_scenario(tmp_path / "s.yaml")
    assert (box.task_types, box.shortest_row) == (frozenset({"DpoTask"}), 256)
    (tmp_path / "s.yaml").write_text("name: x\n")
    assert read_scenario(tmp_path / "s.yaml")[1] == UNDECLARED


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("task_types: DpoTask\n", "task_types: found 'DpoTask'"),
        ("task_typs: [DpoTask]\n", "task_typs: "),
        ("shortest_row: -5\n", "found -5, allowed for shortest_row"),
        ("shortest_row: many\n", "shortest_row: found 'many'"),
    ],
)
def test_a_wrong_box_is_explained(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "box.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as wrong:
        read_box(path)
    assert message in str(wrong.value)
    assert str(path) in str(wrong.value)


def test_a_preset_can_be_changed_without_code() -> None:
    entry = {"base": "accuracy_4", "cap": 6, "threshold": 0.95, "time_limit_hours": 5.5}
    scenario = parse_scenario({"name": "x", "presets": [entry, "maximum_2"]}, "f")
    changed, other = scenario.policies().values()
    assert other.preset.name == "maximum_2"
    assert changed.preset.name == "accuracy_4_cap_6_threshold_0.95_time_limit_hours_5.5"
    assert (changed.preset.cap, changed.preset.threshold) == (6, 0.95)
    assert changed.preset.time_limit_hours == 5.5
    assert changed.preset.formula == scenario.policies()[changed.preset.name].preset.formula


def test_the_command_line_changes_a_scenario_and_is_checked() -> None:
    scenario = parse_scenario({"name": "x"}, "f")
    assert scenario.changed(days=3.0, seed=None).days == 3.0
    with pytest.raises(InputError, match="warm_up_days must be under days"):
        scenario.changed(days=0.5)


def test_the_service_follows_the_offers_unless_it_is_told() -> None:
    scenario = parse_scenario({"name": "x"}, "f")
    assert scenario.service_of(recorded=True).kind == "given"
    assert scenario.service_of(recorded=False).kind == "fraction"
    told = parse_scenario({"name": "x", "service": {"kind": "deadline"}}, "f")
    assert told.service_of(recorded=True).kind == "deadline"


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.stem)
def test_shipped_scenarios_are_valid_and_match_the_schema(path: Path) -> None:
    if path.stem == "box":
        assert read_box(path).task_types
        return
    scenario, _ = read_scenario(path)
    assert scenario.name
    assert list(Draft202012Validator(json_schema()).iter_errors(read_yaml(path))) == []


def test_the_committed_schema_is_up_to_date() -> None:
    committed = json.loads((ROOT / "scenarios" / "scenario.schema.json").read_text())
    assert committed == json_schema()


def test_every_key_of_a_scenario_is_described() -> None:
    undescribed = [name for name, key in Scenario.model_fields.items() if not key.description]
    assert undescribed == []


@pytest.mark.parametrize(
    ("text", "message"),
    [("[" * 5000, "nested too deep"), ("#" * (1 << 20) + "\n", "found over 1048576 bytes")],
)
def test_a_monstrous_file_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "s.yaml"
    path.write_text(text)
    for read in (read_scenario, read_box):
        with pytest.raises(InputError, match=message):
            read(path)
