"""The cap on request bodies: read here, before anything else looks at a request, and in bounds.

A body over the cap is refused at its announced length, or at the byte that goes over it. All the
bodies that are being read together have a bound as well: strangers fill no memory.
"""

import asyncio
from collections.abc import Awaitable, Callable

from starlette.types import Receive, Scope, Send

from shared.ledger import dumps

Whole = Callable[[Scope, bytes, Send], Awaitable[None]]
"""Answers a request whose body is there whole."""

MOST_BODY = 1 << 20
"""Bytes of one request's body."""
MOST_BODIES = 32 << 20
"""Bytes of all the bodies held at once."""
CROWDED = "too many requests at once"


class _TooMuch(Exception):
    """status: of HTTP. why: one line."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


class BodyCap:
    """An ASGI application whose requests come with their body read, or not at all."""

    def __init__(
        self, app: Whole, *, most_body: int = MOST_BODY, most_bodies: int = MOST_BODIES
    ) -> None:
        """In front of ``app``; sizes in bytes."""
        self._app, self._most_body, self._most_bodies = app, most_body, most_bodies
        self._held = 0
        self._reading: dict[asyncio.Task[object], bytearray] = {}
        self._dropped: set[asyncio.Task[object]] = set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            return
        body, me = bytearray(), asyncio.current_task()
        assert me is not None
        self._reading[me] = body
        try:
            whole = await self._read(scope, receive, body)
            self._reading.pop(me, None)
            if whole:
                await self._app(scope, bytes(body), send)
        except _TooMuch as why:
            await refuse(send, why.status, str(why))
        except asyncio.CancelledError:
            if me not in self._dropped:
                raise
            me.uncancel()
            await refuse(send, 429, CROWDED)
        finally:
            self._reading.pop(me, None)
            self._dropped.discard(me)
            self._held -= len(body)

    async def _read(self, scope: Scope, receive: Receive, body: bytearray) -> bool:
        """Read the body whole; False when the other end has gone. Raises _TooMuch."""
        for name, value in scope["headers"]:
            if name == b"content-length" and not _within(value, self._most_body):
                raise self._too_long()
        while True:
            message = await receive()
            if message["type"] != "http.request":
                return False
            part = message.get("body", b"")
            if len(body) + len(part) > self._most_body:
                raise self._too_long()
            self._make_room(len(part))
            body += part
            self._held += len(part)
            if not message.get("more_body", False):
                return True

    def _make_room(self, size: int) -> None:
        """Drop the bodies that have been half there for the longest: strangers who send most of a
        body and then nothing must not shut out who comes after them. Raises _TooMuch.
        """
        me = asyncio.current_task()
        while self._held + size > self._most_bodies:
            oldest = next((task for task in self._reading if task is not me), None)
            if oldest is None:
                raise _TooMuch(429, CROWDED)
            body = self._reading.pop(oldest)
            self._held -= len(body)
            body.clear()
            self._dropped.add(oldest)
            oldest.cancel()

    def _too_long(self) -> _TooMuch:
        return _TooMuch(413, f"body: allowed are {self._most_body} bytes")


def _within(length: bytes, most: int) -> bool:
    """Whether an announced length is a number, and no more than that."""
    return length.isdigit() and len(length) < 20 and int(length) <= most


async def reply(send: Send, status: int, content: object, *headers: tuple[bytes, bytes]) -> None:
    """Answer by one line of JSON."""
    body = dumps(content).encode()
    told = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        *headers,
    ]
    await send({"type": "http.response.start", "status": status, "headers": told})
    await send({"type": "http.response.body", "body": body})


async def refuse(send: Send, status: int, why: str) -> None:
    """Answer by one line of JSON and close: what the other end still sends is not read."""
    await reply(send, status, {"detail": why}, (b"connection", b"close"))
