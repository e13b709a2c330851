"""The wire protocol, and a desk whose answers hold: what is taken, what is refused."""

import asyncio
import json
from dataclasses import replace

import pytest

from live.daemon import DaemonStopped
from live.inbox import Entered
from live.intake.desk import BUSY, GIVEN_BACK, LATE, START_LATE, STARTED, Desk, Told
from live.intake.protocol import (
    DEEPEST,
    DIALECTS,
    WireStart,
    dialect_named,
    kind_of,
    read_offer,
    read_start,
    task_uuid,
)
from live.rows import Nonce, StartPayload
from shared.decisions import Policy
from shared.errors import InputError
from shared.inputs import JobEnded, PolicyPut
from shared.ledger import Recorder
from shared.offers import Offer
from shared.presets import ACCURACY_4
from shared.wire import NotJson

TASK = "6f1f6f2e-3e7c-4f3e-9d7e-0123456789ab"
OTHER = "6f1f6f2e-3e7c-4f3e-9d7e-0123456789ac"
OFFER = {
    "task_id": TASK,
    "model": "org/model-7b",
    "task_type": "InstructTextTask",
    "hours_to_complete": 8,
    "ds_size": 100_000,
    "model_params_count": None,
}
TEXT = {
    "task_id": TASK,
    "model": "org/model-7b",
    "hours_to_complete": 8,
    "expected_repo_name": "winner-1",
    "dataset": "https://data.example/train.json?signature=x",
    "dataset_type": {"field_instruction": "q", "field_output": "a", "field_system": None},
    "file_format": "s3",
}
REWARD = {"reward_func": "def reward(completions):\n    return [1.0]", "reward_weight": 0.5}
GRPO = {**TEXT, "dataset_type": {"field_prompt": "p", "reward_functions": [REWARD]}}
IMAGE = {
    "task_id": TASK,
    "model": "org/diffusion",
    "hours_to_complete": 1.5,
    "dataset_zip": "https://data.example/pictures.zip",
    "model_type": "flux",
}


def body(fields: object) -> bytes:
    return json.dumps(fields).encode()


def refused(text: bytes, read=lambda text: read_offer(text, 5)) -> str:
    with pytest.raises(InputError) as caught:
        read(text)
    said = str(caught.value)
    assert said.isprintable()
    assert said.isascii()
    return said


def test_an_offer_as_it_comes():
    read = read_offer(body(OFFER), 5)
    assert read.offer == Offer(TASK, "org/model-7b", "InstructTextTask", 8.0, 100_000, None)
    assert read.unknown == ()


def test_both_forms_of_hours_and_least_keys():
    late = {key: OFFER[key] for key in ("task_id", "model", "task_type")}
    assert read_offer(body({**late, "hours_to_complete": 1.5}), 5).offer.hours_to_complete == 1.5
    assert (
        read_offer(body({**late, "hours_to_complete": 2}), 5).offer
        == read_offer(body({**late, "hours_to_complete": 2.0}), 5).offer
    )


def test_unknown_keys_are_named_and_decide_nothing():
    extra = {**OFFER, "received_at": 1, "train_hours": 99, "b": [1], "a": {}}
    read = read_offer(body(extra), 5)
    assert read.unknown == ("a", "b", "received_at", "train_hours")
    assert read.offer == read_offer(body(OFFER), 5).offer


@pytest.mark.parametrize(
    "text", [TASK.upper(), TASK.replace("-", ""), TASK]
)  # one task, however it is written
def test_a_task_has_one_id(text):
    assert task_uuid(text) == TASK


