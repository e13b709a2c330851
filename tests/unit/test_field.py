"""The competitors: pools, skills, luck."""

import numpy as np
import pytest
from pydantic import ValidationError

from sim.field import FIELDS, FieldConfig, compete, field_of, skills
from sim.market.rules import MID_2025
from sim.quality.config import Noise

TASKS = 3000
GROUPS = np.arange(TASKS) % len(MID_2025.groups)
POOLS = np.array([group.pool for group in MID_2025.groups])
IMAGE = MID_2025.group_of("ImageTask")


def field(**changes):
    return FieldConfig(**changes)


def played(seed=1, replication=0, group=GROUPS, **changes):
    return compete(field(**changes), group, MID_2025, seed, replication)


def test_pools_are_as_wide_as_the_rules_say() -> None:
    taken = played(miners=200).taken.sum(axis=1)
    least, most = POOLS[GROUPS].T
    assert (taken >= least).all()
    assert (taken <= most).all()
    for group, (low, high) in enumerate(POOLS):
        assert set(taken[group == GROUPS]) == set(range(low, high + 1))


def test_few_willing_miners_leave_places_open() -> None:
    competition = played(miners=10, acceptance_rate=0.3)
    taken = competition.taken.sum(axis=1)
    assert taken.mean() == pytest.approx(3.0, abs=0.15)
    assert competition.miner.shape[1] == 10
    # those that take part are the first places, and nobody else has a loss
    assert (np.diff(competition.taken.astype(int), axis=1) <= 0).all()
    assert np.isnan(competition.test_loss[~competition.taken]).all()


def test_nobody_takes_a_task_twice_and_everybody_takes_alike() -> None:
    competition = played()
    for row, taken in zip(competition.miner[:200], competition.taken[:200], strict=True):
        assert len(set(row[taken])) == taken.sum()
    counts = np.bincount(competition.miner[competition.taken], minlength=60)
    expected = competition.taken.sum() / 60
    assert np.abs(counts / expected - 1).max() < 0.15


def test_skill_is_one_number_a_miner_for_the_whole_replication() -> None:
    quiet = Noise(run=0.0, synth=0.0)
    competition = played(noise=quiet, failure_rate=0.0)
    taken = competition.taken
    expected = competition.skill[competition.miner[taken]]
    np.testing.assert_allclose(competition.test_loss[taken], expected)
    np.testing.assert_allclose(competition.synth_loss[taken], expected)
    assert competition.skill[competition.best] == competition.skill.min()
    other = played(replication=1)
    assert not np.array_equal(other.skill, competition.skill)


def test_noise_and_failures_are_as_told() -> None:
    competition = played(skill_sd=0.0, failure_rate=0.2, noise=Noise(run=0.1, synth=0.05))
    test, synth = (
        competition.test_loss[competition.taken],
        competition.synth_loss[competition.taken],
    )
    assert np.isnan(test).mean() == pytest.approx(0.2, abs=0.01)
    assert np.nanstd(np.log(test)) == pytest.approx(0.1, abs=0.003)
    assert np.nanstd(np.log(synth / test)) == pytest.approx(0.05, abs=0.002)


def test_the_shipped_fields_differ_as_their_names_say() -> None:
    medians = {}
    for name in FIELDS:
        drawn = [skills(field_of(name), 1, replication) for replication in range(200)]
        medians[name] = float(np.median(drawn))
    assert medians["weak"] == pytest.approx(1.15, rel=0.01)
    assert medians["even"] == pytest.approx(1.0, rel=0.01)
    assert medians["strong"] == pytest.approx(0.90, rel=0.01)
    assert FIELDS["weak"].failure_rate > FIELDS["even"].failure_rate > FIELDS["strong"].failure_rate


def test_more_tasks_only_add_rows() -> None:
    short, long = played(group=GROUPS[:100]), played()
    for column in ("miner", "test_loss", "synth_loss", "taken"):
        np.testing.assert_array_equal(getattr(short, column), getattr(long, column)[:100])


def test_the_last_taker_is_the_last_taken_place() -> None:
    competition = played(group=np.array([IMAGE]))
    last = competition.last[0]
    assert competition.taken[0, last]
    assert not competition.taken[0, last + 1 :].any()


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"miners": 0}, "miners"), ({"acceptance_rate": 0.0}, "acceptance_rate"),
     ({"median_loss": 0.0}, "median_loss"), ({"typo": 1}, "typo")],
)  # fmt: skip
def test_wrong_numbers_are_named(changes, words) -> None:
    with pytest.raises(ValidationError, match=words):
        field(**changes)
