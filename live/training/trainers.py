"""TRL's trainers, with what ours have in common."""

from pathlib import Path
from typing import Any

import torch
from trl import DPOConfig, DPOTrainer, GRPOConfig, GRPOTrainer, SFTConfig, SFTTrainer

from live.job_files import JobSpec
from live.training.adapters import lora, spare_casts
from live.training.checkpoints import trainable
from live.training.compiling import compile_layers
from live.training.kept import Data, Kept, arguments
from live.training.planning import most_answer
from live.training.rows import DPO, GRPO
from live.training.sharding import shard
from live.training.terms import Settled


class PlacedLater:
    """A model that is put on the GPU in shares: whole, it may not fit."""

    def _move_model_to_device(self, model: Any, device: torch.device) -> None:
        pass


class Sft(Kept, SFTTrainer):  # type: ignore[misc]
    """Instruct and chat tasks."""


class Dpo(Kept, DPOTrainer):  # type: ignore[misc]
    """Preference tasks; the reference is the model without its adapter."""


class Grpo(Kept, GRPOTrainer):  # type: ignore[misc]
    """Tasks scored by reward functions."""

    def _get_train_sampler(self, dataset: Any = None) -> Any:
        return GRPOTrainer._get_train_sampler(self, dataset)

    def _generate_single_turn(self, *given: Any, **named: Any) -> Any:
        """Answers are sampled as they are trained: peft passes by the forward that has autocast.

        Without it fp32 adapters are multiplied in fp32, token by token.
        """
        with self.accelerator.autocast():
            sampled: Any = super()._generate_single_turn(*given, **named)  # type: ignore[no-untyped-call]
            return sampled


def _sft(spec: JobSpec, settled: Settled, told: dict[str, Any], _: dict[str, Any]) -> Any:
    del spec
    told["max_length"] = None  # cut already, and padding-free rows allow no other
    told["padding_free"] = settled.padding_free
    return Sft, SFTConfig(**told), {}


def _dpo(spec: JobSpec, settled: Settled, told: dict[str, Any], _: dict[str, Any]) -> Any:
    del spec
    return Dpo, DPOConfig(**told, max_length=settled.max_length), {}


def _grpo(spec: JobSpec, settled: Settled, told: dict[str, Any], rewards: dict[str, Any]) -> Any:
    config = GRPOConfig(
        **told,
        num_generations=settled.generations,
        steps_per_generation=settled.sampled_rows // settled.micro,
        num_generations_eval=min(2, settled.eval_batch * spec.processes),
        max_completion_length=most_answer(spec, settled.max_length),
        reward_weights=rewards["weights"],
        log_completions=False,
    )
    return Grpo, config, {"reward_funcs": rewards["functions"]}


def made(
    spec: JobSpec,
    settled: Settled,
    folder: Path,
    parts: tuple[Any, Any, Data],
    most_steps: int,
    rewards: dict[str, Any],
) -> Any:
    """The task's trainer over (model, tokenizer, data); it has no pacing yet.

    rewards: functions and their weights, of GRPO alone.
    """
    model, tokenizer, data = parts
    sharded = settled.parallel == "fsdp2"
    build = {DPO: _dpo, GRPO: _grpo}.get(spec.task_type, _sft)
    kind, config, more = build(spec, settled, arguments(spec, settled, folder, most_steps), rewards)
    if sharded:
        kind = type(f"Sharded{kind.__name__}", (PlacedLater, kind), {})
    trainer = kind(
        model=model,
        args=config,
        train_dataset=data.train,
        eval_dataset=data.held_out,
        processing_class=tokenizer,
        peft_config=lora(settled),
        **more,
    )
    trainer.settled, trainer.folder, trainer.base_model = settled, folder, spec.model
    if trainer.args.bf16:
        spare_casts(trainer.model)
    if settled.compile:
        compile_layers(trainer.model)
    if settled.optimizer == "adamw8bit":
        for each in trainable(trainer.model).values():
            each.data = each.data.to(torch.bfloat16)
    if sharded:
        shard(trainer.model, trainer.args.device)
        # Placement and the exchange of gradients are the model's own affair from here on.
        trainer.is_distributed_loading_by_transformers = True
    return trainer
