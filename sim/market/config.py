"""The `market` part of a scenario: rules, competitors, quality model, the emission's worth."""

from typing import Annotated, Self

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from shared.errors import InputError
from sim.field import FieldConfig, FieldName
from sim.market.changes import RuleChanges
from sim.market.rules import MID_2025, RULE_SETS, Emission, RuleSet, rule_set
from sim.quality.config import ModelName, Part, QualityConfig


def _form(entry: object) -> str:
    return "name" if isinstance(entry, str) else "numbers"


FieldEntry = Annotated[
    Annotated[FieldName, Tag("name")] | Annotated[FieldConfig, Tag("numbers")],
    Discriminator(_form),
]
"""A shipped field by its name, or its numbers; an error then names the number."""


class MarketConfig(Part):
    """How decisions become ranks and income."""

    rule_set: str = Field(
        default=MID_2025.name, description=f"Version of the market's rules: {', '.join(RULE_SETS)}."
    )
    rules: RuleChanges = Field(
        default=RuleChanges(), description="Numbers that differ from the rule set's."
    )
    field: FieldEntry = Field(
        default="even",
        description="The competitors: weak, even, strong (median loss 1.15, 1, 0.90 times the "
        "reference run's), or their numbers; assumed.",
    )
    quality_model: ModelName = Field(
        default="physical", description="The primary model of a training's outcome."
    )
    quality: QualityConfig = Field(
        default=QualityConfig(), description="The quality models' parameters."
    )
    emission_per_day: Annotated[float, Field(ge=0, le=1e12)] = Field(
        default=2952.0,
        description="Tokens a day that the subnet pays its miners: 41% of 7,200 blocks of one "
        "token; assumed.",
    )
    price: Annotated[float, Field(ge=0, le=1e12)] = Field(
        default=1.0,
        description="Price of a token in your currency; 1: revenue is in tokens. Assumed.",
    )
    calibration: str | None = Field(
        default=None,
        description="Calibration file of the calibrated model, relative to the scenario; "
        "null: that model is not run.",
    )

    @field_validator("rule_set")
    @classmethod
    def _known(cls, name: str) -> str:
        try:
            return rule_set(name).name
        except InputError as unknown:
            raise ValueError(str(unknown).removeprefix("rule_set: ")) from None

    @model_validator(mode="after")
    def _calibrated_has_its_file(self) -> Self:
        if self.quality_model == "calibrated" and self.calibration is None:
            raise ValueError("calibration: found nothing, quality_model calibrated requires a file")
        return self

    @model_validator(mode="after")
    def _rules_make_sense(self) -> Self:
        try:
            self.rules.applied(rule_set(self.rule_set))
        except InputError as wrong:
            told = str(wrong).replace("groups: found weights", "group_weights: found weights")
            raise ValueError(f"rules.{told}") from None
        return self

    @property
    def rules_in_force(self) -> RuleSet:
        """The named rule set with the scenario's changes."""
        return self.rules.applied(rule_set(self.rule_set))

    @property
    def emission(self) -> Emission:
        """What a share is worth."""
        return Emission(self.emission_per_day, self.price)
