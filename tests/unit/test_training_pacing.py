"""When a job ends early for want of better evaluations."""

from math import inf, nan
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")
from transformers import TrainerControl  # noqa: E402

from live.training import pacing as module  # noqa: E402
from live.training.pacing import COMPILING_S, SAMPLING_S, Evaluation, Pacing  # noqa: E402
from live.training.schedule import Schedule, ScheduleSettings  # noqa: E402
from live.worker_files import FINISH  # noqa: E402

PLANNED = 1000


def ended(values: list[float], *, every: int, greater: bool = False, patience: int = 3) -> int:
    """The step after which training is told to stop: evaluations every so many steps; 0: never."""
    files: Any = SimpleNamespace(beat=lambda _=0.0: None, left_s=lambda: inf)
    pacing = Pacing(
        files,
        torch.device("cpu"),
        Schedule(ScheduleSettings(), PLANNED),
        greater=greater,
        compiled=False,
        patience=patience,
        keep_best=lambda: None,
    )
    for at, value in enumerate(values, start=1):
        control = TrainerControl()
        pacing._weigh(Evaluation(at * every, value), control)
        if control.should_training_stop:
            assert pacing.told.stopped == FINISH
            assert pacing.told.best is not None or not any(value == value for value in values)
            return at * every
    return 0


def test_a_few_poor_evaluations_among_many_end_nothing() -> None:
    """Forty evaluations: three in a row are a twelfth of the job."""
    falling = [2.0, 1.5, 1.51, 1.52, 1.53, 1.4, 1.3]
    assert ended(falling, every=25) == 0


def test_a_fifth_of_the_plan_without_a_better_one_ends_it() -> None:
    assert ended([2.0] + [2.1] * 38, every=25) == 25 + 200
    assert ended([2.0] + [2.1] * 9, every=100) == 400  # of fewer evaluations patience decides


def test_a_job_of_rewards_goes_on_for_three_fifths() -> None:
    lucky = [0.5, *[0.4] * 38]
    assert ended(lucky, every=25, greater=True) == 600
    assert ended([*lucky[:20], 0.6, *[0.5] * 18], every=25, greater=True) == 21 * 25 + 200


def test_what_is_no_number_ends_it_at_once() -> None:
    assert ended([2.0, nan, nan, nan], every=25) == 100
    assert ended([nan, nan, nan], every=25) == 75
    assert ended([nan, inf, 2.0, nan, 1.9], every=25) == 0


def paced(device: str = "cpu", **told: bool) -> tuple[Pacing, list[float]]:
    """A pacing that orders nothing, and how long a silence each of its beats allows."""
    beats: list[float] = []
    files: Any = SimpleNamespace(beat=lambda s=0.0: beats.append(s), left_s=lambda: inf)
    schedule = Schedule(ScheduleSettings(), PLANNED)
    settings: Any = {"greater": False, "compiled": False, "patience": 3} | told
    pacing = Pacing(files, torch.device(device), schedule, keep_best=lambda: None, **settings)
    pacing._order = lambda *_: None  # type: ignore[method-assign]
    return pacing, beats


def steps(pacing: Pacing, count: int) -> None:
    for _ in range(count):
        pacing.on_step_end(*nothing())


def nothing() -> Any:
    return None, SimpleNamespace(global_step=1), TrainerControl()


def test_a_step_has_taken_as_long_as_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its kernels are only queued when the trainer says that it has ended."""
    clock = [100.0]
    monkeypatch.setattr(module, "monotonic", lambda: clock[0])

    def synchronize(device: Any) -> None:
        assert device == torch.device("cuda", 1)
        clock[0] += 7.0

    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    pacing, _ = paced("cuda:1")
    clock[0] += 0.5
    steps(pacing, 2)
    assert pacing.told.step_s == [7.5, 7.0]
    alone, _ = paced("cpu")
    steps(alone, 1)
    assert alone.told.step_s == [0.0]


@pytest.mark.parametrize(
    ("told", "silence_s"),
    [({}, 0.0), ({"compiled": True}, COMPILING_S), ({"greater": True}, SAMPLING_S)],
)
def test_a_batch_that_may_compile_may_be_late_at_any_step(
    told: dict[str, bool], silence_s: float
) -> None:
    """Whatever comes before it: a step, a micro-batch, a batch of an evaluation, a save."""
    pacing, beats = paced(**told)
    steps(pacing, 10)
    beats.clear()
    pacing.on_step_end(*nothing())
    pacing.on_substep_end(*nothing())
    pacing.on_prediction_step(*nothing())
    pacing.saved(1.0)
    pacing._weigh(Evaluation(1, 2.0), TrainerControl())
    assert beats[:4] == [silence_s] * 4
    assert beats[-1] == silence_s
