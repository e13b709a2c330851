"""The spool folder: offers as files, answers as files, whatever else lies there."""

import asyncio
import json
import os

import pytest

from live.inbox import Entered
from live.intake.spool import Spool
from live.intake.spool_files import MOST_BYTES, SpoolFiles, safe_name
from live.rows import StartPayload
from shared.decisions import Policy
from shared.errors import InputError
from shared.inputs import JobEnded, OfferArrived, PolicyPut, StartRequested
from shared.ledger import Recorder, entry_line
from shared.presets import ACCURACY_4

OFFER = {
    "task_id": "my job 1",
    "model": "org/model-7b",
    "task_type": "InstructTextTask",
    "hours_to_complete": 8,
}
START = {"dataset": "/data/rows.json", "dataset_type": {"field_prompt": "q"}, "file_format": "json"}


def fail(*_):
    raise OSError(28, "No space left on device")


class Crash(BaseException):
    """The process ends here."""


class Consumer:
    def __init__(self) -> None:
        self.recorder = Recorder(PolicyPut(Policy(ACCURACY_4)), 0)
        self.lines, self.extras, self.full, self.now = [], [], 0, 0

    @property
    def machine(self):
        return self.recorder.machine

    def listen(self, callback):
        raise AssertionError("nobody listens here")

    async def keep(self, extra):
        raise AssertionError("nothing is kept here")

    async def enter(self, entry, *, extra=()):
        if self.full and isinstance(entry, OfferArrived):
            self.full -= 1
            return Entered(None, [])
        at = self.machine.stamp(self.now, entry)
        written, answers = self.recorder.handle(entry, at)
        self.lines.append((written.seq, at, entry_line(written)))
        self.extras.append(extra)
        return Entered(written, answers)


class World:
    def __init__(self, root) -> None:
        self.root = root
        self.consumer = Consumer()
        self.restart()

    def restart(self) -> None:
        self.files = SpoolFiles(self.root)
        self.spool = Spool(
            self.files, self.consumer, lambda: 5, lambda: self.consumer.lines, patience=3
        )

    def put(self, name: str, fields: object) -> None:
        (self.root / name).write_text(json.dumps(fields))

    def sweep(self) -> None:
        asyncio.run(self.spool.sweep())

    def recover(self) -> None:
        asyncio.run(self.spool.recover())

    def done(self, name: str) -> dict:
        return json.loads((self.root / "done" / name).read_text())

    def why(self, name: str) -> str:
        told = json.loads((self.root / "failed" / name).read_text())["reason"]
        assert told.isprintable()
        return told

    def left(self) -> list[str]:
        waiting = [name.name for name in self.root.iterdir() if name.name.endswith(".json")]
        return sorted(waiting) + sorted(name.name for name in (self.root / "taken").iterdir())


@pytest.fixture
def world(tmp_path):
    return World(tmp_path / "spool")


def test_an_offer_and_its_answer(world):
    world.put("one.json", OFFER)
    world.sweep()
    done = world.done("one.json")
    assert done["offer"] == OFFER
    assert done["answer"]["accepted"] is True
    assert done["answer"]["message"].startswith("Accepted for accuracy")
    assert (done["answer"]["gate"], done["answer"]["slot"]) == ("accepted", 0)
    assert "start" not in done
    assert world.left() == []


def test_files_are_decided_in_the_order_of_their_names(world):
    for name in "edcba":
        world.put(f"{name}.json", {**OFFER, "task_id": name})
    world.sweep()
    assert [world.done(f"{name}.json")["answer"]["accepted"] for name in "abcde"] == [True] * 4 + [
        False
    ]


def test_an_accepted_offer_may_start_at_once(world):
    world.put("one.json", {**OFFER, "start": START})
    world.sweep()
    assert world.done("one.json")["start"] == {"message": "Training started", "accepted": True}
    assert world.consumer.machine.jobs["my job 1"].state == "running"
    (row,) = [extra for extra in world.consumer.extras if isinstance(extra, StartPayload)]
    assert json.loads(row.payload) == {
        "task_id": "my job 1",
        "model": "org/model-7b",
        "hours_to_complete": 8.0,
        **START,
    }


