"""Prometheus metrics: fed by what listens to the daemon, read on the loopback alone.

The state of the box (slots, GPUs, deadlines) is looked up when it is asked for, so it is never
stale; what happened is counted as the ledger's entries become durable.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from live.intake.app import OFFER_PATHS, START_PATHS, SUBMISSION_PATH
from live.intake.consumer import UNLEDGERED
from shared.decisions import Decision, Gate, Policy
from shared.inputs import OfferArrived, Outcome
from shared.jobs import Answer, Effect, Job
from shared.ledger import LedgerEntry
from shared.units import MS_PER_SECOND, hours_to_ms

PREFIX = "four_slot"
SLOT_STATES = ("free", "reserved", "running", "stopping", "out_of_service")
_MINUTE, _HOUR = 60.0, 3600.0
LEDGER_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0)
HTTP_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0)
JOB_BUCKETS = (_MINUTE, 10 * _MINUTE, *(hours * _HOUR for hours in (0.5, 1, 2, 4, 8, 12, 24, 72)))
SLACK_BUCKETS = (
    *(-_HOUR, -_MINUTE, 0.0, _MINUTE, 5 * _MINUTE, 15 * _MINUTE),
    *(hours * _HOUR for hours in (1, 4, 8, 24)),
)
"""At most 0: a deadline missed."""
Samples = Iterable[Metric]


class BoxView(Protocol):
    """The machine, as far as the metrics look at it."""

    @property
    def policy(self) -> Policy:
        """The policy in force."""

    @property
    def jobs(self) -> dict[str, Job]:
        """Jobs that hold a slot, by task id."""

    @property
    def slots_in_use(self) -> int:
        """Slots that count against capacity."""

    @property
    def failed_gpus(self) -> frozenset[int]:
        """GPUs out of service."""

    @property
    def draining(self) -> bool:
        """Whether the operator stopped acceptance."""

    @property
    def storage_full(self) -> bool:
        """Whether there is no room for another job."""


class Metrics:
    """The collectors of one daemon, in a registry of their own."""

    def __init__(
        self,
        box: BoxView,
        now_ms: Callable[[], int],
        ledger_failing: Callable[[], bool] = lambda: False,
        ended_ms: Callable[[str], int | None] = lambda _: None,
    ) -> None:
        """box: the daemon's machine. now_ms: UTC ms, by the daemon's clock. ledger_failing: whether
        the ledger cannot be written just now. ended_ms: when the job of a task really ended (UTC
        ms), None where that is not known: a daemon that was down learns of it late.
        """
        self.registry = CollectorRegistry()
        self.registry.register(_Box(box, now_ms, ledger_failing))
        self._ended_ms = ended_ms
        self._started_ms: dict[str, tuple[int, int]] = {}
        self._make_counts()
        for task_id, job in box.jobs.items():
            if job.deadline_ms is not None:
                began = job.deadline_ms - hours_to_ms(job.hours_to_complete)
                self._started_ms[task_id] = (began, job.deadline_ms)

    def _make_counts(self) -> None:
        def counter(name: str, what: str, *labels: str) -> Counter:
            return Counter(f"{PREFIX}_{name}", what, labels, registry=self.registry)

        def histogram(name: str, what: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
            full = f"{PREFIX}_{name}"
            return Histogram(full, what, labels, buckets=buckets, registry=self.registry)

        self._offers = counter("offers", "Offers entered, by task type", "task_type")
        self._decisions = counter("decisions", "First decisions, by the gate that decided", "gate")
        self._repeats = counter("repeats", "Offers answered by their first answer again")
        unledgered = "Offers answered by a refusal that no ledger entry says"
        self._unledgered = counter("unledgered_refusals", unledgered, "reason")
        self._effects = counter("effects", "What inputs other than offers did", "effect")
        self._ends = counter("jobs_ended", "Jobs whose slot was freed, by outcome", "outcome")
        self._entries = counter("ledger_entries", "Ledger entries written")
        self._requests = counter("http_requests", "HTTP requests", "path", "status")
        self._job_s = histogram("job_seconds", "Start to end", JOB_BUCKETS)
        self._slack_s = histogram("deadline_slack_seconds", "Deadline less end", SLACK_BUCKETS)
        self._commit_s = histogram("ledger_commit_seconds", "One commit", LEDGER_BUCKETS)
        self._http_s = histogram("http_seconds", "One HTTP request", HTTP_BUCKETS, "path")
        used = f"{PREFIX}_gpu_memory_used_bytes"
        self._gpu_used = Gauge(used, "As the driver says", ["gpu"], registry=self.registry)
        device = f"{PREFIX}_device"
        self._device = Gauge(device, "1 of what jobs run on", ["device"], registry=self.registry)
        self._begin_at_zero()

    def _begin_at_zero(self) -> None:
        """A series that appears at 1 has not increased, as Prometheus counts: no alert would see
        the first of anything.
        """
        for gate in Gate:
            self._decisions.labels(gate.label)
        for task_type in (*sorted(_TASK_TYPES), "other"):
            self._offers.labels(task_type)
        for effect in _EFFECTS:
            self._effects.labels(effect)
        for reason in UNLEDGERED:
            self._unledgered.labels(reason)
        for outcome in get_args(Outcome):
            self._ends.labels(outcome)
        for path in (*OFFER_PATHS, *START_PATHS, SUBMISSION_PATH, "other"):
            for status in _WATCHED:
                self._requests.labels(path, status)

    # Fed by who listens.

    def on_entry(self, entry: LedgerEntry, answers: list[Answer]) -> None:
        """An entry is durable. For ``Daemon.listen``."""
        if isinstance(entry.entry, OfferArrived):
            known = entry.entry.offer.task_type in _TASK_TYPES
            self._offers.labels(entry.entry.offer.task_type if known else "other").inc()
        for answer in answers:
            if isinstance(answer, Effect):
                self._on_effect(answer)
            else:
                self._on_decision(answer)

    def on_commit(self, took_s: float, entries: int) -> None:
        """A commit took so many seconds and wrote so many entries. For ``watch_commits``."""
        self._commit_s.observe(took_s)
        self._entries.inc(entries)

    def on_request(self, path: str, status: int, took_s: float) -> None:
        """An HTTP request was answered; status 0 when its sender had gone."""
        self._requests.labels(path, str(status)).inc()
        self._http_s.labels(path).observe(took_s)

    def on_unledgered(self, reason: str) -> None:
        """An offer was refused that is in no ledger: one of ``UNLEDGERED``."""
        self._unledgered.labels(reason).inc()

    def on_gpu(self, gpu: int, used_bytes: int) -> None:
        """A GPU was looked at."""
        self._gpu_used.labels(str(gpu)).set(used_bytes)

    def on_device(self, device: str) -> None:
        """What jobs run on: ``cuda`` or ``cpu``."""
        self._device.labels(device).set(1)

    def _on_decision(self, decision: Decision) -> None:
        if decision.repeat:
            self._repeats.inc()
        else:
            self._decisions.labels(decision.gate).inc()

    def _on_effect(self, effect: Effect) -> None:
        self._effects.labels(effect.effect).inc()
        task_id = effect.task_id or ""
        if effect.effect == "started" and effect.deadline_ms is not None:
            self._started_ms[task_id] = (effect.at_ms, effect.deadline_ms)
        if effect.effect == "released":
            self._ends.labels(effect.reason or "").inc()
            began, deadline = self._started_ms.pop(task_id, (None, None))
            if began is not None and deadline is not None:
                ended = self._end_of(task_id, began, effect.at_ms)
                self._job_s.observe((ended - began) / MS_PER_SECOND)
                self._slack_s.observe((deadline - ended) / MS_PER_SECOND)

    def _end_of(self, task_id: str, began_ms: int, released_ms: int) -> int:
        """When the job ended: not after its slot was free, nor before it began."""
        told = self._ended_ms(task_id)
        return released_ms if told is None else max(began_ms, min(told, released_ms))

    def render(self) -> bytes:
        """All of it, in Prometheus' text format."""
        return generate_latest(self.registry)


