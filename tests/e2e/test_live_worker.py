"""The worker, for real: LoRA on the CPU, alone in this process and once as two ranks."""

import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from live.job_files import (
    JOB,
    RESULT,
    JobResult,
    JobSpec,
    LauncherRecord,
    Progress,
    TimeLeft,
    ask_to_stop,
    exit_of,
    read_record,
    result_of,
    steady_s,
    write_record,
)
from live.reaping import boot_id, marked
from live.worker import train
from live.worker_files import FINISH, GO_ON, INTERRUPT, WorkerFiles
from shared.errors import InputError
from shared.presets import ACCURACY_4

torch = pytest.importorskip("torch")
import torch.distributed as dist  # noqa: E402
from peft import PeftModel  # noqa: E402

from live import checkpoint  # noqa: E402
from live.worker_data import BUILT_IN_ROWS, Rows, built_in_rows, encode_bytes, rows_of  # noqa: E402
from live.worker_model import TINY, _tiny, load  # noqa: E402

PATIENCE_S = 120.0
pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


def spec(**changes: object) -> JobSpec:
    fields: dict[str, object] = {
        "task_id": "a",
        "model": "meta-llama/Llama-3.1-8B",
        "task_type": "InstructTextTask",
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
        "max_restarts": 0,
    }
    return JobSpec.model_validate(fields | changes)


@pytest.fixture(scope="module", autouse=True)
def group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    store = tmp_path_factory.mktemp("store") / "store"
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.fixture(autouse=True)
def one_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    """The device of a rank whose group is there already."""
    monkeypatch.setattr("live.worker._device", lambda files: torch.device("cpu"))


def trained(folder: Path, **changes: object) -> JobResult | None:
    folder.mkdir(exist_ok=True)
    return train(WorkerFiles(folder, spec(**changes)))


def completed(folder: Path, **changes: object) -> JobResult:
    result = trained(folder, **changes)
    assert result is not None
    assert result.outcome == "completed", result.reason
    return result


def test_the_loss_falls_and_the_adapter_loads(tmp_path: Path) -> None:
    result = completed(tmp_path, request={"steps": 20})
    assert (result.steps, len(result.losses), result.resumed_from) == (20, 20, None)
    assert result.losses[-1] < result.losses[0] - 0.3
    assert (result.model, "no weights" in result.why) == (TINY, True)
    assert result.submission is not None
    assert not list(Path(result.submission).glob("*.bin"))
    again = PeftModel.from_pretrained(_tiny(), result.submission)
    trained_part = [each for name, each in again.named_parameters() if "lora_B" in name]
    assert len(trained_part) == 14
    assert all(part.abs().sum() > 0 for part in trained_part)


def test_a_resumed_job_is_the_job_that_was_never_interrupted(tmp_path: Path) -> None:
    whole = completed(tmp_path / "whole", request={"steps": 6})
    completed(tmp_path / "parts", request={"steps": 3}, checkpoint_every=3)
    parts = completed(tmp_path / "parts", request={"steps": 6}, checkpoint_every=3)
    assert parts.resumed_from == 3
    assert parts.losses == whole.losses


def test_a_step_s_rows_do_not_change_with_what_fits_at_once(tmp_path: Path) -> None:
    still = ACCURACY_4.profile.__class__(
        **{**spec().model_dump()["profile"], "lora_dropout": 0.0}  # its dice fall by the batch
    )
    whole = completed(tmp_path / "a", request={"steps": 3}, profile=still)
    halved = tmp_path / "b"
    halved.mkdir()
    before = LauncherRecord(pid=1, start_ticks=1, boot_id="", launched_ms=0, faults=("oom", "oom"))
    write_record(halved, "launcher.json", before)
    assert completed(halved, request={"steps": 3}, profile=still).losses == pytest.approx(
        whole.losses, rel=0.05
    )


@pytest.mark.parametrize("why", ["stop", "deadline"])
def test_asked_to_finish_it_delivers_what_it_has(tmp_path: Path, why: str) -> None:
    changes: dict[str, object] = {"request": {"steps": 1000}}
    if why == "stop":
        ask_to_stop(tmp_path, "operator")
    else:
        left = TimeLeft(boot_id=boot_id(), warn_s=steady_s() - 1)
        changes["time_left"] = left
    result = completed(tmp_path, **changes)
    assert result.steps == 1
    assert result.reason.startswith("stopped at step 1 of 1000: ")
    assert (tmp_path / "output" / "adapter" / "adapter_model.safetensors").exists()


def test_interrupted_it_saves_and_delivers_nothing(tmp_path: Path) -> None:
    files = WorkerFiles(tmp_path, spec(request={"steps": 1000}), signalled=True)
    assert files.asked() == INTERRUPT
    assert train(files) is None
    assert [each.name for each in (tmp_path / "output" / "checkpoints").iterdir()] == [
        "step-00000001"
    ]
    ask_to_stop(tmp_path, "operator")
    assert files.asked() == FINISH
    assert WorkerFiles(tmp_path.parent, spec()).asked() == GO_ON


