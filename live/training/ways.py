"""What the machine and the model's family allow: libraries, linear layers, ways of attention."""

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Literal

from live.training.rows import CHAT, INSTRUCT
from shared.plan import Deviation

Attention = Literal["flash_attention_2", "packed", "sdpa", "eager"]
"""What transformers calls it; ``packed`` is ours (live.training.attention)."""
FLASH: Attention = "flash_attention_2"
PACKED: Attention = "packed"
SDPA: Attention = "sdpa"
EAGER: Attention = "eager"
END_TO_END = (FLASH, PACKED)
"""Ways for which rows of unequal lengths need no padding."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What this process may use. cuda: a GPU; flash, bits8: whether the libraries are there."""

    cuda: bool
    flash: bool
    bits8: bool


@dataclass(frozen=True, slots=True)
class Family:
    """What the model's family allows.

    projections: names of its linear layers. attentions: ways of attention, best first. lacks: why
    another one is not among them, or empty. apart: whether rows may be laid end to end.
    """

    projections: tuple[str, ...]
    attentions: tuple[Attention, ...] = (FLASH, PACKED, SDPA, EAGER)
    lacks: str = ""
    apart: bool = True


def machine(device: str) -> Machine:
    """What this process may use."""
    cuda = device == "cuda"
    return Machine(
        cuda=cuda,
        flash=cuda and _imports("flash_attn"),
        bits8=cuda and find_spec("bitsandbytes") is not None,
    )


def _imports(name: str) -> bool:
    """Whether a package of kernels can be used; one that was built for another torch is there and
    cannot.
    """
    if find_spec(name) is None:
        return False
    try:
        import_module(name)
    except (ImportError, OSError, RuntimeError):
        return False
    return True


def attention_for(task_type: str, family: Family, here: Machine, faults: int = 0) -> Attention:
    """The best way there is; the SFT trainer alone lays rows end to end.

    faults: attempts that failed, but for want of memory; after one, the kernel that is ours to
    call is not called again.
    """
    ours = task_type in (INSTRUCT, CHAT) and not faults
    return next(
        way for way in family.attentions if (way != FLASH or here.flash) and (way != PACKED or ours)
    )


def padding_free(attention: Attention, task_type: str, family: Family, micro: int) -> bool:
    """Whether several rows are laid end to end: by the SFT trainer, where they stay apart."""
    sft = task_type in (INSTRUCT, CHAT)
    return sft and attention in END_TO_END and family.apart and micro > 1


def other_attention(family: Family, given: Attention) -> list[Deviation]:
    """What is said where the profile's flash attention is not what is taken."""
    if given == FLASH:
        return []
    there = FLASH in family.attentions
    why = "flash-attn is not installed" if there else "the model's family has no flash attention"
    said = "; ".join(each for each in (why, family.lacks) if each)
    return [Deviation("attention", "flash", given, said)]
