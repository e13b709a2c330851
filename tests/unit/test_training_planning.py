"""What a text job is trained with, on a GPU that is not here: the plan needs none."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("torch")
import peft
import torch
import transformers

from live.job_files import JobSpec
from live.training.adapters import lora
from live.training.loading import Source, family_of
from live.training.planning import most_answer, settle
from live.training.rows import CHAT, DPO, GRPO
from live.training.run import Run
from live.training.sharding import _layers
from live.training.terms import Settled
from live.training.ways import EAGER, FLASH, PACKED, SDPA, Family, Machine
from shared.architectures import MODULES, architecture_of
from shared.errors import InputError
from shared.memory import peak_memory
from shared.presets import ACCURACY_4, THROUGHPUT_24

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
GPU = Machine(cuda=True, flash=True, bits8=True)
NO_GPU = Machine(cuda=False, flash=False, bits8=False)
LLAMA_8B = architecture_of("meta-llama/Llama-3.1-8B")


def spec(task_type: str, **changes: object) -> JobSpec:
    told: dict[str, object] = {
        "task_id": "a",
        "model": "meta-llama/Llama-3.1-8B",
        "task_type": task_type,
        "hours_to_complete": 6.0,
        "started_ms": 0,
        "deadline_ms": 21_600_000,
        "warn_ms": 21_000_000,
        "preset": "accuracy_4",
        "slot": 0,
        "gpus": (0, 1),
        "device": "cuda",
        "processes": 2,
        "memory_gb_per_gpu": 80.0,
        "profile": ACCURACY_4.profile,
        "request": {},
    }
    return JobSpec.model_validate(told | changes)


def settled(task_type: str, row: int = 4096, lacks: int = 0, **changes: object) -> Settled:
    return settle(spec(task_type, **changes), LLAMA_8B, Family(MODULES), row, GPU, lacks, lacks)


def test_a_task_that_samples_answers_is_planned_with_their_cache() -> None:
    chat, grpo = settled(CHAT), settled(GRPO)
    assert (chat.parallel, chat.sampled_rows, chat.generations) == ("fsdp2", 0, 1)
    assert (grpo.parallel, grpo.optimizer) == ("ddp", "adamw8bit")
    rows = grpo.micro * grpo.accumulation
    assert rows == chat.micro * chat.accumulation == ACCURACY_4.profile.batch_size
    assert grpo.sampled_rows % grpo.micro == 0
    assert rows % grpo.sampled_rows == 0
    assert grpo.sampled_rows * 2 % grpo.generations == 0
    assert grpo.sampled_rows < rows  # 32 rows of 4096 tokens would not fit
    assert settled(GRPO, row=1024).sampled_rows == rows


def test_an_attempt_that_lacked_memory_samples_half_as_many() -> None:
    first, second, last = (settled(GRPO, lacks=lacks) for lacks in (0, 1, 9))
    assert (second.micro, second.sampled_rows) == (first.micro // 2, first.sampled_rows // 2)
    assert (last.micro, last.sampled_rows, last.generations) == (1, 1, 2)


def test_an_attempt_that_lacked_memory_is_predicted_anew() -> None:
    for task_type in (CHAT, DPO, GRPO):
        first, second = (settled(task_type, row=1024, lacks=lacks) for lacks in (0, 1))
        assert first.predicted_gb is not None
        assert second.predicted_gb is not None
        assert second.predicted_gb < first.predicted_gb
        assert second.plan is not None
        assert second.predicted_gb == peak_memory(second.plan.step).total_gb
        assert (second.plan.step.rows, second.plan.step.sampled_rows) == (
            second.micro, second.sampled_rows)  # fmt: skip
    samples_less = settled(GRPO, lacks=9)  # a row at once already: only answers were left
    assert samples_less.plan is not None
    assert samples_less.plan.sampled_rows == samples_less.sampled_rows


SHARE = {"processes": 1, "gpus": (0,), "memory_gb_per_gpu": 80 / 3, "sharing": 3}
CASES: dict[str, dict[str, Any]] = {
    "two GPUs": {},
    "after a lack of memory": {"lacks": 1},
    "a short row": {"row": 256},
    "a share": {**SHARE, "row": 512, "profile": THROUGHPUT_24.profile},
    "on the CPU": {"device": "cpu"},
    "on the CPU, a share": {**SHARE, "device": "cpu", "profile": THROUGHPUT_24.profile},
}


@pytest.mark.parametrize("task_type", [CHAT, DPO, GRPO])
@pytest.mark.parametrize("case", CASES)
def test_every_setting_that_is_not_as_wanted_is_told(case: str, task_type: str) -> None:
    """The last word on a setting is what the trainer is told; one without a word is as wanted."""
    asked = dict(CASES[case])
    wanted = asked.get("profile", ACCURACY_4.profile)
    gpu = asked.get("device") != "cpu"
    if gpu:
        found = settled(task_type, **asked)
    else:
        found = settle(spec(task_type, **asked), LLAMA_8B, Family(MODULES), 64, NO_GPU, 0)
    last = {each.setting: each.given for each in found.not_taken}
    assert all(each.why and each.wanted != each.given for each in found.not_taken)
    buckets = found.parallel == "ddp" and spec(task_type, **known(asked)).processes > 1
    precision = {True: "bf16_autocast", False: "bf16"}[found.optimizer == "adamw"]
    given = {
        "per_device_train_batch_size": (wanted.batch_size, found.micro),
        "gradient_accumulation_steps": (wanted.gradient_accumulation_steps, found.accumulation),
        "per_device_eval_batch_size": (wanted.eval_batch_size, found.eval_batch),
        "lora_r": (wanted.lora_r, found.lora_r),
        "lora_alpha": (wanted.lora_alpha, round(found.lora_alpha)),
        "lora_dropout": (f"{wanted.lora_dropout:g}", f"{found.lora_dropout:g}"),
        "ddp_bucket_cap_mb": (wanted.ddp_bucket_cap_mb, found.bucket_mb if buckets else "unused"),
        "max_length": (wanted.max_length, found.max_length),
        "target_modules": (", ".join(wanted.target_modules), ", ".join(found.target_modules)),
        "precision": (wanted.precision, precision if gpu else "fp32"),
        "gradient_checkpointing": (wanted.gradient_checkpointing, found.checkpointing),
        "torch_compile": (wanted.torch_compile, found.compile),
    }
    for setting, (asked_for, got) in given.items():
        assert last.get(setting, asked_for) == got, setting


def known(asked: dict[str, Any]) -> dict[str, Any]:
    return {name: each for name, each in asked.items() if name not in ("lacks", "row")}


def test_dpo_compares_without_dropout_on_one_side() -> None:
    assert settled(DPO).lora_dropout == 0.0
    assert settled(CHAT).lora_dropout == ACCURACY_4.profile.lora_dropout > 0
    plan = settled(DPO).plan
    assert plan is not None
    assert not plan.step.dropout  # and no memory is planned for its masks


def test_one_gpu_samples_two_answers_at_least() -> None:
    alone = settled(GRPO, lacks=9, processes=1, gpus=(0,))
    assert (alone.micro, alone.sampled_rows, alone.generations) == (1, 2, 2)
    one_row = replace(ACCURACY_4.profile, batch_size=1, gradient_accumulation_steps=1)
    with pytest.raises(InputError, match="found 1 row in all"):
        settled(GRPO, processes=1, gpus=(0,), profile=one_row)


def test_an_answer_takes_half_a_row_at_most() -> None:
    assert most_answer(spec(GRPO), 8192) == spec(GRPO).training.most_completion
    assert most_answer(spec(GRPO), 64) == 32


def test_a_model_of_which_no_row_fits_is_one_clear_line() -> None:
    with pytest.raises(InputError, match=r"not one row of 4096 tokens fits 2 GPU\(s\) of 20"):
        settled(GRPO, memory_gb_per_gpu=20.0)


@pytest.mark.parametrize(("submit", "fewest_s"), [("folder", 60), ("hub", 270)])
def test_time_is_kept_for_the_hand_in_of_a_large_adapter(submit: str, fewest_s: float) -> None:
    """10.7 GB: three passes of the disk, and 214 seconds at 50 MB a second where it is uploaded."""
    told = {"submit": submit, "namespace": "us", "token_file": "/token"}
    run = SimpleNamespace(spec=spec(CHAT, training=told))
    small, large = (Run._schedule_settings(run, size) for size in (0, 10_700_000_000))
    assert small.finish_s < 61
    assert fewest_s < large.finish_s - small.finish_s < 1.1 * fewest_s + 10
    assert large.save_s - small.save_s > 60


NO_FLASH = replace(GPU, flash=False)


@pytest.mark.parametrize(
    ("task_type", "family", "given", "why"),
    [
        (CHAT, Family(MODULES), "packed", "flash-attn is not installed"),
        (DPO, Family(MODULES), "sdpa", "flash-attn is not installed"),
        (GRPO, Family(MODULES), "sdpa", "flash-attn is not installed"),
        (CHAT, Family(MODULES, (FLASH, SDPA, EAGER), "no kernel"), "sdpa",
         "flash-attn is not installed; no kernel"),
        (CHAT, Family(MODULES, (EAGER,)), "eager", "the model's family has no flash attention"),
    ],
)  # fmt: skip
def test_the_best_attention_that_family_task_and_machine_allow(
    task_type: str, family: Family, given: str, why: str
) -> None:
    found = settle(spec(task_type), LLAMA_8B, family, 2048, NO_FLASH, 0)
    assert found.attention == given
    told = {each.setting: each for each in found.not_taken}["attention"]
    assert (told.wanted, told.given, told.why) == ("flash", given, why)


def test_after_a_fault_torchs_kernel_is_not_called_again() -> None:
    """Want of memory is no fault of the kernel's."""
    for lacks, faults, given in ((0, 1, "sdpa"), (1, 1, "packed"), (1, 2, "sdpa")):
        found = settle(spec(CHAT), LLAMA_8B, Family(MODULES), 2048, NO_FLASH, lacks, faults)
        assert found.attention == given


