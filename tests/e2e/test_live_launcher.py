"""The launcher with real processes: whatever a worker does, its end is told and nothing is left."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from live import launcher as launching_process
from live.job_files import (
    EXIT,
    JOB,
    MARKER,
    RESULT,
    JobExit,
    JobSpec,
    TimeLeft,
    ask_to_stop,
    exit_of,
    launcher_of,
    lock_held,
    result_of,
    steady_s,
    write_record,
)
from live.reaping import boot_id, job_of, leftovers, lose_privilege_of_memory, marked, reap
from shared.presets import ACCURACY_4

PATIENCE_S = 30.0


def spec(**changes: object) -> JobSpec:
    fields: dict[str, object] = {
        "task_id": "a",
        "model": "m",
        "task_type": "InstructTextTask",
        "hours_to_complete": 1.0,
        "started_ms": 0,
        "deadline_ms": 3_600_000,
        "warn_ms": 3_300_000,
        "preset": "accuracy_4",
        "slot": 0,
        "gpus": (0, 1),
        "device": "cpu",
        "processes": 1,
        "memory_gb_per_gpu": 80.0,
        "profile": ACCURACY_4.profile,
        "worker_module": "live.worker_stub",
        "torchrun": False,
        "max_restarts": 1,
        "heartbeat_timeout_s": 10.0,
        "stop_grace_s": 0.5,
    }
    return JobSpec.model_validate(fields | changes)


def until(condition: Callable[[], object]) -> None:
    """Wait for what must come; a test that waits in vain fails."""
    end = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < end, "it has not come"
        time.sleep(0.01)


def running_in(folder: Path) -> set[int]:
    """Processes whose command line ends in the job's folder, launchers aside."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if os.fsencode(folder) in words and b"live.launcher" not in words:
                    found.add(int(entry.name))
    return found


def sessions(pids: set[int]) -> set[int]:
    """The sessions of these processes, those that end meanwhile left out."""
    found = set()
    for pid in pids:
        with suppress(ProcessLookupError):
            found.add(os.getsid(pid))
    return found


