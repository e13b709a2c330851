"""Questions to the driver of the GPUs, which may take for ever to answer."""

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from live.gpus import GpuError

ANSWER_S = 10.0
"""How long the driver may take for an answer; a GPU that fell off the bus can take for ever."""
_Answer = TypeVar("_Answer")


class DriverThread:
    """Asks the driver away from the event loop; a question that hangs is given up on."""

    def __init__(self, answer_s: float = ANSWER_S) -> None:
        self._answer_s = answer_s
        self._turn = asyncio.Lock()
        self._working = False

    async def ask(self, question: Callable[[], _Answer]) -> _Answer:
        """The answer. Raises GpuError, what the question raises, or when none comes in time."""
        async with self._turn:
            if self._working:
                raise GpuError("the driver has not answered an earlier question yet")
            loop = asyncio.get_running_loop()
            future: asyncio.Future[_Answer] = loop.create_future()
            self._working = True
            work = partial(self._work, question, future, loop)
            threading.Thread(target=work, daemon=True, name="nvml").start()
            try:
                async with asyncio.timeout(self._answer_s):  # wait_for can lose a cancellation
                    return await future
            except TimeoutError:
                late = f"the driver has not answered in {self._answer_s:g} s"
                raise GpuError(late) from None

    def _work(
        self,
        question: Callable[[], _Answer],
        future: "asyncio.Future[_Answer]",
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        try:
            done = partial(_settle, future, answer=question())
        except Exception as why:
            done = partial(_settle, future, error=why)
        self._working = False
        with suppress(RuntimeError):  # the loop is closed: nobody waits any longer
            loop.call_soon_threadsafe(done)


def _settle(
    future: "asyncio.Future[Any]", answer: object = None, error: Exception | None = None
) -> None:
    if future.done():
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(answer)
