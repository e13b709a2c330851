"""How the base model is loaded: as wide as the job's device has it, and to where it belongs."""

import json
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from live.training import loading, texts  # noqa: E402
from live.training.loading import Source, model_of  # noqa: E402

SMALL = Path(__file__).parents[1] / "models" / "small-llama"
CPU, NOWHERE = torch.device("cpu"), torch.device("meta")
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


@pytest.mark.parametrize(("half", "wide"), [(True, torch.bfloat16), (False, torch.float32)])
def test_a_model_that_waits_on_the_cpu_is_as_wide_as_the_job_has_it(half: bool, wide: Any) -> None:
    model = model_of(Source("small", SMALL), "sdpa", CPU, half=half)
    assert {each.dtype for each in model.parameters()} == {wide}


def test_another_device_is_given_the_weights_directly(monkeypatch: pytest.MonkeyPatch) -> None:
    """And a map of one device is no split model, which the trainer would not move or join."""
    told: dict[str, Any] = {}
    real = loading.AutoModelForCausalLM.from_pretrained

    def loaded(folder: Path, **settings: Any) -> Any:
        told.update(settings)
        return real(folder, **settings | {"device_map": {"": CPU}})

    monkeypatch.setattr(loading.AutoModelForCausalLM, "from_pretrained", loaded)
    model = model_of(Source("small", SMALL), "sdpa", torch.device("meta"), half=True)
    assert told["device_map"] == {"": NOWHERE}
    assert getattr(model, "hf_device_map", None) is None


class Asked(Exception):
    """In place of loading a model for a GPU that is not here."""


@pytest.mark.parametrize("parallel", ["ddp", "fsdp2"])
def test_a_job_on_gpus_loads_half_as_wide_wherever_it_loads(
    parallel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Any] = []

    def asked(*given: Any, half: bool) -> None:
        told.extend([given[2].type, half])
        raise Asked

    names = ("reward_functions", "texts_of", "with_template", "tokenizer_of", "family_of",
             "machine", "source_of", "shape_of")  # fmt: skip
    for name in names:
        monkeypatch.setattr(texts, name, lambda *_: None)
    monkeypatch.setattr(texts, "data_of", lambda *_: SimpleNamespace(longest_row=8))
    settled = SimpleNamespace(parallel=parallel, attention="sdpa")
    monkeypatch.setattr(texts, "settle", lambda *_: settled)
    monkeypatch.setattr(texts, "model_of", asked)
    spec = SimpleNamespace(device="cuda", profile=SimpleNamespace(max_length=8), request={})
    files: Any = SimpleNamespace(spec=spec, folder=SMALL, beat=lambda *_: None)
    run = texts.TextRun(files, torch.device("cuda", 1))
    monkeypatch.setattr(run, "lacks", lambda: 0)
    monkeypatch.setattr(run, "faults", lambda: 0)
    with pytest.raises(Asked):
        run.made(ExitStack())
    assert told == ["cpu" if parallel == "fsdp2" else "cuda", True]


def test_a_base_in_half_is_trained_in_shares_under_whole_adapters(tmp_path: Path) -> None:
    """Each rank holds half of it, two bytes a weight; the adapters stay as wide as they are."""
    ranks = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.unit.sharded_model", str(tmp_path), str(rank)],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for rank in range(2)
    ]
    assert [each.wait(120) for each in ranks] == [0, 0]
    one, other = (json.loads((tmp_path / f"told-{rank}.json").read_text()) for rank in range(2))
    assert one["losses"] == other["losses"]
    assert one["losses"][-1] < one["losses"][0] - 0.5
    assert (one["base"], one["trained"]) == (["torch.bfloat16"], ["torch.float32"])
    assert one["here"] + other["here"] == one["whole"]
