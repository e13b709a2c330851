"""A season: our jobs among the field's, scored and paid."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from shared.box import UNDECLARED
from shared.decisions import Policy
from shared.errors import InputError
from shared.layout import slot_layout
from shared.presets import ACCURACY_4, THROUGHPUT_24
from shared.wire_faults import one_line
from sim.arrivals import NetworkArrivals, PoissonArrivals, generate
from sim.engine.eventful import run_columns
from sim.engine.workload import Workload
from sim.field import FieldConfig
from sim.income_over_time import History, moments
from sim.market.config import MarketConfig
from sim.market.income import ORGANIC, TaskFacts, collect, income
from sim.market.rules import MID_2025
from sim.played_network import NO_TASK, played_network
from sim.quality.config import NeutralConfig, Noise, QualityConfig
from sim.season import (
    SEASON_METRICS,
    _submissions,
    jobs_of,
    play,
    play_season,
    scene_of,
)
from sim.sharing import gpu_shares
from sim.stream import Labels, OfferStream

START = 1_748_736_000_000
HOUR, DAY = 3_600_000, 86_400_000
SILENT = Noise(run=0.0, synth=0.0)
SURE = QualityConfig(neutral=NeutralConfig(failure_rate=0.0))
WINDOW = (START + DAY, START + 9 * DAY)


def market(median=1.0, quality=SURE, **changes):
    return MarketConfig(field=FieldConfig(median_loss=median), quality=quality, **changes)


@pytest.fixture(scope="module")
def arrivals():
    return generate(NetworkArrivals(), start_ms=START, days=9, seed=5)


@pytest.fixture(scope="module")
def workload(arrivals):
    return Workload(arrivals.stream)


def decided(workload, preset=ACCURACY_4):
    return run_columns(workload, Policy(preset, UNDECLARED, HOUR))


def neutral(arrivals, workload, config, preset=ACCURACY_4, decisions=None, window=WINDOW):
    decisions = decided(workload, preset) if decisions is None else decisions
    return play_season(arrivals, workload, decisions, preset, config, window, 5, 0)["neutral"]


# --- the whole ---


def test_every_model_gives_every_measure(arrivals, workload) -> None:
    season = play_season(
        arrivals, workload, decided(workload), ACCURACY_4, MarketConfig(), WINDOW, 5, 0
    )
    assert list(season) == ["claims", "physical", "neutral"]
    for measures in season.values():
        assert list(measures) == list(SEASON_METRICS)
        assert all(np.isfinite(value) for value in measures.values())


def test_against_a_hopeless_field_we_win_everything(arrivals, workload) -> None:
    measures = neutral(arrivals, workload, market(median=50.0))
    for name in ("first_place_rate", "top4_rate", "mean_rank_percentile", "success_rate"):
        assert measures[name] == 1.0
    assert measures["tournament_win_rate"] == 1.0
    assert measures["penalty_rate"] == 0.0
    assert measures["mean_score"] == 3.0
    assert 0.05 < measures["emission_share"] < 1.0


def test_against_a_perfect_field_we_win_nothing(arrivals, workload) -> None:
    measures = neutral(arrivals, workload, market(median=0.02))
    for name in ("first_place_rate", "tournament_win_rate", "emission_share"):
        assert measures[name] == 0.0
    # images penalise the last quarter; text tasks leave us out without a penalty
    assert 0.0 < measures["penalty_rate"] < 1.0
    assert measures["mean_score"] == -1.0


def test_who_always_fails_is_penalised_always_and_earns_nothing(arrivals, workload) -> None:
    config = market(quality=QualityConfig(neutral=NeutralConfig(failure_rate=1.0)))
    measures = neutral(arrivals, workload, config)
    assert measures["penalty_rate"] == 1.0
    assert measures["success_rate"] == measures["jobs_completed"] == 0.0
    assert measures["emission_share"] == measures["tournament_win_rate"] == 0.0
    assert np.isnan(measures["test_loss"])
    assert np.isnan(measures["tokens_trained"])


def test_who_takes_nothing_has_no_rates_and_no_share(arrivals, workload) -> None:
    nothing = decided(workload)
    nothing = replace(nothing, end_ms=np.full_like(nothing.end_ms, -1))
    measures = neutral(arrivals, workload, market(), decisions=nothing)
    assert measures["emission_share"] == measures["revenue_per_day"] == 0.0
    assert measures["jobs_completed"] == measures["jobs_failed"] == 0.0
    for name in ("first_place_rate", "mean_score", "test_loss", "tournament_win_rate"):
        assert np.isnan(measures[name])


def test_a_reservation_that_lapsed_took_no_part_and_a_lost_gpu_is_a_failure(
    arrivals, workload
) -> None:
    decisions = decided(workload)
    jobs = int(decisions.took_slot.sum())
    all_lapsed = replace(decisions, lapsed=decisions.took_slot)
    assert neutral(arrivals, workload, market(), decisions=all_lapsed)["jobs_completed"] == 0
    lost = replace(decisions, gpu_failed=decisions.took_slot)
    measures = neutral(
        arrivals, workload, market(), decisions=lost, window=(START, START + 99 * DAY)
    )
    assert measures["jobs_failed"] == jobs
    assert measures["penalty_rate"] == 1.0


def test_only_results_inside_the_window_count(arrivals, workload) -> None:
    decisions = decided(workload)
    ended = decisions.end_ms[decisions.took_slot]
    window = (START + DAY, START + 2 * DAY)
    inside = ((ended >= window[0]) & (ended < window[1])).sum()
    assert inside > 0
    measures = neutral(arrivals, workload, market(), window=window)
    assert measures["jobs_completed"] + measures["jobs_failed"] == inside


def test_revenue_is_share_times_emission_times_price(arrivals, workload) -> None:
    measures = neutral(arrivals, workload, market(1.15, emission_per_day=200.0, price=0.5))
    assert measures["revenue_per_day"] == pytest.approx(100 * measures["emission_share"])


def test_a_lower_loss_wins_every_kind_of_task(arrivals, workload) -> None:
    """GRPO's rewards are turned round: were they not, the better side would lose them."""
    quiet = FieldConfig(median_loss=1.25, skill_sd=0.0, failure_rate=0.0, noise=SILENT)
    config = MarketConfig(field=quiet, quality=SURE)
    scene = scene_of(arrivals, workload, config, 5, 0)
    task_type = arrivals.stream.task_type
    for name in ("GrpoTask", "ChatTask", "ImageTask"):
        wanted = task_type.codes == task_type.names.index(name)
        decisions = decided(workload)
        decisions = replace(decisions, end_ms=np.where(wanted, decisions.end_ms, -1))
        assert play(scene, decisions, ACCURACY_4, WINDOW)["neutral"]["first_place_rate"] == 1.0


