"""The job folder: written whole, read strictly, owned by one launcher."""

import os
from pathlib import Path

import pytest

from live.attempt import _asks_for_s
from live.job_environment import passed, worker_command, worker_environment
from live.job_files import (
    EXIT,
    RESULT,
    JobBusy,
    JobResult,
    JobSpec,
    LauncherRecord,
    Progress,
    TimeLeft,
    ask_to_stop,
    exit_of,
    launcher_lock,
    launcher_of,
    lock_held,
    read_record,
    result_of,
    stop_reason,
    write_atomic,
    write_record,
)
from live.job_log import KEPT, AttemptLog
from live.reaping import Cgroup, boot_id, send, start_ticks
from shared.errors import InputError
from shared.presets import ACCURACY_4, PRESETS

SPEC = JobSpec(
    task_id="a",
    model="m",
    task_type="ChatTask",
    hours_to_complete=0.1,
    started_ms=0,
    deadline_ms=360_000,
    warn_ms=300_000,
    preset="accuracy_4",
    slot=0,
    gpus=(2, 3),
    device="cuda",
    processes=2,
    memory_gb_per_gpu=80.0,
    profile=ACCURACY_4.profile,
    request={"dataset": "é", "nested": [1, {"a": None}]},
)


@pytest.mark.parametrize("preset", PRESETS.values(), ids=lambda preset: preset.name)
def test_a_job_comes_back_as_it_was_written(tmp_path: Path, preset: object) -> None:
    spec = SPEC.model_copy(update={"profile": getattr(preset, "profile", None)})
    write_record(tmp_path, "job.json", spec)
    assert read_record(tmp_path, "job.json", JobSpec) == spec
    assert os.listdir(tmp_path) == ["job.json"]  # noqa: PTH208 - the hidden ones too


@pytest.mark.parametrize(
    "change",
    [
        {"worker_module": "os; rm -rf /"},
        {"worker_module": "-c"},
        {"processes": 0},
        {"device": "tpu"},
        {"unknown": 1},
        {"heartbeat_timeout_s": 0},
    ],
)
def test_a_job_that_is_none_is_refused_by_key(tmp_path: Path, change: dict[str, object]) -> None:
    text = SPEC.model_copy(update=change).model_dump_json(warnings=False)
    if "unknown" in change:
        text = text[:-1] + ', "unknown": 1}'
    (tmp_path / "job.json").write_text(text)
    with pytest.raises(InputError) as refused:
        read_record(tmp_path, "job.json", JobSpec)
    assert f"{tmp_path / 'job.json'}: {next(iter(change))}: found" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_write_that_fails_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / RESULT
    write_atomic(path, "old")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_atomic(path, "new")
    assert path.read_text() == "old"
    assert [each.name for each in tmp_path.iterdir()] == [RESULT]


def test_files_that_cannot_be_read_count_as_failures(tmp_path: Path) -> None:
    assert (result_of(tmp_path), exit_of(tmp_path), launcher_of(tmp_path)) == (None, None, None)
    for name in (RESULT, EXIT, "launcher.json"):
        (tmp_path / name).write_text("{")
    result, end = result_of(tmp_path), exit_of(tmp_path)
    assert result is not None
    assert end is not None
    assert (result.outcome, end.outcome) == ("failed", "failed")
    assert RESULT in result.reason
    assert launcher_of(tmp_path) is None
    (tmp_path / "progress.json").mkdir()
    with pytest.raises(InputError, match="cannot be read"):
        read_record(tmp_path, "progress.json", Progress)


def test_a_result_of_numbers_that_are_none_is_refused(tmp_path: Path) -> None:
    write_record(tmp_path, RESULT, JobResult(outcome="completed", losses=(1.5,)))
    path = tmp_path / RESULT
    path.write_text(path.read_text().replace("1.5", "NaN"))
    result = result_of(tmp_path)
    assert result is not None
    assert result.outcome == "failed"


