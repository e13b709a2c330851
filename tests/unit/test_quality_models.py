"""The four models of a training's outcome, number by number."""

import numpy as np
import pytest
from pydantic import ValidationError

from shared.architectures import architecture_of
from shared.presets import ACCURACY_4, MAXIMUM_2, THROUGHPUT_24
from sim.quality import Jobs, Luck, QualityConfig, draw_luck, models_of, reward, slot_of
from sim.quality.claims import place
from sim.quality.columns import normal
from sim.quality.config import EXPONENTS, Noise, PhysicalConfig, Range
from sim.quality.physical import useful_tokens
from sim.quality.throughput import flops_per_token, trained
from sim.stream import Labels

HOUR = 3_600_000
LLAMA_1B, LLAMA_8B, LLAMA_70B = (
    "unsloth/Llama-3.2-1B-Instruct", "unsloth/Meta-Llama-3.1-8B-Instruct",
    "unsloth/Meta-Llama-3.1-70B-Instruct",
)  # fmt: skip
TYPES = ("ChatTask", "GrpoTask", "ImageTask")
QUIET = QualityConfig(noise=Noise(run=0.0, synth=0.0))


def jobs_of(n=1, model=LLAMA_8B, task_type="ChatTask", hours=6.0, train=None, share=1.0):
    codes = np.full(n, TYPES.index(task_type), dtype=np.int32)
    train_ms = round((hours if train is None else train) * HOUR)
    return Jobs(
        offer=np.arange(n),
        task_type=Labels(codes, TYPES),
        model=Labels(np.zeros(n, dtype=np.int32), (model,)),
        params=np.full(n, -1),
        hours=np.full(n, hours),
        train_ms=np.full(n, train_ms),
        gpu_share=np.full(n, share),
    )


def plain_luck(n=1, fate=0.5, at=0.5):
    zero, half = np.zeros(n), np.full(n, at)
    return Luck(zero, zero, half, half, np.full(n, fate))


def played(name, preset, jobs=None, luck=None, config=QUIET):
    jobs = jobs_of() if jobs is None else jobs
    return models_of(config)[name].outcomes(jobs, slot_of(preset), luck or plain_luck(len(jobs)))


# --- claims ---


def test_the_documents_columns_are_the_ends_and_a_cap_between_is_between() -> None:
    assert place(slot_of(ACCURACY_4).gpus_worth) == pytest.approx(1.0)
    assert place(slot_of(THROUGHPUT_24).gpus_worth) == 0.0
    places = [place(slot_of(ACCURACY_4.varied(cap=cap)).gpus_worth) for cap in (4, 8, 16, 24)]
    assert places == sorted(places, reverse=True)
    assert place(1.0) == pytest.approx(np.log(3) / np.log(6))


def test_beyond_the_documents_columns_they_stand() -> None:
    assert place(slot_of(MAXIMUM_2).gpus_worth) == 1.0
    assert place(0.01) == 0.0


@pytest.mark.parametrize(("at", "test_lower", "synth_lower"), [(0, 0.25, 0.20), (0.5, 0.325, 0.25)])
def test_four_jobs_losses_are_lower_by_the_documents_percentages(at, test_lower, synth_lower):
    luck = plain_luck(at=at)
    few, many = played("claims", ACCURACY_4, luck=luck), played("claims", THROUGHPUT_24, luck=luck)
    assert 1 - few.test_loss[0] / many.test_loss[0] == pytest.approx(test_lower)
    assert 1 - few.synth_loss[0] / many.synth_loss[0] == pytest.approx(synth_lower)


def test_the_reference_run_lies_between_the_columns() -> None:
    few, many = played("claims", ACCURACY_4), played("claims", THROUGHPUT_24)
    assert few.test_loss[0] < 1 < many.test_loss[0]
    one_gpu = played("claims", ACCURACY_4.varied(cap=8))
    assert one_gpu.test_loss[0] == pytest.approx(1.0)
    assert one_gpu.synth_loss[0] == pytest.approx(1.0)


def test_success_is_ninety_five_against_ninety_percent() -> None:
    luck = plain_luck(4, fate=0.0)
    luck = Luck(luck.run, luck.synth, luck.test_range, luck.synth_range,
                np.array([0.89, 0.91, 0.94, 0.96]))  # fmt: skip
    few = played("claims", ACCURACY_4, jobs_of(4), luck)
    many = played("claims", THROUGHPUT_24, jobs_of(4), luck)
    assert few.succeeded.tolist() == [True, True, True, False]
    assert many.succeeded.tolist() == [True, False, False, False]


# --- neutral ---


def test_neutral_knows_no_slot() -> None:
    jobs, luck = jobs_of(500), draw_luck(3, 0, 500)
    one, other = (
        played("neutral", preset, jobs, luck, QualityConfig())
        for preset in (ACCURACY_4, THROUGHPUT_24)
    )
    np.testing.assert_array_equal(one.test_loss, other.test_loss)
    np.testing.assert_array_equal(one.synth_loss, other.synth_loss)
    np.testing.assert_array_equal(one.succeeded, other.succeeded)
    assert np.nanmedian(one.test_loss) == pytest.approx(1.0, abs=0.01)
    assert 0.95 < one.succeeded.mean() < 1.0


