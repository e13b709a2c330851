"""Every number of every preset, copied a second time from the specification's tables."""

import math
from dataclasses import fields, replace

import pytest

from shared.errors import FourSlotError, InputError
from shared.families import FAMILIES
from shared.presets import (
    ACCURACY_4,
    DEFAULT_TABLES,
    MAXIMUM_2,
    PRESETS,
    THROUGHPUT_24,
    UNIVERSAL_24,
    Preset,
    preset_named,
)
from shared.priority import TimeAndSize, WeightedSum, WeightedTerms
from shared.units import GB, MS_PER_DAY, MS_PER_HOUR, MS_PER_MINUTE, MS_PER_SECOND, hours_to_ms

SEVEN_PROJECTIONS = {
    "q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj",
}  # fmt: skip


def test_the_four_presets() -> None:
    assert list(PRESETS) == ["accuracy_4", "throughput_24", "universal_24", "maximum_2"]
    for name, preset in PRESETS.items():
        assert preset.name == name
        assert preset_named(name) is preset
        assert (preset.gpus, preset.gpu_memory_gb) == (8, 80)
        assert preset.tables == DEFAULT_TABLES


@pytest.mark.parametrize(
    ("preset", "cap", "limit", "threshold", "memory_gb", "gpus_per_slot"),
    [
        (ACCURACY_4, 4, 72, 0.70, 160, 2),
        (THROUGHPUT_24, 24, 72, 0.70, 80 / 3, 1 / 3),
        (UNIVERSAL_24, 24, 48, None, 80 / 3, 1 / 3),
        (MAXIMUM_2, 2, 96, 0.85, 320, 4),
    ],
)
def test_numbers(
    preset: Preset,
    cap: int,
    limit: float,
    threshold: float | None,
    memory_gb: float,
    gpus_per_slot: float,
) -> None:
    assert (preset.cap, preset.time_limit_hours, preset.threshold) == (cap, limit, threshold)
    assert preset.layout.memory_gb == memory_gb
    assert preset.layout.gpus_per_slot == gpus_per_slot


def test_gpus_of_the_whole_gpu_presets() -> None:
    assert ACCURACY_4.layout.gpus == ((0, 1), (2, 3), (4, 5), (6, 7))
    assert MAXIMUM_2.layout.gpus == ((0, 1, 2, 3), (4, 5, 6, 7))


def test_formulas() -> None:
    assert ACCURACY_4.formula == WeightedTerms(0.20, 0.30, 0.25, 1.0)
    assert MAXIMUM_2.formula == WeightedSum(0.15, 0.40, 0.35, 1.0)
    assert UNIVERSAL_24.formula == TimeAndSize(0.25, 0.10, 0.05, 100, 0.25, 0.50)


def test_throughput_differs_from_accuracy_in_cap_profile_and_wording_alone() -> None:
    differ = {
        field.name
        for field in fields(Preset)
        if getattr(ACCURACY_4, field.name) != getattr(THROUGHPUT_24, field.name)
    }
    assert differ == {"name", "cap", "messages", "profile"}


def test_default_tables() -> None:
    tasks = {"InstructTextTask", "ChatTask", "DpoTask", "GrpoTask", "ImageTask"}
    assert DEFAULT_TABLES.task_weight == dict.fromkeys(tasks, 0.25)
    assert DEFAULT_TABLES.task_success == {
        "InstructTextTask": 0.95,
        "GrpoTask": 0.95,
        "ImageTask": 0.90,
        "DpoTask": 0.90,
        "ChatTask": 0.90,
    }
    assert DEFAULT_TABLES.family_performance == {
        "llama": 0.95, "mistral": 0.90, "codellama": 0.90, "qwen": 0.85, "deepseek": 0.85,
        "gpt": 0.85, "falcon": 0.85, "mpt": 0.85, "openllama": 0.85, "vicuna": 0.85,
        "alpaca": 0.85, "wizard": 0.85, "baichuan": 0.85, "chatglm": 0.85, "internlm": 0.85,
        "yi": 0.85, "aquila": 0.85, "belle": 0.85, "gemma": 0.80, "bert": 0.80, "t5": 0.80,
        "roberta": 0.80, "opt": 0.80, "bloom": 0.80, "gptj": 0.80, "gptneo": 0.80,
        "gptneox": 0.80, "xglm": 0.80, "pythia": 0.80, "redpajama": 0.80, "phi": 0.75,
        "gpt2": 0.75,
    }  # fmt: skip
    defaults = DEFAULT_TABLES
    assert defaults.default_task_weight == 0.25
    assert defaults.default_family_performance == 0.75
    assert defaults.default_task_success == 0.90


def test_the_tables_and_the_family_rule_name_the_same_families() -> None:
    assert set(DEFAULT_TABLES.family_performance) == set(FAMILIES)


