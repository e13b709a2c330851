"""What the policy answers: the gate that decided, the message, and the record of both."""

from dataclasses import dataclass
from enum import IntEnum

from shared.box import UNDECLARED, BoxDeclaration
from shared.errors import InputError
from shared.families import family_of
from shared.offers import Offer, params_b
from shared.presets import Preset
from shared.priority import Facts
from shared.units import MS_PER_MINUTE, MS_PER_SECOND

DEFAULT_RESERVATION_TTL_MS = 30 * MS_PER_MINUTE
DEFAULT_REPEAT_WINDOW_MS = 60 * MS_PER_SECOND


class Gate(IntEnum):
    """The gate that decided an offer, in the order in which they stand."""

    ACCEPTED = 0
    DRAINING = 1
    STORAGE = 2
    CAPACITY = 3
    TIME = 4
    UNSUPPORTED = 5
    PRIORITY = 6

    @property
    def label(self) -> str:
        """The gate's name as it is written out."""
        return self.name.lower()


@dataclass(frozen=True, slots=True)
class Policy:
    """Everything that a decision depends on besides the inputs: the policy in force.

    reservation_ttl_ms: a reservation whose start request has not come by then lapses; at
    least 2, as a start is entered in the millisecond after its acceptance at the earliest.
    repeat_window_ms: for so long a decision on a task answers for it again, the last millisecond
    included. Raises InputError when either is out of range.
    """

    preset: Preset
    box: BoxDeclaration = UNDECLARED
    reservation_ttl_ms: int = DEFAULT_RESERVATION_TTL_MS
    repeat_window_ms: int = DEFAULT_REPEAT_WINDOW_MS
    __pydantic_config__ = {"extra": "forbid"}  # noqa: RUF012

    def __post_init__(self) -> None:
        for name, least in (("reservation_ttl_ms", 2), ("repeat_window_ms", 0)):
            found = getattr(self, name)
            if found < least:
                raise InputError(f"{name}: found {found}, allowed is {least} or more")


@dataclass(frozen=True, slots=True)
class Decision:
    """The answer to one offer.

    at_ms: when it was given. slot: the slot reserved, None when refused. priority: always
    computed. repeat: the first answer given again, which changed nothing.
    """

    at_ms: int
    task_id: str
    accepted: bool
    gate: str
    reason: str
    priority: float
    slot: int | None
    repeat: bool = False


def facts_of(offer: Offer, preset: Preset) -> Facts:
    """What the priority formula looks at, of one offer."""
    tables = preset.tables
    return Facts(
        task_weight=tables.weight_of(offer.task_type),
        family_performance=tables.performance_of(family_of(offer.model)),
        task_success=tables.success_of(offer.task_type),
        hours=offer.hours_to_complete,
        params_b=params_b(offer.model, offer.model_params_count),
    )


def priority_of(offer: Offer, preset: Preset) -> float:
    """The priority of one offer under a preset."""
    return float(preset.formula.score(facts_of(offer, preset)))


def static_gate(offer: Offer, priority: float, policy: Policy) -> Gate:
    """The first gate that the offer's own fields fail, whatever the state of the box."""
    preset = policy.preset
    if offer.hours_to_complete > preset.time_limit_hours:
        return Gate.TIME
    if policy.box.why_unsupported(offer, preset.layout) is not None:
        return Gate.UNSUPPORTED
    if preset.threshold is not None and not priority > preset.threshold:
        return Gate.PRIORITY
    return Gate.ACCEPTED


def reason_of(gate: Gate, offer: Offer, priority: float, policy: Policy) -> str:
    """The message that goes with a decision, in the preset's words."""
    preset = policy.preset
    template: str = getattr(preset.messages, gate.label)
    why = ""
    if gate is Gate.UNSUPPORTED:
        why = policy.box.why_unsupported(offer, preset.layout) or ""
    limit = _hours_text(preset.time_limit_hours)
    return template.format(cap=preset.cap, limit=limit, priority=priority, why=why)


def _hours_text(hours: float) -> str:
    """72.0 as 72, anything else with every digit it has."""
    return str(int(hours)) if hours == int(hours) else repr(hours)


def capacity_warning(preset: Preset, slots_in_use: int) -> str:
    """The warning line that goes to the log beside a capacity refusal."""
    return preset.messages.capacity_warning.format(n=slots_in_use, cap=preset.cap)
