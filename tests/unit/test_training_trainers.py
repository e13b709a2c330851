"""What the trainers are told and do, where a GPU job differs from a rehearsal on the CPU."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
import torch.distributed as dist  # noqa: E402
from datasets import Dataset  # noqa: E402

from live.training import trainers  # noqa: E402
from live.training.kept import Data, arguments  # noqa: E402
from live.training.loading import Source, family_of, model_of, shape_of  # noqa: E402
from live.training.loading import tokenizer_of as tokens_of  # noqa: E402
from live.training.planning import settle  # noqa: E402
from live.training.rows import GRPO  # noqa: E402
from live.training.ways import Machine  # noqa: E402
from tests.unit.test_training_planning import spec  # noqa: E402

SMALL = Source("small", Path(__file__).parents[1] / "models" / "small-llama")
HERE = Machine(cuda=False, flash=False, bits8=False)
pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


@pytest.fixture(autouse=True)
def alone(tmp_path: Path) -> Iterator[None]:
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def made(task_type: str, rows: list[dict[str, Any]], folder: Path, **rewards: Any) -> Any:
    """The task's trainer as a GPU has it: bf16 autocast over a bf16 base, fp32 adapters."""
    asked = spec(task_type, device="cpu", processes=1, gpus=(0,))
    settled = settle(asked, shape_of(SMALL), family_of(SMALL, torch.device("cpu")), 64, HERE, 0)
    model = model_of(SMALL, "sdpa", torch.device("cpu"), half=True)
    data = Data(Dataset.from_list(rows), Dataset.from_list(rows), 64)
    parts = (model, tokens_of(SMALL), data)
    return trainers.made(
        asked, replace(settled, micro=4, accumulation=1), folder, parts, 1, rewards
    )


@pytest.fixture
def half(monkeypatch: pytest.MonkeyPatch) -> None:
    def told(*given: Any) -> dict[str, Any]:
        return arguments(*given) | {"bf16": True}

    monkeypatch.setattr(trainers, "arguments", told)


def test_answers_are_sampled_in_half_over_fp32_adapters(half: None, tmp_path: Path) -> None:
    rows = [{"prompt": f"{word} and"} for word in ("one", "two", "three", "four")]
    rewards = {"functions": [lambda completions, **_: [0.0] * len(completions)], "weights": None}
    trainer = made(GRPO, rows, tmp_path, **rewards)
    trainer.generation_config.max_new_tokens = 3
    adapter = next(each for name, each in trainer.model.named_modules() if ".lora_A." in name)
    seen: list[Any] = []
    adapter.register_forward_hook(lambda _, __, out: seen.append(out.dtype))
    assert adapter.weight.dtype == torch.float32
    assert next(trainer.model.parameters()).dtype == torch.bfloat16
    ids, _ = trainer._generate_single_turn([[3, 4, 5], [6, 7]], None, {}, 2)
    assert [1 <= len(each) <= 3 for each in ids] == [True, True]
    assert len(seen) >= 1
    assert set(seen) == {torch.bfloat16}