def test_we_take_the_place_of_the_last_taker(arrivals, workload) -> None:
    scene = scene_of(arrivals, workload, market(), 5, 0)
    rows = np.arange(50)
    ones = np.ones(50)
    ours = _submissions(scene, rows, ones, ones, enters=True).took_part
    theirs = _submissions(scene, rows, ones, ones, enters=False).took_part
    np.testing.assert_array_equal(ours.sum(axis=1), theirs.sum(axis=1))
    assert ours[:, -1].all()
    assert not theirs[:, -1].any()


def test_the_sanity_of_volume_under_the_null_hypothesis() -> None:
    """Capacity the only difference, a weaker field: 24 slots earn more than 4."""
    arrivals = generate(PoissonArrivals(offers_per_hour=12.0), start_ms=START, days=9, seed=5)
    workload = Workload(arrivals.stream)
    config = MarketConfig(field="weak")
    four, many = (
        neutral(arrivals, workload, config, preset) for preset in (ACCURACY_4, THROUGHPUT_24)
    )
    assert many["emission_share"] > 2 * four["emission_share"]


def test_the_sanity_of_the_claims_against_an_even_field(arrivals, workload) -> None:
    four, many = (
        play_season(
            arrivals, workload, decided(workload, preset), preset, MarketConfig(), WINDOW, 5, 0
        )["claims"]
        for preset in (ACCURACY_4, THROUGHPUT_24)
    )
    assert four["mean_rank_percentile"] > many["mean_rank_percentile"] + 0.3
    assert four["first_place_rate"] > many["first_place_rate"]


# --- the network ---