_EFFECTS = (
    "started", "start_refused", "stopping", "released", "lapsed", "gpu_out", "gpu_back", "draining",
    "accepting", "storage_full", "storage_available", "policy",
)  # fmt: skip
_WATCHED = ("401", "403", "500")
"""Statuses that alerts count."""
_TASK_TYPES = {"InstructTextTask", "ChatTask", "DpoTask", "GrpoTask", "ImageTask"}
"""A stranger's text makes no label."""


class _Box(Collector):
    """The state of the box at the moment it is asked for."""

    def __init__(
        self, box: BoxView, now_ms: Callable[[], int], failing: Callable[[], bool]
    ) -> None:
        self._box, self._now_ms, self._failing = box, now_ms, failing

    def describe(self) -> Samples:
        return []

    def collect(self) -> Iterator[Metric]:
        box = self._box
        yield _family("slots", "Slots by state", ["state"], _slot_states(box).items())
        health = ((str(gpu), gpu not in box.failed_gpus) for gpu in range(box.policy.preset.gpus))
        yield _family("gpu_healthy", "1 in service, 0 out of it", ["gpu"], health)
        yield _family(
            "draining", "1 while the operator stopped acceptance", [], [("", box.draining)]
        )
        full = [("", box.storage_full)]
        yield _family("storage_full", "1 while there is no room for a job", [], full)
        failing = [("", self._failing())]
        yield _family("ledger_failing", "1 while the ledger cannot be written", [], failing)
        now_ms = self._now_ms()
        left = _deadlines_in_s(box, now_ms).items()
        yield _family("deadline_in_seconds", "Until the deadline of each job", ["slot"], left)


def _family(
    name: str, what: str, labels: list[str], values: Iterable[tuple[str, float]]
) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"{PREFIX}_{name}", what, labels=labels)
    for label, value in values:
        family.add_metric([label] if labels else [], float(value))
    return family


def _deadlines_in_s(box: BoxView, now_ms: int) -> dict[str, float]:
    """Seconds until each slot's deadline; after a change of policy two jobs may bear one number."""
    left: dict[str, float] = {}
    for job in box.jobs.values():
        if job.deadline_ms is not None:
            seconds = (job.deadline_ms - now_ms) / MS_PER_SECOND
            left[str(job.slot)] = min(seconds, left.get(str(job.slot), seconds))
    return left


def _slot_states(box: BoxView) -> dict[str, int]:
    """How many slots are in each state; a job that a change of policy left over counts too."""
    states = dict.fromkeys(SLOT_STATES, 0)
    for job in box.jobs.values():
        states[job.state] += 1
    states["free"] = box.policy.preset.cap - box.slots_in_use
    states["out_of_service"] = max(0, box.slots_in_use - len(box.jobs))
    return states


def metrics_app(metrics: Metrics) -> Starlette:
    """GET /metrics and nothing else. To be served on a loopback address: ``need_loopback``."""

    async def answer(_: Request) -> Response:
        return Response(metrics.render(), headers={"content-type": CONTENT_TYPE_LATEST})

    return Starlette(routes=[Route("/metrics", answer, methods=["GET"])])