def test_two_checkpoints_are_kept_and_a_broken_one_is_passed_over(tmp_path: Path) -> None:
    completed(tmp_path, request={"steps": 7}, checkpoint_every=2)
    folder = tmp_path / "output" / "checkpoints"
    assert sorted(each.name for each in folder.iterdir()) == ["step-00000004", "step-00000006"]
    (folder / "step-00000006" / "adapter.safetensors").write_bytes(b"torn")
    assert completed(tmp_path, request={"steps": 8}).resumed_from == 4
    shutil.rmtree(folder / "step-00000006")
    state = folder / "step-00000004" / "state.json"
    state.write_text(json.dumps({**json.loads(state.read_text()), "trainable": 1}))
    with pytest.raises(checkpoint.CheckpointMismatch, match="trainable: found 1"):
        trained(tmp_path, request={"steps": 8})


def test_what_cannot_be_trained_is_a_failed_result(tmp_path: Path) -> None:
    result = trained(tmp_path, task_type="ImageTask")
    assert result is not None
    assert (result.outcome, result.reason.split(":")[0]) == ("failed", "task_type")
    with pytest.raises(InputError, match="model: found"):
        load(spec(device="cuda"))


# Data and models of this machine.


def test_a_file_is_only_read_where_that_is_allowed(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"instruction": "say a", "output": "a"}\n' * 9)
    request = {"steps": 2, "dataset": str(path)}
    own = completed(tmp_path / "own", request=request, local_files=True)
    built_in = completed(tmp_path / "not", request={"steps": 2})
    assert own.losses != built_in.losses
    assert completed(tmp_path / "refused", request=request).losses == built_in.losses
    path.write_text("[1, 2]")
    refused = trained(tmp_path / "bad", request=request, local_files=True)
    assert refused is not None
    assert (refused.outcome, str(path) in refused.reason) == ("failed", True)


def test_a_model_of_this_machine_is_trained(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"<unk>": 0, "<s>": 1, "</s>": 2}, unk_token="<unk>"))
    folder = tmp_path / "model"
    _tiny().save_pretrained(folder)
    PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    ).save_pretrained(folder)
    changes: dict[str, Any] = {"model": str(folder), "request": {"steps": 1}}
    result = completed(tmp_path / "a", local_files=True, **changes)
    assert (result.model, result.why) == (str(folder), "")
    assert completed(tmp_path / "b", **changes).model == TINY
    (folder / "model.safetensors").write_bytes(b"torn")
    broken = trained(tmp_path / "c", local_files=True, **changes)
    assert broken is not None
    assert broken.outcome == "failed"


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ('["a", {"x": "b", "n": 1, "y": "c"}, 5, ""]', ["a", "b\nc"]),
        ('"a"\n\n{"x": "b"}\n', ["a", "b"]),
        ('{"x": "b"', "line 1"),
        ('[{"x": "b"}', "no valid JSON"),
        ("", "no row of text"),
        (None, "cannot be read"),
    ],
)
def test_rows_of_a_file(tmp_path: Path, text: str | None, rows: list[str] | str) -> None:
    path = tmp_path / "rows"
    if text is not None:
        path.write_text(text)
    if isinstance(rows, list):
        assert rows_of(path) == rows
    else:
        with pytest.raises(InputError, match=rows):
            rows_of(path)


def test_every_row_is_dealt_once_an_epoch_in_an_order_of_its_own() -> None:
    rows = Rows(built_in_rows(), encode_bytes, 64, seed=3)
    half = BUILT_IN_ROWS // 2

    def epoch(number: int) -> list[list[int]]:
        first, _, _ = rows.batch(number * BUILT_IN_ROWS, half)
        second, _, _ = rows.batch(number * BUILT_IN_ROWS + half, half)
        return [[token for token in row if token] for row in [*first.tolist(), *second.tolist()]]

    one, two = epoch(0), epoch(1)
    assert sorted(one) == sorted(two) == sorted(map(encode_bytes, built_in_rows()))
    assert one != two
    assert epoch(0) == one
    tokens, mask, labels = rows.batch(0, 4)
    assert labels[mask == 0].eq(-100).all()
    assert labels[mask == 1].equal(tokens[mask == 1])


# Two ranks under torchrun: the one long test here.


def until(condition: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "it has not come"
        time.sleep(0.02)


def step_of(folder: Path) -> int:
    with suppress(InputError):
        progress = read_record(folder, "progress.json", Progress)
        return progress.step if progress else 0
    return 0


def test_two_ranks_stop_at_one_step_and_deliver_once(tmp_path: Path) -> None:
    folder = tmp_path / "00000001"
    folder.mkdir()
    write_record(folder, JOB, spec(request={"steps": 100_000}, checkpoint_every=2))
    with socket.socket() as taken:
        with suppress(OSError):
            taken.bind(("127.0.0.1", 29500))  # torchrun's own default
        launcher = subprocess.Popen([sys.executable, "-m", "live.launcher", str(folder)])
        try:
            until(lambda: step_of(folder) >= 4 or launcher.poll() is not None)
            ask_to_stop(folder, "operator")
            launcher.terminate()
            assert launcher.wait(PATIENCE_S) == 0
        finally:
            launcher.terminate()
            launcher.wait(PATIENCE_S)
    end, result = exit_of(folder), result_of(folder)
    log = (folder / "logs" / "attempt-1.log").read_text()
    assert end is not None, log
    assert result is not None, log
    assert (end.outcome, end.attempts) == ("completed", 1)
    assert result.steps == len(result.losses) >= 4
    assert result.reason == f"stopped at step {result.steps} of 100000: operator"
    assert result.submission is not None
    PeftModel.from_pretrained(_tiny(), result.submission)
    assert marked(folder) == set()
    assert (folder / RESULT).exists()
