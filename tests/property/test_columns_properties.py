"""The column forms of priority and static gates equal the scalar forms, bit for bit."""

from dataclasses import replace
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.box import BoxDeclaration
from shared.columns import ColumnOps, priority_column, static_gate_column
from shared.decisions import Gate, Policy, facts_of, priority_of, static_gate
from shared.offers import Offer
from shared.presets import PRESETS, Preset
from shared.priority import Facts, Tables

OPS = ColumnOps(least=np.minimum, most=np.maximum, choose=np.where)
TASKS = ("InstructTextTask", "ChatTask", "DpoTask", "GrpoTask", "ImageTask", "NewTask")
MODELS = ("m/Llama-3-8B", "m/Mistral-7B", "m/gpt2", "m/gemma-2-27b", "m/phi-2", "m/other-180b")
FRACTION = st.floats(0, 1)

offers = st.builds(
    Offer,
    task_id=st.just("t"),
    model=st.sampled_from(MODELS),
    task_type=st.sampled_from(TASKS),
    hours_to_complete=st.one_of(
        st.sampled_from((1.0, 48.0, 72.0, 72.00000000000001, 96.0, 10_000.0)),
        st.integers(1, 100),
        st.floats(0, 10_000, exclude_min=True),
    ),
    model_params_count=st.one_of(st.none(), st.integers(0, 2**53), st.integers(0, 2 * 10**11)),
)
tables = st.builds(
    Tables,
    task_weight=st.dictionaries(st.sampled_from(TASKS), FRACTION),
    family_performance=st.dictionaries(st.sampled_from(("llama", "gpt2", "gemma")), FRACTION),
    task_success=st.dictionaries(st.sampled_from(TASKS), FRACTION),
    default_task_weight=FRACTION,
    default_family_performance=FRACTION,
    default_task_success=FRACTION,
)
boxes = st.builds(
    BoxDeclaration, task_types=st.none() | st.frozensets(st.sampled_from(TASKS), max_size=6)
)


@st.composite
def presets(draw: st.DrawFn) -> Preset:
    preset = draw(st.sampled_from(list(PRESETS.values())))
    if draw(st.booleans()):
        preset = replace(preset, tables=draw(tables))
    return preset.varied(cap=draw(st.integers(1, 24)))


def columns_of(stream: list[Offer], preset: Preset) -> Facts:
    facts = [facts_of(offer, preset) for offer in stream]

    def column(name: str) -> Any:
        return np.array([getattr(each, name) for each in facts], dtype=np.float64)

    return Facts(
        column("task_weight"),
        column("family_performance"),
        column("task_success"),
        column("hours"),
        column("params_b"),
    )


def bits(values: Any) -> list[int]:
    return [int(each) for each in np.asarray(values, dtype=np.float64).view(np.int64)]


@settings(deadline=None, max_examples=200)
@given(presets(), st.lists(offers, min_size=1, max_size=30))
def test_priorities_agree_to_the_last_bit(preset: Preset, stream: list[Offer]) -> None:
    column = priority_column(Policy(preset), columns_of(stream, preset), OPS)
    assert column.dtype == np.float64
    assert column.shape == (len(stream),)
    assert bits(column) == bits([priority_of(offer, preset) for offer in stream])


@st.composite
def policies_for(draw: st.DrawFn, stream: list[Offer]) -> Policy:
    """A policy whose threshold is often a priority, or a time limit an hour, of this stream."""
    preset = draw(presets())
    attainable = [priority_of(offer, preset) for offer in stream]
    attainable = [each for each in attainable if 0 <= each <= 1]
    thresholds = st.none() | FRACTION
    if attainable:
        exact = st.sampled_from(attainable)
        beside = exact.map(lambda p: float(np.nextafter(p, 0)))
        thresholds = exact | beside | thresholds
    limits = st.sampled_from([float(offer.hours_to_complete) for offer in stream])
    preset = replace(
        preset,
        threshold=draw(thresholds),
        time_limit_hours=draw(limits | st.just(preset.time_limit_hours)),
    )
    return Policy(preset, draw(boxes))


@settings(deadline=None, max_examples=300)
@given(st.data(), st.lists(offers, min_size=1, max_size=30))
def test_static_gates_agree(data: st.DataObject, stream: list[Offer]) -> None:
    policy = data.draw(policies_for(stream))
    preset = policy.preset
    priority = priority_column(policy, columns_of(stream, preset), OPS)
    hours = np.array([offer.hours_to_complete for offer in stream], dtype=np.float64)
    refused = [policy.box.why_unsupported(offer, preset.layout) is not None for offer in stream]
    gates = static_gate_column(policy, hours, np.array(refused), priority, OPS)
    expected = [static_gate(offer, priority_of(offer, preset), policy).value for offer in stream]
    assert gates.tolist() == expected
    assert gates.shape == (len(stream),)


@settings(deadline=None, max_examples=100)
@given(presets(), offers)
def test_equal_to_the_threshold_is_a_reject_in_both_forms(preset: Preset, offer: Offer) -> None:
    """Whatever priority an offer has, a threshold at it refuses and one just below accepts."""
    p = priority_of(offer, preset)
    if not 0 < p <= 1:
        return
    hours = np.array([1.0])
    supported = np.array([False])
    short = replace(offer, hours_to_complete=1.0)
    for threshold, gate in ((p, Gate.PRIORITY), (float(np.nextafter(p, 0)), Gate.ACCEPTED)):
        policy = Policy(preset.varied(threshold=threshold))
        column = static_gate_column(policy, hours, supported, np.array([p]), OPS)
        assert column.tolist() == [gate]
        assert static_gate(short, p, policy) is gate
