"""A season: a miner's jobs among the field's in all of the network's tasks, scored and paid.

The field is drawn once for a replication and meets every preset and every quality model alike. A
task's score is known when the task is over; what has not ended at a moment counts for nobody then.
Where we take part, the last of the competitors' places is ours.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from shared.layout import SlotLayout
from shared.presets import Preset
from sim.arrivals import Arrivals
from sim.engine.outcome import Decisions
from sim.engine.workload import Workload
from sim.field import Competition, compete, field_of
from sim.income_over_time import History, mean_share
from sim.market.config import MarketConfig
from sim.market.income import revenue_per_day
from sim.market.ranking import Submissions, TaskScores, score_tasks
from sim.market.rules import Ranking, RuleSet
from sim.played_network import NO_TASK, PlayedNetwork, played_network
from sim.quality import (
    Calibration,
    Jobs,
    Luck,
    Neutral,
    Outcomes,
    draw_luck,
    models_of,
    read_calibration,
    reward,
    slot_of,
)
from sim.quality.columns import Bools
from sim.sharing import gpu_shares
from sim.stream import Floats, Ints
from sim.title import Titles

SEASON_METRICS = {
    "jobs_completed": "jobs that handed a model in on time",
    "jobs_failed": "jobs that failed, ended late or lost their GPU",
    "success_rate": "completed / jobs with a result",
    "first_place_rate": "first places / jobs with a result",
    "top4_rate": "among the best four / jobs with a result",
    "penalty_rate": "negative scores / jobs with a result",
    "tournament_win_rate": "tournaments after which we hold the title",
    "mean_rank_percentile": "mean rank, 1 first to 0 last",
    "mean_score": "mean score, zeros left out as the market does",
    "emission_share": "share of the miners' emission, mean over the days",
    "revenue_per_day": "share x emission a day x price",
    "test_loss": "mean test loss of completed jobs, the reference run's is 1",
    "synth_loss": "mean synthetic loss of completed jobs, the reference run's is 1",
    "tokens_trained": "mean tokens trained by completed jobs on language models",
}
"""Every measure of a season, in the order in which it is shown, with what it means."""


@dataclass(frozen=True)
class Scene:
    """What every preset and every quality model of one replication shares."""

    workload: Workload
    market: MarketConfig
    seed: int
    replication: int
    network: PlayedNetwork
    rules: RuleSet
    field: Competition
    luck: Luck
    calibration: Calibration | None = None

    @cached_property
    def scores(self) -> TaskScores:
        """Every task without us; the last column is our place."""
        rows = np.arange(len(self.network.group))
        none = np.full(len(rows), np.nan)
        return score_tasks(_submissions(self, rows, none, none, enters=False), self.rules)

    @cached_property
    def titles(self) -> Titles:
        """The field's part in the tournaments."""
        config = field_of(self.market.field)
        return Titles(config, self.field, self.rules.tournament, self.seed, self.replication)


def scene_of(
    arrivals: Arrivals | None,
    workload: Workload,
    market: MarketConfig,
    seed: int,
    replication: int,
    calibration: Calibration | None = None,
) -> Scene:
    """The scene of one replication. ``arrivals`` None: the offers themselves are the network."""
    rules = market.rules_in_force
    network = played_network(arrivals, workload.stream, rules)
    field = compete(field_of(market.field), network.group, rules, seed, replication)
    luck = draw_luck(seed, replication, len(workload.stream))
    return Scene(workload, market, seed, replication, network, rules, field, luck, calibration)


def play_season(
    arrivals: Arrivals | None,
    workload: Workload,
    decisions: Decisions,
    preset: Preset,
    market: MarketConfig,
    window_ms: tuple[int, int],
    seed: int,
    replication: int,
) -> dict[str, dict[str, float]]:
    """The season of one preset on its own. For several presets make the scene once: ``play``.

    The calibration path, where there is one, is taken as it stands.
    Raises InputError for a calibration that cannot be read or holds too little.
    """
    calibration = calibration_of(market, Path())
    scene = scene_of(arrivals, workload, market, seed, replication, calibration)
    return play(scene, decisions, preset, window_ms)


