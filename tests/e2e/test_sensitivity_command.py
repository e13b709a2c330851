"""``python -m sim sensitivity`` as a person calls it."""

import json
import subprocess
import sys
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
