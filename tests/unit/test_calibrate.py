"""``sim calibrate``: from a ledger that a daemon's own store wrote to a file that compare takes."""

import json
from dataclasses import dataclass, field
from math import log

import numpy as np
import pytest

from live.ledger_store import LedgerStore
from live.rows import Training
from live.training.record import TrainingRecord
from shared.decisions import Policy
from shared.errors import InputError
from shared.inputs import JobEnded, OfferArrived, PolicyPut, StartRequested
from shared.ledger import Recorder
from shared.offers import Offer
from shared.presets import ACCURACY_4, UNIVERSAL_24
from sim.calibrate import calibrate, measured, success, test_ratios
from sim.cli import main
from sim.finished_jobs import FinishedJob, FinishedJobs, Trained, finished_jobs
from sim.quality import read_calibration

T0 = 1_750_000_000_000
HOUR = 3_600_000
test_ratios.__test__ = False  # its name is the quantity's
SCENARIO = """
name: small
days: 4
warm_up_days: 0.5
replications: 2
arrivals: {kind: poisson, offers_per_hour: 4}
"""


def trained(base=2.0, after=1.0, speed=2000.0, **more):
    told = {
        "base_params": 8 * 10**9, "tokens_per_second": speed, "load_s": 60.0, "finish_s": 30.0,
        "held_out_loss_base": base, "held_out_loss": after, "held_out_metric": "eval_loss",
        "beats_base": True, **more,
    }  # fmt: skip
    return TrainingRecord(**told)


@dataclass
class Box:
    """A daemon's ledger, made by hand: the machine, the store, and the time in hours."""

    store: LedgerStore
    recorder: Recorder = field(init=False)
    made: int = 0
    now_ms: int = 0

    def stamp(self, at):
        """Hours as a time; each input a millisecond after the one before at the least."""
        self.now_ms = max(self.now_ms + 1, T0 + round(at * HOUR))
        return self.now_ms

    def put(self, preset, at):
        entry = PolicyPut(Policy(preset))
        if not hasattr(self, "recorder"):
            self.recorder = Recorder(entry, self.stamp(at))
            self.store.append([self.recorder.opening])
        else:
            self.enter(entry, at)

    def enter(self, entry, at, rows=()):
        line, answers = self.recorder.handle(entry, self.stamp(at))
        self.store.append([line], rows)
        return answers[0]

    def start(self, at, kind="ChatTask", hours=10.0):
        self.made += 1
        task_id = f"task-{self.made}"
        offer = Offer(task_id, "meta-llama/Llama-3.1-8B", kind, hours, 1000, 8 * 10**9)
        assert self.enter(OfferArrived(offer), at).accepted
        assert self.enter(StartRequested(task_id), at + 0.001).effect == "started"
        return task_id

    def end(self, task_id, at, outcome="completed", record=None):
        rows = () if record is None else (Training(task_id, record.model_dump_json()),)
        self.enter(JobEnded(task_id, outcome, "stopping"), at)
        self.enter(JobEnded(task_id, outcome), at + 0.01, rows)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ledger.db"


@pytest.fixture
def box(path):
    box = Box(LedgerStore(path))
    yield box
    box.store.close()