def test_rows_are_laid_end_to_end_where_they_stay_apart() -> None:
    for apart in (True, False):
        family = Family(MODULES, apart=apart)
        assert settle(spec(CHAT), LLAMA_8B, family, 512, GPU, 0).padding_free == apart
    assert not settle(spec(DPO), LLAMA_8B, Family(MODULES), 512, GPU, 0).padding_free


def test_masks_and_scores_are_planned_for() -> None:
    """Padded rows and the matrix of scores leave room for fewer rows at once."""
    families = (Family(MODULES, (way,)) for way in (PACKED, SDPA, EAGER))
    small = replace(ACCURACY_4.profile, lora_r=128, lora_alpha=32)
    rows = [settle(spec(CHAT, profile=small), LLAMA_8B, each, 4096, NO_FLASH, 0).micro
            for each in families]  # fmt: skip
    assert rows == sorted(rows, reverse=True)
    assert rows[0] > rows[2]


FAMILIES = {  # the linear layers of tiny models of other families
    "Phi3": ("down_proj", "gate_up_proj", "o_proj", "qkv_proj"),
    "GPTNeoX": ("dense", "dense_4h_to_h", "dense_h_to_4h", "query_key_value"),
    "Mixtral": ("k_proj", "o_proj", "q_proj", "v_proj"),
    "Qwen3": tuple(sorted(MODULES)),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_linear_layer_is_adapted_whatever_its_name(family: str, tmp_path: Path) -> None:
    config = getattr(transformers, f"{family}Config")(
        hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, vocab_size=300, pad_token_id=0, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    config.save_pretrained(tmp_path)
    there = family_of(Source("owner/model", tmp_path), torch.device("cpu")).projections
    assert there == FAMILIES[family]
    found = settle(spec(CHAT), LLAMA_8B, Family(there), 4096, GPU, 0)
    told = {each.setting: each for each in found.not_taken}
    if family == "Qwen3":
        assert found.target_modules == ACCURACY_4.profile.target_modules
        assert "target_modules" not in told
    else:
        assert found.target_modules == there
        assert told["target_modules"].given == ", ".join(there)
    model = transformers.AutoModelForCausalLM.from_config(config)
    adapted = peft.get_peft_model(model, lora(found))
    assert adapted.get_nb_trainable_parameters()[0] > 0
    assert len(_layers(adapted)) == 2


def test_a_model_without_such_layers_is_one_clear_line() -> None:
    some = replace(ACCURACY_4.profile, target_modules=("q_proj", "v_proj"))
    there = ("fc1", "q_proj")
    found = settle(spec(CHAT, profile=some), LLAMA_8B, Family(there), 4096, GPU, 0)
    assert found.target_modules == ("q_proj",)
    with pytest.raises(InputError, match="found no layer named q_proj, v_proj"):
        settle(spec(CHAT, profile=some), LLAMA_8B, Family(("fc1",)), 4096, GPU, 0)
    with pytest.raises(InputError, match="found no layer named q_proj, k_proj"):
        settle(spec(CHAT), LLAMA_8B, Family(()), 4096, GPU, 0)


def test_experts_that_take_no_adapter_take_no_memory() -> None:
    shape, attention = architecture_of("mistralai/Mixtral-8x7B-v0.1"), FAMILIES["Mixtral"]
    asked = {"memory_gb_per_gpu": 141.0}
    whole = settle(spec(CHAT, **asked), shape, Family(MODULES), 2048, GPU, 0)
    found = settle(spec(CHAT, **asked), shape, Family(attention), 2048, GPU, 0)
    assert found.plan is not None
    assert whole.plan is not None
    assert found.lora_r > whole.lora_r
    assert set(found.target_modules) == set(attention)