def offers(ids, types=None, hours=2.0):
    n = len(ids)
    names = tuple(dict.fromkeys(types or ["ChatTask"]))
    codes = np.array([names.index(t) for t in types or ["ChatTask"] * n], dtype=np.int32)
    return OfferStream(
        at_ms=START + np.arange(n) * HOUR,
        task_id=pa.array(ids, pa.string()),
        model=Labels(np.zeros(n, dtype=np.int32), ("org/m-9b",)),
        task_type=Labels(codes, names),
        hours=np.full(n, hours),
        ds_size=np.full(n, -1),
        params=np.full(n, -1),
        train_ms=np.full(n, round(hours * HOUR)),
    )


def test_without_a_network_each_task_id_is_one_task() -> None:
    network = played_network(None, offers(["b", "a", "b"]), MID_2025)
    assert network.task.tolist() == [0, 1, 0]
    assert network.created_ms.tolist() == [START, START + HOUR]
    assert network.done_ms.tolist() == [START + 2 * HOUR, START + 3 * HOUR]
    assert network.work.tolist() == pytest.approx([2 * 16**0.5] * 2)  # 9b reads as 8
    assert not network.is_organic.any()


def test_types_that_the_rules_do_not_know_are_not_played() -> None:
    stream = offers(["a", "b", "c"], ["Other", "DpoTask", "Other"])
    network = played_network(None, stream, MID_2025)
    assert network.task.tolist() == [NO_TASK, 0, NO_TASK]
    assert network.group.tolist() == [MID_2025.group_of("DpoTask")]
    season = neutral(None, Workload(stream), market(), window=(START, START + DAY))
    assert season["jobs_completed"] == 3  # they were trained, whoever ranks them


def test_tasks_that_never_started_are_not_played() -> None:
    arrivals = generate(NetworkArrivals(too_few_takers=0.5), start_ms=START, days=2, seed=1)
    network = played_network(arrivals, arrivals.stream, MID_2025)
    started = arrivals.network.started_ms >= 0
    assert 0 < started.sum() < len(started)
    assert len(network.group) == started.sum()
    played = network.task >= 0
    np.testing.assert_array_equal(played, started[arrivals.task])
    np.testing.assert_array_equal(
        network.created_ms[network.task[played]],
        arrivals.network.created_ms[arrivals.task[played]],
    )


# --- the share of a GPU ---


def test_slots_of_their_own_have_their_gpus_whole() -> None:
    at = np.array([0, 0])
    assert gpu_shares(slot_layout(4), np.array([0, 1]), at, at + HOUR).tolist() == [1.0, 1.0]


def test_jobs_on_one_gpu_divide_it_while_both_run() -> None:
    # slots 0, 8 and 16 sit on GPU 0, slot 1 on GPU 1
    slot, start, end = (np.array(x) for x in ([0, 8, 1, 0], [0, 10, 0, 20], [20, 30, 20, 40]))
    shares = gpu_shares(slot_layout(24), slot, start, end)
    # 0: 10 alone, 10 of two; 8: 10 of two, 10 of two (the next job of slot 0); 0 again: 10 and 10
    assert shares.tolist() == pytest.approx([0.75, 0.5, 1.0, 0.75])


def test_a_job_without_time_has_a_share_all_the_same() -> None:
    at = np.array([5, 5])
    assert gpu_shares(slot_layout(24), np.array([0, 8]), at, at).tolist() == [1.0, 1.0]


def test_the_lag_before_the_start_takes_no_compute() -> None:
    """Offers 0 and 8 are on GPU 0; 8 begins an hour late, so 0 has it alone for its first hour."""
    stream = offers([str(i) for i in range(9)])
    stream = replace(stream, at_ms=START + np.arange(9))
    lag = np.full(9, HOUR)
    lag[0] = 0
    workload = Workload(stream, start_lag_ms=lag)
    policy = Policy(THROUGHPUT_24, UNDECLARED, 2 * HOUR)
    decisions = run_columns(workload, policy)
    assert decisions.slot[[0, 8]].tolist() == [0, 8]
    jobs, lost = jobs_of(workload, decisions, THROUGHPUT_24.layout)
    assert jobs.gpu_share[[0, 8]].tolist() == pytest.approx([0.75, 0.75], abs=1e-5)
    assert not lost.any()


# --- the title ---


def test_the_best_competitor_defends_the_title_and_everybody_fails_at_times(
    arrivals, workload
) -> None:
    config = MarketConfig(field=FieldConfig(noise=SILENT, failure_rate=0.2))
    titles = scene_of(arrivals, workload, config, 5, 0).titles
    losses, best = titles._losses, titles.field.skill.min()
    assert losses.shape == (200, 33, 12)
    assert np.isnan(losses).mean() == pytest.approx(0.2, abs=0.01)
    assert np.nanmax(losses[:, -1]) == np.nanmin(losses[:, -1]) == best
    rivals = np.delete(losses, titles._place, axis=1)[:, :-1]
    assert np.nanmin(rivals) > best


