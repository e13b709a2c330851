"""Whether an address may be fetched from, and which machine it then is.

A host has to be on a list; every address that it resolves to has to be public, and the caller
connects to the address checked here, so a name that resolves otherwise later gains nothing.
"""

import ipaddress
import socket
from dataclasses import dataclass
from pathlib import Path

import httpx

from live.in_time import in_time
from shared.errors import InputError
from shared.wire import found

SHOWN_CHARS = 200
_MISLEADING = tuple(
    ipaddress.ip_network(text) for text in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "::/96")
)
"""IPv6 that stands for an IPv4 address: translation (RFC 6052, 8215), 6to4 (RFC 3056), old form."""


@dataclass(frozen=True, slots=True)
class FetchLimits:
    """What may be fetched, and for how long.

    hosts: exact names, or ``*.name`` for any name below it; none means nothing is fetched.
    private_hosts: those of them, exact, that may lie at private addresses (a store of one's own).
    ports: allowed. allow_http: whether addresses without TLS are. ca_file: a certificate authority
    trusted beside the usual ones. most_bytes: of the file. total_s: all tries together. stall_s:
    without a byte. connect_s: to resolve, and to connect. tries: at most. backoff_s: before the
    second, doubled each time.
    """

    hosts: tuple[str, ...] = ()
    private_hosts: tuple[str, ...] = ()
    ports: tuple[int, ...] = (443,)
    allow_http: bool = False
    ca_file: Path | None = None
    most_bytes: int = 2_000_000_000
    total_s: float = 1_800.0
    stall_s: float = 15.0
    connect_s: float = 8.0
    tries: int = 5
    backoff_s: float = 1.0


@dataclass(frozen=True, slots=True)
class Place:
    """An address that may be fetched from. host: ASCII, lower case. shown: without its secrets."""

    url: httpx.URL
    host: str
    port: int
    shown: str

    def at(self, machine: str) -> httpx.URL:
        """The same address with the machine in place of the name."""
        return self.url.copy_with(host=machine, fragment=None)

    @property
    def host_header(self) -> str:
        """What the server is asked for: the name, and the port where it is not the usual one."""
        return self.url.netloc.decode("ascii")


def shown(address: str) -> str:
    """An address as messages and records show it: a presigned one's query is a password."""
    bare = address.split("?", 1)[0].split("#", 1)[0]
    head, slashes, rest = bare.partition("://")
    authority, slash, path = rest.partition("/")
    clean = head + slashes + authority.rpartition("@")[2] + slash + path
    printable = "".join(letter if letter.isprintable() else "?" for letter in clean)
    return printable if len(printable) <= SHOWN_CHARS else printable[: SHOWN_CHARS - 3] + "..."


def place_of(address: str, limits: FetchLimits) -> Place:
    """The place an address names. Raises InputError of one line where it is not allowed."""
    said = shown(address)
    try:
        url = httpx.URL(address)
        host = url.raw_host.decode("ascii").lower()
        port = url.port or {"https": 443, "http": 80}.get(url.scheme, 0)
    except (httpx.InvalidURL, UnicodeError, ValueError):
        raise InputError(f"dataset: found {found(said)}, allowed is an https address") from None
    schemes = ("https", "http") if limits.allow_http else ("https",)
    if url.scheme not in schemes or not host:
        raise InputError(f"dataset: found {found(said)}, allowed is an https address")
    if url.userinfo or "@" in url.netloc.decode("ascii", "replace"):
        raise InputError(f"dataset: {said}: found a user in the address, allowed is none")
    if port not in limits.ports:
        allowed = ", ".join(map(str, limits.ports))
        raise InputError(f"dataset: {said}: found port {port}, allowed is {allowed}")
    if not _listed(host, limits.hosts):
        allowed = ", ".join(limits.hosts) or "none: no host is configured"
        raise InputError(f"dataset: found host {found(host)}, allowed is {allowed}")
    return Place(url, host, port, said)


def _listed(host: str, entries: tuple[str, ...]) -> bool:
    for entry in map(str.lower, entries):
        below = entry.startswith("*.") and len(entry) > len("*.")
        if host == entry or (below and host.endswith(entry[1:]) and len(host) >= len(entry)):
            return True
    return False


def checked_addresses(place: Place, limits: FetchLimits) -> list[str]:
    """Every address of a place's host, as numbers.

    Raises InputError when one of them is not public, OSError when the name does not resolve.
    """
    machines = in_time(limits.connect_s, lambda: resolve(place.host, place.port))
    own = place.host in map(str.lower, limits.private_hosts)
    for machine in machines:
        if not (_harmless(machine) if own else is_public(machine)):
            raise InputError(
                f"dataset: host {found(place.host)}: found the address {machine}, "
                "allowed are public ones"
            )
    if not machines:
        raise OSError(f"{place.host} has no address")
    return machines


def resolve(host: str, port: int) -> list[str]:
    """Addresses of a host in the system's order, each once. Raises OSError."""
    try:
        answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError:  # a label that is too long
        raise OSError(f"{host} is no name") from None
    return list(dict.fromkeys(str(answer[4][0]) for answer in answers))


def is_public(machine: str) -> bool:
    """Whether an IP address is one of the public Internet and stands for no other."""
    try:
        number = ipaddress.ip_address(machine)
    except ValueError:
        return False
    if isinstance(number, ipaddress.IPv6Address) and (
        number.ipv4_mapped is not None
        or number.scope_id is not None
        or any(number in network for network in _MISLEADING)
    ):
        return False
    return number.is_global and not (number.is_multicast or number.is_reserved)


def _harmless(machine: str) -> bool:
    """Private is what the operator allowed; link-local is where clouds keep their credentials."""
    try:
        number = ipaddress.ip_address(machine)
    except ValueError:
        return False
    if isinstance(number, ipaddress.IPv6Address) and number.ipv4_mapped is not None:
        return False
    return not (number.is_link_local or number.is_multicast or number.is_unspecified)
