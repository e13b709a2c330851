"""What all trainers have in common: our checkpoints, our pace, and how an adapter is handed in."""

import shutil
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import torch
import torch.distributed as dist
from peft import PeftConfig, get_peft_model_state_dict
from safetensors.torch import save_file
from torch.optim.lr_scheduler import LambdaLR

from live.job_files import OUTPUT, JobSpec
from live.training import checkpoints
from live.training.checkpoints import State, Weights, gathered, put_in_place, trainable
from live.training.optimizers import TORCH_NAMES, adam_8bit
from live.training.order import LongestFirst, lengths_of
from live.training.pacing import Pacing
from live.training.rows import GRPO
from live.training.terms import Terms
from shared.errors import FourSlotError

SEED = 17
ADAPTER, WEIGHTS = "adapter", "adapter_model.safetensors"
HIGHEST_GRADIENT = 1.0


class RanksDiffer(FourSlotError):
    """Ranks that were never joined, or have come apart: what they train is worth nothing."""


class Kept:
    """What our trainers have in common. ``made`` and ``paced`` set what they go by."""

    settled: Terms
    folder: Path
    pacing: Pacing
    base_model: str
    """What the adapter is of, by the name that its user knows it by."""

    @property
    def weights(self: Any) -> Weights:
        """The trained weights by name."""
        return trainable(self.model)

    def here(self: Any) -> State:
        """Where training stands."""
        told = self.pacing.told
        return State(
            step=self.state.global_step,
            trainable=sum(each.numel() for each in self.weights.values()),
            rows_per_step=self.rows_per_step,
            seed=SEED,
            losses=list(told.losses),
            pace={"schedule": self.pacing.schedule.state(), **told.pace()},
        )

    def _save_checkpoint(self: Any, model: Any, trial: Any) -> None:
        """In place of transformers' own, which a kill can leave half written."""
        began_s = monotonic()
        if self.settled.parallel == "ddp":
            agreed(self.weights, self.args.device)
        checkpoints.save(
            self.folder / OUTPUT / "checkpoints",
            self.weights,
            self.optimizer,
            self.here(),
            self._others,
        )
        if not (self.folder / OUTPUT / ADAPTER).exists():
            self.write_adapter()
        self.pacing.saved(monotonic() - began_s)

    def _others(self: Any, scratch: Path) -> None:
        self._save_rng_state(str(scratch))
        if dist.get_rank() == 0:
            self.state.save_to_json(str(scratch / "trainer_state.json"))

    def _load_from_checkpoint(self: Any, path: str, model: Any = None) -> None:
        """Weights come with the optimizer's state, when both are in their place."""

    def _load_optimizer_and_scheduler(self: Any, checkpoint: str | None) -> None:
        if checkpoint is not None:
            checkpoints.take_up(Path(checkpoint), self.weights, self.optimizer)

    def _get_train_sampler(self: Any, dataset: Any = None) -> Any:
        """The longest rows first; a GRPO job repeats its prompts in an order of its own."""
        rows = dataset if dataset is not None else self.train_dataset
        return LongestFirst(self.lengths(rows), self.rows_per_step, SEED)

    def lengths(self, rows: Any) -> list[int]:
        """Of each row, in tokens."""
        return lengths_of(rows)

    @property
    def rows_per_step(self: Any) -> int:
        """Rows of one optimizer step, of all ranks."""
        return int(self.settled.micro * self.settled.accumulation * dist.get_world_size())

    def create_optimizer(self: Any, model: Any = None) -> Any:
        """The plan's own; what it does not name, transformers makes."""
        if self.settled.optimizer == "adamw8bit" and self.optimizer is None:
            self.optimizer = adam_8bit(self.weights.values(), self.args.learning_rate)
        return self.optimizer or super().create_optimizer(model)  # type: ignore[misc]

    def create_scheduler(self: Any, num_training_steps: int, optimizer: Any = None) -> Any:
        """A rate that stays: the pacing sets it at every step."""
        self.lr_scheduler = LambdaLR(optimizer or self.optimizer, lambda _: 1.0)
        self._created_lr_scheduler = True
        return self.lr_scheduler

    def _defer_fsdp_gradient_reduction(self: Any) -> Any:
        """Shares are exchanged at every micro-batch: whole gradients would not fit."""
        return nullcontext()

    @property
    def written(self: Any) -> torch.dtype:
        """What weights are handed in as: as wide as the base model's."""
        return torch.bfloat16 if self.args.bf16 else torch.float32

    @property
    def adapter_bytes(self: Any) -> int:
        """Of the file that is handed in."""
        weights: int = sum(each.numel() for each in self.weights.values())
        return weights * self.written.itemsize  # type: ignore[no-any-return]

    def write_adapter(self: Any) -> Path:
        """The adapter with all that it is loaded by, in its place all at once."""
        held = gathered((name, each.to(self.written)) for name, each in self.weights.items())
        final: Path = self.folder / OUTPUT / ADAPTER
        if dist.get_rank() == 0:
            scratch = final.with_name(f".{ADAPTER}")
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir(parents=True)
            self.write_files(scratch, held)
            put_in_place(scratch, final)
        dist.barrier()
        return final

    # How the adapter is handed in; image models have other names for it.

    weights_file = WEIGHTS

    def exported(self, name: str) -> str:
        """A weight's name in the file of the adapter."""
        return name.replace(".default.", ".")

    def write_files(self: Any, folder: Path, held: dict[str, torch.Tensor]) -> None:
        """Write the adapter as peft loads it, safetensors. held: whole weights, on the CPU."""
        named = get_peft_model_state_dict(self.model, state_dict=held, save_embedding_layers=False)
        contiguous = {name: each.contiguous() for name, each in named.items()}
        save_file(contiguous, folder / self.weights_file, metadata={"format": "pt"})
        config = self.model.peft_config["default"]
        told = config.inference_mode, config.base_model_name_or_path
        config.inference_mode, config.base_model_name_or_path = True, self.base_model
        config.save_pretrained(folder)
        config.inference_mode, config.base_model_name_or_path = told

    def check_loads(self, folder: Path) -> None:
        """Read the adapter as its user will. Raises OSError, ValueError, TypeError."""
        PeftConfig.from_pretrained(str(folder))


