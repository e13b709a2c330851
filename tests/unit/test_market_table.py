"""``score``: what it reads, what it refuses, what it prints."""

import json
from pathlib import Path
from typing import Any

import pytest

from shared.errors import InputError
from sim.market.results_table import score_command, score_file

ROW: dict[str, Any] = {
    "task_id": "t1",
    "task_type": "DpoTask",
    "hours_to_complete": 4,
    "model": "org/base-4b",
    "model_params_count": 4_000_000_000,
    "is_organic": False,
    "created_at": 1_750_000_000_000,
    "miner": "A",
    "test_loss": 1.0,
    "synth_loss": 1.1,
    "is_finetune": True,
}


@pytest.fixture
def table(tmp_path: Path):
    def write(*lines: object) -> Path:
        path = tmp_path / "results.jsonl"
        texts = [line if isinstance(line, str) else json.dumps(line) for line in lines]
        path.write_text("\n".join(texts) + "\n")
        return path

    return write


def without(key: str) -> dict[str, Any]:
    return {name: value for name, value in ROW.items() if name != key}


def as_text(**changes: str) -> str:
    """The row as JSON with values that ``json.dumps`` would not write."""
    parts = {name: json.dumps(value) for name, value in ROW.items()} | changes
    return "{" + ", ".join(f'"{name}": {value}' for name, value in parts.items()) + "}"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (without("miner"), ", key miner: found no such key, allowed: a text of 1 to 256"),
        (
            without("synth_loss"),
            ", key synth_loss: found no such key, allowed: a finite number, or",
        ),
        (ROW | {"synt_loss": 1}, ', key "synt_loss": found an unknown key, allowed: task_id, '),
        (ROW | {"miner": 7}, ", key miner: found 7, allowed: a text"),
        (ROW | {"miner": ""}, ', key miner: found "", allowed: a text'),
        (ROW | {"task_id": "x" * 65}, "x..., allowed: a text of 1 to 64 characters"),
        (ROW | {"test_loss": "1.0"}, ', key test_loss: found "1.0", allowed: a finite number'),
        (ROW | {"test_loss": True}, ", key test_loss: found true, allowed: a finite number"),
        (ROW | {"test_loss": float("nan")}, ", key test_loss: found nan, allowed: a finite number"),
        (as_text(synth_loss="1e999"), ", key synth_loss: found inf, allowed: a finite number"),
        (as_text(test_loss="9" * 5000), ": found no JSON (number out of range"),
        (as_text(is_finetune="9" * 4299), ", key is_finetune: found 9999"),
        (
            ROW | {"hours_to_complete": 0},
            ", key hours_to_complete: found 0, allowed: a number over",
        ),
        (
            ROW | {"hours_to_complete": 10_001},
            "found 10001, allowed: a number over 0, at most 10000",
        ),
        (ROW | {"model_params_count": -1}, ", key model_params_count: found -1, allowed: a whole"),
        (ROW | {"model_params_count": 7.5}, "found 7.5, allowed: a whole number from 0"),
        (ROW | {"is_organic": 1}, ", key is_organic: found 1, allowed: true or false"),
        (ROW | {"is_finetune": None}, ", key is_finetune: found null, allowed: true or false"),
        (ROW | {"created_at": "2025-06-01T12:00:00"}, ", key created_at: found "),
        (ROW | {"created_at": 1.5}, ", key created_at: found 1.5, allowed: UTC epoch millisec"),
        (ROW | {"created_at": -1}, ", key created_at: found -1, allowed: UTC epoch millisec"),
        (ROW | {"created_at": "1969-12-31T23:59:59Z"}, ", key created_at: found "),
        (ROW | {"created_at": True}, ", key created_at: found true, allowed"),
        (
            ROW | {"task_id": "t2", "task_type": "Other"},
            ", key task_type: found 'Other', allowed: InstructTextTask, ChatTask, DpoTask, Image",
        ),
        ("[1]", ": found [1], allowed: one JSON object a line"),
        ("{", ": found no JSON ("),
        ("\xff{}", ": found no JSON ("),
        (as_text() + as_text(), ": found no JSON ("),
        (as_text()[:-1] + ', "miner": "B"}', ', key "miner": found twice, allowed: once'),
        (as_text()[:-1] + ', "\\u006diner": "B"}', ', key "miner": found twice, allowed: once'),
        (as_text(miner='"a\\"b"')[:-1] + ', "miner": "B"}', ', key "miner": found twice'),
        (as_text(miner="5")[:-1] + ', "miner": "B"}', ', key "miner": found twice'),
        (as_text()[:-1] + ', "miner": 5}', ', key "miner": found twice'),
    ],
)
def test_a_line_that_is_no_row(table, line: object, message: str) -> None:
    path = table(ROW | {"miner": "other"}, "", line)
    with pytest.raises(InputError) as caught:
        score_file(path)
    assert str(caught.value).startswith(f"{path}, line 3")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.jsonl: found No such file or directory, allowed"):
        score_file(tmp_path / "none.jsonl")
    with pytest.raises(InputError, match="allowed: a readable file"):
        score_file(tmp_path)


