"""Jobs with scripted times, run against their deadlines by the real schedule."""

import json
from dataclasses import dataclass, field
from math import exp, log
from random import Random

from live.job_settings import JobSettings
from live.training.schedule import Orders, Schedule, ScheduleSettings, What
from live.training.timing import most_evaluation_s

ENDLESS = 10**9
"""Steps of the wanted epochs: more than any job has time for."""


@dataclass(frozen=True, slots=True)
class Job:
    """A job's script. Names in ``_s`` are seconds, in ``_at`` shares of the time to the warning.

    start_s: until the first step. first_s: what the first step of a process takes longer. noise:
    sigma of a step's lognormal. drift: how many times slower it is in the end, at once at drift_at
    or, where that is None, in a straight line. stalls: when and how long. slow: what is slow once,
    which one of its kind (-1: the final one), how many times. told_s, finish_s: the hand-in, as
    estimated and as it is. down_s: of a restart.
    """

    hours: float
    step_s: float
    noise: float
    evaluation_s: float
    save_s: float
    told_s: float
    finish_s: float
    start_s: float
    first_s: float
    drift: float = 1.0
    drift_at: float | None = None
    stalls: tuple[tuple[float, float], ...] = ()
    slow: tuple[tuple[What, int, float], ...] = ()
    restart_at: float | None = None
    down_s: float = 0.0
    seed: int = 0

    @property
    def deadline_s(self) -> float:
        return self.hours * 3600

    @property
    def warning_s(self) -> float:
        """As production sets it."""
        return JobSettings().warn_ms(0, round(self.deadline_s * 1000)) / 1000


def _log_uniform(rng: Random, low: float, high: float) -> float:
    return exp(rng.uniform(log(low), log(high)))


def drawn(seed: int, index: int, least_step_s: float = 0.05) -> Job:
    """One job of the mixture; each has each trouble or has it not."""
    rng = Random(f"{seed}:{index}")
    hours = _log_uniform(rng, 0.2, 10)
    time_s = hours * 3600
    told_s = _log_uniform(rng, 10, 60)
    margin_s = min(300, time_s / 4)
    evaluation_s = most_evaluation_s(ScheduleSettings(margin_s=margin_s), time_s - margin_s)
    return Job(
        hours=hours,
        step_s=_log_uniform(rng, least_step_s, 60),
        noise=rng.uniform(0.01, 0.3),
        evaluation_s=_log_uniform(rng, 0.1, 1) * evaluation_s,
        save_s=_log_uniform(rng, 0.5, min(60, 0.01 * time_s)),
        told_s=told_s,
        finish_s=told_s * min(2.0, rng.lognormvariate(-0.2, 0.2)),
        start_s=rng.uniform(5, 40),
        first_s=_log_uniform(rng, 0.5, 60),
        drift=_log_uniform(rng, 0.5, 3) if rng.random() < 0.6 else 1.0,
        drift_at=rng.random() if rng.random() < 0.5 else None,
        stalls=tuple(
            (rng.random(), _log_uniform(rng, 2, 180)) for _ in range(rng.choice((0, 0, 1, 2, 3)))
        ),
        slow=_slow(rng),
        restart_at=rng.uniform(0.1, 0.9) if rng.random() < 0.25 else None,
        down_s=rng.uniform(5, 60),
        seed=rng.getrandbits(32),
    )


