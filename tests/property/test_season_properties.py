"""What must hold of outcomes and seasons whatever is drawn and configured."""

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.box import UNDECLARED
from shared.decisions import Policy
from shared.presets import ACCURACY_4, THROUGHPUT_24
from sim.arrivals import NetworkArrivals, generate
from sim.catalogue import CATALOGUE
from sim.engine.eventful import run_columns
from sim.engine.workload import Workload
from sim.field import FieldConfig
from sim.market.config import MarketConfig
from sim.quality import Jobs, QualityConfig, draw_luck, models_of, slot_of
from sim.season import play, scene_of
from sim.stream import Labels

START = 1_748_736_000_000
HOUR, DAY = 3_600_000, 86_400_000
SEEDS = st.integers(0, 2**32 - 1)
TYPES = ("InstructTextTask", "ChatTask", "DpoTask", "GrpoTask", "ImageTask")
TEXT = tuple(model for model in CATALOGUE if model.kind == "text")
NAMES = ("claims", "physical", "neutral")
RATES = (
    "first_place_rate", "top4_rate", "penalty_rate", "success_rate", "tournament_win_rate",
    "mean_rank_percentile", "emission_share",
)  # fmt: skip

# A busy machine is no error, so no example has a deadline.
calm = settings(deadline=None, max_examples=25)
few = settings(deadline=None, max_examples=8)


def drawn_jobs(seed, n=40):
    rng = np.random.default_rng(seed)
    code = rng.integers(0, len(TEXT), n)
    hours = rng.uniform(0.1, 10, n)
    return Jobs(
        np.arange(n),
        Labels(rng.integers(0, len(TYPES), n).astype(np.int32), TYPES),
        Labels(code.astype(np.int32), tuple(model.id for model in TEXT)),
        np.array([model.params for model in TEXT])[code],
        hours,
        np.rint(hours * rng.uniform(0.5, 1.05, n) * HOUR).astype(np.int64),
        rng.uniform(0.3, 1.0, n),
    )


def part(jobs, index):
    return Jobs(
        jobs.offer[index],
        jobs.task_type.taken(index),
        jobs.model.taken(index),
        jobs.params[index],
        jobs.hours[index],
        jobs.train_ms[index],
        jobs.gpu_share[index],
    )


@calm
@given(SEEDS, st.integers(1, 24))
def test_losses_are_positive_where_a_job_succeeded_and_missing_elsewhere(seed, cap) -> None:
    jobs, luck = drawn_jobs(seed), draw_luck(seed, 0, 40)
    slot = slot_of(ACCURACY_4.varied(cap=cap))
    for model in models_of(QualityConfig()).values():
        out = model.outcomes(jobs, slot, luck)
        for losses in (out.test_loss, out.synth_loss):
            assert (losses[out.succeeded] > 0).all()
            assert np.isnan(losses[~out.succeeded]).all()
        assert not (out.succeeded & jobs.late).any()


@calm
@given(SEEDS, st.sampled_from((ACCURACY_4, THROUGHPUT_24)))
def test_a_job_s_outcome_depends_on_no_other_job(seed, preset) -> None:
    """Draws are the offer's: any part of the jobs, in any order, has the outcomes of the whole."""
    jobs, luck = drawn_jobs(seed), draw_luck(seed, 0, 40)
    index = np.random.default_rng(seed).permutation(40)[:17]
    for model in models_of(QualityConfig()).values():
        whole = model.outcomes(jobs, slot_of(preset), luck.of(jobs.offer))
        some = part(jobs, index)
        found = model.outcomes(some, slot_of(preset), luck.of(some.offer))
        for column in ("test_loss", "synth_loss", "tokens_trained", "succeeded"):
            np.testing.assert_array_equal(getattr(found, column), getattr(whole, column)[index])