@pytest.mark.parametrize(
    "value",
    [
        *("", "t1", "../../etc/passwd", TASK + "\0", TASK + "\n", TASK[:-1], "{" + TASK + "}"),
        *(5, None, [TASK], "urn:uuid:" + TASK, TASK.replace("-", "_"), "\u0661" * 32),
    ],
)
def test_other_task_ids_are_refused(value):
    assert "task_id: found " in refused(body({**OFFER, "task_id": value}))


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("ds_size", 10**29, "ds_size: found 1000000"),
        ("ds_size", -1, "ds_size: found -1"),
        ("ds_size", "5", 'ds_size: found "5"'),
        ("model_params_count", 2**53 + 1, "model_params_count: found 9007"),
        ("hours_to_complete", float("nan"), "hours_to_complete: found NaN"),
        ("hours_to_complete", float("inf"), "hours_to_complete: found Infinity"),
        ("hours_to_complete", 0, "hours_to_complete: found 0"),
        ("hours_to_complete", True, "hours_to_complete: found true"),
        ("model", "a\0b", 'model: found "a\\u0000b"'),
        ("model", "a\nb", 'model: found "a\\nb"'),
        ("model", "../../etc/passwd", 'model: found "../../etc/passwd"'),
        ("model", "/etc/passwd", 'model: found "/etc/passwd"'),
        ("model", "a\\b", 'model: found "a\\\\b"'),
        ("model", "m" * 257, 'model: found "mmm'),
        ("model", "\ud800", 'model: found "\\ud800"'),
        ("task_type", "Chat\x7f", "task_type: found "),
        ("task_type", None, "task_type: found null"),
        ("other", "\0", "other: found "),
        ("other", {"x": ["\udfff"]}, "other: found "),
        ("other", [float("-inf")], "other: found -Infinity"),
        ("\0", 1, "\\u0000: found "),
    ],
)
def test_bad_fields_are_named(key, value, said):
    assert refused(body({**OFFER, key: value})).startswith(said)


@pytest.mark.parametrize("text", [b"", b"{", b"\xff", b"[" * 5000, b"{} {}"])
def test_what_is_no_json(text):
    with pytest.raises(NotJson):
        read_offer(text, 5)


def test_other_json_and_keys_twice():
    assert refused(b"[]") == "found a list, allowed is one JSON object"
    assert refused(b'{"task_id":1,"task_id":2}').startswith("task_id: found the key twice")
    digits = b'{"task_id": ' + b"9" * 5000 + b"}"
    assert "thousands of digits" in refused(digits)


def test_nesting_has_a_bound():
    deep: object = 1
    for _ in range(DEEPEST):
        deep = [deep]
    assert "levels" in refused(body({**OFFER, "other": deep}))


@pytest.mark.parametrize(("kind", "fields"), [("text", TEXT), ("grpo", GRPO), ("image", IMAGE)])
def test_start_requests_are_kept_whole(kind, fields):
    read = read_start(body({**fields, "new_key": {"deep": [1.5, "ü"]}}), kind)
    assert read.task_id == TASK
    assert read.unknown == ("new_key",)
    assert json.loads(read.payload) == {**fields, "new_key": {"deep": [1.5, "ü"]}}


def test_early_and_odd_start_requests():
    assert read_start(body({**TEXT, "dataset_type": "alpaca"}), "text").task_id == TASK
    assert read_start(body({**TEXT, "expected_repo_name": None}), "text").task_id == TASK
    assert read_start(body({**TEXT, "expected_repo_name": ""}), "text").task_id == TASK
    chat = {"chat_column": "conversations", "chat_template": "chatml"}
    assert read_start(body({**TEXT, "dataset_type": chat}), "text").task_id == TASK


@pytest.mark.parametrize(
    ("kind", "fields", "said"),
    [
        ("text", {**TEXT, "task_id": "x"}, "task_id: found"),
        ("text", {**TEXT, "hours_to_complete": 1e9}, "hours_to_complete: found"),
        ("text", {**TEXT, "expected_repo_name": "../x"}, "expected_repo_name: found"),
        ("text", {**TEXT, "file_format": "exe"}, "file_format: found"),
        ("text", {**TEXT, "dataset": "x" * 9000}, "dataset: found"),
        ("text", {**TEXT, "model": "../.."}, "model: found"),
        ("grpo", {**GRPO, "dataset_type": {"reward_functions": [{}]}}, "dataset_type.reward_f"),
        ("image", TEXT, "dataset_zip: found nothing"),
        ("text", {key: TEXT[key] for key in TEXT if key != "task_id"}, "task_id: found nothing"),
    ],
)
def test_bad_start_requests_are_named(kind, fields, said):
    assert refused(body(fields), lambda text: read_start(text, kind)).startswith(said)


def test_submissions_in_both_forms():
    early, late = DIALECTS["early"], dialect_named("late")
    told = '{"repo":"me/m","model_hash":"h"}'
    assert early.submission_answer("me/m") == early.submission_answer(told) == "me/m"
    assert late.submission_answer("me/m") == {"repo": "me/m", "model_hash": None}
    assert late.submission_answer(told) == {"repo": "me/m", "model_hash": "h"}
    with pytest.raises(InputError, match="protocol: found"):
        dialect_named("v9")


