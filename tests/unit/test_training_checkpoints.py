"""Checkpoints of whole and of sharded weights, with the optimizers that a plan may choose."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")
from safetensors.torch import load_file  # noqa: E402

from live.training import checkpoints  # noqa: E402
from live.training.checkpoints import CheckpointMismatch, State, trainable  # noqa: E402
from tests.unit.sharded_training import made, train  # noqa: E402

STATE = State(step=3, trainable=1, rows_per_step=8, seed=1, losses=[])
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


def largest_difference(one: dict[str, list[float]], other: dict[str, list[float]]) -> float:
    assert one.keys() == other.keys()
    return max(
        abs(a - b) for name in one for a, b in zip(one[name], other[name], strict=True)
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["adamw", "fused", "adamw8bit"])
def test_shares_train_as_the_whole_and_go_on_from_a_checkpoint(kind: str, tmp_path: Path) -> None:
    ranks = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.unit.sharded_training", kind, str(tmp_path), str(rank)],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for rank in range(2)
    ]
    assert [each.wait(120) for each in ranks] == [0, 0]
    told = json.loads((tmp_path / "told.json").read_text())
    assert told["resumed"] == told["straight"]  # to the last bit
    moved = largest_difference(told["straight"], told["between"])
    assert moved > 1e-3  # there was something left to learn after the checkpoint
    # Blocks of 8-bit moments begin elsewhere in a share, so their rounding differs a little.
    apart = largest_difference(told["straight"], told["whole"])
    assert apart < (0.2 * moved if kind == "adamw8bit" else 1e-5)
    names = {each.name for each in next((tmp_path / "kept").glob("step-*")).iterdir()}
    own = {"optimizer-0.safetensors", "optimizer-1.safetensors"}
    assert (own & names) == (own if kind == "adamw8bit" else set())


@pytest.mark.parametrize("kind", ["adamw", "adamw8bit"])
def test_a_whole_model_goes_on_to_the_same_weights(kind: str, tmp_path: Path) -> None:
    straight, optimizer = made(kind, sharded=False)
    train(straight, optimizer, range(3))
    checkpoints.save(tmp_path, trainable(straight), optimizer, STATE)
    train(straight, optimizer, range(3, 6))
    resumed, anew = made(kind, sharded=False)
    found = checkpoints.newest(tmp_path, STATE)
    assert found == (tmp_path / "step-00000003", STATE)
    checkpoints.take_up(found[0], trainable(resumed), anew)
    train(resumed, anew, range(3, 6))
    for name, weight in trainable(resumed).items():
        assert torch.equal(weight, trainable(straight)[name])


@pytest.mark.parametrize("file", ["adapter.safetensors", "optimizer.safetensors", "state.json"])
def test_a_checkpoint_that_is_cut_off_is_passed_over(file: str, tmp_path: Path) -> None:
    model, optimizer = made("adamw", sharded=False)
    train(model, optimizer, range(1))
    older = State(step=2, trainable=1, rows_per_step=8, seed=1, losses=[])
    for state in (older, STATE):
        checkpoints.save(tmp_path, trainable(model), optimizer, state)
    place = tmp_path / "step-00000003" / file
    place.write_bytes(place.read_bytes()[:-1])
    found = checkpoints.newest(tmp_path, STATE)
    assert found is not None
    assert found[1].step == 2


def test_a_checkpoint_of_other_weights_is_refused(tmp_path: Path) -> None:
    model, optimizer = made("adamw", sharded=False)
    train(model, optimizer, range(1))
    path = checkpoints.save(tmp_path, trainable(model), optimizer, STATE)
    model[0].requires_grad_(requires_grad=True)
    with pytest.raises(CheckpointMismatch, match="found other weights than the job has"):
        checkpoints.take_up(path, trainable(model), optimizer)


def test_moments_of_eight_bits_are_kept_in_eight_bits(tmp_path: Path) -> None:
    model, optimizer = made("adamw8bit", sharded=False)
    train(model, optimizer, range(1))
    path = checkpoints.save(tmp_path, trainable(model), optimizer, STATE)
    kept = load_file(path / "optimizer.safetensors")
    assert kept["state1:1.weight"].dtype == torch.uint8
    assert kept["state1:2.weight"].dtype == torch.float32  # bitsandbytes keeps small ones whole


@pytest.mark.parametrize("setting", ["fused", "capturable"])
def test_steps_are_counted_where_the_optimizer_wants_them(setting: str, tmp_path: Path) -> None:
    """Beside the weight, as a fused kernel reads it; a weight on no device stands for a GPU's."""
    model, optimizer = made("adamw", sharded=False)
    train(model, optimizer, range(2))
    path = checkpoints.save(tmp_path, trainable(model), optimizer, STATE)
    for there, where in ((True, "meta"), (False, "cpu")):
        away = {
            name: torch.nn.Parameter(each.detach().to("meta"))
            for name, each in trainable(model).items()
        }
        adam = torch.optim.AdamW(list(away.values()), **{setting: there})
        checkpoints.take_up(path, away, adam)
        states = [adam.state[each] for each in away.values()]
        assert {each["step"].device.type for each in states} == {where}
        assert {each["step"].dtype for each in states} == {torch.float32}
        assert {each["exp_avg"].device.type for each in states} == {"meta"}


def test_a_fused_optimizer_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    straight, optimizer = made("fused", sharded=False)
    train(straight, optimizer, range(3))
    path = checkpoints.save(tmp_path, trainable(straight), optimizer, STATE)
    train(straight, optimizer, range(3, 6))
    resumed, anew = made("fused", sharded=False)
    checkpoints.take_up(path, trainable(resumed), anew)
    train(resumed, anew, range(3, 6))
    for name, weight in trainable(resumed).items():
        assert torch.equal(weight, trainable(straight)[name])
