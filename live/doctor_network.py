"""The doctor on who may ask, and on the ports."""

import http.client
import socket
from collections.abc import Iterator
from contextlib import closing

from live.doctor_lines import Check, Line, Scene, fault, hint, ok, warning
from live.intake.signatures import need_loopback
from live.intake.ss58 import public_key
from live.metrics import PREFIX
from shared.errors import InputError

LOOPBACK = "127.0.0.1"
_ANSWER_S = 2.0


def _auth(scene: Scene) -> Iterator[Line]:
    part = scene.config.http
    if not part.enabled:
        yield hint("auth", "no HTTP intake: the spool folder alone")
    elif part.auth == "none":
        need_loopback(part.host, "http.host")
        yield ok("auth", f"none, on {part.host}: this machine alone can ask")
    else:
        yield from _keys(scene)


def _keys(scene: Scene) -> Iterator[Line]:
    part = scene.config.http
    for key, hotkey in (("hotkey", part.hotkey), *(("validators", it) for it in part.validators)):
        try:
            public_key(hotkey)
        except InputError as why:
            yield fault("auth", f"http.{key}: {why}", f"mend http.{key} in the configuration")
            return
    if part.hotkey in part.validators:
        remedy = "take it out: nobody else signs with it"
        yield warning("auth", "http.validators holds our own hotkey", remedy)
    may = sum(stake >= part.min_stake for stake in part.validators.values())
    found = f"fiber, {may} of {len(part.validators)} validators have the stake"
    if may:
        yield ok("auth", found)
    else:
        remedy = "lower http.min_stake, or bring the stakes in http.validators up to date"
        yield fault("auth", f"{found}: everybody is refused", remedy)


def _ports(scene: Scene) -> Iterator[Line]:
    part = scene.config.http
    if part.enabled:
        yield _port("port", part.host, part.port, ours=_serves(scene, part.host, part.port))
    if part.metrics_port is not None:
        ours = scene.daemon is not None and _is_metrics(part.metrics_port)
        yield _port("metrics port", LOOPBACK, part.metrics_port, ours=ours)
    else:
        yield hint("metrics port", "off: no alarm can be raised", "set http.metrics_port")


def _port(check: str, host: str, port: int, *, ours: bool) -> Line:
    if ours:
        return ok(check, f"{host}:{port} is our daemon's")
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, socket.SOCK_STREAM) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(address)
            trial.listen(1)
    except (OSError, UnicodeError) as why:
        said = (getattr(why, "strerror", None) or str(why)).lower()
        remedy = "see who listens (ss -ltnp), end it or configure another"
        return fault(check, f"{host}:{port}: {said}", remedy)
    return ok(check, f"{host}: any free one" if port == 0 else f"{host}:{port} is free")


def _serves(scene: Scene, host: str, port: int) -> bool:
    """Whether the daemon on our data folder listens there."""
    return scene.daemon is not None and scene.daemon["http"] == f"{host}:{port}"


def _is_metrics(port: int) -> bool:
    """Whether what answers there has our metrics."""
    with closing(http.client.HTTPConnection(LOOPBACK, port, timeout=_ANSWER_S)) as asked:
        try:
            asked.request("GET", "/metrics")
            return f"{PREFIX}_".encode() in asked.getresponse().read(1 << 20)
        except (OSError, http.client.HTTPException):
            return False


CHECKS: dict[str, Check] = {"auth": _auth, "ports": _ports}
