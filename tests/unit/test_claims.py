"""Every claim is judged under every quality model, and only as surely as the interval allows."""

import math
from dataclasses import asdict, replace

import numpy as np
import pytest

from shared.memory import usable_gb
from shared.presets import ACCURACY_4, MAXIMUM_2, THROUGHPUT_24
from sim.claims import CLAIMS, Evidence, contradictions, judge
from sim.claims.arithmetic import MODELS, least_gb
from sim.claims.factors import batch_effects, effective_batch, rank_effects
from sim.output_analysis import Estimate

PRESETS = {preset.name: preset for preset in (ACCURACY_4, THROUGHPUT_24)}
IDS = [
    "memory", "batch", "rank", "memory-effect", "gradient", "convergence", "test-loss",
    "synth-loss", "stability", "first-place", "top-4", "penalty", "tournament", "throughput",
    "revenue", "fragmentation", "ranking", "fits",
]  # fmt: skip

GOOD = {
    "test_loss": (0.7, 1.0), "synth_loss": (0.75, 1.0), "success_rate": (0.97, 0.9),
    "first_place_rate": (0.95, 0.2), "top4_rate": (0.98, 0.5), "penalty_rate": (0.005, 0.2),
    "tournament_win_rate": (0.9, 0.3), "jobs_completed": (100.0, 500.0),
    "revenue_per_day": (10.0, 50.0), "tokens_trained": (2.5e6, 1e6),
}  # fmt: skip
"""With 4 slots and with 24: everything as claimed."""

SPREAD = np.tile([0.99, 1.01, 1.0, 0.995, 1.005], 2)
"""Ten replications: +-1% around each number, shared by both presets."""


def measures_of(**changed):
    four, many = {}, {}
    for metric, (a, b) in {**GOOD, **changed}.items():
        four[metric], many[metric] = (SPREAD * a).tolist(), (SPREAD[::-1] * b).tolist()
    return {"accuracy_4": four, "throughput_24": many}


def judged(model="physical", *, sharing_slowdown=(), tokens_are_totals=False, **changed):
    evidence = Evidence.of(
        {model: measures_of(**changed)},
        PRESETS,
        sharing_slowdown=sharing_slowdown,
        tokens_are_totals=tokens_are_totals,
    )
    return {verdict.id: verdict for verdict in judge(evidence)}


def test_every_claim_is_judged_under_every_model_in_the_document_s_order():
    evidence = Evidence.of({"physical": measures_of(), "neutral": measures_of()}, PRESETS)
    verdicts = judge(evidence)
    assert [claim.id for claim in CLAIMS] == IDS
    assert [(v.id, v.quality_model) for v in verdicts] == [
        (claim, model) for claim in IDS for model in ("physical", "neutral")
    ]
    assert all(v.why for v in verdicts)
    allowed = {"holds", "fails", "assumed", "cannot judge"}
    assert {v.verdict for v in verdicts} <= allowed


def test_a_row_is_what_the_document_of_compare_wants():
    row = asdict(judge(Evidence.of({"physical": measures_of()}, PRESETS))[9])
    assert list(row) == ["id", "claim", "quality_model", "observed", "verdict", "why"]
    assert list(row["observed"]) == ["mean", "lo", "hi"]


SIMULATED = [
    "test-loss", "synth-loss", "stability", "first-place", "top-4", "penalty", "tournament",
    "throughput", "revenue", "ranking", "convergence",
]  # fmt: skip


@pytest.mark.parametrize("claim", SIMULATED)
def test_numbers_as_claimed_hold(claim):
    assert judged()[claim].verdict == "holds"


FAILING = [
    ("test-loss", "test_loss", (0.9, 1.0)), ("test-loss", "test_loss", (0.5, 1.0)),
    ("synth-loss", "synth_loss", (0.9, 1.0)), ("stability", "success_rate", (0.9, 0.9)),
    ("first-place", "first_place_rate", (0.5, 0.2)),
    ("first-place", "first_place_rate", (0.95, 0.5)),
    ("top-4", "top4_rate", (0.9, 0.5)), ("top-4", "top4_rate", (0.98, 0.7)),
    ("penalty", "penalty_rate", (0.05, 0.2)), ("penalty", "penalty_rate", (0.005, 0.05)),
    ("tournament", "tournament_win_rate", (0.7, 0.3)),
    ("tournament", "tournament_win_rate", (0.9, 0.5)),
    ("throughput", "jobs_completed", (500.0, 100.0)),
    ("revenue", "revenue_per_day", (50.0, 10.0)),
    ("ranking", "first_place_rate", (0.2, 0.9)), ("ranking", "test_loss", (1.0, 0.7)),
    ("convergence", "tokens_trained", (6e6, 1e6)),
]  # fmt: skip


@pytest.mark.parametrize(("claim", "metric", "values"), FAILING)
def test_an_interval_wholly_outside_fails_even_in_one_half(claim, metric, values):
    verdict = judged(**{metric: values})[claim]
    assert verdict.verdict == "fails"
    assert "outside the claim" in verdict.why


