"""The real daemon and the simulator, fed the same scenario, write the same ledger byte for byte."""

import asyncio
import json
import random
import runpy
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import pytest

import live.daemon
import live.inbox
from live.clock import ManualClock
from live.daemon import Daemon
from live.migrations import LEDGER
from live.recovery import open_ledger
from live.transfer import export
from shared.box import BoxDeclaration
from shared.decisions import Policy
from shared.errors import IllegalTransition, InputError
from shared.inputs import (
    GpuChanged,
    JobEnded,
    OfferArrived,
    OperatorAsked,
    PolicyPut,
    StartRequested,
    StorageChanged,
    TimerFired,
)
from shared.ledger import entry_line
from shared.machine import Machine
from shared.offers import Offer
from shared.presets import ACCURACY_4, MAXIMUM_2, PRESETS
from sim.cli import main as sim_main
from sim.engine.shell import run_machine
from sim.experiment import World, workload_of
from sim.ledger_file import read_ledger, write_ledger
from sim.scenario import parse_scenario
from sim.stream import in_handling_order
from sim.verify import verify

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden" / "ledger_v1.jsonl"
TIES = runpy.run_path(str(Path(__file__).with_name("test_verify.py")))
HOUR = 3_600_000
TTL_MS = 2 * HOUR
START = 1_748_736_000_000
BOX = BoxDeclaration(task_types=frozenset({"InstructTextTask", "ChatTask"}), shortest_row=512)
OTHER = Policy(MAXIMUM_2.varied(threshold=0.9), reservation_ttl_ms=TTL_MS)


