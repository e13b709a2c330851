"""The strategies, as data: nothing a preset says stands anywhere else in the code."""

from dataclasses import dataclass, field, fields, replace

from shared.errors import InputError
from shared.layout import DEFAULT_GPUS, H100_MEMORY_GB, MOST_SLOTS, SlotLayout, slot_layout
from shared.priority import Formula, Tables, TimeAndSize, WeightedSum, WeightedTerms
from shared.profiles import (
    ACCURACY_PROFILE,
    MAXIMUM_PROFILE,
    THROUGHPUT_PROFILE,
    TrainingProfile,
)


@dataclass(frozen=True, slots=True)
class Messages:
    """A preset's own words, as format templates.

    Fields in braces: cap, limit (hours), priority (a float); of ``unsupported`` also why; of
    ``capacity_warning`` cap and n (slots in use) alone. Raises InputError naming a template that
    asks for anything else: a decision must never fail on its wording.
    """

    accepted: str
    capacity: str
    time: str
    priority: str
    capacity_warning: str
    draining: str = "Not accepting: draining, the operator stopped acceptance"
    storage: str = "Not accepting: storage, no room for another job"
    unsupported: str = "Unsupported on this box: {why}"
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    def __post_init__(self) -> None:
        for part in fields(self):
            template = getattr(self, part.name)
            known: dict[str, object] = {"cap": 1, "limit": "1", "priority": 1.0, "why": ""}
            if part.name == "capacity_warning":
                known = {"cap": 1, "n": 1}
            try:
                template.format(**known)
            except (LookupError, ValueError, AttributeError):
                raise InputError(
                    f"messages.{part.name}: found {template!r}, allowed in braces is "
                    f"{', '.join(known)}"
                ) from None


@dataclass(frozen=True, slots=True)
class Preset:
    """One strategy with all its numbers.

    cap: slots, 1 to 24. time_limit_hours: longest job taken, itself included. threshold: an offer
    is taken when its priority is over it; None takes every offer that passes the other gates.
    gpus, gpu_memory_gb: the box, in GPUs and GB (10**9 bytes) of each.
    """

    name: str
    cap: int
    time_limit_hours: float
    threshold: float | None
    formula: Formula = field(hash=False)
    tables: Tables = field(hash=False)
    messages: Messages
    profile: TrainingProfile
    gpus: int = DEFAULT_GPUS
    gpu_memory_gb: float = H100_MEMORY_GB
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    def __post_init__(self) -> None:
        if not 1 <= self.cap <= MOST_SLOTS:
            raise InputError(f"cap: found {self.cap}, allowed is 1 to {MOST_SLOTS}")
        for name in ("time_limit_hours", "gpus", "gpu_memory_gb"):
            found = getattr(self, name)
            if not 0 < found < float("inf"):
                raise InputError(f"{name}: found {found}, allowed is a number over 0")
        if self.threshold is not None and not 0 <= self.threshold <= 1:
            raise InputError(f"threshold: found {self.threshold}, allowed is 0 to 1")

    @property
    def layout(self) -> SlotLayout:
        """Which GPUs each slot holds."""
        return slot_layout(self.cap, self.gpus, self.gpu_memory_gb)

    def varied(
        self,
        *,
        cap: int | None = None,
        threshold: float | None = None,
        time_limit_hours: float | None = None,
        name: str | None = None,
    ) -> "Preset":
        """This strategy with some of its numbers changed, all else as it is.

        Raises InputError when the number is out of range.
        """
        changes = {
            "cap": cap,
            "threshold": threshold,
            "time_limit_hours": time_limit_hours,
            "name": name,
        }
        return replace(self, **{key: value for key, value in changes.items() if value is not None})  # type: ignore[arg-type]


_FAMILY_GROUPS = {
    0.95: "llama",
    0.90: "mistral codellama",
    0.85: "qwen deepseek gpt falcon mpt openllama vicuna alpaca wizard baichuan chatglm internlm "
    "yi aquila belle",
    0.80: "gemma bert t5 roberta opt bloom gptj gptneo gptneox xglm pythia redpajama",
    0.75: "phi gpt2",
}

