"""What must hold of scores, shares and tournaments whatever the losses are."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.market.income import TaskFacts, collect, income, join, shares_over_time
from sim.market.ranking import Submissions, TaskScores, score_tasks
from sim.market.rules import MID_2025
from sim.market.tournament import play, tasks_needed, tournament_win_rate

NOW = 1_750_000_000_000
DAY = 86_400_000
SEEDS = st.integers(0, 2**32 - 1)

# A busy machine is no error, so no example has a deadline.
calm = settings(deadline=None, max_examples=60)


@dataclasses.dataclass
class Market:
    """Random tasks x columns; every miner has at most one column of a task."""

    submissions: Submissions
    facts: TaskFacts
    miner: np.ndarray
    miners: int

    @property
    def scores(self) -> TaskScores:
        return score_tasks(self.submissions, MID_2025)

    def earned(self):
        results = collect(self.facts, self.miner, self.scores)
        return income(results, NOW, self.miners, MID_2025)


def market(seed: int, *, ties: bool) -> Market:
    rng = np.random.default_rng(seed)
    tasks, miners = int(rng.integers(1, 30)), int(rng.integers(1, 20))
    columns = int(rng.integers(1, miners + 1))
    shape = (tasks, columns)
    group = rng.integers(0, 4, tasks)

    def losses() -> np.ndarray:
        drawn = rng.choice([-0.5, 0.5, 1.0, 1.5], shape) if ties else rng.normal(1.0, 0.5, shape)
        drawn[rng.random(shape) < rng.choice([0.0, 0.2, 0.7])] = np.nan
        return drawn

    return Market(
        Submissions(
            group, losses(), losses(), rng.random(shape) < 0.9, rng.random(shape) < rng.random()
        ),
        TaskFacts(
            group,
            rng.random(tasks) < 0.4,
            NOW - rng.integers(-DAY, 9 * DAY, tasks),
            rng.uniform(1.0, 40.0, tasks),
        ),
        np.argsort(rng.random((tasks, miners)), axis=1)[:, :columns],
        miners,
    )


def taken(submissions: Submissions, columns: np.ndarray) -> Submissions:
    """The same with the columns of every task in another order."""
    return dataclasses.replace(
        submissions,
        **{
            name: np.take_along_axis(getattr(submissions, name), columns, axis=1)
            for name in ("test_loss", "synth_loss", "is_finetune", "took_part")
        },
    )


@calm
@given(SEEDS, st.booleans())
def test_shares_sum_to_one_or_are_all_zero(seed: int, ties: bool) -> None:
    earned = market(seed, ties=ties).earned()
    assert (earned.share >= 0).all()
    total = earned.share.sum()
    assert total == pytest.approx(1.0) if earned.points.any() else total == 0.0


def test_a_market_with_winners_pays_somebody() -> None:
    paid = [market(seed, ties=False).earned().share.sum() for seed in range(40)]
    assert sum(paid) > 20


@calm
@given(SEEDS, st.booleans())
def test_other_names_change_nothing(seed: int, ties: bool) -> None:
    one = market(seed, ties=ties)
    new_name = np.random.default_rng(seed + 1).permutation(one.miners)
    other = dataclasses.replace(one, miner=new_name[one.miner])
    before, after = one.earned(), other.earned()
    assert after.share[new_name] == pytest.approx(before.share)
    assert after.flagged[:, new_name].tolist() == before.flagged.tolist()
    for name in ("mean_score", "tasks", "first_places", "penalties"):
        assert getattr(after, name)[new_name] == pytest.approx(getattr(before, name))


@calm
@given(SEEDS)
def test_another_order_of_lines_changes_nothing_without_ties(seed: int) -> None:
    one = market(seed, ties=False)
    # max() and the images' single loss can tie only where losses are equal, and none are here.
    columns = np.argsort(np.random.default_rng(seed + 1).random(one.miner.shape), axis=1)
    other = score_tasks(taken(one.submissions, columns), MID_2025)
    for name in ("score", "place", "left", "out", "failed"):
        wanted = np.take_along_axis(getattr(one.scores, name), columns, axis=1)
        assert (getattr(other, name) == wanted).all(), name
    assert (other.counts == one.scores.counts).all()


@calm
@given(SEEDS)
def test_with_ties_the_order_of_lines_moves_no_points_away(seed: int) -> None:
    one = market(seed, ties=True)
    # Only images: elsewhere the order also decides who is among the best 4.
    images = dataclasses.replace(one.submissions, group=np.full_like(one.submissions.group, 2))
    columns = np.argsort(np.random.default_rng(seed + 1).random(one.miner.shape), axis=1)
    before = score_tasks(images, MID_2025).score
    after = score_tasks(taken(images, columns), MID_2025).score
    assert (np.sort(before, axis=1) == np.sort(after, axis=1)).all()


@calm
@given(SEEDS, st.booleans())
def test_a_negative_mean_everywhere_earns_nothing(seed: int, ties: bool) -> None:
    one = market(seed, ties=ties)
    scores = one.scores
    # Miner 0 gets a penalty wherever it took part and did not win: it never has anything else.
    theirs = (one.miner == 0) & scores.took_part
    scores = dataclasses.replace(scores, score=np.where(theirs, -1.0, scores.score))
    earned = income(collect(one.facts, one.miner, scores), NOW, one.miners, MID_2025)
    assert earned.share[0] == 0.0
    assert earned.mean_score[0] == (-1.0 if earned.tasks[0] else 0.0)


@calm
@given(SEEDS)
def test_a_bad_cell_earns_nothing_though_others_pay(seed: int) -> None:
    one = market(seed, ties=False)
    earned = one.earned()
    scores, created = one.scores, one.facts.created_ms
    week = scores.counts & (created <= NOW) & (created >= NOW - 7 * DAY)
    for group in range(4):
        for origin, organic in enumerate((True, False)):
            rows = week & (one.facts.group == group) & (one.facts.is_organic == organic)
            for miner in range(one.miners):
                points = scores.score[rows][one.miner[rows] == miner]
                if points.sum() < 0:
                    assert earned.points[2, group, origin, miner] == 0.0


@calm
@given(SEEDS, st.booleans())
def test_rows_that_score_zero_change_no_share(seed: int, ties: bool) -> None:
    one = market(seed, ties=ties)
    scores = one.scores
    zero = scores.took_part & (scores.score == 0)
    without = TaskScores(
        scores.score,
        scores.place,
        scores.left & ~zero,
        scores.out & ~zero,
        scores.failed & ~zero,
        scores.counts,
    )
    results = collect(one.facts, one.miner, without)
    assert income(results, NOW, one.miners, MID_2025).share == pytest.approx(one.earned().share)


@calm
@given(SEEDS, st.booleans())
def test_a_task_in_which_all_fail_changes_nothing(seed: int, ties: bool) -> None:
    one = market(seed, ties=ties)
    again = dataclasses.replace(one.submissions, is_finetune=np.zeros(one.miner.shape, dtype=bool))
    dropped = collect(one.facts, one.miner, score_tasks(again, MID_2025))
    both = join([dropped, collect(one.facts, one.miner, one.scores)])
    after = income(both, NOW, one.miners, MID_2025)
    assert after.share == pytest.approx(one.earned().share)
    assert (after.tasks == one.earned().tasks).all()


@calm
@given(SEEDS, st.booleans())
def test_columns_that_took_no_part_are_never_read(seed: int, ties: bool) -> None:
    one = market(seed, ties=ties)
    absent = ~one.submissions.took_part
    rng = np.random.default_rng(seed)
    junk = dataclasses.replace(
        one.submissions,
        test_loss=np.where(absent, rng.choice([0.5, -9.0, np.inf]), one.submissions.test_loss),
        synth_loss=np.where(absent, rng.choice([0.5, 1.0, -np.inf]), one.submissions.synth_loss),
        is_finetune=one.submissions.is_finetune | absent,
    )
    found, wanted = score_tasks(junk, MID_2025), one.scores
    assert (found.score == wanted.score).all()
    assert (found.place == wanted.place).all()
    assert (found.took_part == one.submissions.took_part).all()


@calm
@given(SEEDS, st.booleans())
def test_each_task_is_scored_for_itself(seed: int, ties: bool) -> None:
    one = market(seed, ties=ties)
    scores = one.scores
    for task in range(len(one.submissions.group)):
        part = {
            field.name: getattr(one.submissions, field.name)[task : task + 1]
            for field in dataclasses.fields(Submissions)
        }
        alone = score_tasks(Submissions(**part), MID_2025)
        assert (alone.score[0] == scores.score[task]).all()
        assert (alone.place[0] == scores.place[task]).all()


@calm
@given(SEEDS, st.booleans())
def test_places_and_points_fit_together(seed: int, ties: bool) -> None:
    one = market(seed, ties=ties)
    scores = one.scores
    assert (scores.took_part == one.submissions.took_part).all()
    assert not (scores.left & scores.out).any()
    assert not (scores.left & scores.failed).any()
    assert not (scores.out & scores.failed).any()
    for task in range(len(scores.score)):
        entered = int(scores.took_part[task].sum())
        valid = scores.left[task] | scores.out[task]
        assert sorted(scores.place[task][valid]) == list(range(1, int(valid.sum()) + 1))
        assert set(scores.place[task][scores.failed[task]]) <= {entered}
        anybody = bool(scores.left[task].any())
        assert scores.first[task].sum() == anybody == scores.counts[task]
        assert (scores.score[task] == 3).sum() == anybody
        assert (scores.score[task][scores.failed[task]] == -1.0 * anybody).all()
        assert (scores.score[task][scores.out[task]] == 0).all()
        assert scores.top4[task].sum() == min(4, scores.left[task].sum())
    known = scores.percentile[~np.isnan(scores.percentile)]
    assert ((known >= 0) & (known <= 1)).all()
    assert (scores.percentile[scores.first] == 1.0).all()


@calm
@given(SEEDS)
def test_batches_join_in_any_cut(seed: int) -> None:
    one = market(seed, ties=True)
    whole = collect(one.facts, one.miner, one.scores)
    half = len(one.miner) // 2
    parts = []
    for rows in (slice(0, half), slice(half, None)):
        submissions = {
            f.name: getattr(one.submissions, f.name)[rows] for f in dataclasses.fields(Submissions)
        }
        facts = {f.name: getattr(one.facts, f.name)[rows] for f in dataclasses.fields(TaskFacts)}
        scores = score_tasks(Submissions(**submissions), MID_2025)
        parts.append(collect(TaskFacts(**facts), one.miner[rows], scores))
    moments = NOW - np.arange(3) * DAY
    found = shares_over_time(join(parts), moments, one.miners, MID_2025)
    assert found == pytest.approx(shares_over_time(whole, moments, one.miners, MID_2025))
    assert found.shape == (3, one.miners)


def plain_tournament(losses: np.ndarray) -> tuple[int, int]:
    """Winner and challenger of one replication, by loops; (entrants + 1, tasks), mid-2025 shape."""
    loss = [[float("inf") if x != x else float(x) for x in row] for row in losses]
    champion = len(loss) - 1
    entrants = list(range(min(champion, 32)))
    groups = -(-len(entrants) // 8)
    table = []
    for group in range(groups):
        members = [entrant for entrant in entrants if entrant % groups == group]
        sums = {
            e: sum(loss[o][task] < loss[e][task] for task in range(3) for o in members)
            for e in members
        }
        for position, entrant in enumerate(sorted(members, key=lambda e: (sums[e], e))):
            table.append((position, sums[entrant], entrant))
    left = [entrant for _, _, entrant in sorted(table)][:8]
    for task in (3, 4, 5):
        pairs = [(left[i], left[-1 - i]) for i in range(len(left) // 2)]
        left = [low if loss[low][task] < loss[high][task] else high for high, low in pairs]
    wins = sum(loss[left[0]][task] < loss[champion][task] for task in range(6, 12))
    return (left[0] if wins >= 4 else champion), left[0]


@calm
@given(SEEDS, st.integers(8, 40), st.booleans())
def test_tournaments_against_a_plain_reading(seed: int, entrants: int, ties: bool) -> None:
    rng = np.random.default_rng(seed)
    shape = (12, entrants + 1, tasks_needed(MID_2025.tournament))
    losses = rng.integers(0, 4, shape).astype(float) if ties else rng.normal(size=shape)
    losses[:, -1] += rng.choice([0.0, 1.0])
    losses[rng.random(shape) < 0.1] = np.nan
    outcome = play(losses, MID_2025.tournament)
    wanted = [plain_tournament(replication) for replication in losses]
    assert list(zip(outcome.winner, outcome.challenger, strict=True)) == wanted
    assert (np.sort(outcome.rank, axis=1) == np.arange(1, entrants + 2)).all()
    assert (np.argmin(outcome.rank, axis=1) == outcome.winner).all()
    for entrant in (0, entrants - 1, -1):
        index = entrants if entrant == -1 else entrant
        rate = np.mean([winner == index for winner, _ in wanted])
        assert tournament_win_rate(losses, entrant, MID_2025.tournament) == pytest.approx(rate)