def agreed(weights: Weights, device: torch.device) -> None:
    """Raise RanksDiffer unless every rank holds the same weights, by their sums."""
    told = torch.stack([each.detach().double().sum() for each in weights.values()]).to(device)
    least, most = told.clone(), told.clone()
    dist.all_reduce(least, op=dist.ReduceOp.MIN)
    dist.all_reduce(most, op=dist.ReduceOp.MAX)
    if not torch.equal(least, most):
        raise RanksDiffer("the ranks train different weights")


@dataclass(frozen=True, slots=True)
class Data:
    """Rows to train on and rows held out, as the task's trainer takes them.

    longest_row: tokens. left_out: which rows were too long to be of use, and how many; empty: none.
    """

    train: Any
    held_out: Any
    longest_row: int
    left_out: str = ""


def arguments(spec: JobSpec, settled: Terms, folder: Path, most_steps: int) -> dict[str, Any]:
    """Every setting that all trainers share."""
    cuda = spec.device == "cuda"
    return {
        "output_dir": str(folder / OUTPUT / "trainer"),
        "max_steps": most_steps,
        "per_device_train_batch_size": settled.micro,
        "per_device_eval_batch_size": settled.eval_batch,
        "gradient_accumulation_steps": settled.accumulation,
        "gradient_checkpointing": settled.checkpointing,
        "learning_rate": settled.learning_rate,
        "max_grad_norm": HIGHEST_GRADIENT,
        "weight_decay": 0.0,
        "optim": TORCH_NAMES[spec.device],
        "bf16": cuda,
        "fp16": False,
        "tf32": None,
        "use_cpu": not cuda,
        "ddp_backend": "nccl" if cuda else "gloo",
        "ddp_find_unused_parameters": False,
        "ddp_bucket_cap_mb": settled.bucket_mb,
        "ddp_broadcast_buffers": False,
        "eval_strategy": "no",
        "save_strategy": "no",
        "logging_strategy": "no",
        "logging_nan_inf_filter": False,
        "disable_tqdm": True,
        "report_to": "none",
        "seed": SEED,
        "data_seed": SEED,
        "dataloader_pin_memory": cuda,
        "remove_unused_columns": spec.task_type != GRPO,
    }


def paced(trainer: Any, pacing: Pacing) -> None:
    """Give the trainer its pacing."""
    trainer.pacing = pacing
    trainer.add_callback(pacing)
