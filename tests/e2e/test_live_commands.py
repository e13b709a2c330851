"""Each command as a process: exit codes, one-line errors, the daemon's start and its ends."""

import json
import os
import re
import select
import signal
import socket
import stat
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from uuid import UUID

import httpx
import pytest

from live.admin import ask
from live.job_files import launcher_of
from live.reaping import reap, send
from shared.errors import InputError

PATIENCE_S = 60.0
TASK = str(UUID(int=7))
HEAVY = ("torch", "transformers", "pandas", "numpy", "datasets", "fastapi", "matplotlib")
OFFER = {
    "task_id": TASK,
    "model": "org/model-7b",
    "task_type": "InstructTextTask",
    "hours_to_complete": 8,
    "ds_size": 1000,
    "model_params_count": None,
}
START = {
    "expected_repo_name": "repo-1",
    "dataset": "https://data.example/train.json",
    "dataset_type": {"field_instruction": "q", "field_output": "a"},
    "file_format": "s3",
}


def environment(**more):
    known = {key: value for key, value in os.environ.items() if not key.startswith("FOUR_SLOT_")}
    return {**known, **{f"FOUR_SLOT_{key}": value for key, value in more.items()}}


def live(folder, *arguments, **more):
    """One command, to its end."""
    call = [sys.executable, "-m", "live", *map(str, arguments)]
    return subprocess.run(
        call,
        cwd=folder,
        env=environment(**more),
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


def wait_for(condition, what):
    end = time.monotonic() + PATIENCE_S
    while not (found := condition()):
        assert time.monotonic() < end, f"in vain: {what}"
        time.sleep(0.01)
    return found


class Running:
    """The daemon as a process; its log is kept as lines of JSON."""

    def __init__(self, folder, **more):
        self.folder, self.log = folder, []
        more = {"HTTP__PORT": "0", "HTTP__METRICS_PORT": "0", "DEVICE": "cpu", **more}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "live"],
            cwd=folder,
            env=environment(JOBS__WORKER="stub", **more),
            stderr=subprocess.PIPE,
            bufsize=0,  # a line in a buffer of ours is none that select sees
        )

    def until(self, words):
        """Read the log up to a line with these words; that line."""
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            ready, _, _ = select.select([self.process.stderr], [], [], 1.0)
            line = self.process.stderr.readline() if ready else None
            if line == b"":
                break
            if line:
                self.log.append(line.decode())
                if words in self.log[-1]:
                    return self.log[-1]
        raise AssertionError(f"{words!r} is not in {self.log}")

    def ask(self, what="status", **more):
        return ask(self.folder / "live-data", {"ask": what, **more})

    def stop(self, sign=signal.SIGTERM):
        """Tell it to stop; its exit code, with the rest of its log read."""
        if self.process.poll() is None:
            self.process.send_signal(sign)
        _, rest = self.process.communicate(timeout=PATIENCE_S)
        self.log += rest.decode().splitlines()
        return self.process.returncode

    def said(self, words):
        return any(words in line for line in self.log)


@pytest.fixture
def started(tmp_path):
    """Makes daemons; what they leave behind is ended, jobs too."""
    made = []

    def start(**more):
        made.append(Running(tmp_path, **more))
        made[-1].until("ready: ")
        return made[-1]

    yield start
    for each in made:
        if each.process.poll() is None:
            each.process.kill()
        each.process.communicate()
    for job in (tmp_path / "live-data" / "jobs").glob("*"):
        if (record := launcher_of(job)) is not None:  # first, or it starts another worker
            send(record.pid, record.start_ticks, signal.SIGKILL)
        assert reap(job, None, patience_s=10) == set()


def offered(folder, seconds):
    """Have a job run for so long, by the spool folder."""
    spool = folder / "live-data" / "spool"
    beside = spool / ".job.part"
    beside.write_text(json.dumps({**OFFER, "start": {**START, "stub_seconds": seconds}}))
    beside.rename(spool / "job.json")
    answer = wait_for((spool / "done" / "job.json").exists, "an answer")
    assert answer
    told = json.loads((spool / "done" / "job.json").read_text())
    assert told["offer"]["task_id"] == TASK
    assert told["start"] == {"message": "Training started", "accepted": True}