def test_a_start_may_come_in_a_second_file(world):
    world.put("one.json", OFFER)
    world.sweep()
    assert world.consumer.machine.jobs["my job 1"].state == "reserved"
    world.put("two.json", {**OFFER, "start": START})
    world.sweep()
    assert world.done("two.json")["start"] == {"message": "Training started", "accepted": True}
    assert world.consumer.machine.jobs["my job 1"].state == "running"


def test_a_uuid_in_capitals_is_the_same_task(world):
    low = "6f1f6f2e-3e7c-4f3e-9d7e-0123456789ab"
    start = {**START, "task_id": low.upper()}
    world.put("a.json", {**OFFER, "task_id": low})
    world.put("b.json", {**OFFER, "task_id": low.upper(), "start": start})
    world.put("c.json", {**OFFER, "task_id": "Odd"})
    world.put("d.json", {**OFFER, "task_id": "odd"})
    world.sweep()
    assert world.done("b.json")["answer"]["repeat"]
    assert world.done("b.json")["start"]["accepted"]
    assert set(world.consumer.machine.jobs) == {low, "Odd", "odd"}


def test_a_refused_offer_is_not_started(world):
    world.put("one.json", {**OFFER, "hours_to_complete": 99, "start": START})
    world.sweep()
    assert "start" not in world.done("one.json")
    assert world.done("one.json")["answer"]["gate"] == "time"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ([], "found a list"),
        ({**OFFER, "ds_size": -1}, "ds_size: found -1"),
        ({**OFFER, "task_id": "a\0"}, "task_id: found"),
        ({**OFFER, "task_id": "x" * 65}, "task_id: found"),
        ({**OFFER, "start": 5}, "start: found 5"),
        ({**OFFER, "start": {}}, "start.dataset: found nothing"),
        ({**OFFER, "start": {**START, "task_id": "other"}}, "start.task_id: found"),
    ],
)
def test_bad_offers_are_refused_in_a_line(world, fields, said):
    world.put("bad.json", fields)
    world.sweep()
    assert world.why("bad.json").startswith(said)
    assert json.loads((world.root / "failed" / "bad.json.refused").read_text()) == fields
    assert world.left() == []
    assert not world.consumer.lines


def test_a_partial_file_is_given_time(world):
    (world.root / "slow.json").write_text('{"task_id": ')
    world.sweep()
    world.sweep()
    (world.root / "slow.json").write_text('{"task_id": "my ')
    world.sweep()
    world.sweep()
    world.put("slow.json", OFFER)
    world.sweep()
    assert world.done("slow.json")["answer"]["accepted"]


def test_a_file_that_stays_partial_is_refused(world):
    (world.root / "slow.json").write_text("")
    for _ in range(2):
        world.sweep()
        assert world.left() == ["slow.json"]
    world.sweep()
    assert world.why("slow.json").startswith("found an empty line")


def test_links_folders_pipes_and_big_files(world):
    secret = world.root.parent / "secret.json"
    secret.write_text(json.dumps(OFFER))
    (world.root / "link.json").symlink_to(secret)
    (world.root / "folder.json").mkdir()
    os.mkfifo(world.root / "pipe.json")
    (world.root / "big.json").write_bytes(b" " * (MOST_BYTES + 1))
    world.sweep()
    assert world.left() == []
    assert world.why("link.json").startswith("cannot be read")
    assert world.why("folder.json").startswith("found no plain file")
    assert world.why("pipe.json").startswith("found no plain file")
    assert world.why("big.json").startswith("found more than 1048576 bytes")
    assert secret.read_text() == json.dumps(OFFER)
    assert (world.root / "failed" / "link.json.refused").is_symlink()


@pytest.mark.parametrize(
    "name", ["a b.json", "\n.json", "ü.json", "x" * 200 + ".json", "a;rm.json"]
)
def test_odd_names_are_refused_under_a_plain_one(world, name):
    world.put(name, OFFER)
    world.sweep()
    assert world.why(safe_name(name)).startswith("found the file name")
    assert not world.consumer.lines


