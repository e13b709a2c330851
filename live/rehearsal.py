"""A rehearsal: the real daemon, its HTTP intake, ledger and supervisor, on offers of a file.

Virtual time runs faster than real time. Arrivals and decisions use it; a job takes the real time it
needs, and its end is entered at the virtual time at which it happens.
"""

import asyncio
import logging
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import httpx

from live.clock import Clock
from live.gpus import CpuSlots, Device, GpuProcess
from live.rehearsal_files import Event
from live.service import Service
from shared.decisions import Decision, Policy
from shared.inputs import OperatorAsked, PolicyPut
from shared.jobs import Answer, Effect
from shared.ledger import LedgerEntry
from shared.presets import preset_named
from shared.units import MS_PER_HOUR, MS_PER_MINUTE, MS_PER_SECOND
from shared.wire import OfferLine

log = logging.getLogger(__name__)

START_LAG_MS = 5 * MS_PER_MINUTE
"""Virtual time from an acceptance to its start request."""
MOST_TRIES = 3
IMAGE, GRPO = "ImageTask", "GrpoTask"


@dataclass
class StageSet:
    """The box of a rehearsal: slots on the CPU whose GPUs fail, and whose disk fills, on cue."""

    broken: set[int] = field(default_factory=set)
    disk_full: bool = False
    device: Device = "cpu"
    _slots: CpuSlots = field(default_factory=CpuSlots)

    @property
    def count(self) -> int:
        """As many as the slots stand for."""
        return self._slots.count

    def name(self, gpu: int) -> str:
        """What stands for a GPU."""
        return self._slots.name(gpu)

    def memory_bytes(self, gpu: int) -> int:
        """Nothing to tell."""
        return self._slots.memory_bytes(gpu)

    def used_bytes(self, gpu: int) -> int:
        """Nothing is ever held."""
        return self._slots.used_bytes(gpu)

    def processes(self, gpu: int) -> tuple[GpuProcess, ...]:
        """Nobody."""
        return self._slots.processes(gpu)

    def fault(self, gpu: int) -> str | None:
        """The fault on cue, or None."""
        return f"GPU {gpu}: failed on cue" if gpu in self.broken else None

    def wants_reset(self, gpu: int) -> str | None:
        """None, ever."""
        return self._slots.wants_reset(gpu)

    def uuid(self, gpu: int) -> str | None:
        """CUDA knows nothing of it."""
        return self._slots.uuid(gpu)

    def clear(self, gpu: int) -> str | None:
        """Nothing is ever remembered."""
        return self._slots.clear(gpu)

    def need_bytes(self) -> int:
        """Disk that one more job may need: more than any disk has, on cue."""
        return 1 << 62 if self.disk_full else 1


@dataclass
class Report:
    """What a rehearsal came to. late_s: real seconds that offers were sent after their time.

    on_failed_gpus: accepted jobs that held a slot of a GPU when it failed on cue, which may have
    cost them their start or their result. lost: accepted jobs without a result among the others.
    """

    offers: int = 0
    accepted: int = 0
    refused: int = 0
    unanswered: int = 0
    started: int = 0
    completed: int = 0
    failed: int = 0
    past_deadline: int = 0
    on_failed_gpus: int = 0
    lost: int = 0
    late_s_most: float = 0.0
    answer_ms: list[float] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        """The numbers, the answers' times as median and 99th percentile in real milliseconds."""
        told = asdict(self)
        times = sorted(told.pop("answer_ms"))
        for name, share in (("answer_ms_median", 0.5), ("answer_ms_p99", 0.99)):
            told[name] = times[min(len(times) - 1, int(share * len(times)))] if times else None
        return told