class Jobs:
    """Makes job folders, launches them, and leaves nothing behind."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.launchers: list[subprocess.Popen[bytes]] = []

    def make(self, behaviour: str, seconds: float = 0.2, **changes: object) -> Path:
        folder = self.root / f"{len(list(self.root.iterdir())):08d}"
        folder.mkdir()
        request = {"behaviour": behaviour, "stub_seconds": seconds}
        write_record(folder, JOB, spec(request=request, **changes))
        return folder

    def launch(self, folder: Path, **environment: str) -> "subprocess.Popen[bytes]":
        launcher = subprocess.Popen(
            [sys.executable, "-m", "live.launcher", str(folder)],
            stderr=subprocess.PIPE,
            env={**os.environ, **environment},
        )
        self.launchers.append(launcher)
        return launcher

    def run(self, folder: Path) -> JobExit:
        assert self.launch(folder).wait(PATIENCE_S) == 0
        end = exit_of(folder)
        assert end is not None
        return end

    def clear(self) -> None:
        for launcher in self.launchers:
            if launcher.poll() is None:
                launcher.kill()
            launcher.communicate()
        for folder in self.root.iterdir():
            record = launcher_of(folder)
            assert not reap(folder, record.cgroup if record else None, patience_s=10.0)
            for pid in running_in(folder):
                os.kill(pid, signal.SIGKILL)


@pytest.fixture
def jobs(tmp_path: Path) -> Iterator[Jobs]:
    made = Jobs(tmp_path)
    yield made
    made.clear()


ENDS: dict[str, tuple[dict[str, object], tuple[object, ...]]] = {
    "work": ({}, ("completed", "", 1, ())),
    "oom": ({}, ("failed", "out of memory, attempt 2", 2, ("oom", "oom"))),
    "crash": (
        {"max_restarts": 0},
        ("failed", "the worker ended without a result, attempt 1", 1, ("crash",)),
    ),
    "crash_once": ({}, ("completed", "", 2, ("crash",))),
    "hang": (
        {"heartbeat_timeout_s": 0.5, "max_restarts": 0},
        ("failed", "no heartbeat, attempt 1", 1, ("hang",)),
    ),
    "linger": ({}, ("completed", "", 1, ())),
}


def test_every_end_is_told_by_the_job_s_files(jobs: Jobs) -> None:
    folders = {name: jobs.make(name, **changes) for name, (changes, _) in ENDS.items()}
    launchers = {name: jobs.launch(folder) for name, folder in folders.items()}
    for name, launcher in launchers.items():
        assert launcher.wait(PATIENCE_S) == 0, name
    found = {name: exit_of(folder) for name, folder in folders.items()}
    told = {
        name: (end.outcome, end.reason, end.attempts, end.faults)
        for name, end in found.items()
        if end is not None
    }
    assert told == {name: end for name, (_, end) in ENDS.items()}
    assert not any(running_in(folder) or marked(folder) for folder in folders.values())
    result = result_of(folders["work"])
    assert result is not None
    assert result.submission == str(folders["work"] / "output")
    assert "out of memory" in (folders["oom"] / "logs" / "attempt-2.log").read_text()


@pytest.mark.parametrize("cgroup", [True, False])
def test_orphans_in_sessions_of_their_own_do_not_outlive_the_job(jobs: Jobs, cgroup: bool) -> None:
    folder = jobs.make("orphans", 3600.0, cgroup=cgroup)
    launcher = jobs.launch(folder)
    until(lambda: (folder / "heartbeat").exists() and len(sessions(running_in(folder))) == 3)
    assert any(job_of(pid) is None for pid in running_in(folder))  # one threw the marker away
    ask_to_stop(folder, "operator")
    assert launcher.wait(PATIENCE_S) == 0
    assert running_in(folder) == set()
    record = launcher_of(folder)
    assert record is not None
    assert record.cgroup is None or not Path(record.cgroup).exists()


def test_a_killed_launcher_takes_its_worker_along_and_its_orphans_are_found(jobs: Jobs) -> None:
    folder = jobs.make("orphans_too", cgroup=False)
    launcher = jobs.launch(folder)
    until(lambda: (folder / "heartbeat").exists() and len(sessions(marked(folder))) == 2)
    launcher.kill()
    launcher.wait()
    assert not lock_held(folder)
    until(lambda: len(marked(folder)) == 1)  # the kernel has killed the worker
    assert leftovers(folder, None) == marked(folder)
    assert reap(folder, None, patience_s=10.0) == set()
    assert running_in(folder) == set()
    assert exit_of(folder) is None


def test_a_second_launcher_goes_on_counting_where_a_killed_one_stopped(jobs: Jobs) -> None:
    folder = jobs.make("orphans_too", max_restarts=0)
    launcher = jobs.launch(folder)
    until(lambda: (folder / "heartbeat").exists() and len(sessions(marked(folder))) == 2)
    launcher.kill()
    launcher.wait()
    end = jobs.run(folder)
    assert (end.outcome, end.attempts, end.faults) == ("failed", 1, ("crash",))
    assert running_in(folder) == set()


def test_launched_many_times_at_once_only_one_runs(jobs: Jobs) -> None:
    folder = jobs.make("work", 3.0)
    codes = sorted(each.wait(PATIENCE_S) for each in [jobs.launch(folder) for _ in range(4)])
    assert codes == [0, 3, 3, 3]
    end = exit_of(folder)
    assert end is not None
    assert end.attempts == 1


def test_temporary_files_are_the_job_s_own_and_go_with_it(jobs: Jobs) -> None:
    folder = jobs.make("work", 3600.0)
    launcher = jobs.launch(folder)
    until(lambda: (folder / "heartbeat").exists())
    (folder / "tmp" / "of an attempt").mkdir()
    launcher.kill()
    launcher.wait()
    assert (folder / "tmp" / "of an attempt").exists()
    launcher = jobs.launch(folder)
    until(lambda: (folder / "tmp").exists() and not any((folder / "tmp").iterdir()))
    (folder / "tmp" / "file").touch()
    ask_to_stop(folder, "operator")
    assert launcher.wait(PATIENCE_S) == 0
    assert not (folder / "tmp").exists()


@pytest.mark.parametrize(("score", "left"), [("-500", "0"), ("200", "200"), ("none", "none")])
def test_what_spares_the_daemon_for_memory_spares_no_job(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, score: str, left: str
) -> None:
    path = tmp_path / "oom_score_adj"
    path.write_text(score)
    lose_privilege_of_memory(path)
    assert path.read_text() == left
    called: list[bool] = []
    monkeypatch.setattr(launching_process, "lose_privilege_of_memory", lambda: called.append(True))
    monkeypatch.setattr(launching_process, "launch", lambda _: 0 if called else 1)
    monkeypatch.setattr("os.setsid", lambda: None)
    monkeypatch.setattr("os.umask", lambda _: 0)
    assert launching_process.main([str(tmp_path)]) == 0


def test_a_job_that_has_ended_is_never_run_again(jobs: Jobs) -> None:
    folder = jobs.make("work")
    jobs.run(folder)
    before = (folder / EXIT).read_bytes(), (folder / RESULT).read_bytes()
    assert jobs.launch(folder).wait(PATIENCE_S) == 4
    assert ((folder / EXIT).read_bytes(), (folder / RESULT).read_bytes()) == before


@pytest.mark.parametrize(
    ("behaviour", "reason", "outcome"),
    [
        ("work", "operator", "completed"),
        ("work", "cancelled: by the market", "cancelled"),
        ("ignore_sigterm", "cancelled: by the market", "cancelled"),
        ("ignore_sigterm", "operator", "failed"),
    ],
)
def test_a_stop_delivers_or_kills(jobs: Jobs, behaviour: str, reason: str, outcome: str) -> None:
    folder = jobs.make(behaviour, 3600.0)
    launcher = jobs.launch(folder)
    until((folder / "heartbeat").exists)
    ask_to_stop(folder, reason)
    launcher.terminate()
    assert launcher.wait(PATIENCE_S) == 0
    end = exit_of(folder)
    assert end is not None
    assert end.outcome == outcome
    assert running_in(folder) == set()


def test_sigterm_alone_interrupts_and_the_job_is_taken_up_again(jobs: Jobs) -> None:
    folder = jobs.make("work", 3600.0, max_restarts=0)
    launcher = jobs.launch(folder)
    until((folder / "heartbeat").exists)
    launcher.terminate()
    assert launcher.wait(PATIENCE_S) == 5
    assert (exit_of(folder), result_of(folder), running_in(folder)) == (None, None, set())
    request = {"behaviour": "work", "stub_seconds": 0.1}
    write_record(folder, JOB, spec(request=request, max_restarts=0))
    end = jobs.run(folder)
    assert (end.outcome, end.attempts, end.faults) == ("completed", 2, ("stopped",))


@pytest.mark.parametrize(
    ("behaviour", "outcome", "reason"),
    [("work", "completed", ""), ("ignore_sigterm", "failed", "deadline")],
)
def test_the_deadline_holds_without_a_daemon(
    jobs: Jobs, behaviour: str, outcome: str, reason: str
) -> None:
    now_s = steady_s()
    left = TimeLeft(boot_id=boot_id(), warn_s=now_s + 1.0, kill_s=now_s + 2.0)
    end = jobs.run(jobs.make(behaviour, 3600.0, time_left=left, stop_grace_s=3600.0))
    assert end.outcome == outcome
    assert reason in end.reason


def test_no_grace_outlasts_the_deadline(jobs: Jobs) -> None:
    left = TimeLeft(boot_id=boot_id(), kill_s=steady_s() + 1.0)
    folder = jobs.make("ignore_sigterm", time_left=left, stop_grace_s=3600.0)
    ask_to_stop(folder, "operator")
    assert jobs.run(folder).faults == ()  # asked before it began: nothing is started
    late = jobs.make("ignore_sigterm", time_left=left, stop_grace_s=3600.0)
    end = jobs.run(late)
    assert (end.outcome, end.faults) == ("failed", ("deadline",))


def test_sigusr2_kills_at_once(jobs: Jobs) -> None:
    folder = jobs.make("ignore_sigterm", stop_grace_s=3600.0)
    launcher = jobs.launch(folder)
    until((folder / "heartbeat").exists)
    launcher.send_signal(signal.SIGUSR2)
    assert launcher.wait(PATIENCE_S) == 0
    end = exit_of(folder)
    assert end is not None
    assert end.outcome == "failed"
    assert running_in(folder) == set()


def test_a_worker_sees_nothing_of_the_daemon_s_environment(jobs: Jobs) -> None:
    folder = jobs.make("work", 3600.0)
    jobs.launch(folder, HF_TOKEN="secret-1", https_proxy="secret-2")
    until(lambda: (folder / "heartbeat").exists() and marked(folder))
    seen = b"".join((Path("/proc") / str(pid) / "environ").read_bytes() for pid in marked(folder))
    assert b"secret" not in seen
    assert f"{MARKER}={folder}".encode() in seen
    assert f"TMPDIR={folder}/tmp\0".encode() in seen
    assert b"CUDA_VISIBLE_DEVICES=\0" in seen


@pytest.mark.parametrize("text", [None, '{"task_id": 5}', "{"])
def test_a_folder_that_is_no_job_is_one_clear_line(jobs: Jobs, text: str | None) -> None:
    folder = jobs.root / "00000000"
    folder.mkdir()
    if text is not None:
        (folder / JOB).write_text(text)
    launcher = jobs.launch(folder)
    _, said = launcher.communicate(timeout=PATIENCE_S)
    assert launcher.returncode == 2
    assert said.decode().count("\n") == 1
    assert str(folder / JOB) in said.decode()