def calibration_of(market: MarketConfig, folder: Path) -> Calibration | None:
    """The calibration file that a scenario in ``folder`` names, or None. Raises InputError."""
    if market.calibration is None:
        return None
    least = market.quality.calibrated.least_outcomes
    return read_calibration(folder / market.calibration, least)


def play(
    scene: Scene,
    decisions: Decisions,
    preset: Preset,
    window_ms: tuple[int, int],
    models: Collection[str] | None = None,
) -> dict[str, dict[str, float]]:
    """Quality model to measure to value. Rates of nothing are NaN.

    models: those that are played; None plays every one that can be.

    Rates count the jobs whose result comes inside the window [begin, end) of epoch milliseconds;
    the income is the mean over the window's days, from the seventh of the stream on.
    """
    jobs, lost = jobs_of(scene.workload, decisions, preset.layout)
    slot, luck = slot_of(preset), scene.luck.of(jobs.offer)
    ended = decisions.end_ms[jobs.offer]
    inside = (ended >= window_ms[0]) & (ended < window_ms[1])
    measures = {}
    for name, model in models_of(scene.market.quality, scene.calibration).items():
        if models is not None and name not in models:
            continue
        outcomes = _without(model.outcomes(jobs, slot, luck), lost)
        measures[name] = _measured(scene, jobs, outcomes, inside, window_ms)
    return measures


def jobs_of(workload: Workload, decisions: Decisions, layout: SlotLayout) -> tuple[Jobs, Bools]:
    """The jobs that started, and which of them lost their GPU."""
    offer = np.flatnonzero(decisions.took_slot & ~decisions.lapsed)
    stream = workload.stream
    lag = 0 if workload.start_lag_ms is None else workload.start_lag_ms[offer]
    slot = decisions.slot[offer].astype(np.int64)
    share = gpu_shares(layout, slot, stream.at_ms[offer] + lag, decisions.end_ms[offer])
    jobs = Jobs(
        offer,
        stream.task_type.taken(offer),
        stream.model.taken(offer),
        stream.params[offer],
        stream.hours[offer],
        stream.train_ms[offer],
        share,
    )
    return jobs, decisions.gpu_failed[offer]


def _without(outcomes: Outcomes, lost: Bools) -> Outcomes:
    """The same outcomes, but jobs that lost their GPU hand nothing in."""
    return replace(
        outcomes,
        test_loss=np.where(lost, np.nan, outcomes.test_loss),
        synth_loss=np.where(lost, np.nan, outcomes.synth_loss),
        succeeded=outcomes.succeeded & ~lost,
    )


def _measured(
    scene: Scene, jobs: Jobs, outcomes: Outcomes, inside: Bools, window_ms: tuple[int, int]
) -> dict[str, float]:
    """Every measure of one preset under one quality model."""
    rows, job = _entered(scene, jobs)
    scores = _scored(scene, rows, job, outcomes)
    share = _share(scene, rows, scores, window_ms)
    result = {
        **_counts(outcomes, inside),
        **_ranks(scores, inside[job]),
        "emission_share": share,
        "revenue_per_day": _revenue(scene, share),
        "tournament_win_rate": _titles(scene, outcomes, inside),
        **_losses(outcomes, inside),
    }
    return {name: result[name] for name in SEASON_METRICS}


def revenue_with_advantage(
    scene: Scene,
    decisions: Decisions,
    preset: Preset,
    window_ms: tuple[int, int],
    lower: Sequence[float],
) -> tuple[float, ...]:
    """Revenue a day under the neutral model, our losses lower by each of these shares."""
    jobs, lost = jobs_of(scene.workload, decisions, preset.layout)
    model, luck = Neutral(scene.market.quality), scene.luck.of(jobs.offer)
    outcomes = _without(model.outcomes(jobs, slot_of(preset), luck), lost)
    rows, job = _entered(scene, jobs)

    def revenue(share: float) -> float:
        better = replace(
            outcomes,
            test_loss=outcomes.test_loss * (1 - share),
            synth_loss=outcomes.synth_loss * (1 - share),
        )
        return _revenue(scene, _share(scene, rows, _scored(scene, rows, job, better), window_ms))

    return tuple(revenue(share) for share in lower)