def test_a_title_is_won_by_losses_that_beat_the_champion(arrivals, workload) -> None:
    config = MarketConfig(field=FieldConfig(noise=SILENT, failure_rate=0.0))
    titles = scene_of(arrivals, workload, config, 5, 0).titles
    best = titles.field.skill.min()
    assert titles.win_rate(np.array([best * 0.99])) == 1.0
    assert titles.win_rate(np.array([best * 1.001])) == 0.0
    assert titles.win_rate(np.array([np.nan])) == 0.0
    assert 0 < titles.win_rate(np.array([best * 0.99, best * 0.99, np.nan])) < 1
    assert np.isnan(titles.win_rate(np.array([])))


# --- the income ---


def test_moments_are_days_from_the_seventh_on_and_end_with_the_window() -> None:
    created = np.array([START])
    days = [
        (at - START) / DAY for at in moments(created, (START + DAY, START + 10 * DAY), MID_2025)
    ]
    assert days == [7.0, 8.0, 9.0, 10.0]
    short = list(moments(created, (START, START + 2 * DAY), MID_2025))
    assert short == [START + 2 * DAY]


def test_a_task_counts_when_it_is_over_and_for_seven_days(arrivals, workload) -> None:
    scene = scene_of(arrivals, workload, market(), 5, 0)
    history = History(scene.network, scene.rules, scene.field, scene.scores)
    now = START + 8 * DAY
    network, counts = scene.network, scene.scores.counts
    known = (network.done_ms <= now) & (network.created_ms >= now - 7 * DAY) & counts
    results = history.known_at(now)
    assert len(results.tasks.created_ms) == known.sum()
    assert known.sum() < ((network.created_ms >= now - 7 * DAY) & counts).sum()


def test_leaving_zeros_out_changes_no_share(arrivals, workload) -> None:
    scene = scene_of(arrivals, workload, market(), 5, 0)
    history = History(scene.network, scene.rules, scene.field, scene.scores)
    now = START + 20 * DAY  # everything is over, the windows hold nothing new
    network = replace(scene.network, created_ms=np.full_like(scene.network.created_ms, now))
    history = replace(history, network=network)
    us = np.full((len(network.group), 1), history.miners - 1)
    facts = TaskFacts(network.group, network.is_organic, network.created_ms, network.work)
    whole = collect(facts, np.column_stack((scene.field.miner, us)), scene.scores)
    expected = income(whole, now, history.miners, MID_2025)
    found = income(history.known_at(now), now, history.miners, MID_2025)
    np.testing.assert_allclose(found.share, expected.share)
    assert expected.points[:, :, ORGANIC].sum() > 0


# --- the config ---


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"rule_set": "none"}, "allowed: gradients-2025-mid"),
        ({"field": "hopeless"}, "field"),
        ({"quality_model": "wishful"}, "quality_model"),
        ({"quality_model": "calibrated"}, "requires a file"),
        ({"field": {"miners": 0}}, "miners"),
        ({"price": -1.0}, "price"),
        ({"typo": 1}, "typo"),
    ],
)
def test_a_wrong_market_is_named(told, words) -> None:
    with pytest.raises(ValidationError, match=words):
        MarketConfig.model_validate(told)


@pytest.mark.parametrize(
    ("field", "line"),
    [
        ("hopeless", "field: found 'hopeless', it should be 'weak', 'even' or 'strong'"),
        ({"miners": 0}, "field.miners: found 0, it should be greater than or equal to 8"),
        ({"typo": 0}, "field.typo: unknown key"),
    ],
)
def test_a_wrong_field_is_named_to_the_key(field, line) -> None:
    told = {"field": field}
    with pytest.raises(ValidationError) as wrong:
        MarketConfig.model_validate(told)
    assert one_line(wrong.value, told) == line


def test_a_calibration_that_is_not_there_is_named(arrivals, workload) -> None:
    config = MarketConfig(calibration="no-such-file.json")
    with pytest.raises(InputError, match="no-such-file"):
        neutral(arrivals, workload, config)