def beats(folder):
    return list((folder / "live-data" / "jobs").glob("*/heartbeat"))


def launcher_in(folder):
    """Where the kernel shows the launcher of the one job, as long as it lives."""
    record = json.loads(next((folder / "live-data" / "jobs").glob("*/launcher.json")).read_text())
    return Path("/proc", str(record["pid"]))


# Calls.


@pytest.mark.parametrize(
    "command",
    ["", "status", "drain", "resume", "cancel", "doctor", "plan", "rehearse", "export", "backup"],
)
def test_help_imports_nothing_heavy(tmp_path, command):
    code = (
        "import sys\nfrom live.cli import main\n"
        "try:\n    main(sys.argv[1:])\nexcept SystemExit as end:\n    assert end.code == 0\n"
        f"found = [each for each in {HEAVY!r} if each in sys.modules]\n"
        "sys.exit(f'imported {found}' if found else 0)"
    )
    call = [sys.executable, "-c", code, *command.split(), "--help"]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "usage:" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["bogus"], "invalid choice: 'bogus'"),
        (["--nope"], "unrecognized arguments: --nope"),
        (["--config", "none.toml"], "none.toml: cannot be read: no such file or directory"),
        (["status"], "no daemon answers there"),
        (["drain"], "no daemon answers there"),
        (["resume"], "no daemon answers there"),
        (["cancel", TASK], "no daemon answers there"),
        (["doctor", "--config", "none.toml"], "none.toml: cannot be read"),
        (["plan", "--model", "x", "--preset", "none"], "preset: found 'none'"),
        (
            ["plan", "--model", "/none/config.json", "--preset", "accuracy_4"],
            "cannot be read: no such",
        ),
        (
            ["plan", "--model", "none/config.json", "--preset", "accuracy_4"],
            "cannot be read: no such",
        ),
        (["plan", "--model", "gpt2", "--preset", "accuracy_4", "--max-length", "0"], "found 0"),
        (["rehearse", "none.jsonl", "--ledger", "a.db"], "none.jsonl: cannot be read"),
        (["rehearse", "none.jsonl", "--ledger", "a.db", "--speed", "0"], "--speed: found 0"),
        (["export", "none.db", "--out", "a"], "none.db: cannot be read: no such file"),
        (["export-offers", "none.db", "--out", "a.csv"], "allowed is .jsonl"),
        (["backup", "none.db", "--out", "a"], "none.db: cannot be read: no such file"),
    ],
)
def test_a_wrong_call_is_one_line_and_2(tmp_path, arguments, said):
    done = live(tmp_path, *arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["status", "drain", "doctor"])
def test_a_configuration_counts_before_a_command_and_after_it(tmp_path, command):
    for arguments in (["--config", "none.toml", command], [command, "--config", "none.toml"]):
        done = live(tmp_path, *arguments)
        assert (done.returncode, done.stdout) == (2, "")
        assert "none.toml: cannot be read" in done.stderr


def test_the_doctor_finds_no_fault_on_a_bare_machine_and_one_in_a_file(tmp_path):
    good = live(tmp_path, "doctor", "--json", HTTP__PORT="0", HTTP__METRICS_PORT="0", DEVICE="cpu")
    assert (good.returncode, good.stderr) == (0, "")
    assert json.loads(good.stdout)["ok"]
    assert list(tmp_path.iterdir()) == []
    bad = live(tmp_path, "doctor", HTTP__PORT="0", POLICY__BOX="none.yaml", DEVICE="cpu")
    assert bad.returncode == 1
    assert re.search(r"(?m)^fault +policy: none.yaml: .* -> ", bad.stdout)


def test_a_plan_that_fits_and_one_that_does_not(tmp_path):
    call = ["plan", "--model", "meta-llama/Llama-3.1-8B", "--preset", "accuracy_4", "--json"]
    told = json.loads(live(tmp_path, *call).stdout)
    assert told["fits"]
    assert told["plan"]["parallel"] in ("ddp", "fsdp2")
    assert told["assumed"] is None


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ("me/mine-13b", "a Llama of 13 billion parameters, by the number in its name"),
        ("me/mine", "a Llama of 7 billion parameters, since nothing tells"),
    ],
)
def test_a_plan_says_what_it_assumed(tmp_path, model, said):
    done = live(tmp_path, "plan", "--model", model, "--preset", "accuracy_4", "--json")
    assert done.returncode == 0
    assert said in done.stderr
    assert done.stderr.count("\n") == 1
    assert said in json.loads(done.stdout)["assumed"]


