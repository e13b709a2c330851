"""A comparison: what the replications of all presets say, and how sure it is."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from math import isfinite
from typing import Any

from shared.decisions import Policy
from shared.presets import Preset
from sim.claims import ClaimVerdict, Evidence, contradictions, judge
from sim.experiment import ADVANTAGES, Replication, World
from sim.loss_advantage import LossAdvantage, loss_advantage
from sim.measures import METRICS, range_of
from sim.output_analysis import (
    Estimate,
    fitted,
    holm,
    p_value,
    paired,
    probability_of_beating,
)
from sim.settling import Settling, settling

Estimates = dict[str, dict[str, Estimate | None]]

NEUTRAL = "neutral"
FEW = 10
"""Replications below which Student's t leans on normal values."""


@dataclass(frozen=True)
class Difference:
    """Preset a minus preset b in one measure, replication by replication.

    p_adjusted: of the paired t test that there is none, after Holm's correction over the presets.
    a_over_b: the probability that a has more of the measure than b in a replication.
    """

    a: str
    b: str
    metric: str
    estimate: Estimate | None
    p_adjusted: float
    a_over_b: Estimate | None


@dataclass(frozen=True)
class Comparison:
    """The results of a comparison; ``done`` replications in the order of their numbers.

    model: the quality model whose outcomes the measures are; ``under`` gives another one's.
    stopped: why a sequential run ended; empty when all replications asked for were run.
    """

    world: World
    asked: int
    done: tuple[Replication, ...]
    model: str
    stopped: str = ""

    @cached_property
    def names(self) -> list[str]:
        """The presets, in the scenario's order."""
        return list(self.world.scenario.policies())

    @cached_property
    def models(self) -> list[str]:
        """The quality models that were run, the primary one first."""
        primary = self.world.scenario.market.quality_model
        return [primary, *(model for model in self.done[0].measures if model != primary)]

    @cached_property
    def by_model(self) -> dict[str, "Comparison"]:
        """The same comparison under each quality model, the primary one first."""
        return {model: replace(self, model=model) for model in self.models}

    def values(self, preset: str, metric: str) -> list[float]:
        """One measure of one preset, one value a replication."""
        return [replication.measures[self.model][preset][metric] for replication in self.done]

    @cached_property
    def presets(self) -> Estimates:
        """Mean and interval of every measure of every preset; None where nothing is known."""
        return {
            name: {
                metric: fitted(self.values(name, metric), range_of(metric)) for metric in METRICS
            }
            for name in self.names
        }

    @cached_property
    def differences(self) -> list[Difference]:
        """Every preset against the first, which is a; in every measure."""
        first, *others = self.names
        return [
            self._difference(first, other, metric, p_values[other])
            for metric in METRICS
            for p_values in [self._p_values(metric)]
            for other in others
        ]

    def _p_values(self, metric: str) -> dict[str, float]:
        first, *others = self.names
        ours = self.values(first, metric)
        tested = {}
        for other in others:
            pairs = zip(ours, self.values(other, metric), strict=True)
            tested[other] = p_value([a - b for a, b in pairs])
        return holm(tested)

    def _difference(self, a: str, b: str, metric: str, p_adjusted: float) -> Difference:
        ours, theirs = self.values(a, metric), self.values(b, metric)
        more = probability_of_beating(ours, theirs)
        return Difference(a, b, metric, paired(ours, theirs), p_adjusted, more)

    def difference(self, other: str, metric: str) -> Difference:
        """The first preset against another in one measure."""
        return next(gap for gap in self.differences if (gap.b, gap.metric) == (other, metric))

    @cached_property
    def gates(self) -> dict[str, dict[str, float]]:
        """How many offers each gate decided: mean count per replication."""
        return {name: self._mean_gates(name) for name in self.names}

    def _mean_gates(self, name: str) -> dict[str, float]:
        counts = [replication.gates[name] for replication in self.done]
        return {gate: sum(count[gate] for count in counts) / len(counts) for gate in counts[0]}

    @cached_property
    def policies(self) -> dict[str, Policy]:
        """The policy of each preset, on the box of this comparison."""
        return self.world.scenario.policies(self.world.box)

    @cached_property
    def claims(self) -> list[ClaimVerdict]:
        """The strategy document's claims under each quality model."""
        presets: dict[str, Preset] = {name: self.policies[name].preset for name in self.names}
        measures = {
            model: {
                name: {metric: view.values(name, metric) for metric in METRICS}
                for name in self.names
            }
            for model, view in self.by_model.items()
        }
        return judge(Evidence.of(measures, presets))

    @cached_property
    def advantages(self) -> list[LossAdvantage]:
        """How much lower the first preset's losses must be for it to earn as much as each other."""
        first, *others = self.names
        curves = [replication.advantage for replication in self.done]
        neutral = self.by_model[NEUTRAL]
        return [
            loss_advantage(first, other, ADVANTAGES, curves, neutral.values(other, _REVENUE))
            for other in others
        ]

    @cached_property
    def settling(self) -> dict[str, Settling]:
        """How long each preset's slots take to fill, against the warm-up."""
        series = [replication.slots for replication in self.done if replication.slots is not None]
        return {name: settling([each[name] for each in series]) for name in self.names}

    @property
    def warnings(self) -> list[str]:
        """What a reader must know before believing the numbers."""
        return self.gate_warnings + self.interval_warnings + self.warm_up_warnings

    @cached_property
    def gate_warnings(self) -> list[str]:
        """The gates that never decided an offer, a line each."""
        silent: dict[str, list[str]] = {}
        for name, gates in self.gates.items():
            for gate in silent_gates(gates, self.policies[name]):
                silent.setdefault(gate, []).append(name)
        return [
            f"the {gate} gate never decided an offer under {', '.join(names)}: "
            "on these offers the policy is the same without it"
            for gate, names in silent.items()
        ]

    @property
    def interval_warnings(self) -> list[str]:
        """What the intervals do not cover."""
        if len(self.done) < 2:
            return ["one replication says nothing of how sure the numbers are: no intervals"]
        told = []
        if self.world.offers is not None:
            covered = "what is drawn beside it (start lags, failures, training times)"
            told.append(
                f"the offers are one recorded stream: intervals cover {covered}, no other stream"
            )
        if len(self.done) < FEW:
            told.append(f"{len(self.done)} replications are few: intervals lean on normal values")
        return told

    @property
    def warm_up_warnings(self) -> list[str]:
        """Presets whose slots were still filling up when counting began."""
        hours = self.world.warm_up_ms / 3_600_000
        return [
            f"{name}: {why}"
            for name, found in self.settling.items()
            if (why := found.complaint(hours))
        ]

    def document(self) -> dict[str, Any]:
        """The one document of ``compare --json`` and summary.json."""
        scenario = self.world.scenario
        return {
            "scenario": scenario.name,
            "seed": scenario.seed,
            "replications": len(self.done),
            "replications_asked": self.asked,
            "stopped": self.stopped,
            "days": (self.world.window_ms[1] - self.world.window_ms[0]) / 86_400_000,
            "quality_model": self.models[0],
            **self._measured(),
            "gates": self.gates,
            "by_quality_model": {model: view._measured() for model, view in self.by_model.items()},
            "claims": [asdict(verdict) for verdict in self.claims],
            "contradictions": contradictions(),
            "break_even": [found.document() for found in self.advantages],
            "warm_up": {name: asdict(found) for name, found in self.settling.items()},
            "warnings": self.warnings,
        }

    def _measured(self) -> dict[str, Any]:
        return {
            "presets": {
                name: {metric: _written(found) for metric, found in measures.items()}
                for name, measures in self.presets.items()
            },
            "paired": [_pair(gap) for gap in self.differences],
        }


