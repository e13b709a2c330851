"""A question that may hang, asked on a thread of its own and given up on."""

import queue
import threading
from collections.abc import Callable
from typing import TypeVar

_Answer = TypeVar("_Answer")


def in_time(seconds: float, question: Callable[[], _Answer]) -> _Answer:
    """The answer. Raises what the question raises, TimeoutError when none comes in time."""
    answers: queue.SimpleQueue[tuple[bool, object]] = queue.SimpleQueue()

    def work() -> None:
        try:
            answers.put((True, question()))
        except Exception as why:
            answers.put((False, why))

    threading.Thread(target=work, daemon=True, name="question").start()
    try:
        good, said = answers.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"no answer in {seconds:g} s") from None
    if not good:
        assert isinstance(said, Exception)
        raise said
    return said  # type: ignore[return-value]