def test_kinds():
    kinds = {kind: kind_of(kind) for kind in ("ChatTask", "GrpoTask", "ImageTask", "?")}
    assert kinds == {"ChatTask": "text", "GrpoTask": "grpo", "ImageTask": "image", "?": "text"}


class Held:
    """A consumer whose disk can be held up: what was taken is decided, and told on release."""

    def __init__(self) -> None:
        self.recorder = Recorder(PolicyPut(Policy(ACCURACY_4)), 0)
        self.now, self.kept, self.entries, self.extras = 0, [], [], []
        self.free = asyncio.Event()
        self.free.set()
        self.taken = asyncio.Event()
        self.listeners = []
        self.fault = None

    @property
    def machine(self):
        return self.recorder.machine

    def listen(self, callback):
        self.listeners.append(callback)

    async def keep(self, extra):
        self.kept.extend(extra)

    def put(self, entry, *, extra=()):
        return asyncio.ensure_future(self.enter(entry, extra=extra))

    async def enter(self, entry, *, extra=()):
        if self.fault:
            raise self.fault
        at = self.machine.stamp(self.now, entry)
        written, answers = self.recorder.handle(entry, at)
        self.taken.set()
        told = asyncio.get_running_loop().create_future()
        task = asyncio.ensure_future(self._write(written, answers, told))
        self.extras.append(extra)
        await asyncio.shield(told)
        await task
        return Entered(written, answers)

    async def _write(self, written, answers, told):
        await self.free.wait()
        self.entries.append(written)
        told.set_result(None)
        for listener in self.listeners:
            listener(written, answers)


def offer(task_id: str = TASK) -> Offer:
    return Offer(task_id, "org/model-7b", "InstructTextTask", 8.0)


async def until(condition) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0)


def test_a_decision_in_time_is_told():
    async def story():
        consumer = Held()
        desk = Desk(consumer)
        nonce = Nonce("hotkey", "1_a", 5)
        told = await desk.offer(offer(), "v", (nonce,))
        assert told.accepted
        assert told.message.startswith("Accepted for accuracy")
        assert consumer.extras == [(nonce,)]
        start = WireStart(TASK, "{}")
        assert await desk.start(start, "w") == Told("the offer came from another source", False)
        assert await desk.start(start, "v", (nonce,)) == Told(STARTED, accepted=True)
        assert consumer.extras[-1] == (StartPayload(TASK, "{}"), nonce)
        assert (await desk.start(start, "v")).message == "the job is already running"

    asyncio.run(story())


def test_a_start_of_another_job_than_was_decided_is_refused():
    async def story():
        consumer = Held()
        desk = Desk(consumer)
        assert (await desk.offer(offer(), "v")).accepted
        right, row = offer(), Nonce("hotkey", "1_a", 5)
        for start, said in (
            (WireStart(TASK, "{}", model="other/model"), 'model: found "other/model"'),
            (WireStart(TASK, "{}", hours_to_complete=7.9), "hours_to_complete: found 7.9, the acc"),
        ):
            told = await desk.start(start, "v", (row,))
            assert (told.accepted, told.message.startswith(said)) == (False, True)
        assert consumer.kept == [row, row]
        assert consumer.machine.jobs[TASK].state == "reserved"
        same = WireStart(TASK, "{}", (), right.model, float(right.hours_to_complete))
        assert (await desk.start(same, "v")).accepted

    asyncio.run(story())


def test_more_hours_than_were_offered_do_no_harm(caplog):
    async def story():
        consumer = Held()
        desk = Desk(consumer)
        await desk.offer(offer(), "v")
        more = WireStart(TASK, "{}", (), "org/model-7b", 9.0)
        assert (await desk.start(more, "v")).accepted
        job = consumer.machine.jobs[TASK]
        assert job.deadline_ms == consumer.entries[-1].at_ms + 8 * 3_600_000

    asyncio.run(story())
    assert "the offer's hours hold: hours_to_complete: found 9.0" in caplog.text


def test_an_offer_of_an_earlier_run_is_still_what_its_start_is_held_to():
    async def story():
        consumer = Held()
        await Desk(consumer).offer(offer(), "v")
        after = Desk(consumer, reserved={TASK: offer()})
        told = await after.start(WireStart(TASK, "{}", model="other/model"), "v")
        assert told.message.startswith("model: found")

    asyncio.run(story())


