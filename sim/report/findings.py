"""What the report is made from: the comparison, and its first replication decision by decision."""

from dataclasses import dataclass, replace
from functools import cached_property

from shared.decisions import Policy
from sim.comparison import Comparison, Difference, Estimates
from sim.engine.outcome import Decisions
from sim.engine.workload import Workload
from sim.experiment import decided, workload_of

_MOST_DRAWN = 4


@dataclass(frozen=True)
class FirstRun:
    """One replication in full: its offers, what befell the box, and every preset's decisions."""

    number: int
    workload: Workload
    decisions: dict[str, Decisions]


@dataclass(frozen=True)
class Findings:
    """Everything that a section of the report may look at."""

    comparison: Comparison
    first: FirstRun

    @cached_property
    def names(self) -> list[str]:
        """The presets, in the scenario's order; differences are against the first."""
        return self.comparison.names

    @cached_property
    def policies(self) -> dict[str, Policy]:
        """The policy of each preset, on the box of this comparison."""
        world = self.comparison.world
        return world.scenario.policies(world.box)

    @cached_property
    def presets(self) -> Estimates:
        """Mean and interval of every measure of every preset."""
        return self.comparison.presets

    @cached_property
    def differences(self) -> list[Difference]:
        """Every preset against the first, in every measure."""
        return self.comparison.differences

    @cached_property
    def caps(self) -> list[int] | None:
        """The caps of a sweep: three presets or more that differ in nothing else; None if not."""
        presets = [policy.preset for policy in self.policies.values()]
        caps = [preset.cap for preset in presets]
        alike = [replace(preset, name="", cap=presets[0].cap) for preset in presets]
        same = all(preset == alike[0] for preset in alike)
        return caps if len(caps) > 2 and len(set(caps)) == len(caps) and same else None

    @cached_property
    def drawn(self) -> list[str]:
        """The presets drawn over time: all, or four spread over a longer list."""
        last = len(self.names) - 1
        if last < _MOST_DRAWN:
            return self.names
        return [self.names[round(part * last / (_MOST_DRAWN - 1))] for part in range(_MOST_DRAWN)]


def findings_of(comparison: Comparison) -> Findings:
    """Run the first finished replication again, this time keeping every decision."""
    world, number = comparison.world, comparison.done[0].number
    workload = workload_of(world, number)
    return Findings(comparison, FirstRun(number, workload, dict(decided(world, workload))))
