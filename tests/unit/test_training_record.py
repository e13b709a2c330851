"""The record of a training: what it takes and leaves out; a broken one costs nothing."""

import json
import os
from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from live.training.record import (
    MOST_BYTES,
    TRAINING,
    NotTaken,
    TrainingRecord,
    training_of,
    write_training,
)
from shared.plan import Deviation

WHOLE = TrainingRecord(
    model="org/m",
    base_params=8 * 10**9,
    task_type="ChatTask",
    preset="accuracy_4",
    gpus=1 / 3,
    plan={"micro_batch": 4, "deviations": [{"setting": "lora_r", "wanted": 9, "given": 8}]},
    not_taken=(NotTaken(setting="torch_compile", wanted=True, given=False, why="short"),),
    measured_peak_gb=20.5,
    tokens_trained=10**7,
    step_s=1.25,
    held_out_loss_base=2.0,
    held_out_loss=1.5,
    held_out_metric="eval_loss",
    beats_base=True,
    resumed_from=(3, 9),
    submission="who/repo",
)


def test_it_is_read_as_it_was_written(tmp_path):
    assert training_of(tmp_path) is None
    for record in (TrainingRecord(), WHOLE):
        write_training(tmp_path, record)
        assert training_of(tmp_path) == record
    assert [path.name for path in tmp_path.iterdir()] == [TRAINING], "nothing is left beside it"


def test_a_deviation_of_the_planner_is_taken_as_it_is():
    told = Deviation("lora_r", 2048, 128, "otherwise too much")
    record = TrainingRecord(not_taken=(told,))
    assert record.not_taken[0].model_dump() == {
        "setting": "lora_r", "wanted": 2048, "given": 128, "why": "otherwise too much",
    }  # fmt: skip


@pytest.mark.parametrize("value", [inf, -inf, nan])
def test_what_no_file_can_hold_is_not_known(value):
    """A run that diverged must leave its record all the same."""
    record = TrainingRecord(
        last_loss=value, step_s=value, gpus=value, plan={"a": [value, {"b": value}], "c": 1}
    )
    assert (record.last_loss, record.step_s, record.gpus) == (None, None, None)
    assert record.plan == {"a": [None, {"b": None}], "c": 1}
    assert json.loads(record.model_dump_json()) == json.loads(json.dumps(record.model_dump()))


@pytest.mark.parametrize(
    "wrong", [{"steps": -1}, {"gpus": 0}, {"step_s": -0.1}, {"typo": 1}, {"base_params": 2**63}]
)
def test_what_is_none_of_its_fields_is_refused(wrong):
    with pytest.raises(ValidationError):
        TrainingRecord(**wrong)


@pytest.mark.parametrize(
    "text",
    [
        b"", b"{", b"[]", b"null", b'{"steps": -1}', b'{"typo": 1}', b"\xff\x00", b"[" * 50_000,
        b'{"model": "\\ud800"}', b'{"plan": ' + b'{"a":' * 3000 + b"1" + b"}" * 3001,
        b'{"base_params": ' + b"9" * 3000 + b"}", b" " * MOST_BYTES + b"{}",
    ],
)  # fmt: skip
def test_a_broken_file_is_no_record(tmp_path, text, caplog):
    (tmp_path / TRAINING).write_bytes(text)
    assert training_of(tmp_path) is None
    assert len(caplog.records) == 1
    message = caplog.records[0].getMessage()
    assert message.startswith(str(tmp_path / TRAINING))
    assert "\n" not in message


def test_where_there_is_no_file_nothing_is_wrong(tmp_path, caplog):
    """A pipe of that name would be waited on for ever."""
    assert training_of(tmp_path) is None
    assert training_of(tmp_path / "none") is None
    assert caplog.records == []
    os.mkfifo(tmp_path / TRAINING)
    assert training_of(tmp_path) is None
    (tmp_path / TRAINING).unlink()
    (tmp_path / TRAINING).mkdir()
    assert training_of(tmp_path) is None


@given(st.binary(max_size=200) | st.recursive(
    st.none() | st.floats() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["steps", "plan", "gpus", "not_taken", "x"]), inner),
))  # fmt: skip
def test_no_content_ever_raises(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("job")
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    (folder / TRAINING).write_bytes(text)
    record = training_of(folder)
    assert record is None or json.loads(record.model_dump_json())
