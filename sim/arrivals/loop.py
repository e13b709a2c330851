"""The network in time: the validator's closed loop and the customers' tasks on top of it.

Everything a task is made of is drawn by column beforehand, each element keyed by the task's
number; only who comes when depends on what came before, so only that is Python.
"""

from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush

from shared.units import MS_PER_MINUTE, hours_to_ms
from sim.arrivals.config import NetworkArrivals
from sim.arrivals.tasks import Bools, TaskColumns, whole_ms
from sim.stream import Floats


@dataclass(frozen=True, slots=True)
class Pool:
    """The tasks of one origin, as many as can be needed.

    columns, hours: n tasks. finds_takers: bool (n, attempts), whether attempt j of task i gathers
    enough takers.
    """

    columns: TaskColumns
    hours: Floats
    finds_takers: Bools


@dataclass(slots=True)
class Loop:
    """Which tasks are active, which wait, and every attempt made. Times are epoch milliseconds.

    due: (time, organic task, attempt) still to be offered. ends: heap of the active tasks' ends.
    delayed: organic tasks between two attempts. made_at: when synthetic task i was made.
    attempts: (time, organic task, attempt) in the order they were made.
    """

    config: NetworkArrivals
    synthetic: Pool
    organic: Pool
    due: list[tuple[int, int, int]]
    ends: list[int] = field(default_factory=list)
    delayed: int = 0
    made_at: list[int] = field(default_factory=list)
    attempts: list[tuple[int, int, int]] = field(default_factory=list)

    def run(self, ticks: range, end_ms: int) -> None:
        """Look at the network at every tick, and offer organic tasks as they come."""
        heapify(self.due)
        room = min(self.config.synthetic.below_active, self.config.max_active)
        ends, due = self.ends, self.due
        durations = whole_ms(self.synthetic.hours).tolist()
        takers = self.synthetic.finds_takers[:, 0].tolist()
        for tick in ticks:
            if due and due[0][0] <= tick:
                self._offer_organic_until(tick)
            while ends and ends[0] <= tick:
                heappop(ends)
            if len(ends) < room and not self.delayed:
                number = len(self.made_at)
                self.made_at.append(tick)
                if takers[number]:  # a synthetic task nobody takes is dropped
                    heappush(ends, tick + durations[number])
        self._offer_organic_until(end_ms - 1)

    def _offer_organic_until(self, last_ms: int) -> None:
        while self.due and self.due[0][0] <= last_ms:
            at_ms, task, attempt = heappop(self.due)
            while self.ends and self.ends[0] <= at_ms:
                heappop(self.ends)
            if len(self.ends) < self.config.max_active:
                self._attempt(at_ms, task, attempt)
            else:  # the network is full: a paid task waits for the next end, first come first
                heappush(self.due, (self.ends[0], task, attempt))

    def _attempt(self, at_ms: int, task: int, attempt: int) -> None:
        self.attempts.append((at_ms, task, attempt))
        self.delayed -= attempt > 0
        if self.organic.finds_takers[task, attempt]:
            heappush(self.ends, at_ms + hours_to_ms(float(self.organic.hours[task])))
        elif attempt < self.config.organic.max_retries:
            self.delayed += 1
            wait = round(self.config.organic.retry_minutes * MS_PER_MINUTE)
            heappush(self.due, (at_ms + wait, task, attempt + 1))
