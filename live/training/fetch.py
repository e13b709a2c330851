"""A stranger's address, fetched from a host that was allowed, within bounds, or not at all.

The connection goes to the address that was checked, while the certificate has to be the name's. No
redirect, proxy or setting of the environment is followed; what a server says of its answer's size
is never believed.
"""

import hashlib
import os
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Self

import httpx

from live.job_files import sync_folder
from live.training.address import FetchLimits, Place, checked_addresses, place_of
from live.training.table import HEAD_BYTES
from live.training.table import kind_of as kind_of_rows
from shared.errors import FourSlotError, InputError
from shared.wire import found

Beat = Callable[[], None]
"""A sign of life: called at least as often as ``FetchLimits.stall_s``."""
Kind = Callable[[bytes, str], str]

CHUNK_BYTES = 1 << 18
LONGEST_PAUSE_S = 30.0
BEAT_EVERY_S = 1.0
OK, REDIRECTS, REFUSALS, FAULTS = 200, 300, 400, 500
_CONNECTED = ("connection.connect_tcp.complete", "connection.start_tls.complete")


class FetchFailed(FourSlotError):
    """The data could not be had now; another time it may be."""


class _Passing(Exception):
    """A fault that another try may not meet."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """A file as it came. sha256: in hex. suffix: of its content: .json, .jsonl, .csv, .parquet."""

    bytes: int
    sha256: str
    suffix: str


def fetch(
    address: str, target: Path, limits: FetchLimits, beat: Beat, kind_of: Kind = kind_of_rows
) -> Fetched:
    """Fetch an address into ``target``, which appears when it is whole.

    kind_of: tells the kind of a file by its first bytes, and raises InputError for a wrong one.
    Raises InputError when the address, or what lies there, is not allowed: no use in trying again;
    FetchFailed when it could not be had.
    """
    place = place_of(address, limits)
    ends_s = monotonic() + limits.total_s
    why = "no try was allowed"
    for attempt in range(limits.tries):
        if attempt and not _pause(limits.backoff_s * 2 ** (attempt - 1), ends_s, beat):
            break
        beat()
        try:
            return _attempt(place, target, limits, beat, ends_s, kind_of)
        except _Passing as fault:
            why = str(fault)
    raise FetchFailed(f"dataset: {place.shown}: could not be fetched: {why}")


def _pause(seconds: float, ends_s: float, beat: Beat) -> bool:
    """Wait; False when there is no time left to."""
    until = monotonic() + min(seconds, LONGEST_PAUSE_S)
    while (now := monotonic()) < until:
        beat()
        sleep(min(BEAT_EVERY_S, until - now))
    return monotonic() < ends_s


def _attempt(
    place: Place, target: Path, limits: FetchLimits, beat: Beat, ends_s: float, kind_of: Kind
) -> Fetched:
    try:
        machines = checked_addresses(place, limits)
    except OSError as why:  # TimeoutError among them
        raise _Passing(f"host {place.host} does not resolve: {why}") from None
    for machine in machines:
        beat()
        with _Watch(ends_s, limits) as watch:
            try:
                return _from(machine, place, target, limits, beat, watch, kind_of)
            except (httpx.ConnectError, httpx.ConnectTimeout) as why:
                refused = _reason(why)
                if _bad_certificate(why):
                    raise InputError(f"dataset: {place.shown}: {refused}") from None
            except httpx.TransportError as why:
                raise _Passing(watch.why or _reason(why)) from None
    raise _Passing(refused)


def _from(
    machine: str,
    place: Place,
    target: Path,
    limits: FetchLimits,
    beat: Beat,
    watch: "_Watch",
    kind_of: Kind,
) -> Fetched:
    """What one machine answers. Raises httpx.TransportError, _Passing, InputError, FetchFailed."""
    with (
        _client(limits) as client,
        client.stream(
            "GET",
            place.at(machine),
            headers={"Host": place.host_header},
            extensions={"sni_hostname": place.host, "trace": watch.connected},
        ) as answer,
    ):
        _check(answer, place, limits)
        try:
            return _store(answer, place, target, limits, beat, watch, kind_of)
        except OSError as why:
            raise FetchFailed(f"{target}: cannot be written: {why.strerror}") from None


def _client(limits: FetchLimits) -> httpx.Client:
    trusted = httpx.create_ssl_context(trust_env=False)
    if limits.ca_file is not None:
        trusted.load_verify_locations(limits.ca_file)
    return httpx.Client(
        trust_env=False,
        follow_redirects=False,
        verify=trusted,
        timeout=httpx.Timeout(limits.stall_s, connect=limits.connect_s),
        headers={"Accept-Encoding": "identity", "User-Agent": "four-slot"},
    )


def _check(answer: httpx.Response, place: Place, limits: FetchLimits) -> None:
    """Refuse an answer by its head. Raises InputError, or _Passing for a fault of the server."""
    status, at = answer.status_code, f"dataset: {place.shown}"
    if status >= FAULTS:
        raise _Passing(f"the server answered {status}")
    if REDIRECTS <= status < REFUSALS:
        raise InputError(f"{at}: found a redirect ({status}), allowed is the file itself")
    if status != OK:
        raise InputError(f"{at}: found the answer {status}, allowed is {OK}")
    coding = answer.headers.get("content-encoding", "identity").strip().lower()
    if coding not in ("", "identity"):
        raise InputError(f"{at}: found content encoding {found(coding)}, allowed is none")
    told = answer.headers.get("content-length", "")
    if told.isascii() and told.isdigit() and int(told[:20]) > limits.most_bytes:
        raise InputError(f"{at}: found {told[:20]} bytes, allowed are {limits.most_bytes}")


def _store(
    answer: httpx.Response,
    place: Place,
    target: Path,
    limits: FetchLimits,
    beat: Beat,
    watch: "_Watch",
    kind_of: Kind,
) -> Fetched:
    """Write a body that is counted as it comes. Raises as ``_from``, and OSError."""
    count, digest, head, suffix = 0, hashlib.sha256(), b"", ""
    with _whole(target) as file:
        for chunk in _beating(answer.iter_raw(CHUNK_BYTES), beat, watch):
            count += len(chunk)
            if count > limits.most_bytes:
                raise InputError(
                    f"dataset: {place.shown}: found over {limits.most_bytes} bytes, "
                    "allowed are at most so many"
                )
            if not suffix:
                head += chunk
                suffix = kind_of(head, place.shown) if len(head) >= HEAD_BYTES else ""
            digest.update(chunk)
            file.write(chunk)
        if watch.why:  # a body without a length ends so too
            raise _Passing(watch.why)
        suffix = suffix or kind_of(head, place.shown)
    return Fetched(count, digest.hexdigest(), f".{suffix}")


def _beating(chunks: Iterator[bytes], beat: Beat, watch: "_Watch") -> Iterator[bytes]:
    last_s = 0.0
    for chunk in chunks:
        watch.alive()
        if monotonic() - last_s >= BEAT_EVERY_S:
            beat()
            last_s = monotonic()
        yield chunk


@contextmanager
def _whole(target: Path) -> Iterator[Any]:
    """A binary file beside ``target``, put in its place when all went well. Raises OSError."""
    scratch = target.with_name(f".{target.name}.part")
    try:
        with scratch.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(target)
    except BaseException:
        scratch.unlink(missing_ok=True)
        raise
    sync_folder(target.parent)


def _reason(why: Exception) -> str:
    return " ".join(f"{type(why).__name__} {why}".split())[:200]


def _bad_certificate(why: BaseException | None) -> bool:
    while why is not None:
        if isinstance(why, ssl.SSLCertVerificationError):
            return True
        why = why.__cause__ or why.__context__
    return False


class _Watch:
    """Cuts a connection that brings nothing of the body for too long, or all together takes too
    long. Timeouts of single reads do not: a server may send its headers a byte at a time.
    """

    def __init__(self, ends_s: float, limits: FetchLimits) -> None:
        self.why = ""
        self._ends_s, self._stall_s = ends_s, limits.stall_s
        self._last_s = monotonic() + limits.connect_s
        self._total_s = limits.total_s
        self._socket: socket.socket | None = None
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="fetch watch")

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def alive(self) -> None:
        """Something of the body came."""
        self._last_s = monotonic()

    def connected(self, event: str, told: dict[str, Any]) -> None:
        """Take the socket from the client's own trace of what it does."""
        if event in _CONNECTED:
            self._socket = told["return_value"].get_extra_info("socket")
            self._last_s = monotonic()

    def _run(self) -> None:
        while not self._done.wait(max(0.02, min(self._ends_s, self._quiet_s()) - monotonic())):
            now = monotonic()
            if now >= self._ends_s:
                self.why = f"it took over {self._total_s:g} s"
            elif now >= self._quiet_s():
                self.why = f"nothing came for {self._stall_s:g} s"
            if self.why and self._socket is not None:
                with suppress(OSError):  # it is closed already, or being wrapped
                    socket.socket.shutdown(self._socket, socket.SHUT_RDWR)

    def _quiet_s(self) -> float:
        return self._last_s + self._stall_s
