"""Who asks: requests signed by a validator's hotkey, or nobody's business on the loopback.

The signed text is ``NONCE:OUR_HOTKEY:SHA256_OF_THE_BODY`` (of a request without a body, also
without its last part), the nonce is ``TIME_NS_TEXT``. Nothing of a request is stored before its
signature was found good, and a nonce is good once, before and after a restart.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from ipaddress import ip_address
from typing import Protocol

import sr25519

from live.intake.nonces import Nonces
from live.intake.refusals import Refused
from live.intake.ss58 import public_key
from live.rows import Nonce, Row
from shared.errors import InputError
from shared.units import MS_PER_SECOND
from shared.wire import found

WINDOW_MS = 120 * MS_PER_SECOND
"""A nonce may be this much older, or younger, than our clock."""
LOCAL_SOURCE = "http"
"""Who asks when nobody has to sign."""
HEADERS = ("validator-hotkey", "miner-hotkey", "nonce", "signature")

_NS_PER_MS = 1_000_000
_NONCE = re.compile(r"(\d{1,20})_[!-~]{1,64}", re.ASCII)
_HOST = re.compile(r"(?:\[([0-9a-f:.]+)\]|([^\[\]:]+))(?::\d{1,5})?", re.ASCII)
_SIGNATURE = re.compile(r"0x[0-9a-fA-F]{128}", re.ASCII)

RawHeaders = Iterable[tuple[bytes, bytes]]


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. source: as the ledger names it. rows: what has to be durable with the request."""

    source: str
    rows: tuple[Row, ...] = ()


class Auth(Protocol):
    """How callers are told apart."""

    def caller(self, headers: RawHeaders, body: bytes, now_ms: int, *, bodiless: bool) -> Caller:
        """Who asks. Raises Refused."""


class Open:
    """Every program of this machine may ask: see ``need_loopback``. No web page may, whose browser
    is a program of this machine too: it says where the page came from, or the name it was led here
    by.
    """

    def caller(self, headers: RawHeaders, body: bytes, now_ms: int, *, bodiless: bool) -> Caller:  # noqa: ARG002
        """The one caller there is. Raises Refused."""
        for raw, value in headers:
            name = raw.lower()
            if name == b"origin":
                raise Refused(403, "origin: found a web page's, allowed without signatures is none")
            if name == b"host" and not _is_loopback(_host_of(value.decode("latin-1"))):
                raise Refused(403, "host: allowed without signatures is a loopback address")
        return Caller(LOCAL_SOURCE)


class Signed:
    """Validators with enough stake may ask, each by requests it has signed for us."""

    def __init__(
        self,
        hotkey: str,
        validators: Mapping[str, float],
        min_stake: float,
        nonces: Nonces,
        *,
        since_ms: int = 0,
    ) -> None:
        """hotkey: our own. validators: stake by hotkey. since_ms: older nonces are refused; an
        earlier run may have used them and died before that was written. Raises InputError for a bad
        hotkey.
        """
        _key_of("hotkey", hotkey)
        self._hotkey = hotkey
        self._keys = {name: _key_of("validators", name) for name in validators}
        self._stakes = dict(validators)
        self._min_stake = min_stake
        self._nonces, self._since_ms = nonces, since_ms

    def caller(self, headers: RawHeaders, body: bytes, now_ms: int, *, bodiless: bool) -> Caller:
        """Whose signature the request bears.

        Raises Refused: 401 where the signature does not hold, 403 where its signer may not ask.
        """
        validator, miner, nonce, signature = _four(headers)
        key = self._allowed(validator)
        if miner != self._hotkey:
            raise Refused(401, "miner-hotkey: the request is meant for another miner")
        stamp_ms = _stamp_ms(nonce)
        if abs(now_ms - stamp_ms) > WINDOW_MS:
            raise Refused(401, "nonce: more than 120 seconds from our clock")
        if stamp_ms < self._since_ms:
            raise Refused(401, "nonce: older than this run of the daemon")
        _verify(key, signature, _texts(nonce, miner, body, bodiless=bodiless))
        used = Nonce(validator, nonce, stamp_ms + WINDOW_MS)
        return Caller(validator, self._nonces.claim(used, now_ms))

    def _allowed(self, validator: str) -> bytes:
        if validator not in self._keys:
            raise Refused(403, "validator-hotkey: not one of the validators allowed here")
        if self._stakes[validator] < self._min_stake:
            raise Refused(403, "validator-hotkey: its stake is below the minimum")
        return self._keys[validator]


def need_loopback(host: str, key: str = "auth") -> None:
    """Raise InputError unless only this machine can reach ``host``."""
    if not _is_loopback(host):
        raise InputError(
            f"{key}: found host {found(host)}, allowed without signatures is a loopback address"
        )


@lru_cache(maxsize=64)
def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _host_of(header: str) -> str:
    """A Host header without its port, and without an IPv6 address's brackets."""
    inside = _HOST.fullmatch(header.strip().lower())
    return "" if inside is None else inside[1] or inside[2]


def _key_of(key: str, hotkey: str) -> bytes:
    try:
        return public_key(hotkey)
    except InputError as why:
        raise InputError(f"{key}: {why}") from None


def _four(headers: RawHeaders) -> list[str]:
    """The four headers of a signature, each there exactly once."""
    told: dict[str, str] = {}
    for raw, value in headers:
        name = raw.decode("latin-1").lower()
        if name in HEADERS:
            if name in told:
                raise Refused(401, f"{name}: found twice, allowed is once")
            told[name] = value.decode("latin-1")
    for name in HEADERS:
        if name not in told:
            raise Refused(401, f"{name}: the header is missing")
    return [told[name] for name in HEADERS]


def _stamp_ms(nonce: str) -> int:
    shape = _NONCE.fullmatch(nonce)
    if not shape:
        raise Refused(401, "nonce: allowed is nanoseconds since 1970, an underscore and some text")
    return int(shape[1]) // _NS_PER_MS


def _texts(nonce: str, miner: str, body: bytes, *, bodiless: bool) -> list[bytes]:
    """What may have been signed. Only a request that can have no body may leave its hash out."""
    texts = [f"{nonce}:{miner}:{sha256(body).hexdigest()}"]
    if bodiless and not body:
        texts.append(f"{nonce}:{miner}")
    return [text.encode() for text in texts]


def _verify(key: bytes, signature: str, texts: list[bytes]) -> None:
    if not _SIGNATURE.fullmatch(signature):
        raise Refused(401, "signature: allowed is 0x and 128 hexadecimal digits")
    raw = bytes.fromhex(signature[2:])
    try:
        good = any(sr25519.verify(raw, text, key) for text in texts)
    except ValueError:
        good = False
    if not good:
        raise Refused(401, "signature: it does not fit the request")
