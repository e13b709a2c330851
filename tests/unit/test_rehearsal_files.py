"""A rehearsal reads the offers files that the simulator reads, and refuses what it refuses."""

import asyncio
import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from live.commands.rehearse import _holds
from live.rehearsal import Rehearsal, StageSet
from live.rehearsal_files import Event, read_events, read_offer_lines
from shared.errors import InputError
from sim.offers_file import read_offers, write_offers

LINES = (
    '{"received_at": 1000000, "task_id": "b", "model": "x/y-7b", "task_type": "ChatTask", '
    '"hours_to_complete": 4, "ds_size": 10, "model_params_count": 7000000000}\n'
    '{"received_at": "1970-01-01T00:16:39Z", "task_id": "a", "model": "x, \\"y\\"", '
    '"task_type": "DpoTask", "hours_to_complete": 1.5, "train_hours": 0.25}\n'
    '{"received_at": 1070001, "task_id": "b", "model": "x/y-7b", "task_type": "ChatTask", '
    '"hours_to_complete": 4}\n'
)
ENDINGS = (".jsonl", ".csv", ".parquet", ".jsonl.gz", ".csv.gz")


def write(folder: Path, ending: str, lines: str = LINES) -> Path:
    plain = folder / "plain.jsonl"
    plain.write_text(lines)
    if ending == ".jsonl":
        return plain
    path = folder / f"offers{ending}"
    write_offers(read_offers(plain), path)
    return path


def fault_of(path: Path) -> str:
    """What both readers say is wrong, which has to be the same."""
    with pytest.raises(InputError) as ours:
        read_offer_lines(path)
    with pytest.raises(InputError) as theirs:
        read_offers(path)
    assert str(ours.value) == str(theirs.value)
    return str(ours.value)


@pytest.mark.parametrize("ending", ENDINGS)
def test_offers_are_the_same_in_every_form(ending: str, tmp_path: Path) -> None:
    plain = write(tmp_path, ".jsonl")
    offers = read_offer_lines(write(tmp_path, ending))
    again = read_offer_lines(plain)
    assert [each.offer() for each in offers] == [each.offer() for each in again]
    told = [
        (each.received_at, each.model, each.ds_size, each.train_ms, each.model_params_count)
        for each in offers
    ]
    assert told == [
        (999_000, 'x, "y"', None, 900_000, None),
        (1_000_000, "x/y-7b", 10, 14_400_000, 7_000_000_000),
        (1_070_001, "x/y-7b", None, 14_400_000, None),
    ]
    assert offers[1].task_id == offers[2].task_id != offers[0].task_id
    assert len(offers[0].task_id) == 36  # the wire wants UUIDs


def test_the_same_task_within_a_minute_names_both_lines(tmp_path: Path) -> None:
    path = tmp_path / "again.jsonl"
    path.write_text(LINES.replace("1070001", "1060000"))
    assert fault_of(path) == (
        f'{path}:3: task_id: found "b" 60000 ms from line 1, '
        "allowed is the same task again after more than 60000 ms"
    )


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", "received_at,task_id,model,task_type,hours_to_complete\n1,a,m,t,none\n"),
        ("a.csv", "received_at,task_id,model,task_type,hours_to_complete\n1,,m,t,4\n"),
        ("a.csv", "received_at,task_id,model,task_type,hours_to_complete\n1,a,m,t,-4\n"),
        ("a.jsonl", LINES + '{"received_at": 1}\n'),
        ("a.txt", LINES),
    ],
)
def test_what_is_wrong_is_told_as_the_simulator_tells_it(
    name: str, content: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_text(content)
    assert str(path) in fault_of(path)


@pytest.mark.parametrize(
    ("event", "says"),
    [
        ({"do": "policy", "preset": "accuracy_5"}, "preset: found 'accuracy_5', allowed is one of"),
        ({"do": "policy"}, "preset, cap: found neither, allowed with policy is one or both"),
        ({"do": "policy", "cap": True}, "cap: found True"),
        ({"do": "gpu_fails", "gpu": 8}, "gpu: found 8, allowed with gpu_fails is 0 to 7"),
        ({"do": "gpu_repaired"}, "gpu: found None, allowed with gpu_repaired is 0 to 7"),
        ({"do": "drain", "gpu": 0}, "gpu: found 0, allowed with drain is none"),
        ({"do": "gpu_fails", "gpu": 0, "cap": 2}, "cap: found 2, allowed with gpu_fails is none"),
        ({"do": "explode"}, "do: found 'explode'"),
    ],
)
def test_an_event_that_cannot_be_brought_about_is_told_before_the_run(
    event: dict[str, object], says: str, tmp_path: Path
) -> None:
    path = tmp_path / "events.jsonl"
    good = {"at_hours": 1, "do": "gpu_fails", "gpu": 7}
    path.write_text(f"{json.dumps(good)}\n{json.dumps({'at_hours': 2} | event)}\n")
    with pytest.raises(InputError) as wrong:
        read_events(path, 8)
    assert str(wrong.value).startswith(f"{path}:2: {says}")
    assert "\n" not in str(wrong.value)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.csv", "received_at,task_id\n1,a,b\n", "a.csv:2: found more or fewer cells"),
        ("a.csv", 'received_at,task_id\n"1,a\n', "cannot be read"),
        ("a.parquet", "no parquet", "cannot be read"),
        ("a.jsonl.gz", "no gzip", "cannot be read"),
        ("a.jsonl", "", "found no offer"),
        ("missing.jsonl", None, "cannot be read: no such file"),
    ],
)
def test_what_cannot_be_read_is_one_line(
    name: str, content: str | None, says: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError) as wrong:
        read_offer_lines(path)
    assert says in str(wrong.value)
    assert "\n" not in str(wrong.value)


def test_only_a_gpu_that_failed_on_cue_excuses_a_job_without_a_result() -> None:
    jobs = {"on it": SimpleNamespace(gpus=(2, 3)), "beside it": SimpleNamespace(gpus=(0, 1))}
    daemon = SimpleNamespace(machine=SimpleNamespace(jobs=jobs), listen=lambda _: None)
    stage = StageSet()
    rehearsal = Rehearsal(SimpleNamespace(daemon=daemon, clock=None), stage, 1.0)  # type: ignore[arg-type]
    rehearsal._accepted |= {"on it", "beside it", "before"}
    rehearsal._completed |= {"before"}
    asyncio.run(rehearsal._happen(Event(at_hours=1.0, do="gpu_fails", gpu=3)))
    rehearsal.count_lost()
    assert (rehearsal.report.on_failed_gpus, rehearsal.report.lost) == (1, 1)
    told = {"verify": 0, "unanswered": 0, "started": 3, "completed": 1, "failed": 2}
    assert not _holds(told | {"lost": 1})
    assert _holds(told | {"lost": 0})
    assert not _holds(told | {"lost": 0, "started": 4})
