"""The admission core: is there a slot, and which. Every decision on capacity is made here.

``Machine.handle`` and the column-wise replay both call it; there is no second copy.
"""

from shared.decisions import Gate

_DRAINING, _STORAGE, _CAPACITY = int(Gate.DRAINING), int(Gate.STORAGE), int(Gate.CAPACITY)


class Admission:
    """The slots of one box as bit masks, bit i for slot i, and the states that close the box.

    ``admit`` and ``release`` are the hot path of the simulator, so the state is plain integers:
    ``free`` holds the slots that are neither held by a job nor out of service.
    """

    __slots__ = ("_closed", "_out", "_out_and_held", "cap", "free")

    def __init__(self, cap: int) -> None:
        """An empty box of ``cap`` slots, open."""
        self.cap = cap
        self.free = (1 << cap) - 1
        self._closed = 0
        self._out = 0
        self._out_and_held = 0

    def admit(self, static_gate: int) -> int:
        """Decide one offer whose static gate is known; returns a slot, or minus a gate code.

        An accepted offer's slot, the lowest free one, is taken with this call.
        """
        if self._closed:
            return -self._closed
        free = self.free
        if not free:
            return -_CAPACITY
        if static_gate:
            return -static_gate
        lowest = free & -free
        self.free = free ^ lowest
        return lowest.bit_length() - 1

    def release(self, slot: int) -> None:
        """The slot's processes are gone; it is free again, unless it is out of service."""
        bit = 1 << slot
        if bit & self._out:
            self._out_and_held &= ~bit
        else:
            self.free |= bit

    def shut_gate(self) -> int:
        """The gate code that refuses every offer now, or 0 while offers are decided singly."""
        return self._closed or (0 if self.free else _CAPACITY)

    def take_out(self, slots: int) -> None:
        """Exactly the slots of this mask are out of service from here on."""
        every = (1 << self.cap) - 1
        held = (every & ~self.free & ~self._out) | self._out_and_held
        self._out = slots
        self._out_and_held = held & slots
        self.free = every & ~held & ~slots

    def close(self, *, draining: bool, storage: bool) -> None:
        """Enter or leave the states that refuse every offer; draining is named first."""
        self._closed = _DRAINING if draining else _STORAGE if storage else 0

    def in_use(self) -> int:
        """Slots that count against capacity: held by a job, or out of service."""
        return self.cap - self.free.bit_count()

    def copy(self) -> "Admission":
        """The same slots, to come back to."""
        twin = Admission(self.cap)
        for name in self.__slots__:
            setattr(twin, name, getattr(self, name))
        return twin
