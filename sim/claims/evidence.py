"""What the claims are judged by, and what comes of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from shared.layout import SlotLayout, slot_layout
from shared.presets import Preset
from sim.output_analysis import Estimate

Measures = Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]]
"""Quality model, preset, metric: one value a replication, in the same order for all presets."""

Verdict = Literal["holds", "fails", "assumed", "cannot judge"]


class Unjudgeable(Exception):
    """What is missing for a judgement, in words for the reader."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One claim under one model. observed has no bounds where it is computed, not simulated."""

    observed: Estimate | None
    verdict: Verdict
    why: str


@dataclass(frozen=True, slots=True)
class ClaimVerdict:
    """One row of the claims table; ``dataclasses.asdict`` gives the row of ``compare --json``."""

    id: str
    claim: str
    quality_model: str
    observed: Estimate | None
    verdict: Verdict
    why: str


@dataclass(frozen=True)
class Evidence:
    """The results of a comparison, and which of its presets the claims are about.

    four, twenty_four: names of presets, None where the comparison has none of that cap.
    sharing_slowdown: measured on GPUs, one value a trial: time of a job among N that share a GPU
    over N times its time alone (1: sharing costs nothing beyond the share).
    tokens_are_totals: tokens_trained sums over jobs instead of being a mean of them.
    """

    measures: Measures
    presets: Mapping[str, Preset]
    four: str | None
    twenty_four: str | None
    sharing_slowdown: Sequence[float] = ()
    tokens_are_totals: bool = False

    @classmethod
    def of(
        cls,
        measures: Measures,
        presets: Mapping[str, Preset],
        *,
        sharing_slowdown: Sequence[float] = (),
        tokens_are_totals: bool = False,
    ) -> "Evidence":
        """The evidence of a comparison: its first preset with 4 slots, its first with 24."""
        first = {preset.cap: name for name, preset in reversed(list(presets.items()))}
        return cls(
            measures, presets, first.get(4), first.get(24), sharing_slowdown, tokens_are_totals
        )

    def name(self, cap: int) -> str:
        """The preset with 4 or 24 slots. Raises Unjudgeable when there is none."""
        name = self.four if cap == 4 else self.twenty_four
        if name is None:
            raise Unjudgeable(f"the comparison has no preset with {cap} slots")
        return name

    def values(self, model: str, cap: int, metric: str) -> Sequence[float]:
        """A measure of the preset with 4 or 24 slots. Raises Unjudgeable when it is missing."""
        name = self.name(cap)
        values = self.measures[model].get(name, {}).get(metric, ())
        if not len(values):
            raise Unjudgeable(f"the run gave no {metric} of {name}")
        return values

    def preset(self, cap: int) -> Preset:
        """The preset with 4 or 24 slots. Raises Unjudgeable when there is none."""
        return self.presets[self.name(cap)]

    def layout(self, cap: int) -> SlotLayout:
        """How 4 or 24 slots lie on the box: the comparison's own, else 8 H100s."""
        name = self.four if cap == 4 else self.twenty_four
        return slot_layout(cap) if name is None else self.presets[name].layout
