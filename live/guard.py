"""Parts of the daemon that it cannot be without: one that dies is told at once, and ends it."""

import asyncio
import logging
from collections.abc import Iterable
from functools import partial

log = logging.getLogger(__name__)


class Guard:
    """Watches tasks. broken: set when one has died, which ``why`` tells then."""

    def __init__(self) -> None:
        self.broken = asyncio.Event()
        self.why = ""

    def watch(
        self, tasks: "Iterable[asyncio.Task[None]]", stop: asyncio.Event, *, endless: bool = False
    ) -> None:
        """Watch tasks until ``stop`` is set.

        endless: to end without an error, before it is told to, is to die too.
        """
        for task in tasks:
            task.add_done_callback(partial(self._over, stop=stop, endless=endless))

    def _over(self, task: "asyncio.Task[None]", *, stop: asyncio.Event, endless: bool) -> None:
        if task.cancelled() or stop.is_set():
            return
        why, name = task.exception(), task.get_name()
        if why is None and not endless:
            return
        log.critical("%s died: the daemon ends and its jobs go on", name, exc_info=why)
        if not self.broken.is_set():
            said = f": {type(why).__name__}: {' '.join(str(why).split())}" if why else ""
            self.why = f"{name} died{said}"
            self.broken.set()
