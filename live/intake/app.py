"""The intake's HTTP application: the subnet's endpoints, and nothing else.

Every answer is one line of JSON. No request, however malformed, is answered by a 5xx: a 500 is a
fault of ours.
"""

import logging
from collections.abc import Callable
from dataclasses import asdict
from time import perf_counter

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from live.intake.body_cap import BodyCap, reply
from live.intake.desk import Desk, Told
from live.intake.protocol import (
    DIALECTS,
    Dialect,
    Kind,
    read_offer,
    read_start,
    task_uuid,
)
from live.intake.refusals import Refused
from live.intake.signatures import Auth, Caller
from shared.errors import InputError
from shared.wire import NotJson

log = logging.getLogger(__name__)

OFFER_PATHS = ("/task_offer", "/task_offer_image")
START_PATHS: dict[str, Kind] = {
    "/start_training": "text",
    "/start_training_grpo": "grpo",
    "/start_training_image": "image",
}
SUBMISSION_PATH = "/get_latest_model_submission"

Watcher = Callable[[str, int, float], None]
"""Told of every request: its path (one of ours or "other"), the status, seconds it took."""


class Intake:
    """The endpoints: plain ASGI, since so few paths need no router, and no answer waits for one."""

    def __init__(
        self,
        desk: Desk,
        auth: Auth,
        now_ms: Callable[[], int],
        submission: Callable[[str], str | None],
        dialect: Dialect = DIALECTS["late"],
        *,
        signed_ms: Callable[[], int] | None = None,
    ) -> None:
        """now_ms: UTC ms. submission: what a task's trained model is known by, or None.

        signed_ms: what signatures are compared with, UTC ms of the wall clock; None: ``now_ms``.
        """
        self._desk, self._auth, self._now_ms = desk, auth, now_ms
        self._signed_ms = signed_ms or now_ms
        self._submission, self._dialect = submission, dialect

    async def __call__(self, scope: Scope, body: bytes, send: Send) -> None:
        """Answer one request."""
        try:
            told = await self._answer(scope, body)
        except InputError as why:
            await reply(send, 400 if isinstance(why, NotJson) else 422, {"detail": str(why)})
        except Refused as why:
            await reply(send, why.status, {"detail": str(why)}, *why.headers)
        except Exception:
            log.exception("a request failed: %s", ascii(scope["path"]))
            await reply(send, 500, {"detail": "Internal Server Error"})
        else:
            await reply(send, 200, told)

    async def _answer(self, scope: Scope, body: bytes) -> object:
        """What is told. Raises InputError, Refused."""
        path = scope["path"].removesuffix("/")
        if path in OFFER_PATHS:
            _allow(scope, "POST")
            return asdict(await self._offer(scope, body))
        if path in START_PATHS:
            _allow(scope, "POST")
            return asdict(await self._start(scope, body, START_PATHS[path]))
        folder, _, task_id = path.rpartition("/")
        if folder == SUBMISSION_PATH and task_id:
            _allow(scope, "GET", "HEAD")
            return await self._submission_of(scope, body, task_id)
        raise Refused(404, "Not Found")

    async def _offer(self, scope: Scope, body: bytes) -> Told:
        """Decide an offer."""
        caller = self._caller(scope, body)
        try:
            wire = read_offer(body, self._now_ms())
        except InputError:
            await self._desk.keep(caller.rows)
            raise
        _note_unknown(wire.offer.task_id, wire.unknown)
        return await self._desk.offer(wire.offer, caller.source, caller.rows)

    async def _start(self, scope: Scope, body: bytes, kind: Kind) -> Told:
        """Keep a start request and begin the job."""
        caller = self._caller(scope, body)
        try:
            wire = read_start(body, kind)
        except InputError:
            await self._desk.keep(caller.rows)
            raise
        _note_unknown(wire.task_id, wire.unknown)
        return await self._desk.start(wire, caller.source, caller.rows)

    async def _submission_of(self, scope: Scope, body: bytes, task_id: str) -> object:
        """Say where the trained model of a task lies."""
        caller = self._caller(scope, body, bodiless=True)
        await self._desk.keep(caller.rows)
        value = self._submission(task_uuid(task_id))
        if value is None:
            raise Refused(404, "task_id: no submission for this task")
        return self._dialect.submission_answer(value)

    def _caller(self, scope: Scope, body: bytes, *, bodiless: bool = False) -> Caller:
        return self._auth.caller(scope["headers"], body, self._signed_ms(), bodiless=bodiless)


def intake_app(intake: Intake, watcher: Watcher | None = None) -> ASGIApp:
    """The application to serve. watcher: told of every request."""
    capped = BodyCap(intake)
    return capped if watcher is None else _Watched(capped, watcher)


def _allow(scope: Scope, *methods: str) -> None:
    """Raise Refused for another method."""
    if scope["method"] not in methods:
        allowed = (b"allow", ", ".join(methods).encode())
        raise Refused(405, "Method Not Allowed", allowed)


def _note_unknown(task_id: str, unknown: tuple[str, ...]) -> None:
    if unknown:
        log.info("task %s: keys nobody here knows: %s", task_id, ascii(unknown[:20]))


class _Watched:
    """Tells the watcher of every request."""

    def __init__(self, app: ASGIApp, watcher: Watcher) -> None:
        self._app, self._watcher = app, watcher

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun, status = perf_counter(), 0

        async def note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, note)
        finally:
            self._watcher(_label(scope.get("path", "")), status, perf_counter() - begun)


def _label(path: str) -> str:
    """A path as a metric's label: a stranger's text is none."""
    bare = path.removesuffix("/")
    if bare in OFFER_PATHS or bare in START_PATHS:
        return bare
    return SUBMISSION_PATH if path.startswith(SUBMISSION_PATH + "/") else "other"