STRADDLING = [
    ("test-loss", "test_loss", (0.75, 1.0)), ("stability", "success_rate", (0.95, 0.9)),
    ("first-place", "first_place_rate", (0.9, 0.2)), ("top-4", "top4_rate", (0.98, 0.6)),
    ("throughput", "jobs_completed", (100.0, 100.0)),
    ("revenue", "revenue_per_day", (50.0, 50.0)),
    ("convergence", "tokens_trained", (3e6, 1e6)),
]  # fmt: skip


@pytest.mark.parametrize(("claim", "metric", "values"), STRADDLING)
def test_an_interval_across_the_claim_is_no_verdict(claim, metric, values):
    verdict = judged(**{metric: values})[claim]
    assert verdict.verdict == "cannot judge"
    assert "straddles the claim: more replications" in verdict.why
    assert verdict.observed.lo < verdict.observed.mean < verdict.observed.hi


def test_the_observed_number_is_the_one_with_four_slots_or_the_paired_one():
    found = judged()
    assert found["first-place"].observed.mean == pytest.approx(0.95)
    assert found["test-loss"].observed.mean == pytest.approx(0.3, abs=0.001)
    assert found["revenue"].observed.mean == pytest.approx(40.0)
    assert found["ranking"].observed.mean == pytest.approx(0.75)
    assert "with 24 slots 20.0%" in found["first-place"].why


def test_a_difference_of_exactly_nothing_is_not_more():
    evidence = Evidence.of({"neutral": measures_of()}, PRESETS)
    for values in evidence.measures["neutral"].values():
        values["revenue_per_day"] = [5.0] * 10
    found = {v.id: v for v in judge(evidence)}["revenue"]
    assert (found.verdict, found.observed) == ("fails", Estimate(0.0, 0.0, 0.0))
    assert "in every replication" in found.why


def test_the_claims_model_assumes_its_inputs_and_confirms_none_of_them():
    found = judged("claims")
    for claim in ("test-loss", "synth-loss", "stability"):
        assert found[claim].verdict == "assumed"
        assert found[claim].observed is not None
    # what it does not assume is judged by what follows
    assert found["penalty"].verdict == "holds"
    assert judged("claims", penalty_rate=(0.05, 0.1))["penalty"].verdict == "fails"
    # and the recommendation by first places alone, since its lower loss is put in
    assert judged("claims", test_loss=(1.0, 0.5))["ranking"].verdict == "holds"
    assert "assumed" in found["ranking"].why


def test_the_neutral_model_s_equal_losses_are_called_a_consequence():
    found = judged("neutral", test_loss=(1.0, 1.0))["test-loss"]
    assert found.verdict == "fails"
    assert "no evidence" in found.why
    assert "no evidence" not in judged("physical", test_loss=(1.0, 1.0))["test-loss"].why


@pytest.mark.parametrize("model", ["claims", "neutral", "calibrated"])
def test_only_the_physical_model_knows_single_factors(model):
    found = judged(model)
    for claim in ("batch", "rank", "gradient", "memory-effect"):
        assert (found[claim].verdict, found[claim].observed) == ("cannot judge", None)
    assert (found["convergence"].verdict == "holds") == (model == "calibrated")


def test_rank_by_the_published_exponents():
    # 16 ** 0.0017 = 1.0047, 16 ** -0.0044 = 0.9879, 16 ** -0.00022 = 0.9994
    effects = rank_effects(2048 / 128)
    assert [round(100 * effects[name], 2) for name in ("WMT14", "WMT19", "MLSum")] == [
        -0.47, 1.21, 0.06,
    ]  # fmt: skip
    found = judged()["rank"]
    assert found.verdict == "fails"
    assert found.observed == Estimate(np.mean(list(effects.values())), None, None)
    assert "rank 128 to 2048" in found.why


def test_a_larger_batch_never_lowers_the_loss_at_the_same_tokens():
    assert effective_batch(ACCURACY_4) == 32 * 2
    assert effective_batch(THROUGHPUT_24) == 4 * 8
    # half as good data: 2 ** 0.081 = 1.0578 times the reducible loss
    assert batch_effects(2.0) == (pytest.approx(1 - 2**0.081), 0.0)
    assert batch_effects(0.5) == (0.0, pytest.approx(1 - 0.5**0.081))
    assert batch_effects(1.0) == (0.0, 0.0)
    assert judged()["batch"].verdict == "fails"


def test_a_factor_whose_range_straddles_the_claim_is_no_verdict():
    # 64 rows instead of 400,000: up to 1 - (64 / 400,000) ** 0.081 = 51% lower, or nothing
    profile = replace(THROUGHPUT_24.profile, gradient_accumulation_steps=100_000)
    presets = {"accuracy_4": ACCURACY_4, "wide": replace(THROUGHPUT_24, profile=profile)}
    found = {v.id: v for v in judge(Evidence.of({"physical": {}}, presets))}["batch"]
    assert found.verdict == "cannot judge"
    assert "0.0% to 50.7%" in found.why


