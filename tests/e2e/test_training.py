"""Text tasks, really trained: two ranks, real text, a pretrained model, one kill each."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from live.job_files import JOB, JobResult, JobSpec, exit_of, read_record, result_of, write_record
from live.reaping import marked
from live.training.record import TrainingRecord, training_of
from shared.presets import ACCURACY_4
from tests.e2e.training_data import REWARD, request

torch = pytest.importorskip("torch")
import pyarrow.parquet as pq  # noqa: E402
from peft import PeftConfig, PeftModel  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402

from live.training.tokens import sft_row  # noqa: E402

SMALL = Path(__file__).parents[1] / "models" / "small-llama"
PATIENCE_S = 300.0
STEPS = {"InstructTextTask": 20, "ChatTask": 20, "DpoTask": 16, "GrpoTask": 24}
pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


def job(folder: Path, task_type: str, model: str = str(SMALL), **asked: object) -> JobSpec:
    folder.mkdir()
    spec = JobSpec.model_validate(
        {
            "task_id": "a",
            "model": model,
            "task_type": task_type,
            "hours_to_complete": 1.0,
            "started_ms": 0,
            "deadline_ms": 3_600_000,
            "warn_ms": 3_300_000,
            "preset": "accuracy_4",
            "slot": 0,
            "gpus": (0, 1),
            "device": "cpu",
            "processes": 2,
            "memory_gb_per_gpu": 80.0,
            "profile": ACCURACY_4.profile,
            "local_files": True,
            "checkpoint_every": 5,
            "request": asked_for(task_type, folder.parent) | asked,
            "training": {"rewards": True, "most_held_out": 24, "most_completion": 24},
        }
    )
    write_record(folder, JOB, spec)
    return spec


def asked_for(task_type: str, folder: Path) -> dict[str, Any]:
    if task_type == "ImageTask":
        return {}
    return request(task_type, folder) | {"steps": STEPS[task_type]}


def step_of(folder: Path) -> int:
    with suppress(OSError, ValueError):
        found: int = json.loads((folder / "progress.json").read_text())["step"]
        return found
    return 0


def ranks(folder: Path) -> list[int]:
    found = []
    for pid in marked(folder):
        with suppress(OSError):
            command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            if command[1:4] == [b"-u", b"-m", b"live.worker"]:
                found.append(pid)
    return sorted(found)


def trained(folder: Path, kill_at: int | None) -> JobResult:
    """Run the job; a rank of it is killed when that step is done."""
    launcher = subprocess.Popen([sys.executable, "-m", "live.launcher", str(folder)])
    ends_s = time.monotonic() + PATIENCE_S
    try:
        while launcher.poll() is None:
            assert time.monotonic() < ends_s, "it does not end"
            if kill_at is not None and step_of(folder) >= kill_at:
                os.kill(ranks(folder)[-1], signal.SIGKILL)
                kill_at = None
            time.sleep(0.02)
    finally:
        launcher.terminate()
        launcher.wait(PATIENCE_S)
    log = "".join(path.read_text()[-3000:] for path in sorted((folder / "logs").iterdir()))
    end, result = exit_of(folder), result_of(folder)
    assert end is not None, log
    assert result is not None, log
    assert (end.outcome, result.outcome) == ("completed", "completed"), log
    return result


# What is handed in, by plain peft.


def models(result: JobResult) -> tuple[Any, Any]:
    assert result.submission is not None
    base = AutoModelForCausalLM.from_pretrained(SMALL, dtype=torch.float32)
    again = AutoModelForCausalLM.from_pretrained(SMALL, dtype=torch.float32)
    return base, PeftModel.from_pretrained(again, result.submission)


def held_out(folder: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = pq.read_table(folder / "data" / "held_out.parquet").to_pylist()
    return rows


def loss(model: Any, row: dict[str, Any]) -> float:
    tokenizer = AutoTokenizer.from_pretrained(SMALL)
    tokens = sft_row(tokenizer, row, 256)
    assert tokens is not None
    batch = {key: torch.tensor([value]) for key, value in tokens.items()}
    with torch.no_grad():
        return float(model(**batch).loss)


def sft_measure(model: Any, rows: list[dict[str, Any]]) -> float:
    return -sum(loss(model, row) for row in rows)


def dpo_measure(model: Any, rows: list[dict[str, Any]]) -> float:
    sides = [
        [{"prompt": row["prompt"], "completion": row[side]} for row in rows]
        for side in ("chosen", "rejected")
    ]
    return sft_measure(model, sides[0]) - sft_measure(model, sides[1])


def grpo_measure(model: Any, rows: list[dict[str, Any]]) -> float:
    scope: dict[str, Any] = {}
    exec(REWARD, scope)
    tokenizer = AutoTokenizer.from_pretrained(SMALL)
    torch.manual_seed(0)
    answers = []
    for row in rows * 8:
        tokens = torch.tensor([tokenizer(row["prompt"])["input_ids"]])
        with torch.no_grad():
            more = model.generate(
                input_ids=tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=24,
                do_sample=True,
            )  # fmt: skip
        answers.append(tokenizer.decode(more[0, tokens.shape[1] :], skip_special_tokens=True))
    return float(sum(scope["reward_func"](answers)))


MEASURES: dict[str, Callable[[Any, list[dict[str, Any]]], float]] = {
    "InstructTextTask": sft_measure,
    "ChatTask": sft_measure,
    "DpoTask": dpo_measure,
    "GrpoTask": grpo_measure,
}


def better(record: TrainingRecord) -> bool:
    assert record.held_out_loss is not None
    assert record.held_out_loss_base is not None
    gained = record.held_out_loss_base - record.held_out_loss
    return gained > 0 if record.held_out_metric == "eval_loss" else gained < 0


@pytest.mark.parametrize("task_type", list(MEASURES))
def test_a_job_is_killed_goes_on_and_beats_the_base_model(tmp_path: Path, task_type: str) -> None:
    folder = tmp_path / "00000001"
    spec = job(folder, task_type)
    result = trained(folder, kill_at=8)
    end, record = exit_of(folder), training_of(folder)
    assert end is not None
    assert (end.attempts, end.faults) == (2, ("crash",))
    assert result.steps == len(result.losses) == STEPS[task_type]
    assert result.resumed_from is not None
    assert 5 <= result.resumed_from < STEPS[task_type]
    assert record is not None
    assert (record.steps, record.resumed_from) == (result.steps, (result.resumed_from,))
    assert (record.beats_base, record.failure, better(record)) == (True, "", True)
    assert read_record(folder, JOB, JobSpec) == spec
    assert PeftConfig.from_pretrained(result.submission).base_model_name_or_path == spec.model
    base, adapted = models(result)
    rows = held_out(folder)
    assert MEASURES[task_type](adapted, rows) > MEASURES[task_type](base, rows)
    assert marked(folder) == set()


def test_an_image_job_is_killed_goes_on_and_beats_the_base_model(tmp_path: Path) -> None:
    pytest.importorskip("diffusers")
    from diffusers import StableDiffusionXLPipeline

    from tests.e2e.image_models import archive, saved_sdxl

    model, folder = saved_sdxl(tmp_path / "sdxl"), tmp_path / "00000001"
    data = archive(tmp_path / "pictures.zip", broken__png=b"none")
    job(folder, "ImageTask", model=str(model), dataset_zip=str(data), steps=30)
    result = trained(folder, kill_at=8)
    end, record = exit_of(folder), training_of(folder)
    assert end is not None
    assert record is not None
    assert (end.attempts, end.faults) == (2, ("crash",))
    assert (result.steps, len(result.losses)) == (30, 30)
    assert result.resumed_from is not None
    assert (record.rows, record.bad_rows, record.tokens_trained) == (24, 1, None)
    assert (record.beats_base, record.failure, better(record)) == (True, "", True)
    pipe = StableDiffusionXLPipeline.from_pretrained(model)
    base = image_loss(pipe.unet, model, folder)
    pipe.load_lora_weights(result.submission)
    assert image_loss(pipe.unet, model, folder) < base


def image_loss(unet: Any, model: Path, folder: Path) -> float:
    """Of the pictures held out, under noise of its own."""
    from live.training.images.families import family_of
    from live.training.images.pairs import image_of, read_pairs

    family = family_of(model, torch.device("cpu"))
    pairs = [each for each in read_pairs(folder) if each.held_out]
    rows = family.rows(pairs, lambda pair: image_of(folder, pair))
    batch = {key: torch.stack([row[key] for row in rows]) for key in rows[0]}
    dice, told = torch.Generator().manual_seed(1), []
    for _ in range(16):
        noise = torch.randn(batch["latents"].shape, generator=dice)
        with torch.no_grad():
            at = torch.rand(len(rows), generator=dice)
            told.append(float(family.loss(unet, batch, noise, at)))
    return sum(told) / len(told)


@pytest.mark.parametrize("optimizer", ["adamw", "adamw8bit"])
def test_shares_of_a_model_train_as_the_whole_does(optimizer: str, tmp_path: Path) -> None:
    """FSDP2 over two ranks, killed and resumed; its adapter is a whole one."""
    folder = tmp_path / "00000001"
    job(folder, "InstructTextTask", parallel="fsdp2", optimizer=optimizer, steps=12)
    result = trained(folder, kill_at=6)
    record = training_of(folder)
    assert record is not None
    assert (record.plan["parallel"], record.plan["optimizer"]) == ("fsdp2", optimizer)
    assert record.beats_base
    assert (result.steps, result.resumed_from) == (12, 5)
    base, adapted = models(result)
    rows = held_out(folder)
    assert sft_measure(adapted, rows) > sft_measure(base, rows)
    last = sorted((folder / "output" / "checkpoints").iterdir())[-1]
    names = {each.name for each in last.iterdir()}
    assert names >= {"adapter.safetensors", "state.json"}
    own = {f"optimizer-{rank}.safetensors" for rank in range(2)}
    assert (names & own) == (own if optimizer == "adamw8bit" else set())