def test_profiles() -> None:
    accuracy, throughput, maximum = (
        preset.profile for preset in (ACCURACY_4, THROUGHPUT_24, MAXIMUM_2)
    )
    assert (accuracy.batch_size, accuracy.batch_size_range) == (32, (16, 32))
    assert (throughput.batch_size, throughput.batch_size_range) == (4, (2, 4))
    assert maximum.batch_size == 128
    assert accuracy.gradient_accumulation_steps == maximum.gradient_accumulation_steps == 1
    assert throughput.gradient_accumulation_range == (8, 16)
    assert 8 <= throughput.gradient_accumulation_steps <= 16
    assert [p.eval_batch_size for p in (accuracy, throughput, maximum)] == [16, 4, 64]
    assert [p.lora_r for p in (accuracy, throughput, maximum)] == [2048, 256, 8192]
    assert throughput.lora_r_range == (128, 256)
    assert [p.lora_alpha for p in (accuracy, throughput, maximum)] == [512, 512, 2048]
    assert [p.lora_dropout for p in (accuracy, throughput, maximum)] == [0.1, 0.1, 0.05]
    assert [p.precision for p in (accuracy, throughput, maximum)] == [
        "bf16", "bf16_autocast", "bf16",
    ]  # fmt: skip
    assert [p.attention for p in (accuracy, throughput, maximum)] == [
        "flash", "flash_where_it_fits", "flash",
    ]  # fmt: skip
    assert [p.ddp_bucket_cap_mb for p in (accuracy, throughput, maximum)] == [100, 25, 200]
    for profile in (accuracy, throughput, maximum):
        assert profile.max_length == 8192
        assert set(profile.target_modules) == SEVEN_PROJECTIONS
        assert len(profile.target_modules) == 7
    for profile in (accuracy, maximum):
        assert profile.gradient_checkpointing
        assert profile.torch_compile
    assert UNIVERSAL_24.profile == throughput


def test_target_lies_in_its_own_range() -> None:
    for preset in PRESETS.values():
        profile = preset.profile
        for value, (least, most) in (
            (profile.batch_size, profile.batch_size_range),
            (profile.gradient_accumulation_steps, profile.gradient_accumulation_range),
            (profile.lora_r, profile.lora_r_range),
        ):
            assert least <= value <= most


def test_an_unknown_preset_names_those_that_exist() -> None:
    with pytest.raises(InputError, match="accuracy_4, throughput_24, universal_24, maximum_2"):
        preset_named("accuracy-4")


@pytest.mark.parametrize("cap", range(1, 25))
def test_any_cap_is_a_variation(cap: int) -> None:
    varied = ACCURACY_4.varied(cap=cap)
    assert len(varied.layout.gpus) == cap
    assert replace(varied, cap=4) == ACCURACY_4


def test_variations_change_what_they_name_alone() -> None:
    assert ACCURACY_4.varied() == ACCURACY_4
    assert ACCURACY_4.varied(threshold=0.0).threshold == 0.0
    assert ACCURACY_4.varied(threshold=1.0) == replace(ACCURACY_4, threshold=1.0)
    assert UNIVERSAL_24.varied(threshold=0.9).threshold == 0.9
    assert ACCURACY_4.varied(name="mine") == replace(ACCURACY_4, name="mine")


@pytest.mark.parametrize("cap", [0, -1, 25, 1000])
def test_caps_out_of_range(cap: int) -> None:
    with pytest.raises(InputError, match=rf"cap: found {cap}, allowed is 1 to 24"):
        ACCURACY_4.varied(cap=cap)


@pytest.mark.parametrize("threshold", [-0.01, 1.01, math.nan, math.inf])
def test_thresholds_out_of_range(threshold: float) -> None:
    with pytest.raises(InputError, match=r"threshold: found .*, allowed is 0 to 1"):
        ACCURACY_4.varied(threshold=threshold)


@pytest.mark.parametrize("limit", [0, -1.0, math.nan, math.inf])
def test_time_limits_out_of_range(limit: float) -> None:
    with pytest.raises(InputError, match="time_limit_hours: found"):
        replace(ACCURACY_4, time_limit_hours=limit)


def test_input_error_is_one_of_ours_and_a_value_error() -> None:
    assert issubclass(InputError, FourSlotError)
    assert issubclass(InputError, ValueError)


def test_units() -> None:
    assert (MS_PER_SECOND, MS_PER_MINUTE, MS_PER_HOUR) == (1000, 60_000, 3_600_000)
    assert (MS_PER_DAY, GB) == (24 * 3_600_000, 1_000_000_000)


@pytest.mark.parametrize(
    ("hours", "ms"),
    [
        (1, 3_600_000),
        (72.0, 259_200_000),
        (0.1, 360_000),
        (1 / 3, 1_200_000),
        (1.5 / 3_600_000, 2),  # halves to even
        (2.5 / 3_600_000, 2),
        (10_000, 36_000_000_000),
    ],
)
def test_hours_to_ms(hours: float, ms: int) -> None:
    found = hours_to_ms(hours)
    assert found == ms
    assert isinstance(found, int)