def test_other_files_are_left_alone(world):
    for name in (".hidden.json", "note.txt"):
        (world.root / name).write_text("x")
    world.sweep()
    left = sorted(path.name for path in world.root.iterdir())
    assert left == [".hidden.json", "done", "failed", "note.txt", "taken"]


def test_what_cannot_be_moved_is_looked_at_once(world, monkeypatch):
    world.put("bad.json", [])
    looks = []
    monkeypatch.setattr(world.files, "refuse_waiting", lambda *_: looks.append(1) or fail())
    world.sweep()
    world.sweep()
    assert looks == [1]


def crash_at(world, monkeypatch, owner, name):
    def crash(*_):
        raise Crash

    monkeypatch.setattr(owner, name, crash)
    with pytest.raises(Crash):
        world.sweep()
    monkeypatch.undo()
    world.restart()


def test_a_crash_before_the_decision(world, monkeypatch):
    world.put("one.json", OFFER)
    crash_at(world, monkeypatch, world.consumer, "enter")
    assert not world.consumer.lines
    world.recover()
    assert world.done("one.json")["answer"]["accepted"]
    assert len(world.consumer.lines) == 1


def test_a_crash_after_the_decision_keeps_it_for_good(world, monkeypatch):
    world.put("one.json", {**OFFER, "start": START})
    crash_at(world, monkeypatch, world.files, "answer")
    decided = list(world.consumer.lines)
    assert len(decided) == 2
    asyncio.run(world.consumer.enter(JobEnded("my job 1")))
    world.consumer.now = 10_000_000  # long after the repeat window
    world.recover()
    done = world.done("one.json")
    assert done["answer"]["at_ms"] == 0
    assert done["answer"]["repeat"] is False
    assert done["start"]["accepted"] is True
    assert len(world.consumer.lines) == 3
    assert world.left() == []


def test_a_crash_between_decision_and_start(world, monkeypatch):
    world.put("one.json", {**OFFER, "start": START})
    enter = world.consumer.enter

    async def crash(entry, *, extra=()):
        if isinstance(entry, StartRequested):
            raise Crash
        return await enter(entry, extra=extra)

    monkeypatch.setattr(world.consumer, "enter", crash)
    with pytest.raises(Crash):
        world.sweep()
    monkeypatch.undo()
    world.restart()
    world.recover()
    assert world.done("one.json")["start"]["accepted"] is True
    assert [json.loads(line)["kind"] for _, _, line in world.consumer.lines] == ["offer", "start"]


def test_an_earlier_file_of_that_name_and_task_is_another(world, monkeypatch):
    world.put("one.json", OFFER)
    world.sweep()
    asyncio.run(world.consumer.enter(JobEnded("my job 1")))
    world.consumer.now = 1_000_000
    world.put("one.json", OFFER)
    crash_at(world, monkeypatch, world.consumer, "enter")
    world.recover()
    assert world.done("one.json")["answer"]["at_ms"] == 1_000_000


def test_an_answer_that_cannot_be_written_is_written_later(world, monkeypatch):
    world.put("one.json", OFFER)
    monkeypatch.setattr(world.files, "answer", fail)
    world.sweep()
    assert len(world.left()) == 1
    monkeypatch.undo()
    world.sweep()
    assert world.done("one.json")["answer"]["accepted"]
    assert len(world.consumer.lines) == 1


def test_an_offer_waits_while_nothing_can_be_written(world, monkeypatch):
    monkeypatch.setattr("live.intake.spool.POLL_S", 0)
    world.consumer.full = 3
    world.put("one.json", OFFER)
    world.sweep()
    assert world.done("one.json")["answer"]["accepted"]


def test_it_runs_until_told_to_stop(world):
    async def story():
        stop = asyncio.Event()
        running = asyncio.create_task(world.spool.run(stop, poll_s=0.001))
        world.put("one.json", OFFER)
        async with asyncio.timeout(10):
            while not (world.root / "done" / "one.json").exists():
                await asyncio.sleep(0)
        stop.set()
        await running

    asyncio.run(story())


def test_a_folder_that_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be made"):
        SpoolFiles(tmp_path / "file" / "spool")
