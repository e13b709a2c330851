"""Which GPUs a slot holds, for every cap from 1 to 24, against the rule written out."""

import math

import pytest

from shared.layout import DEFAULT_GPUS, H100_MEMORY_GB, MOST_SLOTS, slot_layout

CAPS = range(1, MOST_SLOTS + 1)


def test_the_box() -> None:
    assert (DEFAULT_GPUS, H100_MEMORY_GB, MOST_SLOTS) == (8, 80, 24)


@pytest.mark.parametrize(
    ("cap", "gpus", "memory_gb", "gpus_per_slot"),
    [
        (1, ((0, 1, 2, 3, 4, 5, 6, 7),), 640, 8),
        (2, ((0, 1, 2, 3), (4, 5, 6, 7)), 320, 4),
        (3, ((0, 1), (2, 3), (4, 5)), 160, 2),
        (4, ((0, 1), (2, 3), (4, 5), (6, 7)), 160, 2),
        (5, ((0,), (1,), (2,), (3,), (4,)), 80, 1),
        (8, ((0,), (1,), (2,), (3,), (4,), (5,), (6,), (7,)), 80, 1),
        (9, ((0,), (1,), (2,), (3,), (4,), (5,), (6,), (7,), (0,)), 40, 0.5),
        (16, tuple((gpu,) for gpu in (*range(8), *range(8))), 40, 0.5),
        (17, tuple((gpu,) for gpu in (*range(8), *range(8), 0)), 80 / 3, 1 / 3),
        (24, tuple((gpu,) for gpu in (*range(8), *range(8), *range(8))), 80 / 3, 1 / 3),
    ],
)
def test_by_hand(
    cap: int, gpus: tuple[tuple[int, ...], ...], memory_gb: float, gpus_per_slot: float
) -> None:
    layout = slot_layout(cap)
    assert layout.gpus == gpus
    assert layout.memory_gb == memory_gb
    assert layout.gpus_per_slot == gpus_per_slot


@pytest.mark.parametrize("cap", CAPS)
def test_every_cap_follows_the_rule(cap: int) -> None:
    layout = slot_layout(cap)
    assert len(layout.gpus) == cap
    if cap <= 8:
        each = math.floor(8 / cap)
        assert layout.gpus == tuple(
            tuple(range(i * each, i * each + each - 1 + 1)) for i in range(cap)
        )
        assert (layout.memory_gb, layout.gpu_share) == (80 * each, 1)
        assert layout.memory_gb_per_gpu == 80
    else:
        sharing = math.ceil(cap / 8)
        assert layout.gpus == tuple((i % 8,) for i in range(cap))
        assert (layout.memory_gb, layout.gpu_share) == (80 / sharing, 1 / sharing)
        assert layout.memory_gb_per_gpu == layout.memory_gb


@pytest.mark.parametrize("cap", CAPS)
def test_no_gpu_is_oversold(cap: int) -> None:
    layout = slot_layout(cap)
    for gpu in range(8):
        holders = sum(gpu in held for held in layout.gpus)
        assert holders * layout.gpu_share <= 1 + 1e-12
        assert holders * layout.memory_gb_per_gpu <= 80 + 1e-9
    assert all(0 <= gpu < 8 for held in layout.gpus for gpu in held)


@pytest.mark.parametrize("cap", CAPS)
@pytest.mark.parametrize("gpu", range(8))
def test_slots_on_a_gpu(cap: int, gpu: int) -> None:
    layout = slot_layout(cap)
    mask = layout.slots_on(frozenset({gpu}))
    assert [slot for slot in range(cap) if mask >> slot & 1] == [
        slot for slot in range(cap) if gpu in layout.gpus[slot]
    ]


def test_one_failing_gpu_takes_1_slot_of_4_and_3_of_24() -> None:
    assert slot_layout(4).slots_on(frozenset({3})) == 0b0010
    assert slot_layout(24).slots_on(frozenset({3})) == 1 << 3 | 1 << 11 | 1 << 19
    assert slot_layout(3).slots_on(frozenset({6, 7})) == 0  # idle GPUs
    assert slot_layout(4).slots_on(frozenset()) == 0
    assert slot_layout(4).slots_on(frozenset({0, 7})) == 0b1001


def test_another_box() -> None:
    one = slot_layout(1, 1, 24.0)
    assert (one.gpus, one.memory_gb, one.gpu_share) == (((0,),), 24.0, 1.0)
    three = slot_layout(3, 2, 48.0)
    assert (three.gpus, three.memory_gb, three.gpu_share) == (((0,), (1,), (0,)), 24.0, 0.5)
