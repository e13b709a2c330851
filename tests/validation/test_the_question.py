"""What the strategy document asks, where the answer is known beforehand."""

import pytest

from sim.comparison import Comparison, compared
from sim.experiment import World, replicate
from sim.scenario import parse_scenario

REPLICATIONS = 10

SATURATED = {
    "name": "saturated",
    "days": 10.0,
    "arrivals": {"kind": "poisson", "offers_per_hour": 12.0},
    "market": {"field": "weak"},
}
"""Far more offers than either setup can take, no box limits: capacity is the only difference."""

EVEN = {"name": "even", "days": 14.0, "market": {"field": "even"}}


def comparison(scenario: dict[str, object]) -> Comparison:
    world = World(parse_scenario(scenario, "f"))
    return compared(world, REPLICATIONS, [replicate(world, i) for i in range(REPLICATIONS)])


@pytest.fixture(scope="module")
def saturated() -> Comparison:
    return comparison(SATURATED)


@pytest.fixture(scope="module")
def even() -> Comparison:
    return comparison(EVEN)


def test_with_no_effect_of_size_and_a_weak_field_more_slots_earn_no_less(
    saturated: Comparison,
) -> None:
    neutral = saturated.by_model["neutral"]
    for name in ("accuracy_4", "throughput_24"):
        utilisation = neutral.presets[name]["slot_utilisation"]
        assert utilisation is not None
        assert utilisation.mean > 0.95  # else it would not be saturated
    gap = neutral.difference("throughput_24", "revenue_per_day").estimate
    assert gap is not None
    assert gap.hi is not None
    assert gap.hi < 0
    completed = neutral.difference("throughput_24", "jobs_completed").estimate
    assert completed is not None
    assert completed.mean < 0


def test_with_no_effect_of_size_nobody_ranks_higher(even: Comparison) -> None:
    gap = even.by_model["neutral"].difference("throughput_24", "mean_rank_percentile").estimate
    assert gap is not None
    assert gap.hi is not None
    assert abs(gap.mean) < gap.hi - gap.mean + 0.01


def test_taken_at_its_word_the_document_ranks_four_slots_higher(even: Comparison) -> None:
    claims = even.by_model["claims"]
    for metric in ("mean_rank_percentile", "first_place_rate", "top4_rate"):
        gap = claims.difference("throughput_24", metric)
        assert gap.estimate is not None
        assert gap.estimate.lo is not None
        assert gap.estimate.lo > 0
        assert gap.a_over_b is not None
        assert gap.a_over_b.mean == 1.0


def test_no_advantage_is_the_neutral_model_itself(even: Comparison) -> None:
    revenue = even.by_model["neutral"].values("accuracy_4", "revenue_per_day")
    assert [each.advantage[0] for each in even.done] == revenue
    best = [each.advantage[-1] for each in even.done]
    assert all(more > least for more, least in zip(best, revenue, strict=True))


def test_at_the_break_even_both_earn_the_same(even: Comparison) -> None:
    found = even.advantages[0]
    assert found.break_even.value is not None
    assert found.gap[0] is not None
    assert found.gap[0].mean < 0  # without an advantage 24 slots earn more
    assert found.gap[-1] is not None
    assert found.gap[-1].mean > 0
    assert found.break_even.bracket is not None
    low, high = found.break_even.bracket
    assert low <= found.break_even.value.mean <= high


def test_claims_that_a_model_assumes_are_never_confirmed(even: Comparison) -> None:
    verdicts = {(row.id, row.quality_model): row.verdict for row in even.claims}
    for claim in ("test-loss", "synth-loss", "stability"):
        assert verdicts[claim, "claims"] == "assumed"
    assert verdicts["ranking", "claims"] == "holds"
    assert verdicts["revenue", "neutral"] == "holds"
    assert verdicts["fits", "physical"] == "fails"
