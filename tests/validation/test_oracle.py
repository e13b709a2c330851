"""The engine against an oracle that shares no code with it, on streams made of ties."""

import random
import runpy
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from shared.box import BoxDeclaration
from shared.decisions import Gate, Policy
from shared.inputs import GpuChanged, OperatorAsked, StorageChanged
from shared.presets import PRESETS
from sim.engine.eventful import EventfulReplay
from sim.engine.replay import replay_plain
from sim.engine.shell import run_machine
from sim.engine.workload import Workload
from sim.stream import Labels, OfferStream, in_handling_order

ORACLE = runpy.run_path(str(Path(__file__).with_name("oracle.py")))
event_id = ORACLE["event_id"]
MODELS = tuple(ORACLE["MODELS"])
TYPES = (*ORACLE["TASK_SUCCESS"], "SomeNewTask")
GRIDS = (1, 1, 7, 1_000, 30_000, 60_000, 60_001, 900_000, 3_600_000)
STREAMS = 1_000
MACHINE_EVERY = 4


def hours_of(rng):
    """Hours to complete: ordinary ones, and the limits to the last bit."""
    limit = rng.choice([48.0, 72.0, 96.0])
    near = [limit, float(np.nextafter(limit, 1e9)), float(np.nextafter(limit, 0)), 500.0]
    return rng.choice(near) if rng.random() < 0.2 else rng.choice([0.01, 0.5, 1.0, 3.0, 10.0])


def offers_of(rng, grid, instants, *, repeats):
    """Offers at few instants of a grid, their training times on the same grid."""
    count = rng.randint(1, 90)
    lagged, some_never_start = rng.random() < 0.5, rng.random() < 0.3
    offers, seen = [], set()
    for number in range(count):
        at_ms = 1_000_000 + grid * rng.randrange(instants)
        again = offers and repeats and rng.random() < 0.3
        task_id = rng.choice(offers)["task_id"] if again else f"{rng.choice('aZéb')}{number}"
        if (at_ms, task_id) in seen:
            continue
        seen.add((at_ms, task_id))
        offers.append(
            {
                "at_ms": at_ms,
                "task_id": task_id,
                "model": rng.choice(MODELS),
                "task_type": rng.choice(TYPES),
                "hours": hours_of(rng),
                "params": rng.choice([None, 0, 10**9, 7 * 10**10, 123_456_789, 2**53]),
                "train_ms": max(0, grid * rng.randrange(8) + rng.choice([0, 0, 0, -1, 1])),
                "lag_ms": grid * rng.randrange(4) if lagged else None,
                "starts": not (some_never_start and rng.random() < 0.4),
            }
        )
    return sorted(offers, key=lambda offer: (offer["at_ms"], offer["task_id"]))


def events_of(rng, grid, instants):
    """What befalls the box, at the same instants, or a millisecond beside them."""
    at = sorted(
        1_000_000 + grid * rng.randrange(instants) + rng.choice([0, 0, 1])
        for _ in range(rng.randint(1, 14))
    )
    failed, events = set(), []
    for at_ms in at:
        what = rng.choice(["gpu", "gpu", "gpu", "drain", "storage"])
        if what == "gpu":
            gpu = rng.randrange(8)
            events.append((at_ms, "gpu_back" if gpu in failed else "gpu_out", gpu))
            failed ^= {gpu}
        else:
            events.append((at_ms, what, rng.random() < 0.4))
    gpus = [(at_ms, value) for at_ms, what, value in events if what.startswith("gpu")]
    twice = len(set(gpus)) < len(gpus)  # one GPU twice in a millisecond: left out
    return [] if twice else sorted(events, key=_handling_key)


def _handling_key(event):
    at_ms, what, value = event
    return (at_ms, 1 if what.startswith("gpu") else 4, ORACLE["event_id"](what, value))


def timeline_of(events):
    """The same as the product's inputs."""

    def put(what, value):
        if what in ("gpu_out", "gpu_back"):
            return GpuChanged(value, healthy=what == "gpu_back")
        if what == "drain":
            return OperatorAsked("drain" if value else "resume")
        return StorageChanged(available=not value)

    return [(at_ms, put(what, value)) for at_ms, what, value in events]


def column(offers, key, unknown=-1):
    return np.array([unknown if o[key] is None else o[key] for o in offers], dtype=np.int64)


def labels(names, offers, key):
    codes = np.array([names.index(offer[key]) for offer in offers], dtype=np.int32)
    return Labels(codes, names)


def workload_of(offers, events, rng):
    """The same as columns, from lines in any order."""
    mixed = rng.sample(offers, len(offers))
    stream = in_handling_order(
        OfferStream(
            at_ms=column(mixed, "at_ms"),
            task_id=pa.array([offer["task_id"] for offer in mixed], pa.string()),
            model=labels(MODELS, mixed, "model"),
            task_type=labels(TYPES, mixed, "task_type"),
            hours=np.array([offer["hours"] for offer in mixed]),
            ds_size=np.full(len(mixed), -1),
            params=column(mixed, "params"),
            train_ms=column(mixed, "train_ms"),
        )
    )
    lagged = offers[0]["lag_ms"] is not None
    starts = np.array([offer["starts"] for offer in offers])
    return Workload(
        stream=stream,
        start_lag_ms=column(offers, "lag_ms") if lagged else None,
        starts=None if starts.all() else starts,
        timeline=timeline_of(events),
    )