DEFAULT_TABLES = Tables(
    task_weight=dict.fromkeys(
        ("InstructTextTask", "ChatTask", "DpoTask", "GrpoTask", "ImageTask"), 0.25
    ),
    family_performance={
        family: value for value, families in _FAMILY_GROUPS.items() for family in families.split()
    },
    task_success={
        "InstructTextTask": 0.95,
        "ChatTask": 0.90,
        "DpoTask": 0.90,
        "GrpoTask": 0.95,
        "ImageTask": 0.90,
    },
)
"""The public predecessor miners' tables, where the strategy document leaves them open."""

ACCURACY_4 = Preset(
    name="accuracy_4",
    cap=4,
    time_limit_hours=72.0,
    threshold=0.70,
    formula=WeightedTerms(weight=0.20, bonus=0.30, hardware_bonus=0.25),
    tables=DEFAULT_TABLES,
    messages=Messages(
        accepted="Accepted for accuracy optimization - priority {priority:.3f}",
        capacity="At accuracy-optimized capacity ({cap} jobs)",
        time="Job duration too long (>{limit} hours)",
        priority="Priority {priority:.3f} below accuracy threshold",
        capacity_warning="At accuracy capacity: {n}/{cap} jobs",
    ),
    profile=ACCURACY_PROFILE,
)
"""The strategy document's recommendation, and the default in production."""

THROUGHPUT_24 = replace(
    ACCURACY_4,
    name="throughput_24",
    cap=24,
    messages=Messages(
        accepted="Accepted for throughput optimization - priority {priority:.3f}",
        capacity="At throughput-optimized capacity ({cap} jobs)",
        time="Job duration too long (>{limit} hours)",
        priority="Priority {priority:.3f} below throughput threshold",
        capacity_warning="At throughput capacity: {n}/{cap} jobs",
    ),
    profile=THROUGHPUT_PROFILE,
)
"""``accuracy_4`` but for its cap, its training profile and its wording."""

UNIVERSAL_24 = Preset(
    name="universal_24",
    cap=24,
    time_limit_hours=48.0,
    threshold=None,
    formula=TimeAndSize(
        weight=0.25, time_weight=0.10, size_weight=0.05, size_cap_b=100.0, bonus=0.25, floor=0.50
    ),
    tables=DEFAULT_TABLES,
    messages=Messages(
        accepted="Accepted all jobs strategy - priority score {priority:.3f}",
        capacity="At maximum capacity ({cap} jobs)",
        time="Job duration too long (>{limit} hours)",
        priority="Priority score {priority:.3f} below the threshold",
        capacity_warning="At maximum capacity: {n}/{cap} jobs",
    ),
    profile=THROUGHPUT_PROFILE,
)
"""The predecessor that takes every job it has room for."""

MAXIMUM_2 = Preset(
    name="maximum_2",
    cap=2,
    time_limit_hours=96.0,
    threshold=0.85,
    formula=WeightedSum(weight=0.15, bonus=0.40, hardware_bonus=0.35),
    tables=DEFAULT_TABLES,
    messages=Messages(
        accepted="Accepted for maximum accuracy - priority {priority:.3f}",
        capacity="At maximum-accuracy capacity ({cap} jobs)",
        time="Job duration too long (>{limit} hours)",
        priority="Priority {priority:.3f} below maximum-accuracy threshold",
        capacity_warning="At maximum-accuracy capacity: {n}/{cap} jobs",
    ),
    profile=MAXIMUM_PROFILE,
)
"""The predecessor that gives each of two jobs half the box."""

PRESETS = {preset.name: preset for preset in (ACCURACY_4, THROUGHPUT_24, UNIVERSAL_24, MAXIMUM_2)}


def preset_named(name: str) -> Preset:
    """The preset of that name. Raises InputError naming those that exist."""
    if name not in PRESETS:
        raise InputError(f"preset: found {name!r}, allowed is one of {', '.join(PRESETS)}")
    return PRESETS[name]
