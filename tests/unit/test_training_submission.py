"""The file that is handed in, looked at before it goes, and put back to be measured."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")
from safetensors.torch import save_file  # noqa: E402

from live.training.submission import checked, put_back  # noqa: E402
from shared.errors import InputError  # noqa: E402

A, B = "layer.lora_A.weight", "layer.lora_B.weight"
FILE = "adapter_model.safetensors"


def trainer(refuses: str = "") -> Any:
    """Two weights under names of its own, and a loader that may refuse."""
    weights = {f"own.{A}": torch.zeros(2, 3), f"own.{B}": torch.zeros(3, 2)}

    def check_loads(_: Path) -> None:
        if refuses:
            raise ValueError(f"{refuses}\nand more")

    return SimpleNamespace(
        weights=weights,
        weights_file=FILE,
        exported=lambda name: name.removeprefix("own."),
        check_loads=check_loads,
    )


def adapter(folder: Path, **changes: Any) -> Path:
    """An adapter that is well, but for what is changed."""
    told = {A: torch.ones(2, 3), B: torch.full((3, 2), 0.5)} | changes
    save_file({name: each for name, each in told.items() if each is not None}, folder / FILE)
    return folder


def test_a_good_adapter_has_no_fault_and_is_put_back(tmp_path: Path) -> None:
    ours = trainer()
    assert checked(ours, adapter(tmp_path)) == ()
    put_back(ours, tmp_path)
    assert torch.equal(ours.weights[f"own.{A}"], torch.ones(2, 3))
    assert torch.equal(ours.weights[f"own.{B}"], torch.full((3, 2), 0.5))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({A: torch.full((2, 3), torch.inf)}, "it is not finite"),
        ({B: torch.full((3, 2), torch.nan)}, "it is not finite"),
        ({B: torch.zeros(3, 2)}, "it does not differ from the base model"),
        ({B: torch.ones(2, 2)}, "its weights are not those of the job"),
        ({A: None}, "its weights are not those of the job"),
        ({"another": torch.ones(1)}, "its weights are not those of the job"),
    ],
)
def test_what_is_wrong_with_an_adapter_is_told(
    changes: dict[str, Any], says: str, tmp_path: Path
) -> None:
    assert checked(trainer(), adapter(tmp_path, **changes)) == (says,)


def test_one_that_does_not_load_is_told_in_one_line(tmp_path: Path) -> None:
    assert checked(trainer("peft says no"), adapter(tmp_path)) == (
        "it does not load: peft says no",
    )
    (tmp_path / FILE).write_bytes((tmp_path / FILE).read_bytes()[:-1])
    (fault,) = checked(trainer(), tmp_path)
    assert fault.startswith("it does not load: ")
    with pytest.raises(InputError, match="cannot be loaded again"):
        put_back(trainer(), tmp_path)