class Rehearsal:
    """Plays the market against a service that is serving."""

    def __init__(self, service: Service, stage: StageSet, speed: float) -> None:
        """speed: virtual milliseconds a real one."""
        self._service, self._stage, self._speed = service, stage, speed
        self._clock: Clock = service.clock
        self.report = Report()
        self._deadlines: dict[str, int] = {}
        self._accepted: set[str] = set()
        self._completed: set[str] = set()
        self._hit: set[str] = set()
        service.daemon.listen(self._note)

    async def play(self, offers: Sequence[OfferLine], events: Sequence[Event]) -> Report:
        """Send every offer at its time, bring about every event, wait for the jobs to end."""
        begin_ms = offers[0].received_at
        http = self._service.http
        assert http is not None
        address = f"http://{http.host}:{http.port}"
        limits = httpx.Limits(max_connections=64)
        async with httpx.AsyncClient(base_url=address, timeout=30.0, limits=limits) as client:
            cues = asyncio.create_task(self._cue(events, begin_ms))
            async with asyncio.TaskGroup() as group:
                for offer in offers:
                    await self._clock.sleep_until(offer.received_at)
                    group.create_task(self._offer(client, offer))
            await cues
            await self._until_idle()
        self.count_lost()
        return self.report

    def count_lost(self) -> None:
        """Tell the accepted jobs without a result that a failed GPU explains from those it does
        not.
        """
        self.report.on_failed_gpus = len(self._accepted & self._hit)
        self.report.lost = len(self._accepted - self._hit - self._completed)

    async def _offer(self, client: httpx.AsyncClient, offer: OfferLine) -> None:
        report, late_ms = self.report, self._clock.now_ms() - offer.received_at
        report.late_s_most = max(report.late_s_most, late_ms / self._speed / MS_PER_SECOND)
        report.offers += 1
        path = "/task_offer_image/" if offer.task_type == IMAGE else "/task_offer/"
        loop = asyncio.get_running_loop()
        begun = loop.time()
        answer = await _posted(client, path, _on_the_wire(offer))
        report.answer_ms.append((loop.time() - begun) * MS_PER_SECOND)
        if answer is None or "accepted" not in answer:
            report.unanswered += 1
        elif not answer["accepted"]:
            report.refused += 1
        else:
            report.accepted += 1
            self._accepted.add(offer.task_id)
            await self._clock.sleep_until(self._clock.now_ms() + START_LAG_MS)
            await self._start(client, offer)

    async def _start(self, client: httpx.AsyncClient, offer: OfferLine) -> None:
        suffix = {IMAGE: "_image", GRPO: "_grpo"}.get(offer.task_type, "")
        answer = await _posted(client, f"/start_training{suffix}/", self._request(offer))
        if answer is None or not answer.get("accepted"):
            log.warning("task %s: its start was not taken: %s", offer.task_id, answer)

    def _request(self, offer: OfferLine) -> dict[str, Any]:
        """A start request as the market sends it, and how long a stub is to work."""
        columns = {"field_instruction": "instruction", "field_output": "output"}
        if offer.task_type == GRPO:
            columns = {"field_prompt": "prompt"}
        return {
            "task_id": offer.task_id,
            "model": offer.model,
            "hours_to_complete": offer.hours_to_complete,
            "expected_repo_name": f"rehearsal-{offer.task_id}",
            "dataset": "rehearsal://rows",
            "dataset_zip": "rehearsal://rows",
            "dataset_type": columns,
            "file_format": "json",
            "stub_seconds": offer.train_ms / self._speed / MS_PER_SECOND,
        }

    def _note(self, _: LedgerEntry, answers: list[Answer]) -> None:
        for answer in answers:
            if isinstance(answer, Decision):
                self._note_hit(self._stage.broken)  # before the daemon has seen it fail
            elif answer.task_id is not None:
                self._note_effect(answer, answer.task_id)

    def _note_hit(self, broken: set[int]) -> None:
        """Remember the jobs that hold a slot of one of these GPUs."""
        for task_id, job in self._service.daemon.machine.jobs.items():
            if not broken.isdisjoint(job.gpus):
                self._hit.add(task_id)

    def _note_effect(self, effect: Effect, task_id: str) -> None:
        report = self.report
        if effect.effect == "started" and effect.deadline_ms is not None:
            report.started += 1
            self._deadlines[task_id] = effect.deadline_ms
        elif effect.effect == "released" and task_id in self._deadlines:
            report.past_deadline += effect.at_ms > self._deadlines.pop(task_id)
            if effect.reason == "completed":
                report.completed += 1
                self._completed.add(task_id)
            else:
                report.failed += 1

    async def _until_idle(self) -> None:
        """Until no job holds a slot, and all that is durable and was told to ``_note``.

        A reservation without a start lapses by itself.
        """
        while self._service.daemon.machine.jobs or self._deadlines:
            await asyncio.sleep(0.05)

    # Events.

    async def _cue(self, events: Iterable[Event], begin_ms: int) -> None:
        for event in events:
            await self._clock.sleep_until(begin_ms + round(event.at_hours * MS_PER_HOUR))
            await self._happen(event)

    async def _happen(self, event: Event) -> None:
        daemon, stage = self._service.daemon, self._stage
        log.info("on cue: %s", event.model_dump(exclude_none=True))
        match event.do:
            case "drain" | "resume":
                await daemon.enter(OperatorAsked(event.do))
            case "disk_full" | "disk_free":
                stage.disk_full = event.do == "disk_full"
            case "gpu_fails":
                stage.broken |= _gpu_of(event)
                self._note_hit(stage.broken)
            case "gpu_repaired":
                stage.broken -= _gpu_of(event)
            case "policy":
                await daemon.enter(PolicyPut(_changed(daemon.machine.policy, event)))


def _gpu_of(event: Event) -> set[int]:
    return set() if event.gpu is None else {event.gpu}


def _changed(policy: Policy, event: Event) -> Policy:
    preset = policy.preset if event.preset is None else preset_named(event.preset)
    return replace(policy, preset=preset.varied(cap=event.cap))


def _on_the_wire(offer: OfferLine) -> dict[str, Any]:
    return {
        "task_id": offer.task_id,
        "model": offer.model,
        "task_type": offer.task_type,
        "hours_to_complete": offer.hours_to_complete,
        "ds_size": offer.ds_size,
        "model_params_count": offer.model_params_count,
    }


async def _posted(client: httpx.AsyncClient, path: str, content: Any) -> dict[str, Any] | None:
    """The answer, None where there is none. A connection that was closed is tried again."""
    for _ in range(MOST_TRIES):
        try:
            response = await client.post(path, json=content)
            answer: dict[str, Any] = response.json()
        except (httpx.HTTPError, ValueError):
            continue
        return answer
    return None
