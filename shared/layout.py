"""Which GPUs a slot holds, and what share of them, for any cap from 1 to 24.

Up to 8 slots, each holds floor(8/cap) whole GPUs of its own and the rest stay idle. Above 8, slot
i sits on GPU i mod 8 and ceil(cap/8) slots share a GPU, its memory and its compute.
"""

from dataclasses import dataclass
from functools import lru_cache

MOST_SLOTS = 24
DEFAULT_GPUS = 8
H100_MEMORY_GB = 80.0


@dataclass(frozen=True, slots=True)
class SlotLayout:
    """One way of cutting the box into slots.

    gpus: the GPU numbers each slot holds, indexed by slot.
    memory_gb: memory a slot may use over all its GPUs, in GB of 10**9 bytes.
    gpu_share: the part of each of its GPUs that a slot has while every slot runs, 0 to 1.
    """

    gpus: tuple[tuple[int, ...], ...]
    memory_gb: float
    gpu_share: float

    @property
    def gpus_per_slot(self) -> float:
        """GPUs' worth of compute one slot holds (2 for the pairs, 1/3 for 24 slots)."""
        return len(self.gpus[0]) * self.gpu_share

    @property
    def memory_gb_per_gpu(self) -> float:
        """Memory a slot may use on each GPU it holds, in GB."""
        return self.memory_gb / len(self.gpus[0])

    def slots_on(self, gpus: frozenset[int]) -> int:
        """Bit mask of the slots that hold any of these GPUs."""
        return sum(1 << slot for slot, held in enumerate(self.gpus) if not gpus.isdisjoint(held))


@lru_cache(maxsize=256)
def slot_layout(
    cap: int, gpus: int = DEFAULT_GPUS, gpu_memory_gb: float = H100_MEMORY_GB
) -> SlotLayout:
    """Cut a box of ``gpus`` GPUs of ``gpu_memory_gb`` each into ``cap`` slots."""
    if cap <= gpus:
        each = gpus // cap
        pairs = tuple(tuple(range(slot * each, slot * each + each)) for slot in range(cap))
        return SlotLayout(pairs, each * gpu_memory_gb, 1.0)
    sharing = -(-cap // gpus)
    shared = tuple((slot % gpus,) for slot in range(cap))
    return SlotLayout(shared, gpu_memory_gb / sharing, 1.0 / sharing)
