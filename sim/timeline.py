"""What befalls the box during a run: GPU failures and repairs, drains, full storage.

Failures are drawn per GPU from a stream of their own, so every preset meets the same ones.
"""

from collections.abc import Iterable

from shared.inputs import GpuChanged, OperatorAsked, StorageChanged, order_key
from shared.layout import DEFAULT_GPUS
from shared.units import hours_to_ms
from sim.engine.workload import Interruption, Timeline
from sim.scenario import GpuFailures, Scenario
from sim.streams import generator

Span = tuple[int, int]
"""Begin and end, epoch milliseconds."""


def timeline_of(scenario: Scenario, start_ms: int, end_ms: int, replication: int) -> Timeline:
    """All interruptions in [start_ms, end_ms), in handling order; what is under way then, ends."""
    entries: list[tuple[int, Interruption]] = []
    for gpu in range(DEFAULT_GPUS):
        told = [(p.from_hours, p.hours) for p in scenario.gpus_out if p.gpu == gpu]
        spans = _spans(told, start_ms) + _failures(scenario, gpu, start_ms, end_ms, replication)
        for begin, end in merged(spans, end_ms):
            entries += [(begin, GpuChanged(gpu, False)), (end, GpuChanged(gpu, True))]
    drains = _spans(((p.from_hours, p.hours) for p in scenario.drains), start_ms)
    for begin, end in merged(drains, end_ms):
        entries += [(begin, OperatorAsked("drain")), (end, OperatorAsked("resume"))]
    full = _spans(((p.from_hours, p.hours) for p in scenario.storage_full), start_ms)
    for begin, end in merged(full, end_ms):
        entries += [(begin, StorageChanged(False)), (end, StorageChanged(True))]
    return sorted(entries, key=lambda entry: order_key(*entry))


def merged(spans: Iterable[Span], end_ms: int) -> list[Span]:
    """The same time covered by spans that neither overlap nor touch, those before ``end_ms``."""
    joined: list[Span] = []
    for begin, end in sorted(spans):
        if begin >= end_ms:
            break
        if joined and begin <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((begin, end))
    return joined


def _spans(told: Iterable[tuple[float, float]], start_ms: int) -> list[Span]:
    return [
        (start_ms + hours_to_ms(begin), start_ms + hours_to_ms(begin) + max(1, hours_to_ms(hours)))
        for begin, hours in told
    ]


def _failures(
    scenario: Scenario, gpu: int, start_ms: int, end_ms: int, replication: int
) -> list[Span]:
    """Up and down times of one GPU, both exponential, from its own stream."""
    failures: GpuFailures | None = scenario.gpu_failures
    if failures is None:
        return []
    draw = generator(scenario.seed, replication, f"gpu.{gpu}")
    spans: list[Span] = []
    at_ms = start_ms
    while True:
        at_ms += max(1, hours_to_ms(draw.exponential(failures.mean_hours_between)))
        if at_ms >= end_ms:
            return spans
        back_ms = at_ms + max(1, hours_to_ms(draw.exponential(failures.mean_repair_hours)))
        spans.append((at_ms, back_ms))
        at_ms = back_ms