def _slow(rng: Random) -> tuple[tuple[What, int, float], ...]:
    if rng.random() < 0.5:
        return ()
    what: What = rng.choice(("evaluation", "save"))
    return ((what, rng.choice((-1, 0, 1, 2, 3)), rng.uniform(1, 10)),)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a job, in seconds from its beginning; evaluated: of the finals too."""

    job: Job
    over_s: float
    steps: int
    evaluations: int
    evaluating_s: float
    saves: int
    complete: bool
    last_rate: float

    @property
    def missed(self) -> bool:
        return self.over_s > self.job.deadline_s

    @property
    def late(self) -> bool:
        """Past the warning."""
        return self.over_s > self.job.warning_s

    @property
    def margin_used(self) -> float:
        """Share of the margin that is used; over 1: missed."""
        margin_s = self.job.deadline_s - self.job.warning_s
        return max(0.0, self.over_s - self.job.warning_s) / margin_s

    @property
    def unused(self) -> float:
        """Share of the time before the warning that is left."""
        return max(0.0, 1 - self.over_s / self.job.warning_s)


@dataclass
class Run:
    """A job under way: its clock and its schedule, which restarts put back to the last save."""

    job: Job
    now_s: float = 0.0
    step: int = 0
    counts: dict[str, int] = field(default_factory=lambda: {"evaluation": 0, "save": 0})
    evaluating_s: float = 0.0
    last_rate: float = 0.0
    orders: Orders = field(default_factory=lambda: Orders(True, True, True))

    def __post_init__(self) -> None:
        job = self.job
        self.rng, self.warning_s, self.slow = Random(job.seed), job.warning_s, list(job.slow)
        self.settings = ScheduleSettings(
            finish_s=job.told_s, margin_s=job.deadline_s - self.warning_s
        )
        self.stalls = sorted((at * self.warning_s, length) for at, length in job.stalls)
        self.restart_s = None if job.restart_at is None else job.restart_at * self.warning_s
        self.saved: tuple[int, str] | None = None

    def slower(self) -> float:
        """By drift, now."""
        job = self.job
        share = min(1.0, self.now_s / self.warning_s)
        if job.drift_at is None:
            return 1 + (job.drift - 1) * share
        return job.drift if share >= job.drift_at else 1.0

    def begin(self) -> bool:
        """Start a process; whether there is anything to train."""
        self.now_s += self.job.start_s
        state = None if self.saved is None else json.loads(self.saved[1])
        self.step = 0 if self.saved is None else self.saved[0]
        self.schedule = Schedule(self.settings, ENDLESS, state)
        self.first = True
        return self.ask()

    def ask(self) -> bool:
        """At a boundary: do as ordered; whether to go on."""
        self.orders = self.schedule.after_step(self.step, self.left_s)
        self.obey(self.orders)
        return not self.orders.stop

    @property
    def left_s(self) -> float:
        return self.warning_s - self.now_s

    def train(self) -> None:
        """One step."""
        self.last_rate = self.schedule.learning_rate(self.step)
        took_s = self.job.step_s * self.rng.lognormvariate(0, self.job.noise) * self.slower()
        took_s += self.job.first_s if self.first else 0.0
        while self.stalls and self.now_s + took_s >= self.stalls[0][0]:
            took_s += self.stalls.pop(0)[1]
        self.first = False
        self.now_s += took_s
        self.step += 1
        self.schedule.took("step", took_s)

    def obey(self, orders: Orders) -> None:
        if orders.evaluate:
            self.do("evaluation", self.job.evaluation_s * self.slower(), final=orders.stop)
        if orders.save:
            state = json.dumps(self.schedule.state())
            self.do("save", self.job.save_s, final=orders.stop)
            self.saved = (self.step, state)

    def do(self, what: What, seconds: float, *, final: bool) -> None:
        seconds *= self.rng.lognormvariate(0, 0.05)
        for event in self.slow:
            kind, which, times = event
            if kind == what and (final if which < 0 else which == self.counts[what]):
                seconds *= times
                self.slow = [each for each in self.slow if each is not event]
                break
        self.counts[what] += 1
        self.evaluating_s += seconds if what == "evaluation" else 0.0
        self.now_s += seconds
        self.schedule.took(what, seconds)


def simulated(job: Job) -> Outcome:
    """Run a job to its end."""
    run = Run(job)
    going = run.begin()
    while going:
        run.train()
        if run.restart_s is not None and run.now_s >= run.restart_s:
            run.restart_s = None
            run.now_s += job.down_s
            going = run.begin()
        else:
            going = run.ask()
    return Outcome(
        job=job,
        over_s=run.now_s + job.finish_s,
        steps=run.step,
        evaluations=run.counts["evaluation"],
        evaluating_s=run.evaluating_s,
        saves=run.counts["save"],
        complete=run.orders.evaluate and run.orders.save,
        last_rate=run.last_rate,
    )