@calm
@given(SEEDS, st.floats(1.01, 4.0), st.sampled_from((ACCURACY_4, THROUGHPUT_24)))
def test_more_compute_never_trains_fewer_tokens_nor_to_a_higher_loss(seed, more, preset) -> None:
    jobs, luck = drawn_jobs(seed), draw_luck(seed, 0, 40)
    jobs = replace(jobs, gpu_share=jobs.gpu_share / 4)
    model, slot = models_of(QualityConfig())["physical"], slot_of(preset)
    less = model.outcomes(jobs, slot, luck)
    much = model.outcomes(replace(jobs, gpu_share=jobs.gpu_share * more), slot, luck)
    told = ~np.isnan(less.tokens_trained)
    assert (much.tokens_trained[told] >= less.tokens_trained[told]).all()
    assert (much.succeeded >= less.succeeded).all()
    both = less.succeeded & much.succeeded
    assert (much.test_loss[both] <= less.test_loss[both] * (1 + 1e-12)).all()


@calm
@given(SEEDS, st.integers(1, 24), st.integers(1, 24))
def test_neutral_is_the_same_for_every_slot(seed, cap, other) -> None:
    jobs, luck = drawn_jobs(seed), draw_luck(seed, 0, 40)
    model = models_of(QualityConfig())["neutral"]
    one, two = (
        model.outcomes(jobs, slot_of(preset.varied(cap=n)), luck)
        for preset, n in ((ACCURACY_4, cap), (THROUGHPUT_24, other))
    )
    for column in ("test_loss", "synth_loss", "succeeded"):
        np.testing.assert_array_equal(getattr(one, column), getattr(two, column))


@calm
@given(SEEDS, st.integers(1, 23))
def test_claims_never_favour_the_smaller_slot(seed, cap) -> None:
    jobs, luck = drawn_jobs(seed), draw_luck(seed, 0, 40)
    model = models_of(QualityConfig())["claims"]
    large, small = (
        model.outcomes(jobs, slot_of(ACCURACY_4.varied(cap=n)), luck) for n in (cap, cap + 1)
    )
    assert (large.succeeded >= small.succeeded).all()
    both = large.succeeded & small.succeeded
    assert (large.test_loss[both] <= small.test_loss[both] * (1 + 1e-12)).all()


def scene_and_decisions(seed, config):
    arrivals = generate(NetworkArrivals(), start_ms=START, days=3, seed=seed)
    workload = Workload(arrivals.stream)
    scene = scene_of(arrivals, workload, config, seed, 0)
    presets = (ACCURACY_4, THROUGHPUT_24)
    return scene, [(p, run_columns(workload, Policy(p, UNDECLARED, HOUR))) for p in presets]


@few
@given(SEEDS, st.floats(0.3, 3.0), st.floats(0.0, 0.5), st.floats(0.05, 1.0))
def test_rates_and_shares_lie_between_nothing_and_all(seed, median, spread, takes) -> None:
    field = FieldConfig(median_loss=median, skill_sd=spread, acceptance_rate=takes)
    scene, decided = scene_and_decisions(seed, MarketConfig(field=field))
    for preset, decisions in decided:
        for measures in play(scene, decisions, preset, (START, START + 3 * DAY)).values():
            for name in RATES:
                assert 0 <= measures[name] <= 1, name
            assert measures["first_place_rate"] <= measures["top4_rate"]


@few
@given(SEEDS)
def test_the_field_is_the_same_for_both_presets_and_every_model(seed) -> None:
    """Played after another preset or alone, a season is the same, and so is the field."""
    config = MarketConfig()
    scene, decided = scene_and_decisions(seed, config)
    before = [getattr(scene.field, name).copy() for name in ("miner", "test_loss", "synth_loss")]
    window = (START, START + 3 * DAY)
    first, second = (play(scene, decisions, preset, window) for preset, decisions in decided)
    again = [play(scene, decisions, preset, window) for preset, decisions in reversed(decided)]
    np.testing.assert_equal(again, [second, first])
    for name, column in zip(("miner", "test_loss", "synth_loss"), before, strict=True):
        np.testing.assert_array_equal(getattr(scene.field, name), column)
    fresh, _ = scene_and_decisions(seed, config)
    np.testing.assert_array_equal(fresh.field.test_loss, before[1])