def as_answers(decisions):
    """Columns as the oracle's dicts."""
    rows = zip(
        decisions.gate.tolist(),
        decisions.slot.tolist(),
        decisions.priority.tolist(),
        decisions.repeat.tolist(),
        decisions.end_ms.tolist(),
        decisions.gpu_failed.tolist(),
        decisions.lapsed.tolist(),
        strict=True,
    )
    answers = []
    for gate, slot, priority, repeat, end_ms, by_gpu, lapsed in rows:
        why = None if end_ms < 0 else "gpu" if by_gpu else "lapsed" if lapsed else "trained"
        answers.append(
            {
                "gate": Gate(gate).label,
                "slot": None if slot < 0 else slot,
                "priority": priority,
                "repeat": repeat,
                "end_ms": None if end_ms < 0 else end_ms,
                "why": why,
            }
        )
    return answers


def ledger_answers(ledger):
    """The decisions of a ledger as the oracle's dicts, and when each slot came free."""
    answers, running = [], {}
    for entry in ledger:
        for decision in entry.decisions:
            if entry.entry.kind == "offer":
                keys = ("gate", "slot", "priority", "repeat")
                answers.append({key: decision[key] for key in keys} | {"end_ms": None, "why": None})
                if decision["accepted"] and not decision["repeat"]:
                    running[decision["task_id"]] = answers[-1]
            elif decision["effect"] in ("released", "lapsed"):
                ended = {"completed": "trained", "gpu_failed": "gpu", None: "lapsed"}
                why = ended[decision.get("reason")]
                running.pop(decision["task_id"]).update(end_ms=entry.at_ms, why=why)
    assert not running
    return answers


def case(seed):
    """One random stream with everything that belongs to it."""
    rng = random.Random(seed)
    grid = rng.choice(GRIDS)
    instants = rng.choice([2, 3, 5, 10, 40])
    kind = seed % 3  # 0: each task once and nothing befalls the box; 1: repeats too; 2: all of it
    offers = offers_of(rng, grid, instants, repeats=kind > 0)
    events = events_of(rng, grid, instants + 4) if kind == 2 else []
    preset = rng.choice(list(ORACLE["CAP"]))
    cap = rng.choice([None, rng.randint(1, 24), rng.randint(1, 4)])
    threshold = rng.choice(["preset", "preset", 0.95, 0.96])
    ttl_ms = max(2, grid * rng.randrange(1, 5))
    types = rng.choice([None, None, TYPES[1:4]])
    expected = ORACLE["decide_all"](
        offers, events, preset, cap=cap, threshold=threshold, ttl_ms=ttl_ms, task_types=types
    )
    policy = Policy(
        PRESETS[preset].varied(cap=cap, threshold=None if threshold == "preset" else threshold),
        BoxDeclaration(task_types=None if types is None else frozenset(types)),
        reservation_ttl_ms=ttl_ms,
    )
    return workload_of(offers, events, rng), policy, expected


@pytest.mark.parametrize("part", range(10))
def test_columns_decide_as_the_oracle_does(part):
    for seed in range(part, STREAMS, 10):
        workload, policy, expected = case(seed)
        assert as_answers(EventfulReplay(workload, policy).run()) == expected, f"stream {seed}"
        if not workload.timeline and workload.stream.previous is None:
            assert as_answers(replay_plain(workload, policy)) == expected, f"stream {seed}"


@pytest.mark.parametrize("part", range(MACHINE_EVERY))
def test_the_machine_decides_as_the_oracle_does(part):
    for seed in range(part, STREAMS, MACHINE_EVERY):
        workload, policy, expected = case(seed)
        assert ledger_answers(run_machine(workload, policy)) == expected, f"stream {seed}"


def test_the_streams_are_what_they_claim():
    """Many ties, every gate, every way to end, repeats, and both column forms."""
    gates, ends = Counter(), Counter()
    offers = repeats = ties = plain = collisions = 0
    for seed in range(STREAMS):
        workload, _, expected = case(seed)
        at_ms = workload.stream.at_ms
        offers += len(at_ms)
        ties += int((np.diff(at_ms) == 0).sum())
        plain += not workload.timeline and workload.stream.previous is None
        instants = set(at_ms.tolist())
        for answer in expected:
            gates[answer["gate"]] += 1
            ends[answer["why"]] += 1
            repeats += answer["repeat"]
            collisions += answer["end_ms"] in instants
    assert set(gates) == {gate.label for gate in Gate}
    assert set(ends) == {"trained", "lapsed", "gpu", None}
    assert min(gates.values()) > 200
    assert min(ends.values()) > 200
    assert repeats > 1_000
    assert ties > offers / 3
    assert collisions > 1_000
    assert plain > STREAMS / 3
