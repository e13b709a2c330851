"""The calibration file and the model that reads it."""

import copy
import json

import numpy as np
import pytest

from shared.errors import InputError
from shared.presets import ACCURACY_4, THROUGHPUT_24
from sim.quality import Jobs, QualityConfig, draw_luck, models_of, read_calibration, slot_of
from sim.stream import Labels

HOUR = 3_600_000
N = 4000


def measured(mean, sd):
    return {"mean": mean, "sd": sd, "lo": mean - 0.01, "hi": mean + 0.01}


def slot_entry(gpus, mean, success, speed=1000.0):
    return {
        "gpus": gpus,
        "outcomes": 40,
        "test_ratio": measured(mean, 0.05),
        "synth_ratio": measured(mean + 0.02, 0.06),
        "success": {"rate": success, "lo": success - 0.1, "hi": 1.0},
        "tokens_per_second": [{"params_from": 0, "params_below": 10**10, **measured(speed, 10.0)}],
    }


CONTENT = {
    "version": 1,
    "task_types": {
        "ChatTask": {"slots": [slot_entry(0.3333, 1.2, 0.8), slot_entry(2.0, 0.9, 0.95)]},
        "*": {"slots": [slot_entry(1.0, 1.0, 0.9)]},
    },
}


def written(tmp_path, content):
    path = tmp_path / "calibration.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def jobs_of(task_type="ChatTask", params=7 * 10**9):
    return Jobs(
        np.arange(N),
        Labels(np.zeros(N, dtype=np.int32), (task_type,)),
        Labels(np.zeros(N, dtype=np.int32), ("org/m-7b",)),
        np.full(N, params),
        np.full(N, 2.0),
        np.full(N, 2 * HOUR),
        np.ones(N),
    )


def played(tmp_path, preset, content=CONTENT, **job):
    calibration = read_calibration(written(tmp_path, content), 20)
    model = models_of(QualityConfig(), calibration)["calibrated"]
    return model.outcomes(jobs_of(**job), slot_of(preset), draw_luck(1, 0, N))


@pytest.mark.parametrize(("preset", "mean", "rate"), [(ACCURACY_4, 0.9, 0.95),
                                                      (THROUGHPUT_24, 1.2, 0.8)])  # fmt: skip
def test_each_slot_size_has_its_own_distribution(tmp_path, preset, mean, rate) -> None:
    out = played(tmp_path, preset)
    assert np.nanmean(out.test_loss) == pytest.approx(mean, abs=0.005)
    assert np.nanstd(out.test_loss) == pytest.approx(0.05, abs=0.005)
    assert np.nanmean(out.synth_loss) == pytest.approx(mean + 0.02, abs=0.005)
    assert out.succeeded.mean() == pytest.approx(rate, abs=0.02)


def test_between_two_sizes_it_is_read_in_the_logarithm(tmp_path) -> None:
    out = played(tmp_path, ACCURACY_4.varied(cap=8))
    expected = 1.2 + (0.9 - 1.2) * np.log(1 / 0.3333) / np.log(2 / 0.3333)
    assert np.nanmean(out.test_loss) == pytest.approx(expected, abs=0.005)


def test_the_star_stands_for_other_types(tmp_path) -> None:
    out = played(tmp_path, ACCURACY_4, task_type="DpoTask")
    assert np.nanmean(out.test_loss) == pytest.approx(1.0, abs=0.005)


def test_a_type_without_an_entry_is_named(tmp_path) -> None:
    content = copy.deepcopy(CONTENT)
    del content["task_types"]["*"]
    with pytest.raises(InputError, match=r"task_types\.DpoTask: found nothing"):
        played(tmp_path, ACCURACY_4, content, task_type="DpoTask")


def test_measured_speed_gives_the_tokens_and_the_physical_ones_stand_elsewhere(tmp_path) -> None:
    inside = played(tmp_path, ACCURACY_4).tokens_trained[0]
    assert inside == pytest.approx((7200 - 600) * 2 * 1000.0)
    other = played(tmp_path, ACCURACY_4, params=2 * 10**10).tokens_trained[0]
    assert other != pytest.approx(inside)
    assert other > 0


def test_without_a_calibration_the_model_is_not_run() -> None:
    assert list(models_of(QualityConfig())) == ["claims", "physical", "neutral"]


def test_too_few_outcomes_name_file_and_key(tmp_path) -> None:
    content = copy.deepcopy(CONTENT)
    content["task_types"]["ChatTask"]["slots"][1]["outcomes"] = 19
    path = written(tmp_path, content)
    with pytest.raises(InputError) as wrong:
        read_calibration(path, 20)
    assert str(wrong.value) == (
        f"{path}: task_types.ChatTask.slots.1.outcomes: found 19, allowed is 20 or more"
    )
    assert read_calibration(path, 19).version == 1


def _without(key):
    content = copy.deepcopy(CONTENT)
    del content["task_types"]["ChatTask"]["slots"][0][key]
    return content


def _with(**changes):
    content = copy.deepcopy(CONTENT)
    content["task_types"]["ChatTask"]["slots"][0].update(changes)
    return content


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "no valid JSON"),
        ("[]", "should be"),
        ({"version": 2, "task_types": CONTENT["task_types"]}, "version: found 2"),
        (_without("success"), r"slots\.0\.success: found nothing"),
        (_with(typo=1), "typo: unknown key"),
        (_with(test_ratio={"mean": 1.0, "sd": 0.1, "lo": 1.1, "hi": 1.2}), "must ascend"),
        (_with(gpus=3.0), "must ascend in gpus"),
        (_with(gpus=-1), "gpus"),
    ],
)
def test_a_wrong_file_is_one_clear_line(tmp_path, content, words) -> None:
    path = written(tmp_path, content)
    with pytest.raises(InputError, match=words) as wrong:
        read_calibration(path, 20)
    assert str(wrong.value).startswith(f"{path}: ")
    assert "\n" not in str(wrong.value)


def test_a_file_that_is_not_there_is_named(tmp_path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        read_calibration(tmp_path / "none.json", 20)