def test_a_stranger_s_start_learns_nothing_of_the_offer():
    async def story():
        consumer = Held()
        desk = Desk(consumer)
        await desk.offer(offer(), "v")
        told = await desk.start(WireStart(TASK, "{}", model="other/model"), "w")
        assert told == Told("the offer came from another source", accepted=False)

    asyncio.run(story())


def test_the_nonce_of_a_withdrawn_offer_is_kept_all_the_same():
    async def story():
        consumer = Held()
        consumer.free.clear()
        row = Nonce("hotkey", "1_a", 5)
        told = await Desk(consumer, answer_s=0.01).offer(offer(), "v", (row,))
        assert told.message == LATE
        await until(lambda: consumer.kept == [row])

    asyncio.run(story())


def test_an_acceptance_too_late_to_be_told_is_given_back():
    async def story():
        consumer = Held()
        unledgered = []
        desk = Desk(consumer, answer_s=0.01, unledgered=unledgered.append)
        consumer.free.clear()
        assert await desk.offer(offer(), "v") == Told(LATE, accepted=False)
        assert unledgered == ["late"]
        assert TASK in consumer.machine.jobs
        consumer.free.set()
        await until(lambda: len(consumer.entries) == 2)
        assert consumer.entries[-1].entry == JobEnded(TASK, outcome="cancelled")
        assert not consumer.machine.jobs
        desk_in_time = await desk.offer(offer(), "v")
        assert desk_in_time == Told(LATE, accepted=False)  # the machine repeats the acceptance
        assert await desk.start(WireStart(TASK, "{}"), "v") == Told(GIVEN_BACK, accepted=False)
        consumer.now = 100_000  # after the repeat window it is a new offer
        assert (await desk.offer(offer(), "v")).accepted
        assert (await desk.start(WireStart(TASK, "{}"), "v")).accepted

    asyncio.run(story())


def test_an_acceptance_told_to_a_repeat_stands():
    async def story():
        consumer = Held()
        first, again = Desk(consumer, answer_s=0.01), None
        consumer.free.clear()
        patient = asyncio.create_task(Desk.offer(_patient(first), offer(), "v"))
        await consumer.taken.wait()
        first._answer_s = 0.01
        assert await first.offer(offer(), "v") == Told(LATE, accepted=False)
        consumer.free.set()
        again = await patient
        assert again.accepted
        await until(lambda: len(consumer.entries) == 2)
        assert TASK in consumer.machine.jobs

    def _patient(desk):
        desk._answer_s = 30.0
        return desk

    asyncio.run(story())


def test_more_than_can_wait_are_refused_unheard():
    async def story():
        consumer = Held()
        unledgered = []
        desk = Desk(consumer, most_waiting=1, unledgered=unledgered.append)
        consumer.free.clear()
        waiting = asyncio.create_task(desk.offer(offer(), "v"))
        await consumer.taken.wait()
        nonce = Nonce("h", "1_b", 5)
        assert await desk.offer(offer(OTHER), "v", (nonce,)) == Told(BUSY, accepted=False)
        assert unledgered == ["busy"]
        consumer.free.set()
        assert (await waiting).accepted
        assert (await desk.offer(offer(OTHER), "v")).accepted
        assert consumer.kept == [nonce]

    asyncio.run(story())


def test_a_late_start_is_refused_and_still_runs():
    async def story():
        consumer = Held()
        desk = Desk(consumer, start_s=0.01)
        await desk.offer(offer(), "v")
        consumer.free.clear()
        assert await desk.start(WireStart(TASK, "{}"), "v") == Told(START_LATE, accepted=False)
        consumer.free.set()
        await until(lambda: len(consumer.entries) == 2)
        assert consumer.machine.jobs[TASK].state == "running"

    asyncio.run(story())


def test_a_stopping_daemon_refuses():
    async def story():
        consumer = Held()
        desk = Desk(consumer)
        consumer.fault = DaemonStopped("stopping")
        assert not (await desk.offer(offer(), "v")).accepted
        assert not (await desk.start(WireStart(TASK, "{}"), "v")).accepted
        consumer.fault = InputError("offer: found text no file can hold")
        with pytest.raises(InputError):
            await desk.offer(replace(offer(), model="x"), "v")

    asyncio.run(story())
