"""A stranger's address: what is reached through it, and what is not."""

import hashlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from live.training import address as addresses
from live.training.address import FetchLimits, is_public, place_of, shown
from live.training.fetch import Fetched, FetchFailed, fetch
from shared.errors import InputError

HOST = "data.example"
ROWS = b'[{"a": 1}]'
KEY_AND_CERTIFICATE = """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgHxZRDZdIY+2I1CF2
3NJJ6FtjVqGpQg/sx5KYH8L1csuhRANCAAQPGNoAW7F6YnPIyS30CjXVK983u51e
Fn+LI+PottN8l5r/yPS+XUa9zqhjZL4E+kY74W7Sj1n5Xq+T8eQhxs9L
-----END PRIVATE KEY-----
-----BEGIN CERTIFICATE-----
MIIBfzCCASSgAwIBAgIBATAKBggqhkjOPQQDAjAZMRcwFQYDVQQDDA5mb3VyLXNs
b3QgdGVzdDAgFw0yMDAxMDEwMDAwMDBaGA8yMTIwMDEwMTAwMDAwMFowGTEXMBUG
A1UEAwwOZm91ci1zbG90IHRlc3QwWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAAQP
GNoAW7F6YnPIyS30CjXVK983u51eFn+LI+PottN8l5r/yPS+XUa9zqhjZL4E+kY7
4W7Sj1n5Xq+T8eQhxs9Lo1swWTAXBgNVHREEEDAOggxkYXRhLmV4YW1wbGUwDgYD
VR0PAQH/BAQDAgKEMA8GA1UdEwEB/wQFMAMBAf8wHQYDVR0OBBYEFOOd9SN/PXw8
ktOA6mp3YEMfPCQMMAoGCCqGSM49BAMCA0kAMEYCIQDF8Z9Q+CbsXfL88/GIqowu
OtwnIVMI9lQyzJ+LKC3SlgIhAPh3VyiO7VjhU/C+0GPEtlEQHVNIRA9iMg1fEKOT
HUZ1
-----END CERTIFICATE-----
"""
"""Made for this test, of a name that nobody can have (data.example), 2020 to 2120."""

Answer = Callable[[socket.socket], None]


class Server:
    """Answers each connection with the next of its answers, the last one again and again."""

    def __init__(self, *answers: Answer, secure: ssl.SSLContext | None = None) -> None:
        self.answers, self.secure = answers, secure
        self.requests: list[str] = []
        self.connections = 0
        self.over = threading.Event()
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = int(self.socket.getsockname()[1])
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        while not self.over.is_set():
            try:
                plain, _ = self.socket.accept()
            except OSError:
                return
            answer = self.answers[min(self.connections, len(self.answers) - 1)]
            self.connections += 1
            with closing(plain), suppress(OSError):
                plain.settimeout(5)
                self._serve(plain, answer)

    def _serve(self, plain: socket.socket, answer: Answer) -> None:
        held = self.secure.wrap_socket(plain, server_side=True) if self.secure else plain
        with closing(held):
            request = b""
            while b"\r\n\r\n" not in request:
                block = held.recv(4096)
                if not block:
                    return
                request += block
            self.requests.append(request.decode())
            answer(held)

    def close(self) -> None:
        self.over.set()
        with suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
        self.thread.join(10)
        assert not self.thread.is_alive()


def said(status: int, body: bytes = b"", *headers: str, length: int | None = None) -> Answer:
    lines = [f"HTTP/1.1 {status} So", *headers]
    if length is None or length >= 0:
        lines.append(f"Content-Length: {len(body) if length is None else length}")
    whole = "\r\n".join([*lines, "Connection: close", "", ""]).encode() + body
    return lambda held: held.sendall(whole)


def drips(first: bytes, drop: bytes, never: threading.Event) -> Answer:
    """A byte now and then for ten seconds; ``never`` is set if the other side stays so long."""

    def answer(held: socket.socket) -> None:
        held.sendall(first)
        for _ in range(200):
            threading.Event().wait(0.05)
            held.sendall(drop)
        never.set()

    return answer


