"""The priority formulas against the specification's arithmetic, written out a second time."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.decisions import facts_of, priority_of
from shared.errors import InputError
from shared.offers import Offer, model_name, params_b, size_in_name
from shared.presets import ACCURACY_4, DEFAULT_TABLES, MAXIMUM_2, PRESETS, THROUGHPUT_24
from shared.presets import UNIVERSAL_24 as UNIVERSAL
from shared.priority import Facts, Tables, TimeAndSize, WeightedSum, WeightedTerms

FRACTION = st.floats(0, 1)
HOURS = st.floats(0, 10_000, exclude_min=True)
BILLIONS = st.floats(0, 2**53 / 10**9)


def offer(
    model: str = "m/other",
    task_type: str = "InstructTextTask",
    hours: float = 5.0,
    params: int | None = None,
) -> Offer:
    return Offer("t", model, task_type, hours, None, params)


@given(FRACTION, FRACTION, FRACTION, HOURS, BILLIONS)
def test_weighted_terms_is_the_document_s_formula(
    tw: float, fp: float, ts: float, hours: float, size: float
) -> None:
    expected = min(tw * 0.20 + fp * 0.20 + ts * 0.20 + 0.30 + 0.25, 1.0)
    for preset in (ACCURACY_4, THROUGHPUT_24):
        assert preset.formula.score(Facts(tw, fp, ts, hours, size)) == expected


@given(FRACTION, FRACTION, FRACTION, HOURS, BILLIONS)
def test_weighted_sum_is_maximum_2_s_formula(
    tw: float, fp: float, ts: float, hours: float, size: float
) -> None:
    expected = min(0.15 * (tw + fp + ts) + 0.40 + 0.35, 1.0)
    assert MAXIMUM_2.formula.score(Facts(tw, fp, ts, hours, size)) == expected


@given(FRACTION, FRACTION, FRACTION, HOURS, BILLIONS)
def test_time_and_size_is_universal_24_s_formula(
    tw: float, fp: float, ts: float, hours: float, size: float
) -> None:
    expected = max(
        0.25 * (tw + fp + ts) + 0.10 / max(hours, 1) + 0.05 * min(1, 100 / max(size, 1)) + 0.25,
        0.50,
    )
    assert UNIVERSAL.formula.score(Facts(tw, fp, ts, hours, size)) == expected


def test_left_to_right_shows_in_the_last_bit() -> None:
    """Another order of the same additions gives another double somewhere: ours is the written."""
    facts = Facts(0.25, 0.95, 0.95, 1, 1)
    assert ACCURACY_4.formula.score(facts) == 0.25 * 0.20 + 0.95 * 0.20 + 0.95 * 0.20 + 0.30 + 0.25
    low = Facts(0.05, 0.35, 0.1, 1, 1)
    assert ACCURACY_4.formula.score(low) == 0.6499999999999999
    assert 0.05 * 0.20 + 0.35 * 0.20 + 0.1 * 0.20 + (0.30 + 0.25) == 0.65
    assert 0.20 * (0.05 + 0.35 + 0.1) + 0.30 + 0.25 == 0.65


def test_ceilings_and_floor() -> None:
    top = Facts(1.0, 1.0, 1.0, 0.01, 0.01)
    assert ACCURACY_4.formula.score(top) == 1.0
    assert MAXIMUM_2.formula.score(top) == 1.0
    assert UNIVERSAL.formula.score(Facts(0.0, 0.0, 0.0, 10_000, 9e6)) == 0.50
    assert WeightedTerms(0.5, 0.5, 0.5, ceiling=0.9).score(top) == 0.9
    assert WeightedSum(0.5, 0.5, 0.5, ceiling=0.8).score(top) == 0.8


def test_hours_and_size_below_one_count_as_one() -> None:
    formula = UNIVERSAL.formula
    at_one = formula.score(Facts(0.25, 0.75, 0.9, 1, 1))
    assert formula.score(Facts(0.25, 0.75, 0.9, 0.25, 0.1)) == at_one
    assert formula.score(Facts(0.25, 0.75, 0.9, 2, 1)) < at_one


def test_size_counts_only_over_the_cap() -> None:
    formula = UNIVERSAL.formula
    assert isinstance(formula, TimeAndSize)
    small, at_cap, over = (formula.score(Facts(0.25, 0.75, 0.9, 1, b)) for b in (1, 100, 200))
    assert small == at_cap
    assert math.isclose(at_cap - over, 0.025)


@pytest.mark.parametrize(
    ("model", "task_type", "expected"),
    [
        ("m/llama-3", "InstructTextTask", 0.98),
        ("m/llama-3", "GrpoTask", 0.98),
        ("m/llama-3", "ChatTask", 0.97),
        ("m/mistral-7b", "DpoTask", 0.96),
        ("m/qwen2", "ImageTask", 0.95),
        ("m/other", "ChatTask", 0.93),
        ("m/phi-2", "ChatTask", 0.93),
        ("m/other", "NeverHeardOfTask", 0.93),
    ],
)
def test_accuracy_4_by_hand(model: str, task_type: str, expected: float) -> None:
    assert priority_of(offer(model, task_type), ACCURACY_4) == pytest.approx(expected, abs=1e-12)


def test_default_tables_keep_p_between_0_930_and_0_980_and_maximum_2_at_1() -> None:
    """What the specification tells the user about this formula."""
    families = [*DEFAULT_TABLES.family_performance, "none of them"]
    tasks = [*DEFAULT_TABLES.task_weight, "UnknownTask"]
    offers = [offer(f"m/{family}", task) for family in families for task in tasks]
    found = [priority_of(each, ACCURACY_4) for each in offers]
    assert round(min(found), 12) == 0.93
    assert round(max(found), 12) == 0.98
    assert {priority_of(each, MAXIMUM_2) for each in offers} == {1.0}


def test_priority_is_a_plain_float_even_where_everything_is_an_int() -> None:
    tables = Tables({}, {}, {}, 1, 1, 1)
    preset = MAXIMUM_2.__class__(
        "ints", 1, 72, None, WeightedSum(1, 1, 1, 5), tables, MAXIMUM_2.messages, MAXIMUM_2.profile
    )
    found = priority_of(offer(), preset)
    assert isinstance(found, float)
    assert found == 5.0


def test_unknown_keys_take_the_defaults() -> None:
    facts = facts_of(offer("m/other", "UnknownTask", 3.0, 2_500_000_000), ACCURACY_4)
    assert facts == Facts(0.25, 0.75, 0.90, 3.0, 2.5)


def test_tables_are_data() -> None:
    tables = Tables(
        task_weight={"A": 0.5},
        family_performance={"llama": 0.1},
        task_success={"A": 0.2},
        default_task_weight=0.3,
        default_family_performance=0.4,
        default_task_success=0.6,
    )
    assert (tables.weight_of("A"), tables.weight_of("B")) == (0.5, 0.3)
    assert (tables.success_of("A"), tables.success_of("B")) == (0.2, 0.6)
    assert (tables.performance_of("llama"), tables.performance_of("qwen")) == (0.1, 0.4)
    assert tables.performance_of(None) == 0.4


def test_table_lookup_is_exact_about_the_task_type_s_case() -> None:
    assert DEFAULT_TABLES.success_of("InstructTextTask") == 0.95
    assert DEFAULT_TABLES.success_of("instructtexttask") == 0.90


@pytest.mark.parametrize(
    ("model", "count", "expected"),
    [
        ("m/llama-7b", 8_030_261_248, 8.030261248),  # the count comes first
        ("m/llama-70b", 0, 0.0),  # a count of nothing is a count
        ("m/llama-7b", None, 7.0),
        ("facebook/opt-1.3b", None, 1.3),
        ("Qwen/Qwen2.5-Coder-32B-Instruct", None, 32.0),
        ("mistralai/Mixtral-8x7B-v0.1", None, 7.0),
        ("Qwen/Qwen3-30B-A3B", None, 30.0),
        ("TheBloke/Yi-34B-GPTQ", None, 34.0),
        ("13b-owner/phi-2", None, 7.0),  # the owner's name does not count
        ("unsloth/model-bnb-4bit", None, 7.0),  # bits are no billions
        ("unsloth/llama-3-8b-bnb-4bit", None, 8.0),
        ("bigscience/bloomz-560m", None, 7.0),
        ("m/phi-2", None, 7.0),
        ("m/phi-2", 2**53, 2**53 / 10**9),
    ],
)
def test_params_b(model: str, count: int | None, expected: float) -> None:
    assert params_b(model, count) == expected
    for preset in PRESETS.values():
        assert facts_of(offer(model, params=count), preset).params_b == expected


def test_size_in_name_and_model_name() -> None:
    assert size_in_name("m/phi-2") is None
    assert size_in_name("TinyLlama-1.1B-Chat") == 1.1
    assert model_name("owner/name") == "name"
    assert model_name("name") == "name"


def test_a_family_that_is_never_detected_is_refused():
    with pytest.raises(InputError, match="found 'mixtral', which is never detected"):
        Tables(task_weight={}, family_performance={"mixtral": 0.1}, task_success={})