def test_the_lock_is_one_launcher_s(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("live.job_files.LOCK_PATIENCE_S", 0.0)
    assert not lock_held(tmp_path)
    with launcher_lock(tmp_path):
        assert lock_held(tmp_path)
        with pytest.raises(JobBusy, match="lives already"), launcher_lock(tmp_path):
            pass
        assert lock_held(tmp_path)
    assert not lock_held(tmp_path)


def test_the_first_reason_of_a_stop_stays(tmp_path: Path) -> None:
    assert stop_reason(tmp_path) is None
    ask_to_stop(tmp_path, "first")
    ask_to_stop(tmp_path, "second")
    assert stop_reason(tmp_path) == "first"
    (tmp_path / "stop").write_text("")  # by hand
    assert stop_reason(tmp_path) == "asked to stop"


def test_a_heartbeat_may_ask_for_time(tmp_path: Path) -> None:
    beat = tmp_path / "heartbeat"
    assert _asks_for_s(beat) == 0
    for text, seconds in (("", 0.0), ("600", 600.0), ("soon", 0.0)):
        beat.write_text(text)
        assert _asks_for_s(beat) == seconds


# What the job is started with.


def test_the_environment_is_a_closed_list(tmp_path: Path) -> None:
    seen = passed({"PATH": "/bin", "HF_TOKEN": "x", "AWS_SECRET_ACCESS_KEY": "x", "NCCL_P2P": "1"})
    assert seen == {"PATH": "/bin", "NCCL_P2P": "1"}
    told = worker_environment(SPEC, tmp_path, 2)
    assert told["CUDA_VISIBLE_DEVICES"] == "2,3"
    named = SPEC.model_copy(update={"gpu_uuids": ("GPU-c", "GPU-d")})
    assert worker_environment(named, tmp_path, 2)["CUDA_VISIBLE_DEVICES"] == "GPU-c,GPU-d"
    assert told["FOUR_SLOT_JOB"] == told["HOME"] == str(tmp_path)
    cpu = SPEC.model_copy(update={"device": "cpu"})
    assert worker_environment(cpu, tmp_path, 1)["CUDA_VISIBLE_DEVICES"] == ""


def test_kernels_are_compiled_for_all_jobs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    names = ("TRITON_CACHE_DIR", "TORCHINDUCTOR_CACHE_DIR")
    for name in names:
        monkeypatch.delenv(name, raising=False)
    told = [worker_environment(SPEC, tmp_path / "jobs" / name, 1) for name in ("0001", "0002")]
    for each in told:
        assert [each[name] for name in names] == [
            str(tmp_path / "compiled" / part) for part in ("triton", "inductor")
        ]
    for name in names:
        monkeypatch.setenv(name, "/elsewhere")
    told = [worker_environment(SPEC, tmp_path / "jobs" / "0001", 1)]
    assert [told[0][name] for name in names] == ["/elsewhere"] * 2


def test_torchrun_waits_as_long_as_the_launcher_may(tmp_path: Path) -> None:
    command = worker_command(SPEC, tmp_path)
    assert command[-3:] == ["-m", "live.worker", str(tmp_path)]
    assert "--standalone" in command
    assert "--nproc-per-node=2" in command
    assert "--shutdown-timeout=21" in command
    left = TimeLeft(boot_id="b", warn_s=100.0, kill_s=400.0)
    late = worker_command(SPEC.model_copy(update={"time_left": left}), tmp_path)
    assert "--shutdown-timeout=301" in late
    plain = worker_command(SPEC.model_copy(update={"torchrun": False}), tmp_path)
    assert plain[1:] == ["-m", "live.worker", str(tmp_path)]


# The log.


def test_a_log_is_rotated_by_size(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "attempt-1.log"
    log = AttemptLog(path, 100)
    for number in range(20):
        log.write(b"%059d\n" % number)
    log.close()
    names = {each.name for each in path.parent.iterdir()}
    assert names == {path.name, *(f"{path.name}.{number}" for number in range(1, KEPT + 1))}
    kept = [path.with_name(f"{path.name}.{KEPT - at}") for at in range(KEPT)]
    lines = [int(file.read_text()) for file in [*kept, path]]
    assert lines == [15, 16, 17, 18, 19]


@pytest.mark.parametrize(
    ("chunks", "found"),
    [
        ([b"torch.OutOfMemoryError: CUDA out of ", b"memory. Tried"], True),
        ([b"DefaultCPUAllocator: can't alloc", b"ate memory"], True),
        ([b"loss 1.0\n", b"out of luck\n"], False),
    ],
)
def test_a_lack_of_memory_is_recognised_across_chunks(
    tmp_path: Path, chunks: list[bytes], found: bool
) -> None:
    log = AttemptLog(tmp_path / "logs" / "a.log", 10_000)
    for chunk in chunks:
        log.write(chunk)
    log.close()
    assert log.out_of_memory is found


# Processes.


def test_a_signal_reaches_no_other_process_of_the_same_number() -> None:
    me = os.getpid()
    ticks = start_ticks(me)
    assert ticks is not None
    assert send(me, ticks, 0)
    assert not send(me, ticks - 1, 9)
    assert not send(2**22 - 1, ticks, 9)


def test_only_cgroups_of_jobs_are_ever_touched() -> None:
    assert Cgroup.recorded("/sys/fs/cgroup/system.slice") is None
    assert Cgroup.recorded(None) is None
    known = Cgroup.recorded("/sys/fs/cgroup/four-slot-00000001-5")
    assert known is not None
    assert known.pids() == set()


def test_a_launcher_is_told_by_more_than_its_number(tmp_path: Path) -> None:
    told = LauncherRecord(pid=1, start_ticks=2, boot_id=boot_id(), launched_ms=3)
    write_record(tmp_path, "launcher.json", told)
    assert launcher_of(tmp_path) == told