def scenario(on_the_hour, offers_per_hour=9):
    """Four days of a scenario's offers, with everything in the middle that can befall a box."""
    content = {
        "name": "parity",
        "days": 4,
        "arrivals": {"kind": "poisson", "offers_per_hour": offers_per_hour},
        "start": {"lag_minutes": 60, "never_share": 0.2},
    }
    made = workload_of(World(parse_scenario(content, "parity")), 0)
    stream = made.stream
    if on_the_hour:
        train_ms = (stream.train_ms // HOUR) * HOUR
        on_hours = replace(stream, at_ms=stream.at_ms // HOUR * HOUR, train_ms=train_ms)
        stream = in_handling_order(on_hours)
    timeline = [
        (START + 10 * HOUR, GpuChanged(0, healthy=False)),
        (START + 20 * HOUR, GpuChanged(0, healthy=True)),
        (START + 30 * HOUR, OperatorAsked("drain")),
        (START + 31 * HOUR, OperatorAsked("resume")),
        (START + 40 * HOUR, StorageChanged(available=False)),
        (START + 41 * HOUR, StorageChanged(available=True)),
        (START + 55 * HOUR, PolicyPut(OTHER)),
    ]
    return replace(made, stream=stream, timeline=timeline)


def fed(path, entries, seed=0):
    """Have a daemon decide what came from outside; the inputs of an instant come all at once."""

    async def main():
        opening, *rest = entries
        opened = open_ledger(path, opening.entry.policy, opening.at_ms)
        clock = ManualClock(opening.at_ms)
        daemon = Daemon(opened.recorder, opened.store, clock)
        task = asyncio.create_task(daemon.run())
        outside = (entry for entry in rest if not isinstance(entry.entry, TimerFired))
        for at_ms, group in groupby(outside, key=lambda entry: entry.at_ms):
            clock.move_to(max(at_ms, clock.now_ms()))
            inputs = mixed([entry.entry for entry in group], seed + at_ms)
            told = await asyncio.gather(
                *(daemon.enter(entry) for entry in inputs), return_exceptions=True
            )
            assert all(
                isinstance(each, IllegalTransition) or each.entry is not None for each in told
            )
        await daemon.stop()
        await task
        opened.store.close()

    asyncio.run(main())
    return list(read_ledger(path))


def mixed(inputs, seed):
    """What the box reports, in order, among offers in any order, as the network brings them."""
    offers = [entry for entry in inputs if isinstance(entry, OfferArrived)]
    random.Random(seed).shuffle(offers)
    reports = [entry for entry in inputs if not isinstance(entry, OfferArrived)]
    return offers + reports


@pytest.mark.parametrize("on_the_hour", [False, True], ids=["any time", "on the hour"])
@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_daemon_and_simulator_write_the_same_ledger(tmp_path, preset, on_the_hour):
    policy = Policy(preset, BOX, reservation_ttl_ms=TTL_MS)
    simulated = run_machine(scenario(on_the_hour), policy)
    path = tmp_path / "ledger.db"
    lived = fed(path, simulated)
    for ours, theirs in zip(lived, simulated, strict=False):
        assert entry_line(ours) == entry_line(theirs)
    # the daemon ends with the last input; timers due after it are the simulator's alone
    assert {entry.entry.kind for entry in simulated[len(lived) :]} <= {"timer"}
    assert sim_main(["verify", str(path)]) == 0
    offers = [entry.decisions[0]["gate"] for entry in lived if entry.entry.kind == "offer"]
    assert len(offers) > 700
    assert {"accepted", "draining", "storage"} <= set(offers)
    assert {entry.entry.kind for entry in lived} == {
        *("policy", "offer", "start", "ended", "timer", "gpu", "operator", "storage")
    }


@pytest.mark.parametrize("seed", range(3))
def test_the_same_where_every_input_is_a_tie(tmp_path, seed):
    simulated = run_machine(TIES["workload"](seed), TIES["POLICY"])
    lived = fed(tmp_path / "ledger.db", simulated, seed)
    assert [*map(entry_line, lived)] == [*map(entry_line, simulated[: len(lived)])]
    assert len(simulated) - len(lived) <= 1


def test_the_command_verifies_the_daemon_s_file(tmp_path):
    path = tmp_path / "ledger.db"
    fed(path, run_machine(TIES["workload"](7), TIES["POLICY"]))
    call = [sys.executable, "-m", "sim", "verify", str(path), "--json"]
    done = subprocess.run(call, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["agrees"]


# A daemon that decides otherwise.


def _offers_before_ends(waiting):
    return (0, "") if isinstance(waiting.entry, OfferArrived) else (1, "")


def _as_it_came(self, now, entry):
    return max(now, self._last[0])


def _unordered(self, key, entry):
    return None


def _lapse_one_late(self, entry, decision, slot):
    RESERVE(self, entry, decision, slot)
    job = self._jobs[decision.task_id]
    self._jobs[decision.task_id] = replace(job, lapses_ms=job.lapses_ms + 1)


def _timer_after_the_input(recorder, entry, now_ms):
    """Decides what has come first, and lets reservations lapse afterwards."""
    yield recorder.handle(entry, recorder.machine.stamp(now_ms, entry))


RESERVE = Machine._reserve
LIVE_WRONG = {
    "another tie order: offers before ends": [
        (live.inbox, "_place", _offers_before_ends),
        (JobEnded, "rank", 6),
    ],
    "another tie order: as it came": [
        (live.inbox, "_place", lambda waiting: 0),
        (Machine, "stamp", _as_it_came),
        (Machine, "_check_order", _unordered),
    ],
    "reservations lapse a millisecond late": [(Machine, "_reserve", _lapse_one_late)],
    "late timer": [
        (live.daemon, "take_in", _timer_after_the_input),
        (Machine, "_check_order", _unordered),
    ],
    "no timer": [
        (live.daemon, "take_in", _timer_after_the_input),
        (live.daemon, "fire_due", lambda recorder, now_ms: ()),
        (Machine, "_check_order", _unordered),
    ],
}
RANKS = {"offers before ends", "ends before failures, no longer"}
"""Ranks are not the daemon's alone to break: it stamps by them. Above is what it can do."""
WRONG = LIVE_WRONG | {
    f"shared: {why}": [broken] for why, broken in TIES["WRONG"].items() if why not in RANKS
}


def test_the_list_of_what_may_be_wrong():
    assert len(WRONG) >= 15
    assert set(TIES["WRONG"]) >= RANKS


@pytest.mark.parametrize("why", WRONG)
def test_a_daemon_with_another_policy_is_caught(monkeypatch, tmp_path, capsys, why):
    equal = ACCURACY_4.varied(threshold=0.94) if "threshold" in why else TIES["POLICY"].preset
    policy = replace(TIES["POLICY"], preset=equal)
    script = run_machine(TIES["workload"](), policy)
    with monkeypatch.context() as patched:
        for owner, name, wrong in WRONG[why]:
            patched.setattr(owner, name, wrong)
        lived = fed(tmp_path / "wrong.db", script)
    found = verify(lived).difference
    assert found is not None
    assert sim_main(["verify", str(tmp_path / "wrong.db")]) == 1
    assert f"entry {found.seq}" in capsys.readouterr().out
    if "tie order" not in why:  # that is SimPy's to see: the machine was fed in that order
        with pytest.raises(InputError, match="does not agree with its replay: entry"):
            open_ledger(tmp_path / "wrong.db", policy, START)
    assert verify(fed(tmp_path / "right.db", script)).difference is None


# A ledger of an earlier release.


def golden_entries():
    """What the stored ledger was made of: every kind of input, jobs that hold slots at its end."""
    made = run_machine(TIES["workload"](3, 70), TIES["POLICY"])
    last = made[-1]
    after = [
        PolicyPut(replace(OTHER, reservation_ttl_ms=TIES["TTL_MS"])),
        OfferArrived(Offer("running", "meta-llama/Llama-3.1-8B", "ChatTask", 10.0), "v"),
        OfferArrived(Offer("reserved \u00e9", "google/flan-t5-xl", "ImageTask", 72.5, 9), "v"),
        StartRequested("running", "v"),
    ]
    more = [replace(last, at_ms=last.at_ms + 5 + at, entry=entry) for at, entry in enumerate(after)]
    return [*made, *more]


def test_the_stored_ledger_still_verifies(tmp_path):
    entries = list(read_ledger(GOLDEN))
    verdict = verify(entries)
    assert verdict.difference is None
    assert verdict.entries == len(entries) == len(GOLDEN.read_text("utf-8").splitlines())
    kinds = {entry.entry.kind for entry in entries}
    assert len(kinds) == 8
    assert "".join(f"{entry_line(e)}\n" for e in entries) == GOLDEN.read_text("utf-8")
    assert sim_main(["verify", str(GOLDEN)]) == 0


@pytest.mark.parametrize(("preset", "in_use"), [("as stored", 2), ("another", 4)])
def test_the_daemon_opens_and_continues_the_stored_ledger(tmp_path, preset, in_use):
    """Its two jobs hold half the box each, so they block all four slots of the other policy."""
    path = tmp_path / "ledger.db"
    stored = list(read_ledger(GOLDEN))
    write_ledger(stored, path)
    last_policy = [e.entry.policy for e in stored if e.entry.kind == "policy"][-1]
    policy = last_policy if preset == "as stored" else Policy(ACCURACY_4)
    assert continued(path, policy) == in_use
    entries = list(read_ledger(path))
    assert entries[: len(stored)] == stored
    new = [entry.entry.kind for entry in entries[len(stored) :]]
    assert new[-1] == "offer"
    assert ("policy" in new) == (preset == "another")
    assert sim_main(["verify", str(path)]) == 0
    assert export(path, tmp_path / "out.jsonl") == len(entries)
    assert (tmp_path / "out.jsonl").read_text("utf-8").startswith(GOLDEN.read_text("utf-8"))


def continued(path, policy):
    async def main():
        opened = open_ledger(path, policy, 0)
        holding = opened.recorder.machine.slots_in_use
        daemon = Daemon(opened.recorder, opened.store, ManualClock(opened.last_ms))
        task = asyncio.create_task(daemon.run())
        await daemon.enter(OfferArrived(Offer("new", "m/llama", "ChatTask", 1.0)))
        await daemon.stop()
        await task
        opened.store.close()
        return holding

    return asyncio.run(main())


def test_the_stored_schema_is_what_the_simulator_writes(tmp_path):
    """Version 0 of the file is the simulator's; it has no more than the ledger table."""
    write_ledger(list(read_ledger(GOLDEN)), tmp_path / "a.db")
    shutil.copy(tmp_path / "a.db", tmp_path / "b.db")
    schema = schema_of(tmp_path / "b.db")
    assert schema == [LEDGER]
    assert golden_entries()[-1].entry == list(read_ledger(GOLDEN))[-1].entry


def schema_of(path):
    with closing(sqlite3.connect(path)) as connection:
        return [sql for (sql,) in connection.execute("SELECT sql FROM sqlite_schema")]


def write_golden(path):
    """Write the stored ledger. An earlier release's is not made anew: that is its point."""
    aside = path.with_suffix(".db")
    aside.unlink(missing_ok=True)
    fed(aside, golden_entries())
    export(aside, path)
    for file in path.parent.glob(f"{aside.name}*"):
        file.unlink()


if __name__ == "__main__":
    write_golden(Path(sys.argv[1]))
