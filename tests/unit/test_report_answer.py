"""The answer in words: made from numbers that are known, so that a wrong word is seen."""

import pytest

from shared.decisions import Gate
from sim.comparison import Comparison
from sim.experiment import ADVANTAGES, Replication, World
from sim.measures import METRICS
from sim.report.answer import answer
from sim.report.dependence import assumed
from sim.report.parameters import parameters_of
from sim.report.short import in_short
from sim.report.standing import REVENUE, leader
from sim.scenario import parse_scenario

MODELS = ("physical", "claims", "neutral")
PAIR = ["accuracy_4", "throughput_24"]
NAN = float("nan")


def made(told, presets=PAIR, advantage=None, **content):
    """A comparison in which every measure is 0.5 except those told.

    told: measure to preset to values of the replications, the same under each model; or with the
    model before it, as "claims:revenue_per_day".
    """
    names = [entry if isinstance(entry, str) else entry["name"] for entry in presets]
    count = len(next(iter(next(iter(told.values())).values())))
    world = World(parse_scenario({"name": "trial", "days": 3, "presets": presets, **content}, "x"))

    def value(model, name, metric, number):
        for key in (f"{model}:{metric}", metric):
            if key in told and name in told[key]:
                return told[key][name][number]
        return 0.5

    done = tuple(
        Replication(
            number,
            {model: {name: {metric: value(model, name, metric, number) for metric in METRICS}
                     for name in names} for model in MODELS},
            {name: {gate.label: 1 for gate in Gate} for name in names},
            tuple((advantage or {}).get(lower, 0.0) + number / 1e6 for lower in ADVANTAGES),
        )
        for number in range(count)
    )  # fmt: skip
    return Comparison(world, count, done, "physical")


def revenue(four, many):
    return {"revenue_per_day": dict(zip(PAIR, (four, many), strict=True))}


def told(comparison):
    return " ".join(answer(comparison).primary)


def test_who_earns_more_stands_first_whatever_the_order():
    four, many = [6.0, 7.0, 8.0, 7.0], [14.0, 15.0, 14.0, 13.0]
    found = told(made(revenue(four, many)))
    assert "throughput_24 (24 slots of 1/3 GPU) earns more than accuracy_4 (4 slots of 2 GPUs)" in (
        found
    )
    assert "14.00 tokens a day against 7.00, 7.00 more [5.16 to 8.84], 2 times as much" in found
    assert "throughput_24 earned more in 4 of 4 replications (probability 100.0% [51.0% to" in found
    turned = told(made(revenue(many, four)))
    assert "accuracy_4 (4 slots of 2 GPUs) earns more than throughput_24" in turned


def test_what_is_not_sure_is_not_said_to_be_more():
    found = told(made(revenue([1.0, 9.0, 2.0], [5.0, 3.0, 6.0])))
    assert "earns more cannot be told: 4.67 tokens a day against 4.00" in found
    assert "earns more than" not in found


def test_presets_that_are_alike_earn_the_same():
    found = told(made(revenue([2.0, 3.0], [2.0, 3.0])))
    assert "earn the same, 2.50 tokens a day" in found
    assert "Both rank the same" in found


def test_one_replication_claims_nothing():
    comparison = made(revenue([2.0], [3.0]))
    assert "in the one replication: 3.00 tokens a day against 2.00; how sure is not known" in told(
        comparison
    )
    assert "cannot say how sure it is" in in_short(comparison)
    assert "Brackets" not in answer(comparison).paragraph


def test_ranks_that_are_not_known_are_said_to_be_so():
    unknown = {PAIR[0]: [NAN, NAN], PAIR[1]: [NAN, NAN]}
    comparison = made({"first_place_rate": unknown, "mean_rank_percentile": unknown})
    assert "ranks are not known" in told(comparison)
    assert "nan" not in answer(comparison).paragraph


@pytest.mark.parametrize(
    ("first", "mean", "words"),
    [
        (([0.5, 0.51], [0.1, 0.11]), ([0.9, 0.9], [0.9, 0.9]),
         "accuracy_4 ranks higher: first place in 50.5% of the jobs of accuracy_4 against 10.5%"),
        (([0.1, 0.11], [0.5, 0.51]), ([0.9, 0.9], [0.9, 0.9]),
         "throughput_24 ranks higher: first place in 50.5% of the jobs of throughput_24 against"),
        (([0.1, 0.11], [0.5, 0.51]), ([0.9, 0.91], [0.1, 0.11]), "do not agree"),
        (([0.1, 0.3], [0.2, 0.1]), ([0.5, 0.3], [0.4, 0.6]), "Which ranks higher cannot be told"),
    ],
)  # fmt: skip
def test_ranks(first, mean, words):
    rates = {
        "first_place_rate": dict(zip(PAIR, first, strict=True)),
        "mean_rank_percentile": dict(zip(PAIR, mean, strict=True)),
    }
    assert words in told(made(rates))


