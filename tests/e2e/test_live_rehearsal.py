"""A rehearsal: the real daemon over HTTP in compressed time, and what the simulator says of it."""

import json
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from live.job_files import lock_held
from live.reaping import marked
from sim.cli import main as sim

ROOT = Path(__file__).parents[2]
SCENARIO = """
name: half a day
days: 0.5
warm_up_days: 0
seed: 4
arrivals: {kind: poisson, offers_per_hour: 8}
"""
EVENTS = [
    {"at_hours": 1, "do": "drain"},
    {"at_hours": 2, "do": "resume"},
    {"at_hours": 3, "do": "disk_full"},
    {"at_hours": 4, "do": "disk_free"},
    {"at_hours": 5, "do": "gpu_fails", "gpu": 3},
    {"at_hours": 7, "do": "gpu_repaired", "gpu": 3},
    {"at_hours": 8, "do": "policy", "cap": 2},
    {"at_hours": 9.5, "do": "policy", "preset": "throughput_24"},
]


@pytest.fixture(scope="module")
def offers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("offers")
    scenario = folder / "scenario.yaml"
    scenario.write_text(SCENARIO)
    path = folder / "offers.jsonl"
    assert sim(["generate", str(scenario), "--days", "0.5", "--out", str(path)]) == 0
    return path


def live(*arguments: object) -> subprocess.CompletedProcess[str]:
    call = [sys.executable, "-m", "live", *map(str, arguments)]
    return subprocess.run(call, capture_output=True, text=True, cwd=ROOT, check=False)


def test_a_rehearsal_with_everything_in_the_middle_agrees_with_the_simulator(
    tmp_path: Path, offers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # a busy machine asks late for a start, and no event explains a job that lapsed
    monkeypatch.setenv("FOUR_SLOT_POLICY__RESERVATION_TTL_MINUTES", "5000")
    ledger, events = tmp_path / "ledger.db", tmp_path / "events.jsonl"
    events.write_text("".join(json.dumps(event) + "\n" for event in EVENTS))
    done = live(
        "rehearse", offers, "--speed", "4000", "--worker", "stub", "--ledger", ledger,
        "--events", events, "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    assert told["verify"] == 0
    assert told["divergence"] is None
    assert told["offers"] == len(offers.read_text().splitlines())
    assert told["accepted"] + told["refused"] == told["offers"]
    assert told["started"] == told["completed"] + told["failed"] > 4
    assert told["lost"] == 0
    lines = _lines(ledger)
    kinds = {line["kind"] for line in lines}
    assert {"policy", "offer", "start", "ended", "gpu", "operator", "storage"} <= kinds
    gates = {line["decisions"][0]["gate"] for line in lines if line["kind"] == "offer"}
    assert {"accepted", "draining", "storage", "capacity"} <= gates
    assert sim(["verify", str(ledger)]) == 0


def test_a_changed_decision_in_its_ledger_is_found(
    tmp_path: Path, offers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # half an hour is 36 ms at this speed, less than a busy machine takes to ask for a start
    monkeypatch.setenv("FOUR_SLOT_POLICY__RESERVATION_TTL_MINUTES", "5000")
    few = tmp_path / "few.jsonl"
    few.write_text("".join(offers.read_text().splitlines(keepends=True)[:3]))
    ledger = tmp_path / "ledger.db"
    done = live("rehearse", few, "--speed", "50000", "--ledger", ledger, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    with sqlite3.connect(ledger) as connection:
        connection.execute(
            "UPDATE ledger SET line = replace(line, '\"slot\":0', '\"slot\":1') WHERE seq = 2"
        )
    connection.close()
    assert sim(["verify", str(ledger)]) == 1


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_rehearsal_leaves_no_job_behind(
    tmp_path: Path, sign: signal.Signals
) -> None:
    offer = {
        "task_id": "a", "received_at": "2026-01-01T00:00:00Z", "model": "org/model-7b",
        "task_type": "InstructTextTask", "hours_to_complete": 10, "train_hours": 9,
    }  # fmt: skip
    (tmp_path / "offers.jsonl").write_text(json.dumps(offer) + "\n")
    ledger = tmp_path / "ledger.db"
    call = [sys.executable, "-m", "live", "rehearse", str(tmp_path / "offers.jsonl")]
    call += ["--speed", "300", "--ledger", str(ledger)]
    process = subprocess.Popen(call, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    jobs = tmp_path / "ledger.db.run" / "jobs"
    end = time.monotonic() + 60
    while not (found := list(jobs.glob("*/heartbeat"))):
        assert time.monotonic() < end
        time.sleep(0.01)
    assert marked(found[0].parent)
    process.send_signal(sign)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said.splitlines()[-1]) == (130, "live: interrupted")
    assert marked(found[0].parent) == set()
    assert not lock_held(found[0].parent)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--speed", "0"], "--speed: found 0"),
        (["--ledger", "README.md"], "--ledger: README.md: exists"),
        (["--events", "README.md"], "README.md:1: no valid JSON"),
    ],
)
def test_a_wrong_call_is_one_line(
    arguments: list[str], says: str, offers: Path, tmp_path: Path
) -> None:
    call = ["rehearse", str(offers), "--ledger", str(tmp_path / "l.db"), *arguments]
    done = live(*call)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert says in done.stderr


def _lines(ledger: Path) -> list[dict[str, object]]:
    connection = sqlite3.connect(ledger)
    try:
        return [json.loads(line) for (line,) in connection.execute("SELECT line FROM ledger")]
    finally:
        connection.close()
