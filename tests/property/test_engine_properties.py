"""What must hold of every run, whatever is offered and whatever befalls the box."""

from collections import defaultdict
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.box import BoxDeclaration
from shared.decisions import Gate, Policy
from shared.inputs import GpuChanged, OperatorAsked, StorageChanged, order_key
from shared.ledger import entry_line
from shared.presets import ACCURACY_4, PRESETS, THROUGHPUT_24
from sim.engine.eventful import EventfulReplay, run_columns
from sim.engine.outcome import NEVER, NO_SLOT
from sim.engine.replay import replay_plain
from sim.engine.shell import run_machine
from sim.engine.workload import Workload
from sim.stream import Labels, OfferStream, in_handling_order, taken

EXAMPLES = settings(max_examples=150, deadline=None)
MODELS = (
    "NousResearch/Meta-Llama-3-8B-Instruct",
    "Qwen/Qwen1.5-110B-Chat",
    "microsoft/Phi-3.5-mini-instruct",
    "nobody/knows",
)
TYPES = ("InstructTextTask", "ChatTask", "GrpoTask", "SomeNewTask")
GRIDS = (1, 1_000, 30_000, 3_600_000)


@st.composite
def rows(draw, grid, *, repeats):
    """Offers on a grid of 12 instants; a task may come again at another one."""
    tasks = st.integers(0, 30 if repeats else 10**6)
    at = st.integers(0, 12)
    keys = draw(st.lists(st.tuples(at, tasks), min_size=1, max_size=60, unique=True))
    if not repeats:
        keys = list({task: (at_ms, task) for at_ms, task in keys}.values())
    field = st.tuples(
        st.sampled_from(MODELS),
        st.sampled_from(TYPES),
        st.sampled_from([0.5, 1.0, 48.0, 72.0, 72.00000000000001, 96.0, 200.0]),
        st.sampled_from([-1, 0, 10**9, 123_456_789_012]),
        st.integers(0, 6),
        st.sampled_from([-1, 0, 0, 1]),
    )
    fields = draw(st.lists(field, min_size=len(keys), max_size=len(keys)))
    return [
        (grid * at_ms, f"task {task:02}", model, kind, hours, params, max(0, grid * train + off))
        for (at_ms, task), (model, kind, hours, params, train, off) in zip(
            keys, fields, strict=True
        )
    ]


def stream_of(offers):
    """The offers as columns, in the order given."""
    at_ms, task_id, model, kind, hours, params, train_ms = zip(*offers, strict=True)
    return OfferStream(
        at_ms=np.array(at_ms, dtype=np.int64),
        task_id=pa.array(task_id, pa.string()),
        model=Labels(np.array([MODELS.index(name) for name in model], dtype=np.int32), MODELS),
        task_type=Labels(np.array([TYPES.index(name) for name in kind], dtype=np.int32), TYPES),
        hours=np.array(hours),
        ds_size=np.full(len(offers), -1),
        params=np.array(params, dtype=np.int64),
        train_ms=np.array(train_ms, dtype=np.int64),
    )


@st.composite
def timelines(draw, grid):
    """Failures and repairs in turn, drains and full storage, at the offers' own instants."""
    when = st.integers(0, 14).map(lambda at: at * grid)
    gpus = st.sets(st.tuples(when, st.integers(0, 7)), max_size=8)
    failed, happened = set(), []
    for at_ms, gpu in sorted(draw(gpus)):
        happened.append((at_ms, GpuChanged(gpu, healthy=gpu in failed)))
        failed ^= {gpu}
    action = st.sampled_from(["drain", "resume"]).map(OperatorAsked)
    states = st.one_of(action, st.booleans().map(StorageChanged))
    happened += draw(st.lists(st.tuples(when, states), max_size=6))
    return sorted(happened, key=lambda entry: order_key(*entry))


@st.composite
def policies(draw, grid):
    preset = draw(st.sampled_from(list(PRESETS.values())))
    cap = draw(st.one_of(st.none(), st.integers(1, 3), st.integers(1, 24)))
    box = draw(st.sampled_from([None, frozenset(TYPES[:2])]))
    ttl_ms = max(2, grid * draw(st.integers(1, 4)))
    return Policy(preset.varied(cap=cap), BoxDeclaration(box), reservation_ttl_ms=ttl_ms)


@st.composite
def runs(draw, *, plain=False):
    """A workload, its lines in any order, and a policy."""
    grid = draw(st.sampled_from(GRIDS))
    offers = draw(rows(grid, repeats=not plain))
    stream = in_handling_order(stream_of(offers))
    n = len(stream)
    lag = draw(st.none() | st.lists(st.integers(0, 4), min_size=n, max_size=n))
    starts = draw(st.none() | st.lists(st.booleans(), min_size=n, max_size=n))
    workload = Workload(
        stream=stream,
        start_lag_ms=None if lag is None else grid * np.array(lag, dtype=np.int64),
        starts=None if starts is None else np.array(starts),
        timeline=() if plain else draw(timelines(grid)),
    )
    return workload, draw(policies(grid))