def test_two_rows_of_one_task_and_miner(table) -> None:
    path = table(ROW, ROW | {"miner": "B"}, ROW | {"test_loss": 2.0})
    with pytest.raises(InputError, match=r'line 3, key miner: found "A" for .* after line 1, '):
        score_file(path)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("task_type", "GrpoTask"),
        ("hours_to_complete", 4.5),
        ("model", "org/other"),
        ("model_params_count", None),
        ("is_organic", True),
        ("created_at", 1_750_000_000_001),
    ],
)
def test_rows_of_a_task_that_disagree(table, key: str, value: object) -> None:
    row = ROW | {"hours_to_complete": 5.0}
    path = table(ROW | {"task_id": "t0"}, row, row | {"miner": "B", key: value})
    with pytest.raises(InputError) as caught:
        score_file(path)
    assert f"line 3, key {key}: found {json.dumps(value)} for task" in str(caught.value)
    assert f"allowed: {json.dumps(row[key])} as in line 2" in str(caught.value)


def test_what_may_be_written_in_two_ways(table) -> None:
    one = score_file(table(ROW, ROW | {"miner": "B", "test_loss": None, "synth_loss": None}))
    other = ROW | {"created_at": "2025-06-15T17:06:40+02:00", "model_params_count": None}
    del other["model_params_count"]
    loose = ROW | {"created_at": "2025-06-15T15:06:40Z", "model_params_count": None, "miner": "B"}
    loose |= {"test_loss": None, "synth_loss": None, "hours_to_complete": 4.0}
    assert score_file(table(other, " ", json.dumps(loose) + "\r")) == one
    assert one["tasks"] == {"t1": {"A": 3, "B": -1}}


def test_rows_after_now_are_left_out(table) -> None:
    now = ROW["created_at"]
    path = table(ROW, ROW | {"task_id": "t2", "created_at": now + 1, "miner": "B"})
    assert score_file(path, now)["tasks"] == {"t1": {"A": 3}}
    assert set(score_file(path)["miners"]) == {"A", "B"}
    assert score_file(path, now - 1) == {"tasks": {}, "miners": {}}
    # Left out is not unread.
    with pytest.raises(InputError, match="line 2, key test_loss"):
        score_file(table(ROW, ROW | {"created_at": now + 1, "test_loss": "x"}), now)


def test_the_seven_days_include_both_ends(table) -> None:
    now, week = ROW["created_at"], 7 * 86_400_000
    path = table(
        ROW | {"created_at": now - week},
        ROW | {"created_at": now - week - 1, "task_id": "t2"},
        ROW | {"created_at": now, "task_id": "t3", "miner": "B"},
    )
    found = score_file(path)
    assert found["tasks"] == {"t1": {"A": 3}, "t2": {"A": 3}, "t3": {"B": 3}}
    assert found["miners"]["A"]["tasks"] == found["miners"]["B"]["tasks"] == 1


def test_an_empty_table(table) -> None:
    assert score_file(table("", " ")) == {"tasks": {}, "miners": {}}


def test_one_crowded_task_among_many_small_ones(table) -> None:
    crowd = [ROW | {"miner": f"m{i}", "test_loss": 1 + i / 100} for i in range(300)]
    small = [ROW | {"task_id": f"s{i}", "miner": f"m{i % 7}"} for i in range(200)]
    found = score_file(table(*small[:100], *crowd, *small[100:]))
    assert found["tasks"]["t1"]["m0"] == 3
    assert sum(found["tasks"]["t1"].values()) == 3
    assert all(list(found["tasks"][f"s{i}"].values()) == [3] for i in range(200))


@pytest.mark.parametrize("now", ["1750000000000", "2025-06-15T15:06:40Z"])
def test_the_command_prints_one_document(table, capsys, now: str) -> None:
    path = table(ROW, ROW | {"task_id": "t2", "created_at": "2025-06-15T15:06:41Z"})
    assert score_command(path, now, as_json=True) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == score_file(path, 1_750_000_000_000)
    assert printed["tasks"] == {"t1": {"A": 3}}
    assert printed["miners"]["A"] == {
        "share": 1.0,
        "mean_score": 3.0,
        "tasks": 1,
        "first_places": 1,
        "penalties": 0,
    }


@pytest.mark.parametrize(
    "now", ["tomorrow", "2025-06-15", "-1", "253402300800000", "9" * 5000, "\u00b2"]
)
def test_a_now_that_is_no_time(table, now: str) -> None:
    with pytest.raises(InputError, match=r"--now: found .*, allowed: UTC epoch milliseconds") as e:
        score_command(table(ROW), now, as_json=True)
    assert len(str(e.value)) < 200


def test_the_command_prints_a_table(table, capsys) -> None:
    rows = [ROW | {"miner": "[bold]A"}, ROW | {"miner": "B", "test_loss": None}]
    assert score_command(table(*reversed(rows)), None, as_json=False) == 0
    lines = capsys.readouterr().out.splitlines()
    first = next(index for index, line in enumerate(lines) if "[bold]A" in line)
    second = next(index for index, line in enumerate(lines) if line.startswith("│ B"))
    assert first < second
    assert "100.00%" in lines[first]
    assert "-1.00" in lines[second]