# --- all ---


@pytest.mark.parametrize("name", ["claims", "physical", "neutral"])
def test_a_late_job_fails_and_has_no_loss(name) -> None:
    late = played(name, ACCURACY_4, jobs_of(hours=2.0, train=2.0001))
    on_time = played(name, ACCURACY_4, jobs_of(hours=2.0, train=2.0))
    assert not late.succeeded[0]
    assert np.isnan(late.test_loss[0])
    assert np.isnan(late.synth_loss[0])
    assert on_time.succeeded[0]


@pytest.mark.parametrize("name", ["claims", "physical", "neutral"])
def test_no_jobs_are_no_trouble(name) -> None:
    assert len(played(name, ACCURACY_4, jobs_of(0)).succeeded) == 0


def test_the_luck_of_a_run_is_in_both_losses_and_that_of_the_synthetic_one_in_it_alone() -> None:
    config = QualityConfig(noise=Noise(run=0.1, synth=0.2))
    luck = Luck(np.array([1.0]), np.array([-1.0]), *(np.array([0.5]) for _ in range(3)))
    one = played("neutral", ACCURACY_4, luck=luck, config=config)
    assert one.test_loss[0] == pytest.approx(np.exp(0.1))
    assert one.synth_loss[0] == pytest.approx(np.exp(0.1 - 0.2))


def test_a_reward_is_the_inverse_of_the_loss() -> None:
    assert reward(np.array([1.0, 0.8])).tolist() == pytest.approx([1.0, 1.25])


def test_a_draw_of_zero_is_no_infinity() -> None:
    assert np.isfinite(normal(np.array([0.0, 0.5]))).all()


def test_luck_belongs_to_the_offer() -> None:
    short, long = draw_luck(1, 2, 10), draw_luck(1, 2, 1000)
    for column in ("run", "synth", "test_range", "synth_range", "fate"):
        np.testing.assert_array_equal(getattr(short, column), getattr(long, column)[:10])
    picked = long.of(np.array([7, 3]))
    assert picked.run.tolist() == [long.run[7], long.run[3]]
    assert not np.array_equal(draw_luck(1, 3, 10).run, short.run)
    assert len({round(float(getattr(short, c)[0]), 9) for c in ("test_range", "synth_range")}) == 2


# --- physical: tokens ---


def test_flops_and_the_tokens_a_second_of_the_published_example() -> None:
    # 8B, rank 128, checkpointing: 7,777 tokens a second of one H100 at 40% (training facts)
    flops = flops_per_token(architecture_of(LLAMA_8B), ACCURACY_4.profile, 128)
    assert 989e12 * 0.40 / flops == pytest.approx(7777, rel=0.001)
    flops = flops_per_token(architecture_of(LLAMA_8B), ACCURACY_4.profile, 2048)
    assert 989e12 * 0.40 / flops == pytest.approx(4341, rel=0.001)


def test_a_mixture_counts_the_experts_it_visits() -> None:
    mixtral = architecture_of("mistralai/Mixtral-8x7B-v0.1")
    flops = flops_per_token(mixtral, ACCURACY_4.profile, 8)
    assert 6 * 12.5e9 < flops < 6 * 14e9


def test_tokens_are_speed_times_the_time_left_after_the_set_up() -> None:
    config = PhysicalConfig(setup_minutes=60.0, ddp_efficiency=1.0, fsdp2_efficiency=1.0)
    jobs = jobs_of(hours=3.0)
    compute = trained(jobs, slot_of(ACCURACY_4), config, QUIET.reference)
    plan_rank = compute.lora_ratio[0] * QUIET.reference.lora_r
    flops = flops_per_token(architecture_of(LLAMA_8B), ACCURACY_4.profile, int(plan_rank))
    assert compute.tokens[0] == pytest.approx(2 * 3600 * 2 * 989e12 * 0.40 / flops)
    assert trained(jobs_of(hours=0.5), slot_of(ACCURACY_4), config, QUIET.reference).tokens[0] == 0


def test_a_late_job_trains_until_its_deadline() -> None:
    slot, physical = slot_of(ACCURACY_4), PhysicalConfig()
    late = trained(jobs_of(hours=3.0, train=9.0), slot, physical, QUIET.reference)
    whole = trained(jobs_of(hours=3.0), slot, physical, QUIET.reference)
    assert late.tokens[0] == whole.tokens[0]


def test_grpo_trains_part_of_its_time() -> None:
    slot, physical = slot_of(ACCURACY_4), PhysicalConfig()
    small = "meta-llama/Llama-3.2-1B"  # planned alike, sampled answers or not
    chat, grpo = (
        trained(jobs_of(model=small, task_type=name), slot, physical, QUIET.reference).tokens[0]
        for name in ("ChatTask", "GrpoTask")
    )
    assert grpo / chat == pytest.approx(physical.grpo_train_share)


