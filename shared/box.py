"""What this box has declared it can train: one small file that production and scenarios read."""

from dataclasses import dataclass

from shared.errors import InputError
from shared.image_memory import image_fits
from shared.layout import SlotLayout
from shared.memory import fits
from shared.offers import Offer

IMAGE_TASK, GRPO_TASK = "ImageTask", "GrpoTask"


@dataclass(frozen=True, slots=True)
class BoxDeclaration:
    """Task types and the shortest row that a job must be able to train.

    task_types: the types this box trains; None declares nothing, so every type is supported.
    shortest_row: tokens of the shortest row worth training; a model of which one such row, or one
    picture, does not fit a slot is refused. None declares nothing, so every size is supported.
    Raises InputError when it is under 1.
    """

    task_types: frozenset[str] | None = None
    shortest_row: int | None = None
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    def __post_init__(self) -> None:
        if self.shortest_row is not None and self.shortest_row < 1:
            raise InputError(f"found {self.shortest_row}, allowed for shortest_row is 1 or more")

    def why_unsupported(self, offer: Offer, layout: SlotLayout) -> str | None:
        """What this box cannot train about the offer, or None. Only the offer's fields count."""
        if self.task_types is not None and offer.task_type not in self.task_types:
            return f"task type {offer.task_type}"
        if self.shortest_row is None or _fits(offer, layout, self.shortest_row):
            return None
        return f"{offer.model} does not fit a slot of {layout.memory_gb:.1f} GB"


UNDECLARED = BoxDeclaration()
"""Supports everything."""


def _fits(offer: Offer, layout: SlotLayout, shortest_row: int) -> bool:
    params, gpus, gb_per_gpu = (
        offer.model_params_count, len(layout.gpus[0]), layout.memory_gb_per_gpu,
    )  # fmt: skip
    if offer.task_type == IMAGE_TASK:
        return image_fits(params, gpus, gb_per_gpu)
    samples = offer.task_type == GRPO_TASK
    return fits(offer.model, params, gpus, gb_per_gpu, shortest_row, samples=samples)