def filled(box, jobs=48, kinds=("ChatTask",)):
    """Batches of 4 and of 24 jobs: pairs halve the loss, thirds lower it by a quarter."""
    rng = np.random.default_rng(7)
    at = 0.0
    for preset, size, after, speed in (
        (ACCURACY_4, 4, 1.0, 16_000.0),
        (UNIVERSAL_24, 24, 1.5, 2_000.0),
    ):
        box.put(preset, at)
        for batch in range(jobs // size):
            at += 1
            tasks = [box.start(at, kinds[i % len(kinds)]) for i in range(size)]
            for i, task_id in enumerate(tasks):
                failed = (batch * size + i) % 12 == 0
                record = trained(2.0, after * rng.lognormal(0, 0.05), speed)
                outcome = "failed" if failed else "completed"
                box.end(task_id, at + 8, outcome, None if failed else record)
            at += 9


def test_from_a_ledger_to_a_comparison(box, path, tmp_path, capsys):
    filled(box, 48)
    out = tmp_path / "calibration.json"
    assert main(["calibrate", str(path), "--out", str(out), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["outcomes"], said["handed_in"], said["failed"]) == (96, 88, 8)
    assert (said["with_a_ratio"], said["without_record"], said["setup_minutes"]) == (88, 8, 1.5)
    found = read_calibration(out, 20)
    third, pair = found.task_types["ChatTask"].slots
    assert (third.gpus, pair.gpus) == (pytest.approx(1 / 3), 2.0)
    assert (third.outcomes, pair.outcomes) == (48, 48)
    assert third.success.rate == pytest.approx(44 / 48, abs=1e-6)
    assert 0.79 < third.success.lo < 0.82
    assert 0.96 < third.success.hi < 0.98
    assert third.test_ratio.mean / pair.test_ratio.mean == pytest.approx(1.5, rel=0.03)
    assert third.test_ratio.sd / third.test_ratio.mean == pytest.approx(0.05, abs=0.015)
    assert third.synth_ratio.mean == third.test_ratio.mean
    assert third.synth_ratio.lo < third.test_ratio.lo
    assert third.synth_ratio.hi > third.test_ratio.hi
    (speed,) = pair.tokens_per_second
    assert (speed.params_from, speed.params_below, speed.mean) == (5 * 10**9, 10**10, 8000.0)
    assert found.service is not None
    assert found.service.fraction.mean == pytest.approx(0.8009, abs=1e-3)
    assert "no reference run was trained" in found.note
    scenario = tmp_path / "small.yaml"
    scenario.write_text(SCENARIO)
    call = ["compare", str(scenario), "--calibration", str(out), "--processes", "1", "--json"]
    assert main(call) == 0
    document = json.loads(capsys.readouterr().out)
    calibrated = document["by_quality_model"]["calibrated"]
    ratio = {name: one["test_loss"]["mean"] for name, one in calibrated["presets"].items()}
    assert ratio["throughput_24"] / ratio["accuracy_4"] == pytest.approx(1.5, rel=0.05)


def test_the_same_ledger_gives_the_same_bytes(box, path, tmp_path, capsys):
    filled(box, 48)
    outs = [tmp_path / "one.json", tmp_path / "two.json"]
    for out in outs:
        assert main(["calibrate", str(path), "--out", str(out)]) == 0
    assert outs[0].read_bytes() == outs[1].read_bytes()
    said = capsys.readouterr().out
    assert "96 outcomes: 88 handed in on time, 0 late, 8 failed" in said
    assert "all together" in said


def test_measured_service_times_take_the_place_of_assumed_ones(box, path, tmp_path):
    from argparse import Namespace

    from sim.commands.world import world_of
    from sim.service import DeadlineService, FractionService

    filled(box, 48)
    out = tmp_path / "calibration.json"
    assert main(["calibrate", str(path), "--out", str(out)]) == 0
    scenario = tmp_path / "small.yaml"
    calls = {}
    for service in ("", "service: {kind: deadline}"):
        scenario.write_text(SCENARIO + service)
        call = Namespace(scenario=scenario, calibration=out, seed=None, days=None, offers=None)
        calls[service] = world_of(call, replications=None).scenario.service_of(recorded=False)
    told = calls[""]
    assert isinstance(told, FractionService)
    assert (told.low + told.high) / 2 == pytest.approx(0.8009, abs=1e-3)
    assert calls["service: {kind: deadline}"] == DeadlineService()


# What counts.


def test_what_a_job_of_the_ledger_is(box, path):
    box.put(UNIVERSAL_24, 0)
    first, second, third = box.start(1), box.start(1.5, "DpoTask"), box.start(2)
    box.end(third, 5.0, "failed")
    box.end(first, 11.002, record=trained())  # its 10 hours were over at 11.001
    box.end(second, 11.4, record=trained())
    found = finished_jobs(path)
    jobs = {job.start_ms: job for job in found.jobs}
    first, second, third = (jobs[at] for at in sorted(jobs))
    assert [each.handed_in for each in (first, second, third)] == [False, True, False]
    assert (first.used, second.task_type) == (1.0, "DpoTask")
    assert third.used == pytest.approx(0.3, abs=0.002)
    assert first.record == Trained(**trained().model_dump(include=set(Trained.model_fields)))
    assert third.record is None
    assert [each.gpus for each in found.jobs] == [pytest.approx(1 / 3)] * 3
    assert [each.had for each in found.jobs] == [1.0] * 3, "each was alone on its GPU"


def test_a_gpu_is_divided_among_those_that_really_run_on_it(box, path):
    box.put(UNIVERSAL_24, 0)
    tasks = [box.start(1) for _ in range(16)]
    for task_id in tasks[:8]:
        box.end(task_id, 3, record=trained())
    for task_id in tasks[8:]:
        box.end(task_id, 5, record=trained())
    had = [job.had for job in finished_jobs(path).jobs]
    assert had[:8] == pytest.approx([0.5] * 8, abs=0.001)
    assert had[8:] == pytest.approx([0.75] * 8, abs=0.003)


def test_of_jobs_beside_a_running_one_only_earlier_ones_count(box, path):
    """A job started later has ended only if it was short: failures would be too many."""
    box.put(ACCURACY_4, 0)
    early, running, late = box.start(1), box.start(2), box.start(3)
    box.end(late, 3.5, "failed")
    box.end(early, 8, record=trained())
    found = finished_jobs(path)
    assert [job.outcome for job in found.jobs] == ["completed"]
    assert found.left_out == 2
    box.end(running, 9, record=trained())
    assert len(finished_jobs(path).jobs) == 3


def test_a_record_that_cannot_be_read_is_one_job_without_losses(box, path):
    box.put(ACCURACY_4, 0)
    one, two = box.start(1), box.start(1)
    box.end(one, 4, record=trained())
    box.enter(JobEnded(two), 5, [Training(two, '{"tokens_per_second": "fast"}')])
    found = finished_jobs(path)
    assert (len(found.jobs), found.unreadable) == (2, 1)
    assert found.jobs[1].record is None


# Ratios.


def job(
    kind="ChatTask", base=2.0, after=1.0, gpus=2.0, outcome="completed", used=0.9, had=None, **more
):
    told = {"held_out_loss_base": base, "held_out_loss": after, "tokens_per_second": 1000.0, **more}
    return FinishedJob(
        kind, gpus, (0,), 8 * 10**9, T0, T0 + 10 * HOUR, T0 + HOUR, T0 + round(used * 10 * HOUR),
        outcome, Trained(**told), had or gpus,
    )  # fmt: skip


def test_a_ratio_is_over_the_median_of_its_own_type():
    jobs = [job(after=x) for x in (1.0, 1.2, 1.4)] + [job("DpoTask", 1.0, x) for x in (0.1, 0.3)]
    found = test_ratios(jobs)
    assert [*found.values()] == pytest.approx([1 / 1.2, 1.0, 1.4 / 1.2, 0.5, 1.5])


@pytest.mark.parametrize("metric", ["eval_reward", ""])
def test_a_reward_is_turned_over(metric):
    jobs = [job("GrpoTask", 0.2, x, held_out_metric=metric) for x in (0.2, 0.4, 0.8)]
    assert [*test_ratios(jobs).values()] == pytest.approx([2.0, 1.0, 0.5])


@pytest.mark.parametrize(
    "without",
    [{"base": None}, {"after": None}, {"base": 0.0}, {"after": -0.1}, {"outcome": "failed"}],
)
def test_what_has_no_ratio_shifts_no_other(without):
    assert test_ratios([job(after=1.0), job(**without), job(after=1.0)]) == {0: 1.0, 2: 1.0}


def made(jobs, least=20):
    return calibrate(FinishedJobs(tuple(jobs), 0, 0), least)


def spread(n, **more):
    return [job(after=1.0 + at / n, **more) for at in range(n)]


def test_a_type_has_its_own_entry_where_it_has_enough_at_every_size():
    jobs = spread(30) + spread(30, gpus=1 / 3) + spread(25, kind="DpoTask") + spread(
        5, kind="DpoTask", gpus=1 / 3
    )  # fmt: skip
    found = made(jobs)
    types = found.calibration["task_types"]
    assert set(types) == {"ChatTask", "*"}
    assert [slot["outcomes"] for slot in types["*"]["slots"]] == [35, 55]
    assert found.summary["types_of_their_own"] == ["ChatTask"]
    assert found.summary["too_few"] == [
        {"task_type": "DpoTask", "gpus": 1 / 3, "outcomes": 5, "losses": 5}
    ]


def test_cancelled_jobs_and_lost_gpus_are_no_outcomes():
    jobs = spread(30) + [job(outcome="cancelled")] * 7 + [job(outcome="gpu_failed")] * 3
    found = made([*jobs, *[job(outcome="failed")] * 10])
    (slot,) = found.calibration["task_types"]["*"]["slots"]
    assert (slot["outcomes"], slot["success"]["rate"]) == (40, 0.75)
    assert (found.summary["cancelled"], found.summary["gpu_failed"]) == (7, 3)
    assert "3 more jobs lost their GPU" in found.calibration["note"]


def test_speeds_are_by_the_size_of_the_model():
    jobs = spread(20, base_params=10**9) + spread(20) + spread(9, base_params=7 * 10**10)
    (slot,) = made(jobs).calibration["task_types"]["*"]["slots"]
    ranges = [(one["params_from"], one["params_below"]) for one in slot["tokens_per_second"]]
    assert ranges == [(0, 2 * 10**9), (5 * 10**9, 10**10)], "9 of the largest are too few"
    assert {one["mean"] for one in slot["tokens_per_second"]} == {500.0}


def test_a_speed_is_of_what_the_job_really_had():
    (slot,) = made(spread(20, gpus=1 / 3, had=0.5)).calibration["task_types"]["*"]["slots"]
    assert [one["mean"] for one in slot["tokens_per_second"]] == [2000.0]


@pytest.mark.parametrize(
    ("used", "low", "high"),
    [
        ([0.9] * 20, 0.9, 0.9),
        ([0.5, 0.7] * 10, 0.422302, 0.777698),
        ([0.4, 1.0, 1.0, 1.5] * 5, 0.7, 1.0),
        ([0.0, 0.1] * 10, 0.0, 0.1),
    ],
)
def test_service_is_a_uniform_of_the_measured_mean(used, low, high):
    """Of 0.5 and 0.7 the deviation is 0.1026, half a uniform's width is sqrt(3) times that."""
    found = made([job(used=each) for each in used]).calibration["service"]
    assert (found["low"], found["high"]) == pytest.approx((low, high), abs=1e-5)
    assert found["fraction"]["mean"] == pytest.approx((low + high) / 2, abs=1e-5)


@pytest.mark.parametrize(
    "jobs",
    [
        [job()] * 20,
        [job()] * 10 + [job(outcome="failed")] * 10,
        spread(2500),
        [job(after=1e-6)] * 30 + [job()] * 30,
        [job(base=1e-9, after=1e9 if at % 7 else 1e-9) for at in range(40)],
        [job(base=1e-9, after=1e-9 if at % 7 else 1e300) for at in range(40)],
    ],
)
def test_extreme_jobs_give_a_valid_file(jobs, tmp_path):
    out = tmp_path / "c.json"
    out.write_text(json.dumps(made(jobs).calibration))
    found = read_calibration(out, 20)
    assert found.service is not None
    assert 0 <= found.service.low <= found.service.fraction.mean <= found.service.high <= 1


# What cannot be done.


def test_too_few_outcomes_are_one_line_and_write_nothing(box, path, tmp_path, capsys):
    box.put(ACCURACY_4, 0)
    for at in range(3):
        box.end(box.start(at * 10), at * 10 + 5, record=trained())
    out = tmp_path / "c.json"
    assert main(["calibrate", str(path), "--out", str(out)]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == (
        f"sim: {path}: found 3 outcomes, 3 of them with losses, in slots of 2 GPUs, "
        "allowed is 20 and 10 or more of a slot size\n"
    )
    assert not out.exists()
    out.write_text("before")
    assert main(["calibrate", str(path), "--out", str(out)]) == 2
    assert out.read_text() == "before"
    assert sorted(each.name for each in tmp_path.iterdir() if "c.json" in each.name) == ["c.json"]
    assert main(["calibrate", str(path), "--out", str(out), "--least", "3"]) == 0
    assert read_calibration(out, 3).task_types["*"].slots[0].outcomes == 3


def test_what_is_no_ledger_to_learn_from(box, path, tmp_path, capsys):
    text, empty, none = tmp_path / "l.jsonl", tmp_path / "e.jsonl", tmp_path / "none.db"
    out = tmp_path / "c.json"
    empty.write_text("")

    def said(ledger):
        assert main(["calibrate", str(ledger), "--out", str(out)]) == 2
        assert not out.exists()
        line = capsys.readouterr().err
        assert len(line.splitlines()) == 1
        return line

    assert "e.jsonl: found no entry" in said(empty)
    assert "none.db: cannot be read" in said(none)
    assert "ledger.db: found no entry" in said(path)
    box.put(ACCURACY_4, 0)
    box.end(box.start(1), 2)
    assert "ledger.db: found no training records" in said(path)
    assert main(["schema"]) == 0
    capsys.readouterr()
    from live.transfer import export
    from sim.ledger_file import read_ledger, write_ledger

    export(path, text)
    assert "l.jsonl: found JSON lines, allowed is the daemon's own file" in said(text)
    old = tmp_path / "old.db"
    write_ledger(read_ledger(path), old)
    assert "old.db: found no training records" in said(old)
    assert main(["calibrate", str(path), "--out", str(path)]) == 2
    assert "is named twice" in capsys.readouterr().err


def test_no_job_at_all_says_so():
    with pytest.raises(InputError, match="found no job that trained to its end"):
        made([job(outcome="cancelled")] * 30)


# Whether the intervals hold what they promise.

RUNS = 2000


def covered(draw, interval, truth):
    rng = np.random.default_rng(11)
    found = [interval(draw(rng)) for _ in range(RUNS)]
    return sum(one["lo"] <= truth <= one["hi"] for one in found) / RUNS


@pytest.mark.parametrize(("n", "sigma"), [(20, 0.05), (40, 0.3)])
def test_the_interval_of_a_ratio_covers_its_mean(n, sigma):
    share = covered(
        lambda rng: rng.lognormal(-(sigma**2) / 2, sigma, n).tolist(), measured, truth=1.0
    )
    assert 0.93 <= share <= 0.97


@pytest.mark.parametrize(("n", "rate"), [(20, 0.9), (60, 0.95), (200, 0.7)])
def test_the_interval_of_success_covers_its_rate(n, rate):
    share = covered(lambda rng: int(rng.binomial(n, rate)), lambda k: success(k, n), truth=rate)
    assert 0.93 <= share <= 0.98


def test_two_slot_sizes_are_told_apart_as_often_as_they_should_be():
    """The median that both are divided by moves them together and tells nothing of their ratio."""
    rng = np.random.default_rng(5)
    right = 0
    for _ in range(300):
        jobs = [
            job(after=mean * rng.lognormal(0, 0.1), gpus=gpus)
            for gpus, mean in ((1 / 3, 1.2), (2.0, 1.0))
            for _ in range(25)
        ]
        third, pair = made(jobs).calibration["task_types"]["*"]["slots"]
        gap = log(third["test_ratio"]["mean"] / pair["test_ratio"]["mean"])
        width = [
            (one["test_ratio"]["hi"] - one["test_ratio"]["lo"]) / 2 / one["test_ratio"]["mean"]
            for one in (third, pair)
        ]
        right += abs(gap - log(1.2)) <= (width[0] ** 2 + width[1] ** 2) ** 0.5
    assert 0.91 <= right / 300 <= 0.99
