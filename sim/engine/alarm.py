"""A SimPy event that can be armed again, so that a long run makes few objects."""

from collections.abc import Callable
from typing import Any

import simpy
from simpy.events import EventPriority


class Alarm(simpy.Event):
    """Calls ``callback(alarm)`` each time it goes off; armed again, it costs no new event.

    The rank of what happens is handed to SimPy as the priority, so SimPy's own order (time,
    priority, insertion) is the handling order (time, rank) of the policy.
    """

    def __init__(self, env: simpy.Environment, callback: Callable[[Any], None]) -> None:
        """An alarm that is not armed yet."""
        super().__init__(env)
        self._ok = True  # as simpy.Timeout does: it succeeds when it is processed
        self._value = None
        self.armed: list[Callable[[Any], None]] = [callback]

    def arm(self, rank: int, delay: int) -> None:
        """Go off ``delay`` milliseconds from now. It must not be armed already."""
        self.callbacks = self.armed
        self.env.schedule(self, EventPriority(rank), delay)