@pytest.fixture(autouse=True)
def resolved(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What every name resolves to; no name may be looked up by any other way."""
    machines = ["127.0.0.1"]
    real = socket.getaddrinfo

    def numbers_only(host: str, *rest: object, **more: object) -> object:
        assert str(host).replace(".", "").isdigit(), f"{host} was looked up again"
        return real(host, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", numbers_only)
    monkeypatch.setattr(addresses, "resolve", lambda host, port: list(machines))
    return machines


@pytest.fixture
def serve() -> Iterator[Callable[..., Server]]:
    servers: list[Server] = []

    def start(*answers: Answer, secure: ssl.SSLContext | None = None) -> Server:
        servers.append(Server(*answers, secure=secure))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


def limits(server: Server) -> FetchLimits:
    return FetchLimits(
        hosts=(HOST,),
        private_hosts=(HOST,),
        ports=(server.port,),
        allow_http=True,
        most_bytes=10_000,
        total_s=20.0,
        stall_s=5.0,
        tries=3,
        backoff_s=0.01,
    )


def get(server: Server, folder: Path, told: FetchLimits | None = None, scheme: str = "http") -> Fetched:  # fmt: skip  # noqa: E501
    place = f"{scheme}://{HOST}:{server.port}/a/b.csv?X-Signature=s%2Fecret&n=1"
    return fetch(place, folder / "raw", told or limits(server), lambda: None)


def nothing_is_left(folder: Path) -> bool:
    return not list(folder.iterdir())


def test_a_file_comes_whole(tmp_path: Path, serve: Callable[..., Server]) -> None:
    server = serve(said(200, ROWS, "Content-Type: text/csv"))
    got = get(server, tmp_path)
    assert got == Fetched(len(ROWS), hashlib.sha256(ROWS).hexdigest(), ".json")
    assert (tmp_path / "raw").read_bytes() == ROWS
    assert [each.name for each in tmp_path.iterdir()] == ["raw"]
    head = server.requests[0].lower()
    assert server.requests[0].startswith("GET /a/b.csv?X-Signature=s%2Fecret&n=1 HTTP/1.1\r\n")
    assert f"host: {HOST}:{server.port}\r\n" in head
    assert "accept-encoding: identity\r\n" in head
    assert "authorization" not in head
    assert "cookie" not in head


def tls(folder: Path) -> tuple[ssl.SSLContext, Path]:
    path = folder / "both.pem"
    path.write_text(KEY_AND_CERTIFICATE)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context, path


def test_the_certificate_is_the_name_s_while_the_connection_is_the_address_s(
    tmp_path: Path, serve: Callable[..., Server]
) -> None:
    context, path = tls(tmp_path)
    asked: list[str | None] = []
    context.sni_callback = lambda _, name, __: asked.append(name)  # type: ignore[assignment, func-returns-value]
    server = serve(said(200, ROWS), secure=context)
    told = replace(limits(server), allow_http=False, ca_file=path)
    (tmp_path / "data").mkdir()
    assert get(server, tmp_path / "data", told, "https").bytes == len(ROWS)
    assert asked == [HOST]


@pytest.mark.parametrize("fault", ["another name", "unknown authority"])
def test_a_certificate_of_another_is_refused_at_once(
    tmp_path: Path, serve: Callable[..., Server], fault: str
) -> None:
    context, path = tls(tmp_path)
    server = serve(said(200, ROWS), secure=context)
    host = "other.example" if fault == "another name" else HOST
    told = replace(
        limits(server),
        hosts=(host,),
        private_hosts=(host,),
        ca_file=path if fault == "another name" else None,
    )
    target = tmp_path / "raw"
    with pytest.raises(InputError, match=r"(?i)certificate"):
        fetch(f"https://{host}:{server.port}/x?secret", target, told, lambda: None)
    assert (server.connections, server.requests) == (1, [])
    assert not target.exists()


@pytest.mark.parametrize(
    "place",
    [
        "http://data.example/x",
        "ftp://data.example/x",
        "file:///etc/passwd",
        "data.example/x",
        "https:///x",
        "https://",
        "https://me:pw@data.example/x",
        "https://data.example@evil.example/x",
        "https://data.example:8443/x",
        "https://data.example:99999/x",
        "https://data.example./x",
        "https://evildata.example/x",
        "https://data.example.evil.example/x",
        "https://below.example/x",
        "https://evilbelow.example/x",
        "https://127.0.0.1/x",
        "https://[::1]/x",
        "https://0x7f.1/x",
        "https://data.example\\@evil.example/x",
        "https://data.example/\x00",
        "https://dåta.example/x",
        "/etc/passwd",
        "",
    ],
)
def test_an_address_that_is_not_allowed_is_refused_in_a_line(place: str) -> None:
    told = FetchLimits(hosts=(HOST, "*.below.example"))
    with pytest.raises(InputError, match=r"^dataset: .*allowed ") as refused:
        place_of(place, told)
    assert "\n" not in str(refused.value)
    assert "pw" not in str(refused.value)


def test_hosts_are_exact_or_below_a_name() -> None:
    told = FetchLimits(hosts=(HOST, "*.Below.example"))
    for host in ("data.example", "DATA.EXAMPLE", "a.below.example", "a.b.below.example"):
        assert place_of(f"https://{host}/x", told).host == host.lower()
    for hosts in ((), ("*",), ("*.",)):
        with pytest.raises(InputError, match="found host"):
            place_of("https://data.example/x", FetchLimits(hosts=hosts))


@pytest.mark.parametrize(
    ("machine", "public"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.1.1", False),
        ("240.0.0.1", False),
        ("255.255.255.255", False),
        ("::1", False),
        ("::", False),
        ("::ffff:10.0.0.1", False),
        ("::ffff:8.8.8.8", False),
        ("::8.8.8.8", False),
        ("64:ff9b::a00:1", False),
        ("2002:a00:1::", False),
        ("2001:0:a00:1::", False),
        ("fe80::1%eth0", False),
        ("2606:4700::1111%eth0", False),
        ("fc00::1", False),
        ("ff0e::1", False),
        ("somewhere", False),
    ],
)
def test_public_is_what_everybody_reaches(machine: str, public: bool) -> None:
    assert is_public(machine) is public


@pytest.mark.parametrize("machines", [["127.0.0.1"], ["8.8.8.8", "10.0.0.1"], ["::ffff:7f00:1"]])
def test_one_private_address_is_enough_to_refuse(
    tmp_path: Path, serve: Callable[..., Server], resolved: list[str], machines: list[str]
) -> None:
    server = serve(said(200, ROWS))
    resolved[:] = machines
    with pytest.raises(InputError, match="allowed are public ones"):
        get(server, tmp_path, replace(limits(server), private_hosts=("other.example",)))
    assert server.connections == 0


def test_a_private_host_is_not_the_cloud_s_credentials(
    tmp_path: Path, serve: Callable[..., Server], resolved: list[str]
) -> None:
    server = serve(said(200, ROWS))
    resolved[:] = ["169.254.169.254"]
    with pytest.raises(InputError, match=r"169\.254\.169\.254"):
        get(server, tmp_path)


def test_a_name_that_changes_between_tries_is_checked_again(
    tmp_path: Path, serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(said(503))
    answers = iter([["127.0.0.1"], ["169.254.169.254"]])
    monkeypatch.setattr(addresses, "resolve", lambda *_: next(answers))
    with pytest.raises(InputError, match="allowed are public ones"):
        get(server, tmp_path)
    assert server.connections == 1


def test_another_address_of_a_name_is_tried(
    tmp_path: Path, serve: Callable[..., Server], resolved: list[str]
) -> None:
    server = serve(said(200, ROWS))
    resolved[:] = ["127.0.0.2", "127.0.0.1"]
    assert get(server, tmp_path, replace(limits(server), tries=1)).suffix == ".json"


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (said(302, b"", "Location: http://127.0.0.1/"), "redirect"),
        (said(404), "answer 404"),
        (said(403), "answer 403"),
        (said(429), "answer 429"),
        (said(204), "answer 204"),
        (said(206, ROWS), "answer 206"),
        (said(200, b"x" * 20, "Content-Encoding: gzip"), "content encoding"),
        (said(200, b"", length=10_001), "10001 bytes"),
        (said(200, b"a,b\n" * 5_000, length=-1), "over 10000 bytes"),
        (said(200, b"<!DOCTYPE html><p>Sign in"), "a page of markup"),
        (said(200, b"PK\x03\x04" + b"x" * 2_000), "a zip archive"),
        (said(200, b"\x80\x04\x95"), "a pickle"),
        (said(200, b""), "nothing in it"),
    ],
)
def test_what_trying_again_does_not_mend_is_refused_once(
    tmp_path: Path, serve: Callable[..., Server], answer: Answer, why: str
) -> None:
    server = serve(answer)
    with pytest.raises(InputError, match=why) as refused:
        get(server, tmp_path)
    assert server.connections == 1
    assert nothing_is_left(tmp_path)
    assert "ecret" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_body_that_lies_in_chunks_is_counted(
    tmp_path: Path, serve: Callable[..., Server]
) -> None:
    body = b"2710\r\n" + b"a" * 10_000 + b"\r\n" + b"1\r\na\r\n0\r\n\r\n"
    server = serve(said(200, body, "Transfer-Encoding: chunked", length=-1))
    with pytest.raises(InputError, match="over 10000 bytes"):
        get(server, tmp_path)
    assert nothing_is_left(tmp_path)


def test_passing_faults_are_tried_again_with_signs_of_life(
    tmp_path: Path, serve: Callable[..., Server]
) -> None:
    short = said(200, ROWS, length=100)
    server = serve(said(503), short, said(200, ROWS))
    beats: list[int] = []
    place = f"http://{HOST}:{server.port}/x"
    fetch(place, tmp_path / "raw", limits(server), lambda: beats.append(1))
    assert server.connections == 3
    assert len(beats) >= 6
    assert (tmp_path / "raw").read_bytes() == ROWS


@pytest.mark.parametrize("answer", [said(503), said(200, ROWS, length=100), lambda held: None])
def test_tries_are_bounded(tmp_path: Path, serve: Callable[..., Server], answer: Answer) -> None:
    server = serve(answer)
    with pytest.raises(FetchFailed, match="could not be fetched") as failed:
        get(server, tmp_path)
    assert server.connections == 3
    assert nothing_is_left(tmp_path)
    assert "ecret" not in str(failed.value)


@pytest.mark.parametrize(
    ("first", "drop"),
    [
        (b"HTTP/1.1 200 OK\r\nX: ", b"x"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4;", b"x"),
    ],
    ids=["headers", "chunk sizes"],
)
def test_a_server_that_only_seems_to_answer_is_cut(
    tmp_path: Path, serve: Callable[..., Server], first: bytes, drop: bytes
) -> None:
    never = threading.Event()
    server = serve(drips(first, drop, never))
    told = replace(limits(server), stall_s=0.4, connect_s=0.4, tries=1)
    with pytest.raises(FetchFailed, match="nothing came for"):
        get(server, tmp_path, told)
    assert not never.is_set()
    assert nothing_is_left(tmp_path)


def test_a_silent_server_is_cut(tmp_path: Path, serve: Callable[..., Server]) -> None:
    server = serve(lambda held: held.recv(1) and None)
    with pytest.raises(FetchFailed):
        get(server, tmp_path, replace(limits(server), stall_s=0.3, tries=1))


def test_a_body_without_end_is_cut_and_not_taken_for_whole(
    tmp_path: Path, serve: Callable[..., Server]
) -> None:
    never = threading.Event()
    server = serve(drips(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\na,b\n", b"1,2\n", never))
    with pytest.raises(FetchFailed, match=r"it took over 0\.6 s"):
        get(server, tmp_path, replace(limits(server), total_s=0.6))
    assert nothing_is_left(tmp_path)
    assert server.connections == 1
    assert not never.is_set()


def test_the_environment_sends_nobody_elsewhere(
    tmp_path: Path, serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, proxy = serve(said(200, ROWS)), serve(said(200, b"[1]"))
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
    netrc = tmp_path / "netrc"
    netrc.write_text("default login me password pw\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    get(server, tmp_path)
    assert (server.connections, proxy.connections) == (1, 0)
    assert "uthorization" not in server.requests[0]


def test_a_name_that_does_not_resolve_may_another_time(
    tmp_path: Path, serve: Callable[..., Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(said(200, ROWS))
    asked: list[str] = []

    def fails(host: str, _: int) -> list[str]:
        asked.append(host)
        raise socket.gaierror(-3, "try again")

    monkeypatch.setattr(addresses, "resolve", fails)
    with pytest.raises(FetchFailed, match="does not resolve"):
        get(server, tmp_path)
    assert asked == [HOST] * 3


def test_a_folder_that_cannot_be_written_is_no_fault_of_the_data(
    tmp_path: Path, serve: Callable[..., Server]
) -> None:
    server = serve(said(200, ROWS))
    with pytest.raises(FetchFailed, match="cannot be written"):
        get(server, tmp_path / "none")


def test_an_address_is_shown_without_what_it_opens_with() -> None:
    assert shown("https://me:pw@h.example/a?X-Sig=s#f") == "https://h.example/a"
    assert shown("https://h/\n\x1b[2J") == "https://h/??[2J"
    assert len(shown("https://h/" + "a" * 9_000)) == 200
