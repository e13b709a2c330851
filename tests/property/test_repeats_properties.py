"""Coming back to where a memory of decisions stood, against one that is copied whole."""

from hypothesis import given
from hypothesis import strategies as st

from shared.decisions import Decision
from shared.repeats import Repeats

WINDOW = st.integers(0, 5)
STEPS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4), WINDOW), max_size=30)
"""Milliseconds since the step before, the task, the window in force."""


def decision(task: int, at_ms: int) -> Decision:
    return Decision(at_ms, f"t{task}", True, "accepted", "reason", 0.9, 0)


class Copied:
    """The same, the plain way."""

    def __init__(self) -> None:
        self.by_task: dict[str, Decision] = {}

    def remember(self, made: Decision, window_ms: int) -> None:
        kept = self.by_task.values()
        self.by_task = {d.task_id: d for d in kept if d.at_ms >= made.at_ms - window_ms}
        self.by_task[made.task_id] = made


def run(memory: Repeats, plain: Copied, steps: list[tuple[int, int, int]], at_ms: int) -> int:
    for later, task, window_ms in steps:
        at_ms += later
        first = plain.by_task.get(f"t{task}")
        assert memory.get(f"t{task}") == first
        if first is None or first.at_ms < at_ms - window_ms:
            memory.remember(decision(task, at_ms), window_ms)
            plain.remember(decision(task, at_ms), window_ms)
        check(memory, plain)
    return at_ms


def check(memory: Repeats, plain: Copied) -> None:
    assert len(memory) == len(plain.by_task)
    assert {t: memory.get(t) for t in plain.by_task} == plain.by_task


@given(STEPS, STEPS, STEPS, STEPS)
def test_it_comes_back_to_where_it_stood(
    first: list[tuple[int, int, int]],
    before: list[tuple[int, int, int]],
    undone: list[tuple[int, int, int]],
    after: list[tuple[int, int, int]],
) -> None:
    memory, plain = Repeats(), Copied()
    at_ms = run(memory, plain, first, 0)
    memory.mark()  # one that is superseded
    at_ms = run(memory, plain, before, at_ms)
    mark, stood = memory.mark(), dict(plain.by_task)
    for _ in range(2):
        run(memory, plain, undone, at_ms)
        twin, other = memory.copy(), Copied()
        twin.back_to(mark)
        other.by_task = dict(stood)
        run(twin, other, after, at_ms)
        check(memory, plain)
        memory.back_to(mark)
        plain.by_task = dict(stood)
        check(memory, plain)
    run(memory, plain, after, at_ms)