def columns_of(decisions):
    """All of it as bytes, floats bit for bit."""
    names = ("gate", "slot", "priority", "repeat", "end_ms", "gpu_failed", "lapsed")
    return {name: getattr(decisions, name).tobytes() for name in names}


def offered(ledger):
    return [entry.decisions[0] for entry in ledger if entry.entry.kind == "offer"]


def holdings(stream, decisions):
    """(slot, from, until) of every job and reservation: it holds [from, until)."""
    held = decisions.took_slot
    return list(
        zip(
            decisions.slot[held].tolist(),
            stream.at_ms[held].tolist(),
            decisions.end_ms[held].tolist(),
            strict=True,
        )
    )


# The two forms.


@EXAMPLES
@given(runs())
def test_columns_equal_the_machine(run):
    workload, policy = run
    decisions = run_columns(workload, policy)
    written = offered(run_machine(workload, policy))
    assert [Gate(code).label for code in decisions.gate.tolist()] == [d["gate"] for d in written]
    slots = [None if slot == NO_SLOT else slot for slot in decisions.slot.tolist()]
    assert slots == [d["slot"] for d in written]
    assert [d["repeat"] for d in written] == decisions.repeat.tolist()
    assert np.array([d["priority"] for d in written]).tobytes() == decisions.priority.tobytes()


@EXAMPLES
@given(runs(plain=True))
def test_both_column_forms_are_one(run):
    workload, policy = run
    decisions = replay_plain(workload, policy)
    assert columns_of(decisions) == columns_of(EventfulReplay(workload, policy).run())
    assert columns_of(decisions) == columns_of(run_columns(workload, policy))


# Slots.


@EXAMPLES
@given(runs())
def test_slots_are_never_over_the_cap_lost_or_held_twice(run):
    workload, policy = run
    decisions = run_columns(workload, policy)
    held = holdings(workload.stream, decisions)
    assert decisions.slot.max() < policy.preset.cap
    by_slot = defaultdict(list)
    for slot, begins, ends in held:
        assert ends > begins
        by_slot[slot].append((begins, ends))
    for times in by_slot.values():
        times.sort()
        for (_, ends), (begins, _) in pairwise(times):
            assert ends <= begins
    for now in workload.stream.at_ms.tolist():
        assert sum(begins <= now < ends for _, begins, ends in held) <= policy.preset.cap


@EXAMPLES
@given(runs(), st.integers(1, 8))
def test_whole_gpus_have_one_job_at_a_time(run, cap):
    workload, policy = run
    preset = policy.preset.varied(cap=cap)
    decisions = run_columns(workload, replace(policy, preset=preset))
    by_gpu = defaultdict(list)
    for slot, begins, ends in holdings(workload.stream, decisions):
        for gpu in preset.layout.gpus[slot]:
            by_gpu[gpu].append((begins, ends))
    for times in by_gpu.values():
        times.sort()
        for (_, ends), (begins, _) in pairwise(times):
            assert ends <= begins


@EXAMPLES
@given(runs())
def test_the_lowest_free_slot_in_service_is_taken_and_full_means_full(run):
    workload, policy = run
    decisions = run_columns(workload, policy)
    stream, layout, cap = workload.stream, policy.preset.layout, policy.preset.cap
    held = sorted(holdings(stream, decisions), key=lambda h: h[1])
    taken_so_far = []
    for index, now in enumerate(stream.at_ms.tolist()):
        if decisions.repeat[index]:
            continue
        failed = set()
        for at_ms, entry in workload.timeline:
            if at_ms <= now and isinstance(entry, GpuChanged):
                failed ^= {entry.gpu}
        busy = {slot for slot, ends in taken_so_far if ends > now}
        out = {slot for slot in range(cap) if failed.intersection(layout.gpus[slot])}
        free = set(range(cap)) - busy - out
        if decisions.end_ms[index] != NEVER:
            assert decisions.slot[index] == min(free)
            taken_so_far.append((int(decisions.slot[index]), int(decisions.end_ms[index])))
        elif decisions.gate[index] == Gate.CAPACITY:
            assert not free
        elif decisions.gate[index] > Gate.CAPACITY:
            assert free
    assert len(taken_so_far) == len(held)


