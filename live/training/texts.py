"""Text tasks: from the request to TRL's trainer."""

from contextlib import ExitStack
from math import ceil
from typing import Any

import torch
import torch.distributed as dist

from live.training import stand_ins, trainers
from live.training.delivery import fetched_model
from live.training.facts import Facts
from live.training.inputs import SLOW_S, data_of, source_of, texts_of
from live.training.kept import Data
from live.training.loading import (
    family_of,
    model_of,
    shape_of,
    tokenizer_of,
    with_template,
)
from live.training.planning import CPU_TOKENS, settle
from live.training.run import Run
from live.training.scoring import reward_functions
from live.training.terms import Settled
from live.training.ways import machine

STAND_IN_STEPS = 20


class TextRun(Run):
    """An instruct, chat, preference or GRPO job."""

    def made(self, held: ExitStack) -> tuple[Facts, Any]:
        """As ``Run.made``."""
        spec = self.spec
        rewards = reward_functions(self.files, held)
        texts = texts_of(self.files)
        source = source_of(self.files, lambda: fetched_model(self.files))
        tokenizer = with_template(tokenizer_of(source), spec.request)
        shape = shape_of(source)
        most = CPU_TOKENS if spec.device == "cpu" else spec.profile.max_length
        data = data_of(self.files, texts, tokenizer, most)
        settled = settle(
            spec,
            shape,
            family_of(source, self.device),
            data.longest_row,
            machine(spec.device),
            self.lacks(),
            self.faults(),
        )
        self.files.beat(SLOW_S)
        place = torch.device("cpu") if settled.parallel == "fsdp2" else self.device
        model = model_of(source, settled.attention, place, half=spec.device == "cuda")
        most_steps = self._most_steps(data, settled)
        self.files.beat(SLOW_S)
        parts = (model, tokenizer, data)
        trainer = trainers.made(spec, settled, self.files.folder, parts, most_steps, rewards)
        facts = Facts(
            source=source,
            data_record=texts.record,
            data_why="; ".join(each for each in (texts.why, data.left_out) if each),
            rows=(texts.record or {}).get("usable", len(data.train) + len(data.held_out)),
            held_out=len(data.held_out),
            settled=settled,
            base_params=shape.base_parameters,
            most_steps=most_steps,
            load_s=self.load_s(),
        )
        return facts, trainer

    def _most_steps(self, data: Data, settled: Settled) -> int:
        """Steps of the wanted epochs, or what a rehearsal's request says."""
        told = self.told_steps()
        if told is not None:
            return told
        rows = settled.micro * settled.accumulation * dist.get_world_size()
        prompts = max(1, rows // settled.generations)
        steps = max(1, ceil(len(data.train) * self.spec.training.epochs / prompts))
        all_rows = len(data.train) + len(data.held_out)
        built_in = self.spec.device == "cpu" and all_rows == stand_ins.ROWS
        return min(steps, STAND_IN_STEPS) if built_in else steps
