"""A number of a scenario that can be varied, and how it is written into the scenario."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shared.errors import InputError


@dataclass(frozen=True, slots=True)
class Parameter:
    """A number of a scenario and its plausible range.

    key: dotted path, such as start.lag_minutes; a number in it counts list entries from 0.
    whole: the scenario takes whole numbers only, so values between are rounded. why: the reason
    for the range, or its source.
    """

    key: str
    low: float
    high: float
    label: str
    whole: bool = False
    why: str = ""

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise InputError(f"{self.key}: found low {self.low:g}, allowed is under {self.high:g}")

    def set_in(self, base: Mapping[str, Any], value: float) -> dict[str, Any]:
        """The scenario's mapping with this parameter at a value."""
        return with_value(base, self.key, round(value) if self.whole else value)

    def found_in(self, base: Mapping[str, Any]) -> float:
        """The scenario's own value. Raises InputError where it has none."""
        return float(value_at(base, self.key))

    def shown(self, value: float) -> str:
        """A value as people write it."""
        return f"{value:,.0f}" if self.whole else f"{value:g}"


@dataclass(frozen=True, slots=True)
class Choice(Parameter):
    """A choice of names instead of a number: its values are the places in ``names``, from 0."""

    names: tuple[str, ...] = ()

    def set_in(self, base: Mapping[str, Any], value: float) -> dict[str, Any]:
        """The scenario's mapping with the name at this place."""
        return with_value(base, self.key, self.names[round(value)])

    def found_in(self, base: Mapping[str, Any]) -> float:
        """The place of the scenario's own name."""
        return float(self.names.index(value_at(base, self.key)))

    def shown(self, value: float) -> str:
        """The name at this place."""
        return self.names[round(value)]


@dataclass(frozen=True, slots=True)
class Span(Parameter):
    """The middle of a range ``{low, high}`` of the scenario, which keeps its width.

    Where the range would reach below 0 it is narrowed about its middle.
    """

    def set_in(self, base: Mapping[str, Any], value: float) -> dict[str, Any]:
        """The scenario's mapping with the range moved to this middle."""
        ends = value_at(base, self.key)
        half = min((ends["high"] - ends["low"]) / 2, value)
        changed = with_value(base, f"{self.key}.low", value - half)
        return with_value(changed, f"{self.key}.high", value + half)

    def found_in(self, base: Mapping[str, Any]) -> float:
        """The middle of the scenario's own range."""
        ends = value_at(base, self.key)
        return float(ends["low"] + ends["high"]) / 2


@dataclass(frozen=True, slots=True)
class Portion(Parameter):
    """A share of a whole: the others (``rest``, keys beside it) keep their proportions."""

    rest: tuple[str, ...] = ()

    def set_in(self, base: Mapping[str, Any], value: float) -> dict[str, Any]:
        """The scenario's mapping with this share, the others scaled to the rest."""
        parent = self.key.rpartition(".")[0]
        others = {key: value_at(base, f"{parent}.{key}") for key in self.rest}
        scale = (1.0 - value) / sum(others.values())
        changed = with_value(base, self.key, value)
        for key, share in others.items():
            changed = with_value(changed, f"{parent}.{key}", share * scale)
        return changed


def value_at(base: Mapping[str, Any], key: str) -> Any:
    """What stands at a dotted path. Raises InputError naming the key when there is no such path."""
    here: Any = base
    for step in key.split("."):
        if isinstance(here, Mapping) and step in here:
            here = here[step]
        elif isinstance(here, list | tuple) and step.isdecimal() and int(step) < len(here):
            here = here[int(step)]
        else:
            raise InputError(f"{key}: found no {step!r}, allowed is a path of the scenario")
    return here


def with_value(base: Mapping[str, Any], key: str, value: object) -> dict[str, Any]:
    """A scenario's mapping with one value changed; missing mappings on the way are made.

    What lies beside the path is shared with ``base``, which stays as it is.
    Raises InputError naming the key when its path leads through something that has no keys.
    """
    changed: dict[str, Any] = _changed(base, key.split("."), value, key)
    return changed


def _changed(here: Any, path: list[str], value: object, key: str) -> Any:
    step, rest = path[0], path[1:]
    if isinstance(here, list | tuple) and step.isdecimal() and int(step) < len(here):
        copy: Any = list(here)
        place: Any = int(step)
    elif here is None or isinstance(here, Mapping):
        copy, place = dict(here or {}), step
        copy.setdefault(step)
    else:
        raise InputError(f"{key}: found no place for {step!r}, allowed is a path of the scenario")
    copy[place] = _changed(copy[place], rest, value, key) if rest else value
    return copy