def test_grpo_is_never_trained_in_shares() -> None:
    """An 8B at rank 2048 is planned under FSDP2, or under DDP where answers are sampled."""
    slot, physical = slot_of(ACCURACY_4), PhysicalConfig()
    chat, grpo = (
        trained(jobs_of(task_type=name), slot, physical, QUIET.reference).tokens[0]
        for name in ("ChatTask", "GrpoTask")
    )
    faster = physical.ddp_efficiency / physical.fsdp2_efficiency
    assert grpo / chat == pytest.approx(physical.grpo_train_share * faster)
    whole = "meta-llama/Llama-3.1-70B"
    for name, fits in (("ChatTask", True), ("GrpoTask", False)):
        found = trained(jobs_of(model=whole, task_type=name), slot_of(MAXIMUM_2), physical,
                        QUIET.reference)  # fmt: skip
        assert bool(found.tokens[0] > 0) is fits


# --- physical: losses ---


def test_a_model_that_no_plan_fits_fails_and_one_that_fits_does_not() -> None:
    # a 70B base alone is 141 GB in bf16: 70.6 GB on each GPU of a pair, and 26.7 GB a slot of 24
    assert not played("physical", THROUGHPUT_24, jobs_of(model=LLAMA_70B)).succeeded[0]
    assert played("physical", THROUGHPUT_24, jobs_of(model=LLAMA_8B)).succeeded[0]
    assert played("physical", THROUGHPUT_24, jobs_of(model=LLAMA_70B)).tokens_trained[0] == 0


def test_a_job_with_no_time_to_train_fails() -> None:
    assert not played("physical", ACCURACY_4, jobs_of(hours=0.1)).succeeded[0]


def test_out_of_memory_and_instability_add_up() -> None:
    for fate, survives in ((0.0199, False), (0.0201, True)):
        one = played("physical", ACCURACY_4, luck=plain_luck(fate=fate))
        assert one.succeeded[0] == survives


def test_the_scaling_law_by_hand() -> None:
    """A slot like the reference run's but for twice the tokens, in the law's own numbers."""
    config = QualityConfig(
        noise=Noise(run=0.0, synth=0.0),
        physical=PhysicalConfig(dataset_rows=2**50, exponents="wmt14", irreducible_share=0.25),
    )
    jobs, slot = jobs_of(model=LLAMA_1B), slot_of(ACCURACY_4)
    compute = trained(jobs, slot, config.physical, config.reference)
    a, b = EXPONENTS["wmt14"]
    batch = (1 + 64 / 64) / (1 + 32 / 64)
    data = compute.tokens[0] / compute.reference_tokens[0] / batch
    expected = 0.25 + 0.75 * compute.lora_ratio[0] ** -a * data**-b
    assert compute.lora_ratio[0] > 1  # so that the exponent of the adapter is exercised
    assert played("physical", ACCURACY_4, jobs, config=config).test_loss[0] == pytest.approx(
        expected, rel=1e-12
    )


def test_the_adapter_does_not_count_in_reinforcement_learning() -> None:
    config = QualityConfig(
        noise=Noise(run=0.0, synth=0.0),
        physical=PhysicalConfig(dataset_rows=2**50, exponents="wmt19", grpo_train_share=1.0),
    )
    chat, grpo = (
        played("physical", ACCURACY_4, jobs_of(model=LLAMA_1B, task_type=name), config=config)
        for name in ("ChatTask", "GrpoTask")
    )
    assert grpo.test_loss[0] > chat.test_loss[0]  # wmt19: more adapter, less loss, but not here


def test_image_models_are_outside_the_arithmetic() -> None:
    one = played("physical", THROUGHPUT_24, jobs_of(model="org/sdxl", task_type="ImageTask"))
    assert one.succeeded[0]
    assert one.test_loss[0] == 1.0
    assert np.isnan(one.tokens_trained[0])


def test_useful_tokens_batch_and_repetition() -> None:
    config = PhysicalConfig(dataset_rows=1000, mean_row=100, critical_batch_rows=64.0)
    small, critical = np.array([0.0]), np.array([64.0])
    fresh = np.array([50_000.0])
    assert useful_tokens(fresh, small, config)[0] == 50_000
    assert useful_tokens(fresh, critical, config)[0] == 25_000
    two_epochs = useful_tokens(np.array([200_000.0]), small, config)[0]
    assert two_epochs == pytest.approx(1e5 + 1e5 * 15.4 * (1 - np.exp(-1 / 15.4)))
    forever = useful_tokens(np.array([1e12]), small, config)[0]
    assert forever == pytest.approx(1e5 * 16.4)


# --- config ---


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda: Range(low=0.4, high=0.3), "high must be at least low"),
        (lambda: PhysicalConfig(longest_row=100), "shortest_row must be at most"),
        (lambda: PhysicalConfig(hfu=0.0), "greater than 0"),
        (lambda: QualityConfig.model_validate({"typo": 1}), "typo"),
        (lambda: Noise(run=float("nan")), "finite"),
    ],
)
def test_wrong_numbers_are_named(made, words) -> None:
    with pytest.raises(ValidationError, match=words):
        made()
