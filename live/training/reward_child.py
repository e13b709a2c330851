"""The other end of the pipes: one reward process, watched and held to its limits.

Whatever it answers is a stranger's word: lines are cut off at a length, values are read strictly,
and anything else is a fault for which the process is killed.
"""

import json
import math
import os
import selectors
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any

from live.training.reward_process import LARGEST, MOST_LINE, MOST_SAID
from live.training.reward_source import RewardSource
from shared.errors import FourSlotError

START_S = 60.0
"""For the process to come up: nothing of a stranger runs in it yet."""
LINE_BYTES, VALUE_BYTES = 4_096, 32
"""Of an answer: its frame, and each value."""
_CHUNK = 65_536
_PROCESS = Path(__file__).with_name("reward_process.py")


class RewardFault(FourSlotError):
    """One call went wrong: too long, crashed, raised, or answered what is no reward."""


class RewardFailed(FourSlotError):
    """Rewards cannot be had: the process cannot be jailed, or a function fails again and again."""


def command(memory_bytes: int) -> list[str]:
    """How the process is started: nothing of this project, of the user or of the site is read."""
    flags = ["-P", "-s", "-S", "-B"]
    return [sys.executable, *flags, str(_PROCESS), str(os.getpid()), str(memory_bytes)]


class RewardChild:
    """A function's process, started when first asked and again after a fault.

    ``held`` says what encloses it, ``starts`` how often it was started. It dies with the thread
    that started it.
    """

    def __init__(self, source: RewardSource, seconds: float, memory_bytes: int) -> None:
        self.source, self.seconds, self.memory_bytes = source, seconds, memory_bytes
        self.held: tuple[str, ...] = ()
        self.starts = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._calls = 0

    @property
    def pid(self) -> int | None:
        """The process's number while there is one."""
        return None if self._process is None else self._process.pid

    def start(self) -> None:
        """Have it up with the source loaded. Raises RewardFailed when it cannot be jailed, and
        RewardFault when the source does not load.
        """
        if self._process is not None:
            return
        self._process = self._started()
        self.starts += 1
        try:
            self._close_in()
            self._ask({"source": self.source.text, "name": self.source.name}, 0)
        except FourSlotError:
            self.stop()
            raise

    def _close_in(self) -> None:
        """Wait until it says that its jail is closed."""
        try:
            ready = self._line(monotonic() + START_S, _CHUNK)
        except RewardFault as why:
            raise RewardFailed(f"the reward process did not start: {why}") from None
        held = ready.get("ready")
        if not held:
            said = str(ready.get("refused"))[:MOST_SAID]
            raise RewardFailed(f"the reward process cannot be jailed here: {said}")
        self.held = tuple(held)

    def values(self, arguments: list[Any], keywords: dict[str, Any], count: int) -> list[float]:
        """The rewards of ``count`` completions. Raises RewardFault, and RewardFailed as above."""
        self.start()
        answer = self._ask({"arguments": arguments, "keywords": keywords, "count": count}, count)
        values = _rewards(answer.get("values"), count)
        if values is None:
            self.stop()
            raise RewardFault("answered what are no rewards")
        return values

    def stop(self) -> None:
        """Kill it and all that is with it."""
        process, self._process = self._process, None
        if process is None:
            return
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()

    def _started(self) -> subprocess.Popen[bytes]:
        try:
            process = subprocess.Popen(  # noqa: S603
                command(self.memory_bytes),
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                cwd="/",
                env={"PYTHONHASHSEED": "0"},
                process_group=0,
            )
        except OSError as why:
            raise RewardFailed(f"the reward process did not start: {why}") from None
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                os.set_blocking(pipe.fileno(), False)
        return process

    def _ask(self, asked: dict[str, Any], count: int) -> dict[str, Any]:
        """One question and its answer within the time. Raises RewardFault, with the process
        killed unless the function merely raised.
        """
        self._calls += 1
        line = json.dumps({"call": self._calls, **asked}, default=str).encode() + b"\n"
        if len(line) > MOST_LINE:
            raise RewardFault(f"the call has {len(line)} bytes, allowed are {MOST_LINE}")
        try:
            until = monotonic() + self.seconds
            self._write(line, until)
            answer = self._line(until, LINE_BYTES + VALUE_BYTES * count)
            if answer.get("call") != self._calls:
                raise RewardFault("answered out of turn")
        except RewardFault:
            self.stop()
            raise
        if "error" in answer:
            said = " ".join(str(answer["error"]).split())[:MOST_SAID]
            if said.startswith("MemoryError"):  # it may keep what it took
                self.stop()
            raise RewardFault(said)
        return answer

    def _write(self, line: bytes, until: float) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        descriptor, left = self._process.stdin.fileno(), memoryview(line)
        while left:
            _wait(descriptor, selectors.EVENT_WRITE, until)
            try:
                left = left[os.write(descriptor, left[:_CHUNK]) :]
            except BlockingIOError:
                continue
            except BrokenPipeError:
                raise RewardFault(self._ended()) from None

    def _line(self, until: float, most: int) -> dict[str, Any]:
        """One line, an object, and nothing after it."""
        assert self._process is not None
        assert self._process.stdout is not None
        descriptor, got = self._process.stdout.fileno(), bytearray()
        while not got.endswith(b"\n"):
            _wait(descriptor, selectors.EVENT_READ, until)
            part = os.read(descriptor, _CHUNK)
            if not part:
                raise RewardFault(self._ended())
            got += part
            if len(got) > most:
                raise RewardFault(f"answered {len(got)} bytes or more, allowed are {most}")
        return _object(bytes(got))

    def _ended(self) -> str:
        assert self._process is not None
        with suppress(subprocess.TimeoutExpired):
            return f"the process ended ({self._process.wait(timeout=1.0)})"
        return "the process closed its pipe"


def _wait(descriptor: int, event: int, until: float) -> None:
    with selectors.DefaultSelector() as waiting:
        waiting.register(descriptor, event)
        if not waiting.select(max(0.0, until - monotonic())):
            raise RewardFault("took too long")


def _object(line: bytes) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        raise RewardFault("answered no JSON") from None
    if not isinstance(value, dict):
        raise RewardFault("answered no object")
    return value


def _rewards(values: Any, count: int) -> list[float] | None:
    """The values when they are what they should be."""
    if not isinstance(values, list) or len(values) != count:
        return None
    good = (type(one) is float and math.isfinite(one) and abs(one) <= LARGEST for one in values)
    return values if all(good) else None
