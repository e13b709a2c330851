"""Every number that a comparison depends on, with what it means and whether it has a source."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from pydantic import BaseModel

from sim.comparison import Comparison
from sim.field import field_of

_ELSEWHERE = {"name", "description", "presets", "service"}
"""Parts of a scenario that are shown elsewhere, or in another form."""


@dataclass(frozen=True)
class Parameter:
    """One number of the scenario: its key, its value, whether it is as shipped, what it is."""

    key: str
    value: str
    shipped: bool
    meaning: str

    @property
    def assumed(self) -> bool:
        """Whether no public source gives it."""
        return "assumed" in self.meaning.lower()


def parameters_of(comparison: Comparison) -> list[Parameter]:
    """Every number of the scenario; a shipped field and a default service are spelled out."""
    world = comparison.world
    service = world.scenario.service_of(recorded=world.offers is not None)
    told = [*flattened(world.scenario, leave=_ELSEWHERE), *flattened(service, "service.")]
    if isinstance(world.scenario.market.field, str):
        field = field_of(world.scenario.market.field)
        spelled = [replace(each, shipped=True) for each in flattened(field, "market.field.")]
        at = next(place for place, each in enumerate(told) if each.key == "market.field")
        told[at + 1 : at + 1] = spelled
    return told


def flattened(
    part: BaseModel, prefix: str = "", leave: set[str] | None = None
) -> Iterator[Parameter]:
    """Every number of a part of the scenario, keys joined by dots as in an error message."""
    for name, field in type(part).model_fields.items():
        if name in (leave or ()):
            continue
        value = getattr(part, name)
        if isinstance(value, BaseModel):
            yield from flattened(value, f"{prefix}{name}.")
            continue
        shipped = not field.is_required() and value == field.get_default(call_default_factory=True)
        meaning = field.description or _FALLBACK.get(name, "")
        yield Parameter(prefix + name, written(value), shipped, meaning)


_FALLBACK = {"kind": "Which model of this part is used."}


def written(value: object) -> str:
    """A parameter's value as people write it."""
    match value:
        case None:
            return "not set"
        case bool():
            return "yes" if value else "no"
        case int() | float():
            return f"{value:,.12g}" if abs(value) < 1e12 else str(value)
        case BaseModel():
            return ", ".join(f"{key} {written(part)}" for key, part in value)
        case tuple() | list():
            return "; ".join(written(part) for part in value) or "none"
    return str(value)
