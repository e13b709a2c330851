"""The `market.rules` part of a scenario: numbers of the rule set that an analyst changes.

What is left out stays as the named rule set has it. The result is checked as a rule set is.
"""

from dataclasses import replace
from typing import Annotated

from pydantic import Field

from shared.errors import InputError
from sim.market.rules import Curve, Points, RuleSet, TaskGroup, Window
from sim.quality.config import Part

Weight = Annotated[float, Field(ge=0, le=1)]


class WindowPart(Part):
    """One window of the income."""

    days: Annotated[float, Field(gt=0, le=365)] = Field(description="Tasks of the last days.")
    weight: Weight = Field(description="Its weight; those of all windows sum to 1.")


class CurvePart(Part):
    """Points for x, a cell's part of its largest: height * sigmoid ** power + slope * x."""

    height: Annotated[float, Field(ge=0, le=100)] | None = Field(
        default=None, description="Of the sigmoid's part."
    )
    steepness: Annotated[float, Field(ge=0, le=1000)] | None = Field(
        default=None, description="Of the sigmoid; 0: no leader's advantage."
    )
    middle: Weight | None = Field(default=None, description="x of half the sigmoid.")
    power: Annotated[float, Field(gt=0, le=100)] | None = Field(
        default=None, description="Exponent of the sigmoid."
    )
    slope: Annotated[float, Field(ge=0, le=100)] | None = Field(
        default=None, description="Of the straight part."
    )


class PointsPart(Part):
    """What a place earns."""

    places: Annotated[tuple[float, ...], Field(strict=False, min_length=1)] | None = Field(
        default=None, description="Scores of the first places; later ones score 0."
    )
    penalty: Annotated[float, Field(ge=-100, le=0)] | None = Field(
        default=None, description="Score of a failure, and of the last where many are left."
    )
    penalty_above: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        default=None, description="With more left than this, the last ones are penalised."
    )
    penalty_share: Weight | None = Field(default=None, description="Share of those left.")


class RuleChanges(Part):
    """Numbers that differ from the rule set's."""

    windows: Annotated[tuple[WindowPart, ...], Field(strict=False, min_length=1)] | None = Field(
        default=None, description="The windows of the income, all of them."
    )
    group_weights: dict[str, Weight] | None = Field(
        default=None, description="Weight of every task group by its name; they sum to 1."
    )
    points: PointsPart = Field(default=PointsPart(), description="What a place earns.")
    curve: CurvePart = Field(default=CurvePart(), description="The leader's advantage.")
    flag_deviations: Annotated[float, Field(ge=0, le=100)] | None = Field(
        default=None, description="Standard deviations at which organic scores are flagged."
    )

    def applied(self, rules: RuleSet) -> RuleSet:
        """The changed rule set. Raises InputError naming the key."""
        windows = rules.windows
        if self.windows is not None:
            windows = tuple(Window(each.days, each.weight) for each in self.windows)
        deviations = self.flag_deviations
        return replace(
            rules,
            windows=windows,
            groups=self._groups(rules),
            points=self._points(rules.points),
            curve=self._curve(rules.curve),
            flag_deviations=rules.flag_deviations if deviations is None else deviations,
        )

    def _groups(self, rules: RuleSet) -> tuple[TaskGroup, ...]:
        if self.group_weights is None:
            return rules.groups
        names, found = {group.name for group in rules.groups}, set(self.group_weights)
        if found != names:
            allowed = ", ".join(group.name for group in rules.groups)
            raise InputError(
                f"group_weights: found {', '.join(sorted(found)) or 'nothing'}, "
                f"allowed is a weight for each of {allowed}"
            )
        return tuple(
            replace(group, weight=self.group_weights[group.name]) for group in rules.groups
        )

    def _points(self, points: Points) -> Points:
        return replace(points, **self.points.model_dump(exclude_none=True))

    def _curve(self, curve: Curve) -> Curve:
        return replace(curve, **self.curve.model_dump(exclude_none=True))
