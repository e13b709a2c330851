"""Disk that a job may need: its base model, its checkpoints, the adapter that it hands in.

By the model that was offered, at the rank that fits its slot after the planner's concessions; of
the next job, which nobody knows, by the neediest model that a slot can train.
"""

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from live.job_files import JobSpec
from live.launching import Wanted, WantedOf
from shared.architectures import architecture_of
from shared.box import GRPO_TASK, IMAGE_TASK, BoxDeclaration
from shared.decisions import Policy
from shared.image_memory import ADAPTER_BYTES as IMAGE_ADAPTER_BYTES
from shared.image_memory import FULL_SIDE, image_peak_gb
from shared.jobs import Job
from shared.layout import SlotLayout
from shared.memory import usable_gb
from shared.offers import Offer
from shared.plan import largest_plan
from shared.presets import DEFAULT_TABLES
from shared.profiles import TrainingProfile
from shared.training_step import ADAMW, ADAMW_8BIT
from shared.units import GB

CHECKPOINTS = 3
"""Two are kept while the next is being written."""
HANDED_IN_BYTES = 4
"""Of one adapter parameter: bf16, and once more while it is replaced."""
BASE_BYTES = 2
IMAGE_FORMS = 2
"""A repository of an image model has text encoders, or its weights in a second form."""
LOGS_AND_DATA_BYTES = 2 * GB
CPU_JOB_BYTES = 200_000_000
"""What a job of a tiny model on the CPU may need."""
SHORTEST_DATA = 1
"""Tokens of the longest row that is counted on: the shorter the rows, the higher the rank."""
BETWEEN = 1.15
"""From one size of the ladder to the next; a model between two may need so much more."""
LADDER = tuple(round(3e8 * BETWEEN**step) for step in range(52))
"""Sizes of models that may come next: 0.3 to 370 billion parameters."""
WIDE = ("mistralai/Mixtral-8x7B-v0.1", "meta-llama/Llama-2-7b-hf", "meta-llama/Llama-2-13b-hf",
        "Qwen/Qwen2.5-32B", "Qwen/Qwen3-32B")  # fmt: skip
"""Models with more to adapt than others of their size."""


@dataclass(frozen=True, slots=True)
class Need:
    """Bytes. model: of the base model, wherever it is kept. own: in the job's folder."""

    model: int
    own: int

    @property
    def total(self) -> int:
        """Both."""
        return self.model + self.own


@dataclass(frozen=True, slots=True)
class Slot:
    """What a job is planned for. ranks: one a GPU. most_model_bytes: no larger model is fetched."""

    profile: TrainingProfile
    ranks: int
    gb_per_gpu: float
    most_model_bytes: int


@dataclass(frozen=True, slots=True)
class Owed:
    """A job's need, and where what it has written of that lies."""

    need: Need
    folder: Path | None = None
    model_at: tuple[Path, ...] = ()

    def left(self) -> int:
        """Bytes that it may still write."""
        written = 0 if self.folder is None else folder_bytes(self.folder)
        fetched = sum(map(folder_bytes, self.model_at))
        return max(0, self.need.own - written) + max(0, self.need.model - fetched)