_REVENUE = "revenue_per_day"


def revenue_difference(replications: Sequence[Replication], world: World) -> list[float]:
    """What a sequential run watches: the first preset's revenue less the second's, one each.

    With one preset, its revenue.
    """
    model = world.scenario.market.quality_model
    first, *others = world.scenario.policies()
    ordered = sorted(replications, key=lambda each: each.number)
    revenues = [{name: each.measures[model][name][_REVENUE] for name in [first, *others[:1]]}
                for each in ordered]  # fmt: skip
    return [each[first] - (each[others[0]] if others else 0.0) for each in revenues]


def silent_gates(gates: dict[str, float], policy: Policy) -> list[str]:
    """The policy's own gates that decided no offer."""
    own = ["capacity", "time"]
    if policy.box.task_types is not None or policy.box.shortest_row is not None:
        own.append("unsupported")
    if policy.preset.threshold is not None:
        own.append("priority")
    return [gate for gate in own if not gates[gate]]


def compared(
    world: World, asked: int, done: Sequence[Replication], stopped: str = ""
) -> Comparison:
    """Sum up the finished replications. Raises ValueError when there is none."""
    if not done:
        raise ValueError("no replication was finished")
    ordered = tuple(sorted(done, key=lambda each: each.number))
    return Comparison(world, asked, ordered, world.scenario.market.quality_model, stopped)


def _pair(gap: Difference) -> dict[str, Any]:
    return {
        "a": gap.a,
        "b": gap.b,
        "metric": gap.metric,
        **_written(gap.estimate),
        "p_adjusted": gap.p_adjusted if isfinite(gap.p_adjusted) else None,
        "a_over_b": _written(gap.a_over_b),
    }


def _written(found: Estimate | None) -> dict[str, float | None]:
    return asdict(found) if found else {"mean": None, "lo": None, "hi": None}