def test_each_other_model_has_its_own_sentence():
    comparison = made(
        {**revenue([1.0, 1.1], [2.0, 2.2]),
         "claims:revenue_per_day": {PAIR[0]: [9.0, 9.1], PAIR[1]: [0.0, 0.0]}}
    )  # fmt: skip
    claims, neutral = answer(comparison).others
    assert "(claims model), accuracy_4 earns more than throughput_24: 9.05" in claims
    assert "(neutral model), throughput_24 earns more than accuracy_4: 2.10" in neutral
    short = in_short(comparison)
    assert "under the physical and neutral models throughput_24 earns more" in short
    assert "under the claims model accuracy_4 earns more" in short


def test_the_break_even_is_told_with_the_losses_as_simulated():
    line = {lower: 100 * lower for lower in ADVANTAGES}
    found = " ".join(
        answer(
            made(
                {**revenue([0.0, 0.0], [12.0, 12.0]),
                 "claims:test_loss": {PAIR[0]: [0.8, 0.8], PAIR[1]: [1.0, 1.0]}},
                advantage=line,
            )
        ).depends
    )  # fmt: skip
    assert "accuracy_4 earns as much as throughput_24 once its losses are 12.00%" in found
    assert "straight line" not in found
    assert "0.0% (physical), 20.0% (claims) and 0.0% (neutral)" in found


@pytest.mark.parametrize(
    ("many", "line", "words"),
    [
        (0.0, 5.0, "earns more than throughput_24 even without any advantage"),
        (9.0, 5.0, "even losses 60% lower would not let accuracy_4 earn as much as throughput_24"),
    ],
)
def test_no_break_even_is_told_too(many, line, words):
    comparison = made(revenue([1.0, 1.0], [many, many]), advantage=dict.fromkeys(ADVANTAGES, line))
    assert words in " ".join(answer(comparison).depends)


def test_a_crossing_between_the_first_shares_tried_says_so():
    line = {lower: 100 * lower for lower in ADVANTAGES}
    comparison = made(revenue([0.0, 0.0], [0.1, 0.1]), advantage=line)
    found = " ".join(answer(comparison).depends)
    assert "0.10%" in found
    assert f"straight line between 0.00% and {100 * ADVANTAGES[1]:.2f}%" in found


def test_the_recommendation_is_judged_by_the_claims():
    comparison = made(
        {"claims:first_place_rate": {PAIR[0]: [0.9, 0.91], PAIR[1]: [0.1, 0.1]},
         "neutral:first_place_rate": {PAIR[0]: [0.1, 0.1], PAIR[1]: [0.9, 0.91]},
         **revenue([1.0, 1.0], [3.0, 3.1])}
    )  # fmt: skip
    found = " ".join(answer(comparison).depends)
    assert "advice, 4 slots for top ranking, is borne out under claims" in found
    assert "is not borne out under" in found
    assert "24 slots earn more is borne out under physical, claims and neutral" in found


def test_without_both_presets_the_recommendation_is_not_judged():
    comparison = made({REVENUE: {"accuracy_4": [1.0, 2.0]}}, presets=["accuracy_4"])
    assert "needs both among the presets" in " ".join(answer(comparison).depends)
    assert "nothing to compare accuracy_4 with" in in_short(comparison)


def test_of_many_presets_the_best_and_its_rivals_are_named():
    presets = [{"base": "accuracy_4", "name": f"cap_{cap}", "cap": cap} for cap in (4, 8, 24)]
    comparison = made(
        {REVENUE: {"cap_4": [1.0, 1.1, 1.2], "cap_8": [5.0, 5.2, 5.4], "cap_24": [5.1, 5.1, 5.3]}},
        presets=presets,
    )
    found = leader(comparison, REVENUE)
    assert (found.name, found.rivals) == ("cap_8", ["cap_24"])
    words = told(comparison)
    assert "cap_8 (8 slots of 1 GPU) earns most" in words
    assert "(cap_24 cannot be told apart from it)" in words
    assert "cap_24 earns more than cap_4" in words
    assert "cap_8 (not surely) earns most" in in_short(comparison)


def test_what_is_assumed_is_counted_and_the_field_is_named():
    comparison = made(revenue([1.0, 1.0], [2.0, 2.0]), market={"field": "weak"})
    count = sum(each.assumed for each in parameters_of(comparison))
    found = assumed(comparison)
    assert count > 10
    assert f"{count} numbers in all have no public source" in found
    assert "a weak field of 60 competitors, whose median loss is 115%" in found


def test_a_price_makes_it_money():
    comparison = made(revenue([1.0, 1.0], [2.0, 2.1]), market={"price": 3.0})
    assert "2.05 of your currency a day" in told(comparison)