def folder_bytes(folder: Path) -> int:
    """What the files of a folder take on the disk; what vanishes meanwhile counts as nothing."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(Path(parent, name)).st_blocks * 512
            except OSError:
                continue
    return total


@lru_cache(maxsize=1024)
def need_of(model: str, params: int | None, task_type: str, slot: Slot) -> Need:
    """What a job of this model may need in this slot."""
    shape = architecture_of(model, params)
    base = BASE_BYTES * shape.base_parameters
    if task_type == IMAGE_TASK:
        adapter = _image_adapter(shape.base_parameters, slot)
        lora = shape.lora_parameters(slot.profile.lora_r, slot.profile.target_modules)
        own = _own_bytes(min(adapter, lora), ADAMW.adapter_bytes + ADAMW.state_bytes)
        return Need(min(IMAGE_FORMS * base, slot.most_model_bytes), own)
    plan = largest_plan(
        shape, slot.profile, gpus=slot.ranks, gb_per_gpu=slot.gb_per_gpu,
        longest_row=SHORTEST_DATA, chunked_loss=True, samples=task_type == GRPO_TASK,
    )  # fmt: skip
    fetched = min(base, slot.most_model_bytes)
    if plan is None:  # it fails once its model is there
        return Need(fetched, LOGS_AND_DATA_BYTES)
    lora = shape.lora_parameters(plan.lora_r, slot.profile.target_modules)
    eight = plan.optimizer == ADAMW_8BIT.name
    each = ADAMW_8BIT if eight else ADAMW
    copies = slot.ranks if eight and plan.parallel == "ddp" else 1  # each rank keeps its own
    return Need(fetched, _own_bytes(lora, each.adapter_bytes + copies * each.state_bytes))


def _own_bytes(adapter: int, checkpoint_bytes: float) -> int:
    each = CHECKPOINTS * checkpoint_bytes + HANDED_IN_BYTES
    return round(each * adapter) + LOGS_AND_DATA_BYTES


def _image_adapter(params: int, slot: Slot) -> int:
    """Adapter parameters that a GPU has room for beside one picture."""
    taken = image_peak_gb(params, 0, 1, FULL_SIDE, slot.ranks)
    return max(0, round((usable_gb(slot.gb_per_gpu) - taken) * GB / IMAGE_ADAPTER_BYTES))


@lru_cache(maxsize=64)
def most_needed(slot: Slot, box: BoxDeclaration, layout: SlotLayout) -> int:
    """What the neediest job may need that the box accepts.

    A box that declares no ``shortest_row`` accepts models that fit no slot: they are fetched, as
    far as that is allowed, and then fail.
    """
    most = 0
    for model, params, task_type in _candidates(box):
        offer = Offer("", model, task_type, 1.0, None, params)
        if box.why_unsupported(offer, layout) is None:
            most = max(most, need_of(model, params, task_type, slot).total)
    return round(BETWEEN * most)


def _candidates(box: BoxDeclaration) -> Iterator[tuple[str, int | None, str]]:
    """Models and task types that may come next; of text tasks only sampling makes a difference."""
    declared = box.task_types or DEFAULT_TABLES.task_weight.keys()
    alike = {kind if kind in (IMAGE_TASK, GRPO_TASK) else "" for kind in declared}
    for kind in sorted(alike):
        task_type = kind or next(each for each in sorted(declared) if each not in alike)
        yield from (("", params, task_type) for params in LADDER)
        if kind != IMAGE_TASK:
            yield from ((name, None, task_type) for name in WIDE)


def slot_of(policy: Policy, processes: int | None, most_model_bytes: int) -> Slot:
    """A slot of the policy in force. processes: ranks of a job, where they are configured."""
    layout = policy.preset.layout
    ranks = processes or len(layout.gpus[0])
    return Slot(policy.preset.profile, ranks, layout.memory_gb_per_gpu, most_model_bytes)


def next_job_bytes(policy: Policy, processes: int | None, most_model_bytes: int) -> int:
    """Disk that is kept for the job that comes next, under this policy."""
    slot = slot_of(policy, processes, most_model_bytes)
    return most_needed(slot, policy.box, policy.preset.layout)


class DiskNeeds:
    """What the accepted jobs may need, by the models they were offered with."""

    def __init__(self, wanted_of: WantedOf, flat: Callable[[], int] | None) -> None:
        """flat: the need of any job, where that is settled otherwise; None goes by the models."""
        self._wanted_of, self._flat = wanted_of, flat
        self._wanted: dict[str, Wanted] = {}

    def note(self, task_id: str, asked: Wanted) -> None:
        """What a task was accepted with; it need not be looked up."""
        self._wanted[task_id] = asked

    def owed(
        self, jobs: Mapping[str, Job], slot: Slot, running: Mapping[str, tuple[JobSpec, Path]]
    ) -> list[Owed]:
        """Of every job that holds a slot: reserved ones whole, running ones less what they wrote.

        slot: of the policy in force. running: specification and folder of those that are watched.
        """
        self._wanted = {task: self._wanted[task] for task in jobs if task in self._wanted}
        return [self._owed(task_id, slot, *running.get(task_id, (None, None))) for task_id in jobs]

    def _owed(self, task_id: str, slot: Slot, spec: JobSpec | None, folder: Path | None) -> Owed:
        if self._flat is not None:
            return Owed(Need(0, self._flat()), folder)
        if task_id not in self._wanted:
            self._wanted[task_id] = self._wanted_of(task_id)
        asked = self._wanted[task_id]
        if spec is None:
            return Owed(need_of(asked.model, asked.params, asked.task_type, slot), folder)
        own = replace(slot, profile=spec.profile, ranks=spec.processes,
                      gb_per_gpu=spec.memory_gb_per_gpu)  # fmt: skip
        need = need_of(spec.model, asked.params, spec.task_type, own)
        models = None if spec.training.models is None else Path(spec.training.models)
        name = spec.model.replace("/", "--")
        at = () if models is None or not name else (models / name, models / f".{name}")
        return Owed(need, folder, at)
