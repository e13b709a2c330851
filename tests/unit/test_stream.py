import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.stream import UNKNOWN, Labels, OfferStream, in_handling_order, taken


def stream(offers: list[tuple[int, str]]) -> OfferStream:
    n = len(offers)
    codes = np.arange(n, dtype=np.int32) % 2
    return OfferStream(
        at_ms=np.array([at for at, _ in offers], dtype=np.int64),
        task_id=pa.array([task for _, task in offers], pa.string()),
        model=Labels(codes, ("m0", "m1")),
        task_type=Labels(codes, ("t0", "t1")),
        hours=np.arange(n, dtype=np.float64) + 1,
        ds_size=np.where(codes == 0, UNKNOWN, 5),
        params=np.where(codes == 0, UNKNOWN, 7),
        train_ms=np.arange(n, dtype=np.int64),
    )


def pairs(found: OfferStream) -> list[tuple[int, str]]:
    return list(zip(found.at_ms.tolist(), found.task_id.to_pylist(), strict=True))


texts = st.text(st.sampled_from("aZé\uff5e\U0001f600 0"), min_size=1, max_size=3)
offer_lists = st.lists(st.tuples(st.integers(0, 4), texts), min_size=1, max_size=12)


@given(offer_lists)
def test_handling_order_is_time_then_code_points(offers: list[tuple[int, str]]) -> None:
    found = in_handling_order(stream(offers))
    assert pairs(found) == sorted(offers)
    assert in_handling_order(found) is found


@given(offer_lists)
def test_previous_is_the_last_offer_of_the_same_task(offers: list[tuple[int, str]]) -> None:
    found = in_handling_order(stream(offers))
    tasks = found.task_id.to_pylist()
    expected = [
        max((j for j in range(i) if tasks[j] == task), default=-1) for i, task in enumerate(tasks)
    ]
    if found.previous is None:
        assert set(expected) == {-1}
    else:
        assert found.previous.tolist() == expected


def test_an_offer_is_what_its_columns_say() -> None:
    first, second = (stream([(1, "a"), (2, "b")]).offer(i) for i in range(2))
    assert (first.task_id, first.model, first.task_type) == ("a", "m0", "t0")
    assert (first.ds_size, first.model_params_count, first.hours_to_complete) == (None, None, 1.0)
    assert (second.ds_size, second.model_params_count) == (5, 7)


def test_a_part_keeps_every_column_together() -> None:
    part = taken(stream([(1, "a"), (2, "b"), (3, "c")]), np.array([2, 1]))
    assert [part.offer(i).hours_to_complete for i in range(2)] == [3.0, 2.0]
    assert pairs(part) == [(3, "c"), (2, "b")]
    assert part.train_ms.tolist() == [2, 1]


def test_columns_cannot_be_reassigned() -> None:
    with pytest.raises(AttributeError):
        stream([(1, "a")]).at_ms = np.array([2])  # type: ignore[misc]
