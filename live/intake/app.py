"""The intake's HTTP application: the subnet's endpoints, and nothing else.

Every answer is one line of JSON; no request, however malformed, is answered by a 5xx.
"""

import logging
from collections.abc import Callable
from dataclasses import asdict
from time import perf_counter

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from live.intake.body_cap import BodyCap
from live.intake.desk import Desk
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
    """The endpoints."""

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

    async def offer(self, request: Request) -> JSONResponse:
        """Decide an offer."""
        body = await request.body()
        caller = self._caller(request, body)
        try:
            wire = read_offer(body, self._now_ms())
        except InputError:
            await self._desk.keep(caller.rows)
            raise
        _note_unknown(wire.offer.task_id, wire.unknown)
        return JSONResponse(asdict(await self._desk.offer(wire.offer, caller.source, caller.rows)))

    async def start(self, request: Request) -> JSONResponse:
        """Keep a start request and begin the job."""
        body = await request.body()
        caller = self._caller(request, body)
        try:
            wire = read_start(body, START_PATHS[request.url.path.rstrip("/")])
        except InputError:
            await self._desk.keep(caller.rows)
            raise
        _note_unknown(wire.task_id, wire.unknown)
        return JSONResponse(asdict(await self._desk.start(wire, caller.source, caller.rows)))

    async def submission(self, request: Request) -> JSONResponse:
        """Say where the trained model of a task lies."""
        caller = self._caller(request, await request.body(), bodiless=True)
        await self._desk.keep(caller.rows)
        value = self._submission(task_uuid(request.path_params["task_id"]))
        if value is None:
            raise Refused(404, "task_id: no submission for this task")
        return JSONResponse(self._dialect.submission_answer(value))

    def _caller(self, request: Request, body: bytes, *, bodiless: bool = False) -> Caller:
        return self._auth.caller(request.headers.raw, body, self._signed_ms(), bodiless=bodiless)


def intake_app(intake: Intake, watcher: Watcher | None = None) -> ASGIApp:
    """The application to serve. watcher: told of every request."""
    routes = []
    for slash in ("/", ""):  # the other end asks with one
        routes += [Route(path + slash, intake.offer, methods=["POST"]) for path in OFFER_PATHS]
        routes += [Route(path + slash, intake.start, methods=["POST"]) for path in START_PATHS]
        path = SUBMISSION_PATH + "/{task_id}" + slash
        routes.append(Route(path, intake.submission, methods=["GET"]))
    app = Starlette(
        routes=routes,
        exception_handlers={
            InputError: _on_input_error,
            Refused: _on_refused,
            HTTPException: _on_http_error,
        },
    )
    app.router.redirect_slashes = False
    capped = BodyCap(app)
    return capped if watcher is None else _Watched(capped, watcher)


async def _on_input_error(_: Request, why: Exception) -> JSONResponse:
    return JSONResponse({"detail": str(why)}, 400 if isinstance(why, NotJson) else 422)


async def _on_http_error(_: Request, why: Exception) -> JSONResponse:
    assert isinstance(why, HTTPException)
    return JSONResponse({"detail": why.detail}, why.status_code, headers=why.headers)


async def _on_refused(_: Request, why: Exception) -> JSONResponse:
    assert isinstance(why, Refused)
    return JSONResponse({"detail": str(why)}, why.status)


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
    bare = path.rstrip("/")
    if bare in OFFER_PATHS or bare in START_PATHS:
        return bare
    return SUBMISSION_PATH if path.startswith(SUBMISSION_PATH + "/") else "other"
