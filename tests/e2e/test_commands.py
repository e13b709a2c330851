"""The commands as a person calls them: a process each, its output, its exit code."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sim.cli import main

ROOT = Path(__file__).parents[2]
YEAR = "name: long\ndays: 3000\nreplications: 400\n"
SMALL = """
name: small
days: 3
warm_up_days: 0.5
replications: 3
arrivals: {kind: poisson, offers_per_hour: 4}
"""


def sim(*arguments: object, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    call = [sys.executable, "-m", "sim", *map(str, arguments)]
    return subprocess.run(call, capture_output=True, text=True, cwd=cwd, check=False)


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    path = tmp_path / "small.yaml"
    path.write_text(SMALL)
    return path


@pytest.fixture
def offers(tmp_path: Path, scenario: Path) -> Path:
    path = tmp_path / "offers.jsonl"
    assert main(["generate", str(scenario), "--days", "3", "--out", str(path)]) == 0
    return path


@pytest.fixture
def out(capsys: pytest.CaptureFixture[str]) -> pytest.CaptureFixture[str]:
    capsys.readouterr()
    return capsys


def test_generate_replay_verify_as_the_readme_has_it(tmp_path: Path, offers: Path) -> None:
    decisions, ledger = tmp_path / "d.jsonl", tmp_path / "run.db"
    done = sim(
        "replay", offers, "--preset", "accuracy_4", "--out", decisions, "--ledger", ledger, "--json"
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    lines = [json.loads(line) for line in decisions.read_text().splitlines()]
    assert summary["offers"] == len(lines) == len(offers.read_text().splitlines())
    assert summary["accepted"] == sum(line["accepted"] for line in lines)
    assert set(summary["gates"]) == {
        "accepted", "draining", "storage", "capacity", "time", "unsupported", "priority",
    }  # fmt: skip
    assert sum(summary["gates"].values()) == len(lines)
    fields = {"at_ms", "task_id", "accepted", "gate", "reason", "priority", "slot"}
    assert all(fields <= set(line) for line in lines)
    assert {line["slot"] for line in lines if line["accepted"]} <= {0, 1, 2, 3}
    verified = sim("verify", ledger, "--json")
    assert verified.returncode == 0
    found = json.loads(verified.stdout)
    assert (found["agrees"], found["offers"]) == (True, len(lines))


def test_the_ledger_s_offer_decisions_are_the_lines_of_out(tmp_path: Path, offers: Path) -> None:
    decisions, ledger = tmp_path / "d.jsonl", tmp_path / "run.jsonl"
    arguments = ["--preset", "universal_24", "--cap", "2", "--out", str(decisions)]
    assert main(["replay", str(offers), *arguments, "--ledger", str(ledger)]) == 0
    entries = [json.loads(line) for line in ledger.read_text().splitlines()]
    answered = [entry["decisions"][0] for entry in entries if entry["kind"] == "offer"]
    assert answered == [json.loads(line) for line in decisions.read_text().splitlines()]
    assert entries[0]["kind"] == "policy"
    assert {"seq", "at_ms", "kind", "input", "decisions"} == set(entries[0])


def test_a_changed_decision_is_found_with_exit_code_1(
    tmp_path: Path, offers: Path, out: pytest.CaptureFixture[str]
) -> None:
    ledger = tmp_path / "run.jsonl"
    call = ["replay", str(offers), "--preset", "accuracy_4", "--ledger", str(ledger)]
    assert main(call) == 0
    text = ledger.read_text()
    ledger.write_text(text.replace('"slot":1', '"slot":2', 1))
    out.readouterr()
    assert main(["verify", str(ledger)]) == 1
    said = out.readouterr().out
    assert "slot" in said
    assert "ledger has 2, replay gives 1" in said
    ledger.write_text(text[: len(text) // 2])
    assert main(["verify", str(ledger)]) == 2


def test_cap_and_threshold_change_their_numbers_alone(
    tmp_path: Path, offers: Path, out: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "d.jsonl"
    call = ["replay", str(offers), "--preset", "accuracy_4", "--cap", "1", "--out", str(path)]
    assert main(call) == 0
    reasons = {json.loads(line)["reason"] for line in path.read_text().splitlines()}
    assert "At accuracy-optimized capacity (1 jobs)" in reasons
    assert main([*call, "--threshold", "0.97", "--json"]) == 0
    summary = json.loads(out.readouterr().out.splitlines()[-1])
    assert summary["gates"]["priority"] > 0


def test_utilisation_is_busy_time_over_the_span(tmp_path: Path) -> None:
    lines = [
        {"received_at": 0, "task_id": "a", "model": "m", "task_type": "DpoTask",
         "hours_to_complete": 4, "train_hours": 2},
        {"received_at": "1970-01-01T02:00:00+01:00", "task_id": "b", "model": "m",
         "task_type": "DpoTask", "hours_to_complete": 4},
    ]  # fmt: skip
    path = tmp_path / "o.jsonl"
    path.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    done = sim("replay", path, "--preset", "maximum_2", "--json")
    summary = json.loads(done.stdout)
    assert (summary["offers"], summary["accepted"]) == (2, 2)
    assert summary["slot_hours_busy"] == 6.0
    assert summary["utilisation"] == pytest.approx(6 / (2 * 5))


def test_a_box_declaration_refuses_what_it_does_not_list(tmp_path: Path, offers: Path) -> None:
    box = tmp_path / "box.yaml"
    box.write_text("task_types: [DpoTask]\n")
    done = sim("replay", offers, "--preset", "accuracy_4", "--box", box, "--json")
    assert json.loads(done.stdout)["gates"]["unsupported"] > 0


def test_compare_writes_its_folder_and_the_document(tmp_path: Path, scenario: Path) -> None:
    folder = tmp_path / "results"
    done = sim("compare", scenario, "--out", folder, "--json", "--seed", "5")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document == json.loads((folder / "summary.json").read_text())
    assert document["seed"] == 5
    assert document["replications"] == 3
    assert set(document["presets"]) == {"accuracy_4", "throughput_24"}
    for measures in document["presets"].values():
        for value in measures.values():
            assert value["lo"] <= value["mean"] <= value["hi"]
    names = {path.name for path in folder.iterdir()}
    assert {"summary.json", "replications.csv", "decisions.parquet", "report.html"} <= names
    assert not [name for name in names if name.startswith(".")]
    again = sim("compare", scenario, "--processes", "1", "--json", "--seed", "5")
    assert json.loads(again.stdout) == document


def test_compare_of_recorded_offers(scenario: Path, offers: Path) -> None:
    done = sim("compare", scenario, "--offers", offers, "--json", "--replications", "2")
    assert done.returncode == 0, done.stderr
    warnings = json.loads(done.stdout)["warnings"]
    assert any("one recorded stream" in warning for warning in warnings)
    wrong = sim("compare", scenario, "--offers", offers, "--days", "2")
    assert (wrong.returncode, wrong.stdout) == (2, "")


def test_compare_stops_at_the_precision_asked_for(scenario: Path) -> None:
    scenario.write_text(SMALL + "market: {quality_model: claims}\n")
    call = ("compare", scenario, "--json")
    done = json.loads(sim(*call, "--precision", "0.2", "--replications", "60").stdout)
    assert 10 <= done["replications"] < 60 == done["replications_asked"]
    gap = next(
        row for row in done["paired"] if row["metric"] == "revenue_per_day"
    )  # the difference that was watched
    assert (gap["hi"] - gap["lo"]) / 2 <= 0.2 * abs(gap["mean"])
    assert "20% reached" in done["stopped"]
    fixed = json.loads(sim(*call, "--replications", str(done["replications"])).stdout)
    assert fixed["presets"] == done["presets"]
    assert fixed["stopped"] == ""
    few = json.loads(sim(*call, "--precision", "0.0001", "--replications", "3").stdout)
    assert few["replications"] == 3
    assert "not reached" in few["stopped"]


def test_compare_takes_a_calibration_file(tmp_path: Path, scenario: Path) -> None:
    missing = sim("compare", scenario, "--calibration", tmp_path / "none.json")
    assert missing.returncode == 2
    assert "none.json: cannot be read" in missing.stderr


BAD_SCENARIOS = {
    "arrivals: {kind: network, mix: {instruct: 0.5}}": "arrivals.mix: the shares",
    "market: {rules: {windows: [{days: 1, weight: 0.5}]}}": "market: rules.windows: found weights",
    "market: {field: {miners: 0}}": "market.field.miners: found 0",
    "market: {field: nobody}": "market.field: found 'nobody'",
    "market: {quality_model: magic}": "market.quality_model: found 'magic'",
    "market: {quality_model: calibrated}": "market: calibration: found nothing",
    "market: {rule_set: none}": "market.rule_set: found 'none'",
    "precision: 2": "precision: found 2",
}


@pytest.mark.parametrize("part", BAD_SCENARIOS)
def test_a_bad_scenario_is_told_by_its_key(
    part: str, tmp_path: Path, out: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(f"name: bad\ndays: 2\n{part}\n")
    assert main(["compare", str(path)]) == 2
    said = out.readouterr()
    assert said.out == ""
    assert said.err.startswith(f"sim: {path}: {BAD_SCENARIOS[part]}")
    assert len(said.err.splitlines()) == 1


def test_no_progress_bar_in_a_pipe(scenario: Path) -> None:
    done = sim("compare", scenario)
    assert done.stderr == ""
    assert "mean [95% interval]" in done.stdout


WRONG_CALLS = [
    [],
    ["compare"],
    ["compare", "none.yaml"],
    ["compare", "scenarios/philly.yaml"],
    ["compare", "scenarios/four_vs_24.yaml", "--replications", "0"],
    ["compare", "scenarios/four_vs_24.yaml", "--replications", "two"],
    ["compare", "scenarios/four_vs_24.yaml", "--days", "nan"],
    ["compare", "scenarios/four_vs_24.yaml", "--seed", "-1"],
    ["compare", "scenarios/four_vs_24.yaml", "--offers", "none.jsonl"],
    ["compare", "scenarios/four_vs_24.yaml", "--precision", "1"],
    ["compare", "scenarios/four_vs_24.yaml", "--precision", "tight"],
    ["compare", "scenarios/four_vs_24.yaml", "--out", "README.md/x"],
    ["replay", "none.jsonl", "--preset", "accuracy_4"],
    ["replay", "README.md", "--preset", "accuracy_4"],
    ["replay", "none.jsonl", "--preset", "accuracy_5"],
    ["replay", "none.jsonl", "--preset", "accuracy_4", "--cap", "25"],
    ["replay", "none.jsonl", "--preset", "accuracy_4", "--threshold", "1.5"],
    ["replay", "none.jsonl"],
    ["generate", "scenarios/philly.yaml", "--days", "3", "--out", "/tmp/x.jsonl"],
    ["generate", "scenarios/quiet.yaml", "--days", "3", "--out", "no/such/folder/x.jsonl"],
    ["generate", "scenarios/quiet.yaml", "--days", "3", "--out", "x.xlsx"],
    ["import-trace", "alibaba", "x", "--out", "y"],
    ["import-trace", "philly", "README.md", "--out", "y.jsonl"],
    ["verify", "none.db"],
    ["verify", "README.md"],
    ["score", "README.md"],
    ["frobnicate"],
]


@pytest.mark.parametrize("call", WRONG_CALLS, ids=" ".join)
def test_a_wrong_call_is_one_line_and_exit_code_2(
    call: list[str], out: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    before = set(ROOT.iterdir())
    try:
        code = main(call)
    except SystemExit as stop:
        code = int(stop.code or 0)
    said = out.readouterr()
    assert code == 2
    assert said.out == ""
    assert len(said.err.splitlines()) == 1, said.err
    assert "Traceback" not in said.err
    assert set(ROOT.iterdir()) == before


def test_what_is_wrong_is_named_with_its_file(tmp_path: Path) -> None:
    path = tmp_path / "o.jsonl"
    good = '{"received_at":0,"task_id":"%s","model":"m","task_type":"t","hours_to_complete":1}\n'
    path.write_text(good % "a" + good % "b" + good.replace("1}", "-1}") % "c")
    done = sim("replay", path, "--preset", "accuracy_4", "--out", tmp_path / "d.jsonl")
    assert done.returncode == 2
    assert f"{path}:3: hours_to_complete: found -1" in done.stderr
    assert not (tmp_path / "d.jsonl").exists()


@pytest.mark.parametrize(
    "command",
    ["", "compare", "replay", "generate", "import-trace", "verify", "score", "schema"],
)
def test_help_imports_nothing_heavy(command: str) -> None:
    program = (
        "import sys\n"
        "from sim.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "print(*sorted({name.split('.')[0] for name in sys.modules}))\n"
    )
    call = [sys.executable, "-c", program, *command.split(), "--help"]
    done = subprocess.run(call, capture_output=True, text=True, cwd=ROOT, check=True)
    loaded = set(done.stdout.splitlines()[-1].split())
    heavy = {"pandas", "matplotlib", "torch", "numpy", "pyarrow", "scipy", "simpy", "pydantic"}
    assert not heavy & loaded
    assert "usage:" in done.stdout


def wait_for_workers(process: subprocess.Popen[str]) -> None:
    """Until some replications are surely done: the progress of a pipe is not shown."""
    time.sleep(6)
    assert process.poll() is None, "the run ended before it was interrupted"


def test_ctrl_c_keeps_what_was_finished(tmp_path: Path) -> None:
    scenario, folder = tmp_path / "long.yaml", tmp_path / "out"
    scenario.write_text(YEAR)
    call = [sys.executable, "-m", "sim", "compare", str(scenario), "--json", "--out", str(folder)]
    process = subprocess.Popen(
        call, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        start_new_session=True,
    )  # fmt: skip
    wait_for_workers(process)
    os.killpg(process.pid, signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert len(stderr.splitlines()) == 1, stderr
    if "interrupted after" in stderr:  # at least one replication was finished
        document = json.loads(stdout)
        assert 0 < document["replications"] < 400
        assert json.loads((folder / "summary.json").read_text()) == document
        assert not (folder / "report.html").exists()  # it would take more than a second
    else:
        assert list(folder.iterdir()) == []


def test_a_closed_pipe_is_no_error(scenario: Path) -> None:
    command = f"{sys.executable} -m sim compare {scenario} | head -c 1"
    done = subprocess.run(
        ["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, cwd=ROOT,
        check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr


def test_an_output_never_takes_the_place_of_an_input(
    tmp_path: Path, offers: Path, out: pytest.CaptureFixture[str]
) -> None:
    before = offers.read_bytes()
    other = tmp_path / "x.jsonl"
    for arguments in (
        ["--out", str(offers)],
        ["--out", str(other), "--ledger", str(other)],
        ["--out", str(other), "--ledger", str(tmp_path / "none" / "x.db")],
    ):
        assert main(["replay", str(offers), "--preset", "accuracy_4", *arguments]) == 2
        assert not other.exists()
    assert offers.read_bytes() == before
    assert len(out.readouterr().err.splitlines()) == 3


def test_a_device_is_written_to_and_stays_a_device(offers: Path) -> None:
    done = sim("replay", offers, "--preset", "accuracy_4", "--out", "/dev/null")
    assert done.returncode == 0, done.stderr
    assert Path("/dev/null").is_char_device()