@EXAMPLES
@given(runs())
def test_no_slot_is_lost(run):
    """After the run every slot is free again: as many offers more are taken as there are slots."""
    workload, policy = run
    stream, cap = workload.stream, policy.preset.cap
    end = 10**9
    repaired = set()
    for _, entry in workload.timeline:
        if isinstance(entry, GpuChanged):
            repaired ^= {entry.gpu}
    tidied = [(end, GpuChanged(gpu, healthy=True)) for gpu in sorted(repaired)]
    tidied += [(end, OperatorAsked("resume")), (end, StorageChanged(available=True))]
    more = (end, "", MODELS[0], TYPES[0], 1.0, -1, 10)
    after = stream_of([(*more[:1], f"zz {i:02}", *more[2:]) for i in range(cap + 1)])
    longer = Workload(
        joined(stream, after),
        padded(workload.start_lag_ms, cap + 1, 0),
        padded(workload.starts, cap + 1, fill=True),
        [*workload.timeline, *tidied],
    )
    policy = replace(policy, preset=policy.preset.varied(threshold=0.0))
    decisions = run_columns(longer, policy)
    assert decisions.slot[len(stream) :].tolist() == [*range(cap), NO_SLOT]
    assert decisions.gate[-1] == Gate.CAPACITY
    last = run_machine(longer, policy)[-1].decisions[-1]
    assert last["in_use"] == 0


def padded(values, count, fill):
    return None if values is None else np.append(values, np.full(count, fill, values.dtype))


def joined(first, then):
    both = ("at_ms", "hours", "ds_size", "params", "train_ms")
    names = ("model", "task_type")
    return OfferStream(
        task_id=pa.concat_arrays([first.task_id, then.task_id]),
        **{key: np.append(getattr(first, key), getattr(then, key)) for key in both},
        **{
            key: Labels(
                np.append(getattr(first, key).codes, getattr(then, key).codes),
                getattr(first, key).names,
            )
            for key in names
        },
    )


# Order and sameness.


@EXAMPLES
@given(runs(), st.randoms(use_true_random=False))
def test_the_order_of_the_lines_does_not_matter(run, rng):
    workload, policy = run
    mixed = np.array(rng.sample(range(len(workload.stream)), len(workload.stream)))
    stream = in_handling_order(taken(workload.stream, mixed))
    again = run_columns(replace(workload, stream=stream), policy)
    assert columns_of(again) == columns_of(run_columns(workload, policy))
    assert stream.task_id.to_pylist() == workload.stream.task_id.to_pylist()
    keys = list(zip(stream.at_ms.tolist(), stream.task_id.to_pylist(), strict=True))
    assert keys == sorted(keys)


@EXAMPLES
@given(runs())
def test_the_same_run_gives_the_same_bytes(run):
    workload, policy = run
    assert columns_of(run_columns(workload, policy)) == columns_of(run_columns(workload, policy))
    twice = [[entry_line(e) for e in run_machine(workload, policy)] for _ in range(2)]
    assert twice[0] == twice[1]


@EXAMPLES
@given(runs(plain=True))
def test_two_presets_meet_the_same_luck(run):
    """Caps alone differ: same priorities, and whoever is taken holds a slot equally long."""
    workload, policy = run
    few = run_columns(workload, replace(policy, preset=ACCURACY_4))
    many = run_columns(workload, replace(policy, preset=THROUGHPUT_24))
    assert few.priority.tobytes() == many.priority.tobytes()
    both = few.took_slot & many.took_slot
    assert few.end_ms[both].tolist() == many.end_ms[both].tolist()
    assert few.lapsed[both].tolist() == many.lapsed[both].tolist()


# Gates.


@EXAMPLES
@given(runs())
def test_draining_is_named_before_storage_and_storage_before_all_else(run):
    workload, policy = run
    decisions = run_columns(workload, policy)
    for index, now in enumerate(workload.stream.at_ms.tolist()):
        draining = full = False
        for at_ms, entry in workload.timeline:
            if at_ms <= now and isinstance(entry, OperatorAsked):
                draining = entry.action == "drain"
            elif at_ms <= now and isinstance(entry, StorageChanged):
                full = not entry.available
        if decisions.repeat[index]:
            continue
        gate = decisions.gate[index]
        if draining or full:
            assert gate == (Gate.DRAINING if draining else Gate.STORAGE)
        else:
            assert gate not in (Gate.DRAINING, Gate.STORAGE)


@EXAMPLES
@given(runs())
def test_a_repeat_is_the_first_answer_and_takes_nothing(run):
    workload, policy = run
    decisions = run_columns(workload, policy)
    previous = workload.stream.previous
    for index in np.flatnonzero(decisions.repeat).tolist():
        assert previous is not None
        before = int(previous[index])
        assert before >= 0
        for column in (decisions.gate, decisions.slot, decisions.priority):
            assert column[index] == column[before]
        assert decisions.end_ms[index] == NEVER
