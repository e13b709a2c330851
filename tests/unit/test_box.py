"""What a box has declared it cannot train."""

from typing import Any

import pytest

import shared.box
from shared.box import UNDECLARED, BoxDeclaration
from shared.layout import slot_layout
from shared.offers import Offer
from shared.presets import ACCURACY_4

PAIRS = ACCURACY_4.layout
LLAMA = "meta-llama/Llama-3.1-8B-Instruct"


def offer(task_type: str = "InstructTextTask", model: str = LLAMA, params: Any = None) -> Offer:
    return Offer("t", model, task_type, 5.0, 1000, params)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """Questions that reached the planner, which says that only models with 1 in their count fit."""
    questions: list[tuple[Any, ...]] = []

    def fits(*question: Any, samples: bool) -> bool:
        questions.append((*question, samples))
        return question[1] == 1

    monkeypatch.setattr(shared.box, "fits", fits)
    return questions


def test_nothing_declared_supports_everything(asked: list[tuple[Any, ...]]) -> None:
    for task_type in ("InstructTextTask", "ImageTask", "NeverHeardOfTask", ""):
        assert UNDECLARED.why_unsupported(offer(task_type, "x/y-900b"), PAIRS) is None
    assert asked == []
    assert BoxDeclaration() == UNDECLARED


def test_task_types_are_exact(asked: list[tuple[Any, ...]]) -> None:
    box = BoxDeclaration(task_types=frozenset({"InstructTextTask", "DpoTask"}))
    assert box.why_unsupported(offer("DpoTask"), PAIRS) is None
    assert box.why_unsupported(offer("ChatTask"), PAIRS) == "task type ChatTask"
    assert box.why_unsupported(offer("dpotask"), PAIRS) == "task type dpotask"
    assert asked == []


def test_no_task_type_declared_is_not_an_empty_declaration() -> None:
    assert BoxDeclaration(task_types=frozenset()).why_unsupported(offer(), PAIRS) is not None


def test_the_planner_is_asked_about_one_slot(asked: list[tuple[Any, ...]]) -> None:
    box = BoxDeclaration(shortest_row=512)
    assert box.why_unsupported(offer(params=1), PAIRS) is None
    assert box.why_unsupported(offer(params=1), slot_layout(24)) is None
    assert box.why_unsupported(offer("GrpoTask", params=1), PAIRS) is None
    assert asked == [
        (LLAMA, 1, 2, 80.0, 512, False),
        (LLAMA, 1, 1, 80 / 3, 512, False),
        (LLAMA, 1, 2, 80.0, 512, True),
    ]


def test_a_model_that_does_not_fit_is_named_with_the_slot(asked: list[tuple[Any, ...]]) -> None:
    box = BoxDeclaration(frozenset({"InstructTextTask"}), 512)
    assert box.why_unsupported(offer(), PAIRS) == f"{LLAMA} does not fit a slot of 160.0 GB"
    assert (
        box.why_unsupported(offer(), slot_layout(24)) == f"{LLAMA} does not fit a slot of 26.7 GB"
    )
    assert box.why_unsupported(offer("DpoTask"), PAIRS) == "task type DpoTask"
    assert len(asked) == 2


def test_image_models_have_a_planner_of_their_own(asked: list[tuple[Any, ...]]) -> None:
    box, flux = BoxDeclaration(shortest_row=512), "black-forest-labs/FLUX.1-dev"
    third = slot_layout(24)
    assert box.why_unsupported(offer("ImageTask", params=12_000_000_000), PAIRS) is None
    assert box.why_unsupported(offer("ImageTask", params=3_500_000_000), third) is None
    assert box.why_unsupported(offer("ImageTask"), third) is None  # of a size that nobody told
    told = box.why_unsupported(offer("ImageTask", flux, 12_000_000_000), third)
    assert told == f"{flux} does not fit a slot of 26.7 GB"
    assert UNDECLARED.why_unsupported(offer("ImageTask", flux, 10**12), third) is None
    assert asked == []


def test_the_real_planner_answers() -> None:
    box = BoxDeclaration(shortest_row=512)
    assert box.why_unsupported(offer(params=8_030_261_248), PAIRS) is None
    huge = offer(model="someone/model-900b", params=900_000_000_000)
    assert box.why_unsupported(huge, PAIRS) is not None