# The daemon.


def test_a_bare_start_serves_as_promised(tmp_path):
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(("127.0.0.1", 7999))
        except OSError:
            pytest.skip("port 7999 is taken on this machine")
    call = [sys.executable, "-m", "live"]
    process = subprocess.Popen(
        call, cwd=tmp_path, env=environment(HTTP__METRICS_PORT="0"), stderr=subprocess.PIPE
    )
    try:
        data = tmp_path / "live-data"
        wait_for((data / "admin.sock").exists, "the socket")
        wait_for(lambda: suppressed(lambda: ask(data, {"ask": "status"})["http"]), "the port")
        answer = httpx.post("http://127.0.0.1:7999/task_offer", json=OFFER)
        assert (answer.status_code, answer.json()["accepted"]) == (200, True)
        told = ask(data, {"ask": "status"})
        assert (told["preset"], told["cap"], told["slots_in_use"]) == ("accuracy_4", 4, 1)
        assert stat.S_IMODE((data / "admin.sock").stat().st_mode) == 0o600
        assert stat.S_IMODE(data.stat().st_mode) == 0o700
    finally:
        process.send_signal(signal.SIGINT)
        _, log = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0
    assert b"stopping: no job is running" in log
    assert not (data / "admin.sock").exists()


def suppressed(question):
    with suppress(InputError):
        return question()
    return None


def test_status_doctor_and_a_second_daemon_beside_a_running_one(tmp_path, started):
    started()
    told = live(tmp_path, "status", "--json")
    assert told.returncode == 0
    assert {"slots", "gpus", "draining", "http"} <= set(json.loads(told.stdout))
    assert "accuracy_4: 0/4 slots in use, accepting" in live(tmp_path, "status").stdout
    doctor = live(tmp_path, "doctor", "--json", HTTP__PORT="0", HTTP__METRICS_PORT="0")
    lines = {line["check"]: line for line in json.loads(doctor.stdout)["checks"]}
    assert doctor.returncode == 0
    assert lines["daemon"]["level"] == lines["ledger"]["level"] == "ok"
    second = live(tmp_path, HTTP__PORT="0")
    assert second.returncode == 2
    assert second.stderr.count("\n") == 1
    assert "found another daemon on it" in second.stderr
    assert live(tmp_path, "status").returncode == 0


@pytest.mark.parametrize("key", ["HTTP__PORT", "HTTP__METRICS_PORT"])
def test_a_taken_port_is_2_and_names_it(tmp_path, key):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        done = live(tmp_path, **{"HTTP__PORT": "0", "HTTP__METRICS_PORT": "0", key: port})
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("live: ")
    assert port in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "live-data" / "admin.sock").exists()


def test_drain_and_resume_hold_through_a_restart(tmp_path, started):
    daemon = started()
    done = live(tmp_path, "drain")
    assert (done.returncode, done.stdout.startswith("draining")) == (0, True)
    assert daemon.stop() == 0
    again = started()
    assert again.ask()["draining"]
    answer = httpx.post(f"http://{again.ask()['http']}/task_offer", json=OFFER).json()
    assert (answer["accepted"], "draining" in answer["message"]) == (False, True)
    assert "accepting" in live(tmp_path, "resume").stdout
    assert again.stop(signal.SIGKILL) == -signal.SIGKILL
    assert not started().ask()["draining"]


