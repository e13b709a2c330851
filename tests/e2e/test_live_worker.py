"""The worker, for real: LoRA on the CPU, alone in this process and once as two ranks."""

import json
import os
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

from live.training.loading import TINY, Source, model_of  # noqa: E402

PATIENCE_S = 120.0
SMALL = Path(__file__).parents[1] / "models" / "small-llama"
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


class Interrupted(WorkerFiles):
    """One that is told to go after its second step, and so does after the third."""

    __slots__ = ()

    def progress(self, step: int, of: int, loss: float | None, phase: str) -> None:
        self.signalled |= step == 2
        WorkerFiles.progress(self, step, of, loss, phase)


def tiny() -> object:
    return model_of(Source(TINY, None), "sdpa", torch.device("cpu"))


def test_the_loss_falls_and_the_adapter_loads(tmp_path: Path) -> None:
    result = completed(tmp_path, request={"steps": 20})
    assert (result.steps, len(result.losses), result.resumed_from) == (20, 20, None)
    assert result.losses[-1] < result.losses[0] - 0.3
    assert (result.model, "no weights" in result.why) == (TINY, True)
    assert result.submission is not None
    assert not list(Path(result.submission).glob("*.bin"))
    again = PeftModel.from_pretrained(tiny(), result.submission)
    trained_part = [each for name, each in again.named_parameters() if "lora_B" in name]
    assert len(trained_part) == 14
    assert all(part.abs().sum() > 0 for part in trained_part)


def test_a_resumed_job_is_the_job_that_was_never_interrupted(tmp_path: Path) -> None:
    whole = completed(tmp_path / "whole", request={"steps": 6})
    folder = tmp_path / "parts"
    folder.mkdir()
    files = Interrupted(folder, spec(request={"steps": 6}))
    assert train(files) is None
    parts = completed(folder, request={"steps": 6})
    assert parts.resumed_from == 3
    assert parts.losses == whole.losses


@pytest.mark.parametrize("why", ["stop", "deadline"])
def test_asked_to_finish_it_delivers_what_it_has(tmp_path: Path, why: str) -> None:
    changes: dict[str, object] = {"request": {"steps": 1000}}
    if why == "stop":
        ask_to_stop(tmp_path, "operator")
    else:
        left = TimeLeft(boot_id=boot_id(), warn_s=steady_s() - 1)
        changes["time_left"] = left
    result = completed(tmp_path, **changes)
    assert result.steps <= 1
    assert result.reason.startswith(f"stopped at step {result.steps} of 1000: ")
    assert (tmp_path / "output" / "adapter" / "adapter_model.safetensors").exists()


def test_interrupted_it_saves_and_delivers_nothing(tmp_path: Path) -> None:
    files = WorkerFiles(tmp_path, spec(request={"steps": 1000}), signalled=True)
    assert files.asked() == INTERRUPT
    assert train(files) is None
    assert not (tmp_path / "output" / "checkpoints").exists()  # no step was begun
    folder = tmp_path / "later"
    folder.mkdir()
    assert train(Interrupted(folder, spec(request={"steps": 1000}))) is None
    assert [each.name for each in (folder / "output" / "checkpoints").iterdir()] == [
        "step-00000003"
    ]
    assert result_of(folder) is None
    ask_to_stop(tmp_path, "operator")
    assert files.asked() == FINISH
    assert WorkerFiles(tmp_path.parent, spec()).asked() == GO_ON
    other = tmp_path / "other"
    other.mkdir()
    WorkerFiles(other, spec(), rank=1).give_up("the reward x failed")
    first = WorkerFiles(other, spec())
    assert (first.asked(), first.given_up()) == (FINISH, "the reward x failed")


def test_two_checkpoints_are_kept_and_a_broken_one_is_passed_over(tmp_path: Path) -> None:
    completed(tmp_path, request={"steps": 7}, checkpoint_every=3)
    folder = tmp_path / "output" / "checkpoints"
    kept = sorted(each.name for each in folder.iterdir())
    assert len(kept) == 2
    (folder / kept[1] / "adapter.safetensors").write_bytes(b"torn")
    again = completed(tmp_path, request={"steps": 8})
    assert again.resumed_from == int(kept[0].removeprefix("step-"))
    for each in folder.iterdir():
        state = each / "state.json"
        state.write_text(json.dumps({**json.loads(state.read_text()), "trainable": 1}))
    other = trained(tmp_path, request={"steps": 9})
    assert other is not None
    assert (other.outcome, "trainable: found 1" in other.reason) == ("failed", True)


def test_what_cannot_be_trained_is_a_failed_result(tmp_path: Path) -> None:
    request = {"dataset": "/none", "dataset_type": 7}
    result = trained(tmp_path, request=request, local_files=True)
    assert result is not None
    assert (result.outcome, result.reason.split(":")[0]) == ("failed", "dataset_type")


def test_images_are_trained_where_their_library_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("diffusers")
    result = completed(tmp_path, task_type="ImageTask", request={"steps": 3})
    assert (result.steps, result.model) == (3, TINY)
    assert (tmp_path / "output" / "adapter" / "pytorch_lora_weights.safetensors").exists()
    monkeypatch.setattr("live.worker.find_spec", lambda _: None)
    other = trained(tmp_path / "without", task_type="ImageTask")
    assert other is not None
    assert (other.outcome, "needs diffusers" in other.reason) == ("failed", True)


# Data and models of this machine.


def test_a_file_is_only_read_where_that_is_allowed(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"instruction": "say a", "output": "a"}\n' * 9)
    request = {"steps": 2, "dataset": str(path), "dataset_type": "instruct"}
    own = completed(tmp_path / "own", request=request, local_files=True)
    built_in = completed(tmp_path / "not", request={"steps": 2})
    assert own.losses != built_in.losses
    assert completed(tmp_path / "refused", request=request).losses == built_in.losses
    path.write_text("[1, 2]")
    refused = trained(tmp_path / "bad", request=request, local_files=True)
    assert refused is not None
    assert (refused.outcome, str(path) in refused.reason) == ("failed", True)


def test_a_model_of_this_machine_is_trained(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(SMALL, folder)
    changes: dict[str, Any] = {"model": str(folder), "request": {"steps": 1}}
    result = completed(tmp_path / "a", local_files=True, **changes)
    assert (result.model, result.why.startswith("no dataset")) == (str(folder), True)
    assert completed(tmp_path / "b", **changes).model == TINY
    (folder / "model.safetensors").write_bytes(b"torn")
    broken = trained(tmp_path / "c", local_files=True, **changes)
    assert broken is not None
    assert broken.outcome == "failed"


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
    PeftModel.from_pretrained(tiny(), result.submission)
    assert marked(folder) == set()
    assert (folder / RESULT).exists()


@pytest.mark.parametrize(("waits", "of"), [("collective", "GPU"), ("library", "machine")])
def test_a_rank_without_memory_takes_the_other_along(waits: str, of: str, tmp_path: Path) -> None:
    """Within seconds, though a job with a deadline is given minutes to stop."""
    folder = tmp_path / "00000001"
    folder.mkdir()
    now_s = steady_s()
    left = TimeLeft(boot_id=boot_id(), warn_s=now_s + 600, kill_s=now_s + 1200)
    asked = spec(
        request={"waits": waits, "of": of}, worker_module="tests.e2e.failing_rank", time_left=left
    )
    write_record(folder, JOB, asked)
    (folder / "failed-0-0").touch()  # of another attempt
    root = str(Path(__file__).parents[2])
    launcher = subprocess.Popen(
        [sys.executable, "-m", "live.launcher", str(folder)],
        env={**os.environ, "PYTHONPATH": root},
    )
    try:
        assert launcher.wait(PATIENCE_S) == 0
    finally:
        launcher.terminate()
        launcher.wait(PATIENCE_S)
    end, log = exit_of(folder), (folder / "logs" / "attempt-1.log").read_text()
    assert end is not None, log
    assert (end.outcome, end.faults) == ("failed", ("oom",)), log
    failed_s = (folder / "failed-1-1").stat().st_mtime
    took_s = end.ended_ms / 1000 - failed_s
    assert took_s < 20, log
    said = "another rank has failed" in log
    assert said == (waits == "library"), log  # a broken collective says so by itself
    assert marked(folder) == set()
