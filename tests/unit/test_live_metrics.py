"""The metrics say what happened and what is."""

import asyncio

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from live.metrics import Metrics, metrics_app
from shared.decisions import Policy
from shared.inputs import (
    GpuChanged,
    JobEnded,
    OfferArrived,
    OperatorAsked,
    PolicyPut,
    StartRequested,
)
from shared.ledger import Recorder
from shared.machine import Machine
from shared.offers import Offer
from shared.presets import ACCURACY_4

HOUR = 3_600_000


class Box:
    def __init__(self) -> None:
        self.recorder = Recorder(PolicyPut(Policy(ACCURACY_4, reservation_ttl_ms=10 * HOUR)), 0)
        self.now = 0
        self.metrics = Metrics(self.recorder.machine, lambda: self.now)

    def enter(self, entry, at) -> None:
        self.now = at
        self.metrics.on_entry(*self.recorder.handle(entry, at))

    def values(self) -> dict[str, float]:
        families = text_string_to_metric_families(self.metrics.render().decode())
        return {
            sample.name.removeprefix("four_slot_")
            + "".join(f",{value}" for value in sample.labels.values()): sample.value
            for family in families
            for sample in family.samples
        }


def offer(task: str, kind: str = "ChatTask", hours: float = 8.0) -> OfferArrived:
    return OfferArrived(Offer(task, "org/model-7b", kind, hours))


def worked() -> Box:
    box = Box()
    for at, task in enumerate(("a", "b", "c", "d", "e")):
        box.enter(offer(task), at)
    box.enter(offer("e"), 5)
    box.enter(StartRequested("a"), 10)
    box.enter(StartRequested("b"), 11)
    box.enter(JobEnded("a", phase="stopping"), HOUR)
    box.enter(JobEnded("b"), HOUR)
    return box


def test_offers_decisions_and_slots():
    values = worked().values()
    assert values["offers_total,ChatTask"] == 6
    assert values["decisions_total,accepted"] == 4
    assert values["decisions_total,capacity"] == 1
    assert values["decisions_total,time"] == 0
    assert values["repeats_total"] == 1
    states = {key: values[f"slots,{key}"] for key in ("free", "reserved", "running", "stopping")}
    assert states == {"free": 1, "reserved": 2, "running": 0, "stopping": 1}


def test_durations_and_slack():
    values = worked().values()
    assert values["jobs_ended_total,completed"] == 1
    assert values["job_seconds_count"] == 1
    assert values["job_seconds_sum"] == 3600 - 0.011
    slack = {key: values[f"deadline_slack_seconds_bucket,{key}"] for key in ("14400.0", "28800.0")}
    assert slack == {"14400.0": 0, "28800.0": 1}
    assert values["deadline_in_seconds,0"] == 7 * 3600 + 0.01


def test_state_of_the_box():
    box = worked()
    box.enter(GpuChanged(7, healthy=False), HOUR + 1)
    box.enter(OperatorAsked("drain"), HOUR + 2)
    values = box.values()
    assert (values["gpu_healthy,7"], values["gpu_healthy,0"]) == (0, 1)
    assert (values["draining"], values["storage_full"]) == (1, 0)
    box.enter(JobEnded("d", outcome="cancelled"), HOUR + 3)
    assert box.values()["slots,out_of_service"] == 1


def test_a_restart_still_knows_when_jobs_began():
    box = Box()
    box.enter(offer("a"), 0)
    box.enter(StartRequested("a"), 10)
    box.metrics = Metrics(box.recorder.machine, lambda: box.now)
    box.enter(JobEnded("a"), HOUR)
    assert box.values()["job_seconds_sum"] == 3600 - 0.01


def test_a_job_ended_when_it_did_and_not_when_a_daemon_that_was_down_learnt_of_it():
    box = Box()
    box.enter(offer("a", hours=2), 0)
    box.enter(StartRequested("a"), 1)
    told = {"a": HOUR + 1}
    box.metrics = Metrics(box.recorder.machine, lambda: box.now, ended_ms=told.get)
    box.enter(JobEnded("a"), 9 * HOUR)
    values = box.values()
    slack = {key: values[f"deadline_slack_seconds_bucket,{key}"] for key in ("900.0", "3600.0")}
    assert slack == {"900.0": 0, "3600.0": 1}
    assert values["job_seconds_sum"] == 3600


@pytest.mark.parametrize(("said", "counted"), [(None, 3), (99 * HOUR, 3), (-HOUR, 0)])
def test_an_end_that_cannot_be_is_put_right(said, counted):
    box = Box()
    box.enter(offer("a"), 0)
    box.enter(StartRequested("a"), 1)
    box.metrics = Metrics(box.recorder.machine, lambda: box.now, ended_ms=lambda _: said)
    box.enter(JobEnded("a"), 3 * HOUR + 1)
    assert box.values()["job_seconds_sum"] == counted * 3600


def test_a_strangers_text_is_no_label():
    box = Box()
    box.enter(offer("a", kind="Evil\nTask"), 0)
    assert box.values()["offers_total,other"] == 1


def test_refusals_that_no_ledger_has_are_counted_from_zero():
    box = Box()
    box.metrics.on_unledgered("late")
    values = box.values()
    told = [
        values[f"unledgered_refusals_total,{reason}"] for reason in ("busy", "late", "unwritten")
    ]
    assert told == [0, 1, 0]


def test_commits_requests_and_gpus():
    box = Box()
    box.metrics.on_commit(0.003, 5)
    box.metrics.on_request("/task_offer", 200, 0.002)
    box.metrics.on_gpu(0, 5_000)
    values = box.values()
    assert values["ledger_entries_total"] == 5
    assert values["ledger_commit_seconds_bucket,0.005"] == 1
    assert values["http_requests_total,/task_offer,200"] == 1
    assert values["gpu_memory_used_bytes,0"] == 5_000


def test_it_is_read_over_http():
    async def ask(path):
        transport = httpx.ASGITransport(metrics_app(worked().metrics))
        async with httpx.AsyncClient(transport=transport, base_url="http://box") as client:
            return await client.get(path)

    answer = asyncio.run(ask("/metrics"))
    assert answer.status_code == 200
    assert "four_slot_slots" in answer.text
    assert answer.headers["content-type"].startswith("text/plain")
    assert asyncio.run(ask("/")).status_code == 404


def test_a_ledger_that_cannot_be_written_shows():
    for failing in (False, True):
        metrics = Metrics(Machine(Policy(ACCURACY_4)), lambda: 0, lambda failing=failing: failing)
        assert f"four_slot_ledger_failing {float(failing)}" in metrics.render().decode()
