"""The admission core: is there a slot, and which."""

import pytest

from shared.admission import Admission
from shared.decisions import Gate


def state(admission: Admission) -> tuple[int, int, int, int]:
    return admission.cap, admission.free, admission.in_use(), admission.shut_gate()


@pytest.mark.parametrize("cap", range(1, 25))
def test_exactly_cap_slots_from_the_lowest_up(cap: int) -> None:
    admission = Admission(cap)
    for slot in range(cap):
        assert admission.in_use() == slot
        assert admission.admit(Gate.ACCEPTED) == slot
    assert admission.in_use() == cap
    assert admission.admit(Gate.ACCEPTED) == -Gate.CAPACITY
    assert admission.in_use() == cap


def test_the_lowest_free_slot_is_taken() -> None:
    admission = Admission(4)
    for _ in range(4):
        admission.admit(0)
    admission.release(3)
    admission.release(1)
    assert [admission.admit(0) for _ in range(3)] == [1, 3, -Gate.CAPACITY]


@pytest.mark.parametrize("gate", [Gate.TIME, Gate.UNSUPPORTED, Gate.PRIORITY])
def test_a_static_refusal_takes_no_slot(gate: Gate) -> None:
    admission = Admission(1)
    assert admission.admit(gate) == -gate
    assert admission.in_use() == 0
    assert admission.admit(0) == 0
    assert admission.admit(gate) == -Gate.CAPACITY  # capacity comes first


def test_draining_then_storage_then_capacity() -> None:
    admission = Admission(1)
    assert admission.shut_gate() == 0
    admission.close(draining=False, storage=True)
    assert admission.admit(0) == -Gate.STORAGE
    admission.close(draining=True, storage=True)
    assert admission.admit(Gate.TIME) == -Gate.DRAINING
    admission.close(draining=True, storage=False)
    assert admission.shut_gate() == Gate.DRAINING
    assert admission.in_use() == 0
    admission.close(draining=False, storage=False)
    assert admission.admit(0) == 0
    assert admission.shut_gate() == Gate.CAPACITY
    admission.close(draining=False, storage=True)
    assert admission.shut_gate() == Gate.STORAGE


def test_a_slot_released_while_closed_is_free_afterwards() -> None:
    admission = Admission(2)
    admission.admit(0)
    admission.close(draining=True, storage=False)
    admission.release(0)
    assert admission.admit(0) == -Gate.DRAINING
    admission.close(draining=False, storage=False)
    assert admission.admit(0) == 0


def test_out_of_service_counts_against_capacity_and_is_not_taken() -> None:
    admission = Admission(4)
    admission.take_out(0b0101)
    assert admission.in_use() == 2
    assert [admission.admit(0) for _ in range(3)] == [1, 3, -Gate.CAPACITY]
    admission.take_out(0)
    assert admission.in_use() == 2
    assert admission.admit(0) == 0


def test_a_used_slot_out_of_service_counts_once_and_stays_out_when_its_job_is_gone() -> None:
    admission = Admission(2)
    assert admission.admit(0) == 0
    admission.take_out(0b01)
    assert admission.in_use() == 1
    admission.release(0)
    assert admission.in_use() == 1
    assert admission.admit(0) == 1
    admission.take_out(0b00)
    assert admission.admit(0) == 0


def test_a_used_slot_back_in_service_is_still_used() -> None:
    admission = Admission(1)
    admission.admit(0)
    admission.take_out(1)
    admission.take_out(0)
    assert admission.admit(0) == -Gate.CAPACITY


def test_a_copy_goes_its_own_way() -> None:
    admission = Admission(4)
    admission.admit(0)
    admission.take_out(0b1000)
    admission.close(draining=True, storage=False)
    twin = admission.copy()
    assert state(twin) == state(admission)
    assert twin.shut_gate() == Gate.DRAINING
    before = state(admission)
    twin.close(draining=False, storage=False)
    twin.take_out(0)
    twin.admit(0)
    twin.release(0)
    assert state(admission) == before
    admission.close(draining=False, storage=False)
    assert admission.admit(0) == 1