def test_accumulated_gradients_are_whole():
    assert judged()["gradient"].verdict == "fails"
    assert judged()["gradient"].observed == Estimate(0.0, None, None)
    assert judged()["memory-effect"].verdict == "cannot judge"


def test_convergence_counts_tokens_of_one_job():
    totals = {"tokens_trained": (250e6, 500e6), "jobs_completed": (100.0, 500.0)}
    assert judged(**totals)["convergence"].verdict == "fails"
    found = judged(tokens_are_totals=True, **totals)["convergence"]
    assert found.verdict == "holds"
    assert found.observed.mean == pytest.approx(2.5, abs=0.01)
    assert "15.0% has no mapping" in found.why


def test_fragmentation_is_judged_by_a_measurement_alone():
    assert judged()["fragmentation"].verdict == "cannot judge"
    assert judged(sharing_slowdown=(1.2, 1.25, 1.22))["fragmentation"].verdict == "holds"
    assert judged(sharing_slowdown=(0.9, 0.91, 0.9))["fragmentation"].verdict == "fails"


def test_memory_is_arithmetic():
    found = judged()["memory"]
    assert (found.verdict, found.observed) == ("holds", Estimate(160.0, None, None))
    assert "640 GB in all: 160 GB a job with 4, 26.7 GB with 24" in found.why


# with 81 GB the 24 slots' 27 GB are still about 26, but the pairs' 162 are not 160
@pytest.mark.parametrize(("gpu_gb", "slot_gb"), [(40.0, 80.0), (81.0, 162.0)])
def test_memory_of_another_box_is_another_number(gpu_gb, slot_gb):
    presets = {name: replace(preset, gpu_memory_gb=gpu_gb) for name, preset in PRESETS.items()}
    found = {v.id: v for v in judge(Evidence.of({"neutral": {}}, presets))}["memory"]
    assert (found.verdict, found.observed.mean) == ("fails", slot_gb)


def test_the_profile_fits_no_model_s_pair():
    found = judged()["fits"]
    needs = [least_gb(model) for model in MODELS]
    assert found.verdict == "fails"
    assert needs == sorted(needs)
    assert min(needs) > usable_gb(80.0)
    assert found.observed == Estimate(min(needs), None, None)
    assert "planner: not one row" in found.why


def test_without_one_of_the_presets_only_arithmetic_is_left():
    measures = {"physical": {"accuracy_4": measures_of()["accuracy_4"], "maximum_2": {}}}
    presets = {"accuracy_4": ACCURACY_4, "maximum_2": MAXIMUM_2}
    found = {v.id: v for v in judge(Evidence.of(measures, presets))}
    assert found["revenue"].why == "the comparison has no preset with 24 slots"
    assert found["first-place"].verdict == found["rank"].verdict == "cannot judge"
    assert found["stability"].verdict == "holds"
    assert found["memory"].verdict == "holds"


def test_the_first_preset_of_a_cap_is_taken_whatever_its_name():
    presets = {
        "two": MAXIMUM_2,
        "mine": ACCURACY_4.varied(name="mine"),
        "second": ACCURACY_4,
        "many": ACCURACY_4.varied(cap=24, name="many"),
    }
    evidence = Evidence.of({}, presets)
    assert (evidence.four, evidence.twenty_four) == ("mine", "many")


def test_a_measure_that_is_missing_or_unknown_is_said():
    evidence = Evidence.of({"physical": measures_of()}, PRESETS)
    del evidence.measures["physical"]["throughput_24"]["revenue_per_day"]
    evidence.measures["physical"]["accuracy_4"]["success_rate"] = [math.nan] * 10
    evidence.measures["physical"]["throughput_24"]["test_loss"] = [0.0] * 10
    found = {v.id: v for v in judge(evidence)}
    assert found["revenue"].why == "the run gave no revenue_per_day of throughput_24"
    assert "no replication gave a value" in found["stability"].why
    assert "no share" in found["test-loss"].why
    for claim in ("revenue", "stability", "test-loss"):
        assert found[claim].verdict == "cannot judge"


def test_one_replication_has_no_interval_and_no_verdict():
    measures = {
        preset: {metric: values[:1] for metric, values in kept.items()}
        for preset, kept in measures_of().items()
    }
    found = {v.id: v for v in judge(Evidence.of({"physical": measures}, PRESETS))}
    for claim in SIMULATED:
        assert found[claim].verdict == "cannot judge"
        assert "one replication" in found[claim].why


def test_the_document_s_contradictions_are_computed():
    factors, success, batches = contradictions()
    # 1.40 x 1.25 x 1.30 x 1.20 x 1.15 = 3.1395, whose inverse is 0.3185
    assert "3.1 times" in factors
    assert "68.1% lower" in factors
    assert "no stated mapping to loss" in factors
    assert "5 times" in success
    assert "over 99.0%" in success
    assert "16 to 64 rows a GPU with 4 jobs and 16 to 64 with 24" in batches