def test_what_is_taken_out_of_a_ledger_beside_its_daemon(tmp_path, started):
    daemon = started()
    httpx.post(f"http://{daemon.ask()['http']}/task_offer", json=OFFER)
    ledger = tmp_path / "live-data" / "ledger.db"
    assert live(tmp_path, "backup", ledger, "--out", "copy.db").returncode == 0
    assert live(tmp_path, "export", "copy.db", "--out", "a.jsonl").stdout == "a.jsonl: 2 entries\n"
    assert live(tmp_path, "export", ledger, "--out", "b.jsonl").returncode == 0
    assert (tmp_path / "a.jsonl").read_bytes() == (tmp_path / "b.jsonl").read_bytes()
    assert live(tmp_path, "export-offers", ledger, "--out", "o.jsonl").returncode == 0
    assert json.loads((tmp_path / "o.jsonl").read_text())["task_id"] == TASK
    same = live(tmp_path, "backup", ledger, "--out", ledger)
    assert (same.returncode, same.stderr.count("\n")) == (2, 1)


def test_stopping_hands_jobs_over_and_the_next_start_finds_them(tmp_path, started):
    daemon = started()
    offered(tmp_path, 600)
    wait_for(lambda: beats(tmp_path), "a sign of life")
    launcher = launcher_in(tmp_path)
    assert daemon.stop() == 0
    assert daemon.said("stopping: 1 jobs go on alone, the next start finds them again")
    assert launcher.exists()
    again = started()
    assert launcher_in(tmp_path) == launcher
    assert any("1 jobs found again" in line for line in again.log)
    held = [slot for slot in again.ask()["slots"] if "task_id" in slot]
    assert [slot["task_id"] for slot in held] == [TASK]
    cancelled = live(tmp_path, "cancel", TASK)
    assert (cancelled.returncode, TASK in cancelled.stdout) == (0, True)
    wait_for(lambda: again.ask()["slots_in_use"] == 0, "a free slot")
    nobody = live(tmp_path, "cancel", TASK)
    assert (nobody.returncode, nobody.stderr.count("\n")) == (2, 1)


def test_stopping_waits_for_jobs_where_it_is_told_to(tmp_path, started):
    daemon = started(JOBS__ON_STOP="finish")
    offered(tmp_path, 1)
    assert daemon.stop() == 0
    assert daemon.said("stopping: waiting for 1 jobs; once more to leave them running")
    again = started()
    assert (again.ask()["slots_in_use"], again.ask()["draining"]) == (0, False)


def test_a_kill_while_it_waits_for_jobs_leaves_no_drain(tmp_path, started):
    daemon = started(JOBS__ON_STOP="finish")
    offered(tmp_path, 600)
    wait_for(lambda: beats(tmp_path), "a sign of life")
    daemon.process.send_signal(signal.SIGTERM)
    daemon.until("waiting for 1 jobs")
    wait_for(lambda: daemon.ask()["draining"], "the drain")
    assert daemon.stop(signal.SIGKILL) == -signal.SIGKILL
    assert not started().ask()["draining"]


def test_a_second_signal_leaves_the_jobs_running(tmp_path, started):
    daemon = started(JOBS__ON_STOP="finish")
    offered(tmp_path, 600)
    wait_for(lambda: beats(tmp_path), "a sign of life")
    daemon.process.send_signal(signal.SIGTERM)
    daemon.until("waiting for 1 jobs")
    assert daemon.stop(signal.SIGINT) == 0
    again = started()
    assert (again.ask()["slots_in_use"], again.ask()["draining"]) == (1, False)


def test_stopping_interrupts_jobs_where_it_is_told_to(tmp_path, started):
    daemon = started(JOBS__ON_STOP="interrupt", JOBS__STOP_GRACE_S="5")
    offered(tmp_path, 600)
    wait_for(lambda: beats(tmp_path), "a sign of life")
    launcher = launcher_in(tmp_path)
    assert daemon.stop() == 0
    assert daemon.said("stopping: 1 jobs save and leave, the next start takes them up")
    wait_for(lambda: not launcher.exists(), "the end of the launcher")
    again = started()
    assert again.ask()["slots_in_use"] == 1
    wait_for(lambda: launcher_in(tmp_path) != launcher, "another launcher")


def test_a_broken_reader_of_the_output_is_no_traceback(tmp_path):
    call = f"{sys.executable} -m live doctor | head -c 1"
    done = subprocess.run(
        ["bash", "-c", call],
        cwd=tmp_path,
        env=environment(DEVICE="cpu", HTTP__PORT="0"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr
