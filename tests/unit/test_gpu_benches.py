"""The GPU benches' arithmetic, and what they say where there is no GPU."""

import json
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")

from benchmarks.gpu_common import PEAK_FLOPS, flops_per_token, utilisation  # noqa: E402

BENCHES = ("throughput", "memory", "sharing", "turnaround", "fsdp")


def test_flops_of_a_token() -> None:
    assert flops_per_token(1000, 10, recomputed=False) == 4060
    assert flops_per_token(1000, 10, recomputed=True) == 6080
    half = utilisation(PEAK_FLOPS / 2 / 6080, 1000, 10)
    assert half["hfu"] == pytest.approx(0.5)
    assert half["mfu"] == pytest.approx(0.5 * 4060 / 6080)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("name", BENCHES)
def test_without_a_gpu_nothing_is_measured(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.gpu_{name}"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout.splitlines()) == (
        0,
        [f"found 0 CUDA device(s), needed {2 if name == 'fsdp' else 1}: nothing measured"],
    )


def test_a_trial_runs_the_worker_s_own_step() -> None:
    asked = {"step": "ours", "width": "tiny", "rank": 8, "row_tokens": 32, "rows": 4, "steps": 2}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu_case", json.dumps({**asked, "trial": True})],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-1500:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["tokens_per_s"] > 0
    assert found["lora_params"] == found["plan"]["lora_r"] * 2 * (
        (64 + 64) + 2 * (64 + 32) + (64 + 64) + 3 * (64 + 128)
    )
