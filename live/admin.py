"""The admin socket: a Unix socket in the data folder that its owner alone can open.

One request a connection, one line of JSON each way: ``{"ask": "status"}``.
"""

import asyncio
import json
import os
import socket
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from shared.errors import FourSlotError, InputError
from shared.wire import found

SOCKET = "admin.sock"
LONGEST = 64 * 1024
"""Bytes of a request."""
ANSWER_S = 10.0
"""Seconds that a command waits for the daemon."""

Json = dict[str, Any]
Command = Callable[[Json], Awaitable[Json]]


class AdminSocket:
    """Serves the commands while it is open."""

    def __init__(self, folder: Path, commands: Mapping[str, Command]) -> None:
        """folder: the data folder."""
        self._folder, self._commands = folder, dict(commands)
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Take requests. What a daemon that died has left there is replaced. Raises OSError."""
        with _short_path(self._folder) as path:
            with suppress(FileNotFoundError):
                Path(path).unlink()
            before = os.umask(0o177)  # the socket is made with mode 0600, never wider
            try:
                self._server = await asyncio.start_unix_server(self._serve, path, limit=LONGEST)
            finally:
                os.umask(before)

    async def close(self) -> None:
        """Take no more, and remove the socket."""
        if self._server is None:
            return
        self._server.close()
        with suppress(FileNotFoundError):
            (self._folder / SOCKET).unlink()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(ANSWER_S):
                line = await reader.readline()
            answer = await self._answer(line)
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()
        except (OSError, ValueError, TimeoutError):
            pass  # the other end has gone, sent too much, or never asked
        finally:
            writer.close()

    async def _answer(self, line: bytes) -> Json:
        try:
            asked = json.loads(line)
            command = self._commands[asked["ask"]]
        except (ValueError, LookupError, TypeError):
            return {"error": f"ask: allowed is one of {', '.join(self._commands)}"}
        try:
            return await command(asked)
        except (FourSlotError, OSError) as why:
            return {"error": str(why)}


def ask(folder: Path, request: Json) -> Json:
    """Ask the daemon on this data folder. Raises InputError when none answers, or its complaint."""
    try:
        with _short_path(folder) as path, socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(ANSWER_S)
            connection.connect(path)
            connection.sendall(json.dumps(request).encode() + b"\n")
            raw = connection.makefile("rb").readline()
    except TimeoutError:
        raise InputError(f"{folder}: the daemon there does not answer in time") from None
    except OSError as why:
        reason = (why.strerror or str(why)).lower()
        raise InputError(f"{folder}: no daemon answers there ({reason})") from None
    try:
        answer: Json = json.loads(raw)
    except ValueError:
        said = found(raw.decode("latin-1"))
        raise InputError(f"{folder}: found {said} for an answer, allowed is JSON") from None
    if "error" in answer:
        raise InputError(str(answer["error"]))
    return answer


@contextmanager
def _short_path(folder: Path) -> Iterator[str]:
    """A path of the socket that fits an address, which may have 107 bytes, however deep it lies."""
    handle = os.open(folder, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{handle}/{SOCKET}"
    finally:
        os.close(handle)
