"""transformers' trainer for a denoiser: the noise, the loss, and what is handed in."""

from collections.abc import Iterator, Sequence
from math import inf
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from safetensors.torch import save_file
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments

from live.job_files import JobSpec
from live.training.checkpoints import trainable
from live.training.images.families import Family, Row
from live.training.images.terms import ImageTerms
from live.training.kept import SEED, Data, Kept, arguments

WEIGHTS = "pytorch_lora_weights.safetensors"
"""The name that diffusers looks for."""
DRAWS = 8
"""Each picture held out is looked at under so many noises, at times spread evenly."""
TRAINED = -1
"""The draw of a row that is trained on: another one at every step."""


class Encoded(Dataset[Row]):
    """Rows as the trainer takes them. order: which (row, draw) comes where."""

    column_names = ("latents",)

    def __init__(self, rows: Sequence[Row], order: Sequence[tuple[int, int]]) -> None:
        self._rows, self._order = rows, order

    def __len__(self) -> int:
        """How many there are."""
        return len(self._order)

    def __getitem__(self, at: int) -> Row:
        """A row, with its number and draw."""
        row, draw = self._order[at]
        number = {"row": torch.tensor(row), "draw": torch.tensor(draw)}
        return {**self._rows[row], **number}

    def select(self, wanted: Iterator[int]) -> "Encoded":
        """Some of it."""
        return Encoded(self._rows, [self._order[at] for at in wanted])


def data_of(rows: Sequence[Row], train: Sequence[int], held_out: Sequence[int]) -> Data:
    """What is trained on, and what it is judged by. The indices are of ``rows``."""
    looks = [(row, draw) for draw in range(DRAWS) for row in held_out]
    return Data(Encoded(rows, [(row, TRAINED) for row in train]), Encoded(rows, looks), 0)


class Diffusion(Kept, Trainer):  # type: ignore[misc]
    """Image tasks."""

    family: Family
    weights_file = WEIGHTS

    def lengths(self, rows: Any) -> list[int]:
        """All alike."""
        return [0] * len(rows)

    def compute_loss(
        self, model: Any, inputs: Row, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """The family's loss under noise that rests on seed, step and row alone.

        So it is the same after a restart, whatever rank has the row.
        """
        row, draw = inputs["row"].tolist(), inputs["draw"].tolist()
        seeds = [
            (row[at], self.state.global_step if draw[at] == TRAINED else inf, draw[at])
            for at in range(len(row))
        ]
        latents = inputs["latents"]
        drawn = [drawn_for(*each, latents.shape[1:]) for each in seeds]
        noise = torch.stack([each[0] for each in drawn]).to(latents)
        at = torch.tensor([each[1] for each in drawn]).to(latents)
        loss = self.family.loss(model, inputs, noise, at)
        return (loss, {}) if return_outputs else loss

    def prediction_step(
        self, model: Any, inputs: Row, prediction_loss_only: bool, ignore_keys: Any = None
    ) -> tuple[torch.Tensor, None, None]:
        """The loss of held-out rows."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.compute_loss_context_manager():
            return self.compute_loss(model, inputs).detach(), None, None

    def exported(self, name: str) -> str:
        """A weight's name in the file of the adapter."""
        return f"{self.family.prefix}.{name.replace('.default.', '.')}"

    def write_files(self, folder: Path, held: dict[str, torch.Tensor]) -> None:
        """Write the adapter as diffusers loads it. held: whole weights, on the CPU."""
        told = {self.exported(name): each.contiguous() for name, each in held.items()}
        save_file(told, folder / self.weights_file, metadata={"format": "pt"})

    def check_loads(self, folder: Path) -> None:
        """Read the adapter as diffusers does. Raises OSError, ValueError, TypeError."""
        told = self.family.pipeline.lora_state_dict(
            str(folder), weight_name=self.weights_file, local_files_only=True
        )
        weights = told[0] if isinstance(told, tuple) else told
        if len(weights) != len(self.weights):
            raise ValueError(f"diffusers reads {len(weights)} weights of {len(self.weights)}")


def drawn_for(row: int, step: float, draw: int, size: torch.Size) -> tuple[torch.Tensor, float]:
    """A row's noise, and its time in (0, 1); on the CPU, so that every GPU draws the same.

    step: of training; infinite for a row held out, whose ``draw`` says which even part of the times
    it is in.
    """
    held_out = step == inf
    seed = hash((SEED, row, draw if held_out else int(step), held_out)) & (2**63 - 1)
    dice = torch.Generator().manual_seed(seed)
    noise = torch.randn(size, generator=dice)
    at = float(torch.rand((), generator=dice).clamp(1e-4, 1 - 1e-4))
    return noise, (draw + at) / DRAWS if held_out else at


def made(
    spec: JobSpec,
    settled: ImageTerms,
    folder: Path,
    parts: tuple[Family, Any, Data],
    most_steps: int,
) -> Diffusion:
    """The trainer over (family, denoiser, data); it has no pacing yet."""
    family, model, data = parts
    adapter = LoraConfig(
        r=settled.lora_r,
        lora_alpha=settled.lora_r,
        lora_dropout=settled.lora_dropout,
        target_modules=list(settled.target_modules),
        init_lora_weights="gaussian",
    )
    torch.manual_seed(SEED)
    model.add_adapter(adapter)
    for each in trainable(model).values():
        each.data = each.data.float()
    told = arguments(spec, settled, folder, most_steps)
    if settled.checkpointing:
        model.enable_gradient_checkpointing()  # diffusers' name for it
        told["gradient_checkpointing"] = False
    told["remove_unused_columns"] = False
    trainer = Diffusion(
        model=model,
        args=TrainingArguments(**told),
        train_dataset=data.train,
        eval_dataset=data.held_out,
    )
    trainer.model_accepts_loss_kwargs = False  # its losses are means: accumulation divides them
    trainer.settled, trainer.folder, trainer.family = settled, folder, family
    return trainer