def _entered(scene: Scene, jobs: Jobs) -> tuple[Ints, Ints]:
    """The tasks that we entered, ascending, and the job of each."""
    task = scene.network.task[jobs.offer]
    # an organic task that was offered again has one job that started at most; of two the last
    known = np.flatnonzero(task != NO_TASK)
    rows, first = np.unique(task[known][::-1], return_index=True)
    return rows, known[::-1][first]


def _scored(scene: Scene, rows: Ints, job: Ints, outcomes: Outcomes) -> TaskScores:
    losses = outcomes.test_loss[job], outcomes.synth_loss[job]
    return score_tasks(_submissions(scene, rows, *losses, enters=True), scene.rules)


def _revenue(scene: Scene, share: float) -> float:
    return float(revenue_per_day(np.array(share), scene.market.emission))


def _submissions(
    scene: Scene, rows: Ints, test: Floats, synth: Floats, *, enters: bool
) -> Submissions:
    """The field's columns of these tasks and ours, the last. NaN where we fail.

    When we enter, the last of the field's takers has come too late for a place.
    """
    field, group = scene.field, scene.network.group[rows]
    taken = field.taken[rows]
    if enters:
        taken &= np.arange(taken.shape[1]) != field.last[rows][:, None]
    both = [
        np.column_stack(columns)
        for columns in ((field.test_loss[rows], test), (field.synth_loss[rows], synth))
    ]
    rewarded = np.array([each.ranking is Ranking.REWARD for each in scene.rules.groups])[group]
    for losses in both:
        losses[rewarded] = reward(losses[rewarded])
    took_part = np.column_stack((taken, np.full(len(rows), enters)))
    return Submissions(group, both[0], both[1], np.ones_like(took_part), took_part)


def _share(scene: Scene, rows: Ints, ours: TaskScores, window_ms: tuple[int, int]) -> float:
    """Our share of the emission, the mean over the window's days."""
    history = History(scene.network, scene.rules, scene.field, scene.scores)
    return mean_share(history.with_ours(rows, ours), window_ms)


def _titles(scene: Scene, outcomes: Outcomes, inside: Bools) -> float:
    worse = np.maximum(outcomes.test_loss, outcomes.synth_loss)
    return scene.titles.win_rate(worse[inside])


def _counts(outcomes: Outcomes, inside: Bools) -> dict[str, float]:
    completed, ended = (outcomes.succeeded & inside).sum(), inside.sum()
    return {
        "jobs_completed": float(completed),
        "jobs_failed": float(ended - completed),
        "success_rate": _mean(outcomes.succeeded[inside].astype(np.float64)),
    }


def _ranks(scores: TaskScores, inside: Bools) -> dict[str, float]:
    score = scores.score[inside, -1]
    counted = score[score != 0]
    return {
        "first_place_rate": _mean(scores.first[inside, -1].astype(np.float64)),
        "top4_rate": _mean(scores.top4[inside, -1].astype(np.float64)),
        "penalty_rate": _mean(scores.penalised[inside, -1].astype(np.float64)),
        "mean_rank_percentile": _mean(scores.percentile[inside, -1]),
        "mean_score": (_mean(counted) if len(counted) else 0.0) if len(score) else float("nan"),
    }


def _losses(outcomes: Outcomes, inside: Bools) -> dict[str, float]:
    completed = outcomes.succeeded & inside
    return {
        "test_loss": _mean(outcomes.test_loss[completed]),
        "synth_loss": _mean(outcomes.synth_loss[completed]),
        "tokens_trained": _mean(outcomes.tokens_trained[completed]),
    }


def _mean(values: Floats) -> float:
    """Mean of the values that are known, NaN without any."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")
