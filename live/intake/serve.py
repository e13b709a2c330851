"""Serving an application from the daemon's own event loop, against strangers that dawdle.

The server is uvicorn, with its httptools protocol bounded here: a request has to be there whole
within ``REQUEST_S``, however slowly it drips in, and where too many connections are half-way
through one, the oldest of them is dropped for a new one.
"""

import asyncio
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from shared.errors import InputError
from shared.wire import found

REQUEST_S = 10.0
"""Seconds in which a request has to arrive whole."""
IDLE_S = 5
"""Seconds a kept connection may wait for its next request."""
STOP_S = 5
"""Seconds that requests in hand get at the end."""
MOST_CONNECTIONS = 1_024
HEADER_BYTES = 16_384
"""Of a request's head, which the parser itself does not bound."""
_BACKLOG = 1_024


class _Reading:
    """Connections that are half-way through a request, oldest first."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._open: dict[BoundedProtocol, None] = {}

    def enter(self, connection: "BoundedProtocol") -> None:
        self._open[connection] = None
        if len(self._open) > self._most:
            next(iter(self._open)).drop()

    def leave(self, connection: "BoundedProtocol") -> None:
        self._open.pop(connection, None)

    def drop_all(self) -> None:
        for connection in list(self._open):
            connection.drop()


class _Joined:
    """A transport on which an answer's head waits for its body, so that both are one packet.

    uvicorn writes them one after the other, without a pause; what comes alone goes a moment later.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop = transport, loop
        self._held = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if not self._held:
            self._held = data
            self._loop.call_soon(self.flush)
        else:
            held, self._held = self._held, b""
            self._transport.write(held + data)

    def flush(self) -> None:
        held, self._held = self._held, b""
        if held:
            self._transport.write(held)

    def close(self) -> None:
        self.flush()
        self._transport.close()


class BoundedProtocol(HttpToolsProtocol):
    """One connection; ``request_s`` and ``reading`` are set by the server that makes it."""

    request_s = REQUEST_S
    reading: _Reading

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """As uvicorn makes it."""
        super().__init__(*args, **kwargs)
        self._limit: asyncio.TimerHandle | None = None
        self._whole = False
        self._head_bytes: float = 0
        self._named_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A request is expected from the first moment on."""
        super().connection_made(transport)
        self.transport = _Joined(transport, self.loop)  # type: ignore[assignment]
        self._begin()

    def data_received(self, data: bytes) -> None:
        """Some bytes: a request has begun, or goes on, or is now whole."""
        self._whole = False
        self._head_bytes += len(data)
        super().data_received(data)
        if self.transport.is_closing() or self._whole:
            self._end()
        elif self._head_bytes > HEADER_BYTES:
            self.send_400_response(f"head: allowed are {HEADER_BYTES} bytes")
            self._end()
        elif self._limit is None:
            self._begin()

    def on_message_begin(self) -> None:
        """Of what has come, a request is the last."""
        super().on_message_begin()
        self._whole, self._named_bytes = False, 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header more. Raises ValueError, which is answered by 400, when there are too many."""
        self._named_bytes += len(name) + len(value)
        if self._named_bytes > HEADER_BYTES:
            raise ValueError(f"allowed are {HEADER_BYTES} bytes of headers")
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is within bounds; the body has others."""
        super().on_headers_complete()
        self._head_bytes = -inf

    def on_message_complete(self) -> None:
        """Nothing of the request is still to come."""
        super().on_message_complete()
        self._whole, self._head_bytes = True, 0

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over."""
        self._end()
        super().connection_lost(exc)

    def drop(self) -> None:
        """Close it without a word."""
        self._end()
        self.transport.abort()

    def _begin(self) -> None:
        self._limit = self.loop.call_later(self.request_s, self.drop)
        self.reading.enter(self)

    def _end(self) -> None:
        if self._limit is not None:
            self._limit.cancel()
            self._limit = None
        self.reading.leave(self)


class _Server(uvicorn.Server):
    """uvicorn's server without its signal handlers: signals are the daemon's."""

    def __init__(self, config: uvicorn.Config, reading: _Reading) -> None:
        super().__init__(config)
        self._reading = reading
        self.ready = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._reading.drop_all()
        await super().shutdown(sockets)


@dataclass(frozen=True, slots=True)
class Serving:
    """A server that takes requests. host, port: where; the port is the real one."""

    host: str
    port: int
    task: asyncio.Task[None]


async def serve(
    app: ASGIApp,
    host: str,
    port: int,
    stop: asyncio.Event,
    *,
    request_s: float = REQUEST_S,
    most_connections: int | None = None,
) -> Serving:
    """Serve until ``stop`` is set; returns once requests are taken.

    port: 0 takes a free one. Await the task for the end: requests in hand are answered first.
    Raises InputError when the address cannot be had.
    """
    listening = _bound(host, port)
    reading = _Reading(most_connections or _most_connections())
    bounds = {"request_s": request_s, "reading": reading}
    config = uvicorn.Config(
        app,
        http=type("Bounded", (BoundedProtocol,), bounds),
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=_BACKLOG,
        timeout_keep_alive=IDLE_S,
        timeout_graceful_shutdown=STOP_S,
    )
    server = _Server(config, reading)
    bound_port = listening.getsockname()[1]
    task = asyncio.create_task(_run(server, listening, stop))
    ready = asyncio.create_task(server.ready.wait())
    await asyncio.wait({task, ready}, return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        ready.cancel()
        await task
    return Serving(host, bound_port, task)


async def _run(server: _Server, listening: socket.socket, stop: asyncio.Event) -> None:
    """Serve until told to stop, or cancelled."""
    serving = asyncio.create_task(server.serve([listening]))
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopping.cancel()
        server.should_exit = True
        await serving


def _bound(host: str, port: int) -> socket.socket:
    """A bound socket. Raises InputError; a port that another process listens on is never shared."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # named TCP, or asyncio leaves Nagle's algorithm on: 40 ms an answer
        listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.listen(_BACKLOG)
        except OSError:
            listening.close()
            raise
    except (OSError, OverflowError, UnicodeError) as why:
        said = getattr(why, "strerror", None) or str(why)
        raise InputError(f"host, port: found {found(host)}, {port}: {said.lower()}") from None
    return listening


def _most_connections() -> int:
    """Half the files this process may open, at most ``MOST_CONNECTIONS``."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MOST_CONNECTIONS if soft < 0 else max(64, min(MOST_CONNECTIONS, soft // 2))
