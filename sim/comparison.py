"""A comparison: what the replications of all presets say, and how sure it is."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from shared.decisions import Policy
from sim.experiment import Replication, World
from sim.metrics import METRICS
from sim.output_analysis import Estimate, estimate, paired

Estimates = dict[str, dict[str, Estimate | None]]


@dataclass(frozen=True)
class Difference:
    """Preset a minus preset b in one measure, replication by replication."""

    a: str
    b: str
    metric: str
    estimate: Estimate | None


@dataclass(frozen=True)
class Comparison:
    """The results of a comparison; ``done`` replications in the order of their numbers."""

    world: World
    asked: int
    done: tuple[Replication, ...]

    @property
    def names(self) -> list[str]:
        """The presets, in the scenario's order."""
        return list(self.world.scenario.policies())

    def values(self, preset: str, metric: str) -> list[float]:
        """One measure of one preset, one value a replication."""
        return [replication.measures[preset][metric] for replication in self.done]

    @property
    def presets(self) -> Estimates:
        """Mean and interval of every measure of every preset; None where nothing is known."""
        return {
            name: {metric: estimate(self.values(name, metric)) for metric in METRICS}
            for name in self.names
        }

    @property
    def differences(self) -> list[Difference]:
        """Every preset against the first, which is a; in every measure."""
        first, *others = self.names
        return [
            Difference(
                first, other, metric, paired(self.values(first, metric), self.values(other, metric))
            )
            for other in others
            for metric in METRICS
        ]

    @property
    def gates(self) -> dict[str, dict[str, float]]:
        """How many offers each gate decided: mean count per replication."""
        return {name: self._mean_gates(name) for name in self.names}

    def _mean_gates(self, name: str) -> dict[str, float]:
        counts = [replication.gates[name] for replication in self.done]
        return {gate: sum(count[gate] for count in counts) / len(counts) for gate in counts[0]}

    @property
    def warnings(self) -> list[str]:
        """What a reader must know before believing the numbers."""
        return self.gate_warnings + self.interval_warnings

    @property
    def gate_warnings(self) -> list[str]:
        """The gates that never decided an offer, a line each."""
        policies = self.world.scenario.policies(self.world.box)
        silent: dict[str, list[str]] = {}
        for name, gates in self.gates.items():
            for gate in silent_gates(gates, policies[name]):
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
        if self.world.offers is not None:
            covered = "what is drawn beside it (start lags, failures, training times)"
            return [
                f"the offers are one recorded stream: intervals cover {covered}, no other stream"
            ]
        return []

    def document(self) -> dict[str, Any]:
        """The one document of ``compare --json`` and summary.json."""
        return {
            "scenario": self.world.scenario.name,
            "seed": self.world.scenario.seed,
            "replications": len(self.done),
            "replications_asked": self.asked,
            "days": (self.world.window_ms[1] - self.world.window_ms[0]) / 86_400_000,
            "presets": {
                name: {metric: _written(found) for metric, found in measures.items()}
                for name, measures in self.presets.items()
            },
            "paired": [
                {"a": gap.a, "b": gap.b, "metric": gap.metric, **_written(gap.estimate)}
                for gap in self.differences
            ],
            "gates": self.gates,
            "warnings": self.warnings,
        }


def silent_gates(gates: dict[str, float], policy: Policy) -> list[str]:
    """The policy's own gates that decided no offer."""
    own = ["capacity", "time"]
    if policy.box.task_types is not None or policy.box.shortest_row is not None:
        own.append("unsupported")
    if policy.preset.threshold is not None:
        own.append("priority")
    return [gate for gate in own if not gates[gate]]


def compared(world: World, asked: int, done: Sequence[Replication]) -> Comparison:
    """Sum up the finished replications. Raises ValueError when there is none."""
    if not done:
        raise ValueError("no replication was finished")
    return Comparison(world, asked, tuple(sorted(done, key=lambda each: each.number)))


def _written(found: Estimate | None) -> dict[str, float | None]:
    return asdict(found) if found else {"mean": None, "lo": None, "hi": None}
