"""``python -m sim sensitivity`` as a person calls it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CALL = ["scenarios/four_vs_24.yaml", "--days", "3", "--replications", "2"]


def sensitivity(*arguments: object) -> subprocess.CompletedProcess[str]:
    call = [sys.executable, "-m", "sim", "sensitivity", *map(str, arguments)]
    return subprocess.run(call, capture_output=True, text=True, cwd=ROOT, check=False)


def test_the_tornado_s_folder_document_and_processes(tmp_path: Path) -> None:
    call = [*CALL, "--quality-model", "neutral", "--json"]
    done = sensitivity(*call, "--processes", 2, "--out", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    document = json.loads(done.stdout)
    assert json.loads((tmp_path / "sensitivity.json").read_text()) == document
    assert (tmp_path / "tornado.png").stat().st_size > 10_000
    swings = [each["swing"] for each in document["parameters"]]
    assert swings == sorted(swings, reverse=True)
    assert json.loads(sensitivity(*call, "--processes", 1).stdout) == document


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        (["--quality-model", "guess"], "--quality-model"),
        (["--metric", "joy"], "--metric"),
        (["--method", "caps", "--metric", "accepted"], "--metric"),
        (["--method", "sobol", "--samples", "3"], "--samples"),
    ],
)
def test_a_wrong_call_is_one_line(arguments: list[str], key: str) -> None:
    done = sensitivity(*CALL, *arguments)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert key in done.stderr


TINY = """
name: tiny
days: 1.5
warm_up_days: 0.25
replications: 2
arrivals: {kind: poisson, offers_per_hour: 6}
"""


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY)
    return path


def test_the_curve_over_caps(tmp_path: Path, tiny: Path) -> None:
    out = tmp_path / "out"
    done = sensitivity(tiny, "--method", "caps", "--json", "--out", out)
    assert (done.returncode, done.stderr) == (0, "")
    curves = json.loads(done.stdout)["by_quality_model"]
    assert set(curves) == {"claims", "physical", "neutral"}
    for curve in curves.values():
        assert [point["cap"] for point in curve["caps"]] == list(range(1, 25))
        assert set(curve["best"]) == {"revenue_per_day", "first_place_rate"}
    assert (out / "caps.png").stat().st_size > 10_000


def test_screening_by_morris(tiny: Path) -> None:
    call = [tiny, "--method", "morris", "--samples", "2", "--quality-model", "neutral", "--json"]
    done = sensitivity(*call)
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    effects = document["parameters"]
    assert f"{2 * (len(effects) + 1)} evaluations of 2 replications" in done.stderr
    assert max(each["mu_star"] for each in effects) > 0
    assert json.loads(sensitivity(*call, "--processes", 1).stdout) == document


def test_ctrl_c_ends_it_without_noise(tmp_path: Path) -> None:
    scenario = tmp_path / "long.yaml"
    scenario.write_text("name: long\ndays: 3000\nreplications: 50\n")
    call = [sys.executable, "-m", "sim", "sensitivity", str(scenario)]
    process = subprocess.Popen(
        call, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        start_new_session=True,
    )  # fmt: skip
    time.sleep(4)  # a pipe shows no progress: by now the workers have begun
    assert process.poll() is None, "the run ended before it was interrupted"
    os.killpg(process.pid, signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert (process.returncode, stdout, stderr) == (130, "", "sim: interrupted\n")
