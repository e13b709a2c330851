"""The intake over HTTP in front of the real daemon and ledger: the protocol, and its enemies."""

import asyncio
import json
import random
import socket
from contextlib import asynccontextmanager, suppress
from hashlib import sha256

import httpx
import pytest
import sr25519

from live.clock import ManualClock
from live.daemon import Daemon
from live.intake.app import Intake, intake_app
from live.intake.body_cap import BodyCap
from live.intake.desk import Desk
from live.intake.nonces import Nonces
from live.intake.protocol import dialect_named
from live.intake.serve import BoundedProtocol, serve
from live.intake.signatures import Open, Signed
from live.intake.ss58 import address_of
from live.ledger_store import StorageError
from live.recovery import open_ledger
from live.rows import Submission
from shared.decisions import Policy
from shared.errors import InputError
from shared.presets import ACCURACY_4

NOW = 1_700_000_000_000
TASK = "6f1f6f2e-3e7c-4f3e-9d7e-0123456789ab"
OFFER = {
    "task_id": TASK,
    "model": "org/model-7b",
    "task_type": "InstructTextTask",
    "hours_to_complete": 8,
    "ds_size": 100_000,
    "model_params_count": None,
}
START = {
    "task_id": TASK,
    "model": "org/model-7b",
    "hours_to_complete": 8,
    "expected_repo_name": "repo-1",
    "dataset": "https://data.example/train.json",
    "dataset_type": {"field_instruction": "q", "field_output": "a"},
    "file_format": "s3",
}
OURS, VALIDATOR = (sr25519.pair_from_seed(bytes([seed]) * 32) for seed in (1, 2))
OUR_KEY, VALIDATOR_KEY = address_of(OURS[0]), address_of(VALIDATOR[0])


class World:
    """The daemon, its intake, and what they stand on."""

    def __init__(self, path, auth=None, dialect="late"):
        self.clock = ManualClock(NOW)
        self.opened = open_ledger(path, Policy(ACCURACY_4), NOW)
        self.store = self.opened.store
        self.daemon = Daemon(self.opened.recorder, self.store, self.clock, retry_s=0.01)
        self.auth = auth(self.store) if auth else Open()
        self.unledgered = []
        told = self.unledgered.append
        self.desk = Desk(self.daemon, answer_s=30.0, start_s=30.0, unledgered=told)
        self.requests = []
        intake = Intake(
            self.desk,
            self.auth,
            self.clock.now_ms,
            self.store.submission,
            dialect_named(dialect),
        )
        self.app = intake_app(intake, lambda *told: self.requests.append(told))

    def kinds(self):
        return [json.loads(line)["kind"] for _, _, line in self.store.lines()]


@asynccontextmanager
async def running(path, **how):
    world = World(path, **how)
    task = asyncio.create_task(world.daemon.run())
    try:
        yield world
    finally:
        await world.daemon.stop()
        await task
        world.store.close()


@asynccontextmanager
async def served(app, **how):
    stop = asyncio.Event()
    serving = await serve(app, "127.0.0.1", 0, stop, **how)
    try:
        yield serving
    finally:
        stop.set()
        await serving.task


@asynccontextmanager
async def client_of(port):
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
        yield client


@pytest.fixture
def path(tmp_path):
    return tmp_path / "ledger.db"


def test_a_task_from_offer_to_submission(path):
    async def story():
        async with running(path) as world, served(world.app) as at, client_of(at.port) as client:
            answer = await client.post("/task_offer/", json=OFFER)
            assert answer.status_code == 200
            assert answer.json() == {
                "message": "Accepted for accuracy optimization - priority 0.940",
                "accepted": True,
            }
            again = await client.post("/task_offer", json={**OFFER, "hours_to_complete": 8.0})
            assert again.json() == answer.json()
            image = {**OFFER, "task_id": TASK[:-1] + "0", "task_type": "ImageTask"}
            assert (await client.post("/task_offer_image/", json=image)).json()["accepted"]
            url = f"/get_latest_model_submission/{TASK}"
            assert (await client.get(url)).status_code == 404
            start = await client.post("/start_training/", json={**START, "new": 1})
            assert start.json() == {"message": "Training started", "accepted": True}
            assert json.loads(world.store.start_payload(TASK)) == {**START, "new": 1}
            for kind in ("_grpo/", "_image"):
                answer = await client.post("/start_training" + kind, json=START)
                assert answer.status_code == (422 if "image" in kind else 200)
            await world.daemon.keep(Submission(TASK, "me/repo-1"))
            told = (await client.get(url + "/")).json()
            assert told == {"repo": "me/repo-1", "model_hash": None}
            assert world.kinds()[:4] == ["policy", "offer", "offer", "offer"]
            assert world.requests[0][:2] == ("/task_offer", 200)
            assert {told[0] for told in world.requests} == {
                *("/task_offer", "/task_offer_image", "/get_latest_model_submission"),
                *("/start_training", "/start_training_grpo", "/start_training_image"),
            }

    asyncio.run(story())


def test_the_early_submission_is_a_json_string(path):
    async def story():
        async with running(path, dialect="early") as world:
            await world.daemon.keep(Submission(TASK, '{"repo":"me/r","model_hash":"h"}'))
            url = f"/get_latest_model_submission/{TASK.upper()}"
            assert await ask(world.app, "GET", url) == (200, "me/r")

    asyncio.run(story())


async def ask(app, method, path, body=b"", headers=()):
    """One request straight to the application; its status and its JSON."""
    parts = [{"type": "http.request", "body": body, "more_body": False}]
    sent = []

    async def receive():
        return parts.pop() if parts else {"type": "http.disconnect"}

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "scheme": "http",
        "headers": list(headers),
        "server": ("127.0.0.1", 80),
        "client": ("127.0.0.1", 5),
    }
    await app(scope, receive, send)
    answer = b"".join(message.get("body", b"") for message in sent[1:])
    return sent[0]["status"], json.loads(answer)


def test_a_web_page_gets_no_decision(path):
    async def story():
        async with running(path) as world, served(world.app) as at, client_of(at.port) as client:
            for header in ({"Host": "evil.example"}, {"Origin": "https://evil.example"}):
                answer = await client.post("/task_offer/", json=OFFER, headers=header)
                assert answer.status_code == 403
                assert list(answer.json()) == ["detail"]
            assert world.kinds() == ["policy"]

    asyncio.run(story())


def test_nothing_else_is_served(path):
    async def story():
        async with running(path) as world:
            for place in ("/", "/docs", "/redoc", "/openapi.json", "/metrics", "/task_offer/x"):
                assert (await ask(world.app, "GET", place))[0] == 404
            assert (await ask(world.app, "GET", "/task_offer/"))[0] == 405
            url = "/get_latest_model_submission/..%2f"
            assert (await ask(world.app, "GET", url))[0] == 422

    asyncio.run(story())


ODD = [
    *(None, True, 0, -1, 1.5, 10**29, 10**400, 1e300, "", "x", "\0", "../../etc/passwd", [], {}),
    *("\ud800", "é" * 300, [[[[]]]], {"a": {"b": None}}, float("nan"), float("inf"), "5", " 1"),
]


def malformed(draw: random.Random) -> tuple[str, bytes]:
    """A request that is not what it should be."""
    base = dict(draw.choice((OFFER, START)))
    place = draw.choice(("/task_offer/", "/task_offer_image/", "/start_training/"))
    how = draw.randrange(6)
    for _ in range(draw.randint(1, 3)):
        base[draw.choice([*base, "new", "dataset_type"])] = draw.choice(ODD)
    text = json.dumps(base).encode()
    at = draw.randrange(len(text))
    cuts = [text, text[:at], text[:at] + b"\xff" + text[at:], text.replace(b":", b"", 1)]
    wild = [draw.randbytes(at), b"[" * draw.randint(1, 3000)]
    return place, [*cuts, *wild][how]


def test_ten_thousand_malformed_requests(path):
    async def story():
        async with running(path) as world:
            draw = random.Random(1)
            statuses = set()
            for _ in range(10_000):
                place, body = malformed(draw)
                status, told = await ask(world.app, "POST", place, body)
                statuses.add(status)
                assert status in (200, 400, 422), (place, body)
                assert "\n" not in told.get("detail", "")
                world.clock.advance(1)
            assert {400, 422} <= statuses
            answer = await ask(world.app, "POST", "/task_offer/", json.dumps(OFFER).encode())
            assert answer[0] == 200

    asyncio.run(story())


async def raw(port, text):
    """Bytes to a socket; what comes back until it is closed."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with suppress(ConnectionError):
        writer.write(text)
        writer.write_eof() if not text.endswith(b"\r\n\r\n") else None
        await writer.drain()
    answer = b""
    with suppress(ConnectionError):
        answer = await reader.read()
    writer.close()
    return answer


def test_garbage_on_real_sockets(path):
    async def story():
        draw = random.Random(2)
        async with running(path) as world, served(world.app, request_s=0.2) as at:
            heads = [
                b"POST /task_offer/ HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n",
                b"POST /task_offer/ HTTP/1.1\r\nContent-Length: 5\r\n\r\n",
                b"POST /task_offer/ HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: x\r\n\r\n",
                b"GET /\x00 HTTP/1.1\r\nHost: localhost\r\n\r\n",
                b"GET / HTTP/9.9\r\nHost: localhost\r\nConnection: close\r\n\r\n",
                HALF_HEAD + b"Connection: close\r\nX: " + b"x" * 40_000 + b"\r\n\r\n",
                HALF_HEAD + b"Upgrade: websocket\r\nConnection: close, upgrade\r\n\r\n",
                HALF_HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
            ]
            garbage = [draw.randbytes(draw.randint(1, 2000)) for _ in range(292)] + heads
            for at_once in range(0, 300, 50):
                several = garbage[at_once : at_once + 50]
                answers = await asyncio.gather(*(raw(at.port, text) for text in several))
                assert not [answer for answer in answers if b" 5" in answer[:12]]
            async with client_of(at.port) as client:
                assert (await client.post("/task_offer/", json=OFFER)).json()["accepted"]

    asyncio.run(story())


async def slow(port, text):
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(text)
    await writer.drain()
    return reader, writer


HALF_HEAD = b"POST /task_offer/ HTTP/1.1\r\nHost: localhost\r\n"
HALF_BODY = HALF_HEAD + b"Content-Length: 1000\r\n\r\nabc"
HALF_SECOND = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\nPOST /task"


def test_five_hundred_slow_sockets_hold_nobody_up(path):
    async def story():
        async with running(path) as world, served(world.app, request_s=3.0) as at:
            dawdlers = [
                await slow(at.port, (HALF_HEAD, HALF_BODY, b"P", b"")[n % 4]) for n in range(500)
            ]
            async with client_of(at.port) as client:
                for _ in range(50):
                    answer = await client.post("/task_offer/", json=OFFER)
                    assert answer.json()["accepted"]
            assert not [1 for reader, _ in dawdlers if reader.at_eof()]
            async with asyncio.timeout(60):
                for reader, writer in dawdlers:  # every one of them is dropped
                    with suppress(ConnectionError):
                        while await reader.read(1000):
                            pass
                    writer.close()

    asyncio.run(story())


def test_dripping_does_not_put_the_limit_off(path):
    async def story():
        async with running(path) as world, served(world.app, request_s=0.2) as at:
            for begun in (HALF_HEAD, HALF_BODY, HALF_SECOND):
                reader, writer = await slow(at.port, begun)
                gone = asyncio.create_task(reader.read())
                async with asyncio.timeout(30):
                    while not gone.done():
                        with suppress(ConnectionError):
                            writer.write(b"x")
                            await writer.drain()
                        await asyncio.sleep(0.02)
                with suppress(ConnectionError):
                    await gone
                writer.close()

    asyncio.run(story())


def test_the_oldest_dawdler_makes_room(path):
    async def story():
        async with running(path) as world, served(world.app, most_connections=4) as at:
            dawdlers = [await slow(at.port, HALF_HEAD) for _ in range(4)]
            async with client_of(at.port) as client:
                assert (await client.post("/task_offer/", json=OFFER)).json()["accepted"]
            with suppress(ConnectionError):
                assert await dawdlers[0][0].read() == b""
            assert not dawdlers[-1][0].at_eof()
            for _, writer in dawdlers:
                writer.close()

    asyncio.run(story())


def test_bodies_that_stay_half_sent_shut_nobody_out(path):
    async def story():
        async with running(path) as world, served(world.app) as at:
            head = HALF_HEAD + b"Content-Length: 1048576\r\n\r\n"
            dawdlers = [await slow(at.port, head + b"x" * 1_048_570) for _ in range(40)]
            async with client_of(at.port) as client:
                for _ in range(3):
                    assert (await client.post("/task_offer/", json=OFFER)).json()["accepted"]
            first = await asyncio.wait_for(dawdlers[0][0].read(12), 10)
            assert first == b"HTTP/1.1 429"
            for _, writer in dawdlers:
                writer.close()

    asyncio.run(story())


def test_long_heads_are_refused(path):
    """In one piece, as one header without end, as many of them, and as a path without end."""

    async def story():
        async with running(path) as world, served(world.app) as at:
            for part in (b"X-A: " + b"a" * 20_000 + b"\r\n\r\n", b"X-A: b\r\n" * 3_000 + b"\r\n"):
                answer = await raw(at.port, HALF_HEAD + part)
                assert answer.startswith(b"HTTP/1.1 400 "), answer[:60]
            for start, more in ((HALF_HEAD + b"X-A: ", b"a"), (b"GET /", b"a"), (b"", b"\r\n")):
                _, writer = await slow(at.port, start)
                sent = 0
                with suppress(ConnectionError):
                    while sent < 2_000:
                        writer.write(more * 1_000)
                        await writer.drain()
                        sent += 1
                        await asyncio.sleep(0)
                assert sent < 2_000, more
                writer.close()
            async with client_of(at.port) as client:
                long = {"X-A": "a" * 8_000, "X-B": "b" * 7_000}
                assert (await client.post("/task_offer/", json=OFFER, headers=long)).is_success

    asyncio.run(story())


def test_odd_requests_are_answered_or_dropped(path):
    async def story():
        async with running(path) as world, served(world.app, request_s=1.0) as at:
            for text in (
                b"CONNECT a:1 HTTP/1.1\r\nHost: localhost\r\n\r\n",
                b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n",
                b"GET http://[x/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
                HALF_HEAD
                + b"Upgrade: websocket\r\nConnection: upgrade\r\nContent-Length: 2\r\n\r\n{}",
                HALF_HEAD + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
                HALF_HEAD + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n",
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            ):
                answer = await raw(at.port, text)
                assert answer == b"" or answer.startswith(b"HTTP/1.1 4"), (text, answer)
            async with client_of(at.port) as client:
                assert (await client.post("/task_offer/", json=OFFER)).json()["accepted"]

    asyncio.run(story())


def test_long_bodies_are_refused_early(path):
    async def story():
        async with running(path) as world, served(world.app) as at:
            head = HALF_HEAD + b"Content-Length: 314572800\r\n\r\n"
            answer = await raw(at.port, head)  # not a byte of the body was sent
            assert answer.startswith(b"HTTP/1.1 413 ")
            assert answer.endswith(b'{"detail":"body: allowed are 1048576 bytes"}')
            _, writer = await slow(at.port, HALF_HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
            sent = 0
            with suppress(ConnectionError):
                while sent < 300:
                    writer.write(b"100000\r\n" + b"x" * (1 << 20) + b"\r\n")
                    await writer.drain()
                    sent += 1
            assert sent < 300
            writer.close()
            exact = json.dumps(OFFER).encode().ljust(1 << 20)
            async with client_of(at.port) as client:
                assert (await client.post("/task_offer/", content=exact)).status_code == 200
            answer = await raw(at.port, HALF_HEAD + b"Content-Length: 1048577\r\n\r\n")
            assert answer.startswith(b"HTTP/1.1 413 ")

    asyncio.run(story())


def test_all_bodies_together_have_a_bound():
    async def story():
        held = asyncio.Event()

        async def app(scope, body, send):
            await held.wait()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"{}"})

        capped = BodyCap(app, most_bodies=10)
        first = asyncio.create_task(ask(capped, "POST", "/", b"x" * 6))
        await asyncio.sleep(0)
        assert (await ask(capped, "POST", "/", b"x" * 6))[0] == 429
        held.set()
        assert (await first)[0] == 200
        assert (await ask(capped, "POST", "/", b"x" * 10))[0] == 200
        odd = [(b"content-length", b"-1")]
        assert (await ask(capped, "POST", "/", b"", odd))[0] == 413

    asyncio.run(story())


def test_the_same_offer_a_thousand_times(path):
    async def story():
        async with running(path) as world:
            body, answers = json.dumps(OFFER).encode(), []
            for _ in range(1000 // 32 + 1):
                asked = (ask(world.app, "POST", "/task_offer/", body) for _ in range(32))
                answers += await asyncio.gather(*asked)
            assert len(answers) >= 1000
            assert all(answer == answers[0] for answer in answers)
            told = [json.loads(line)["decisions"] for _, _, line in world.store.lines()]
            fresh = [each for decided in told for each in decided if not each["repeat"]]
            assert len(fresh) == 1
            assert len(told) == 1 + len(answers)
            assert world.daemon.machine.slots_in_use == 1

    asyncio.run(story())


def test_what_cannot_be_written_is_refused(path, monkeypatch):
    async def story():
        async with running(path) as world:
            append = world.store.append

            def full(*_):
                raise StorageError("ledger.db: cannot be written: disk full")

            monkeypatch.setattr(world.store, "append", full)
            body = json.dumps(OFFER).encode()
            status, told = await ask(world.app, "POST", "/task_offer/", body)
            assert status == 200
            assert told == {
                "message": "Not accepting: storage, no room for another job",
                "accepted": False,
            }
            assert world.kinds() == ["policy"]
            assert world.unledgered == ["unwritten"]
            monkeypatch.setattr(world.store, "append", append)
            status, told = await ask(world.app, "POST", "/task_offer/", body)
            assert told["accepted"]
            assert world.unledgered == ["unwritten"]

    asyncio.run(story())


def headers(body, nonce):
    text = f"{nonce}:{OUR_KEY}:{sha256(body).hexdigest()}".encode()
    told = {
        "validator-hotkey": VALIDATOR_KEY,
        "miner-hotkey": OUR_KEY,
        "nonce": nonce,
        "signature": "0x" + sr25519.sign(VALIDATOR, text).hex(),
    }
    return [(key.encode(), value.encode()) for key, value in told.items()]


def signed(store):
    return Signed(OUR_KEY, {VALIDATOR_KEY: 5_000.0}, 1_000.0, Nonces(list(store.nonces())))


def test_signed_requests_are_good_once_across_a_restart(path):
    offer, start = json.dumps(OFFER).encode(), json.dumps(START).encode()
    bad = b"{}"
    asked = [
        ("POST", "/task_offer/", offer, headers(offer, f"{NOW}000000_aaaaaaaaaa"), 200),
        ("POST", "/start_training/", start, headers(start, f"{NOW}000000_bbbbbbbbbb"), 200),
        ("POST", "/task_offer/", bad, headers(bad, f"{NOW}000000_cccccccccc"), 422),
        (
            "GET",
            f"/get_latest_model_submission/{TASK}",
            b"",
            headers(b"", f"{NOW}000000_dddddddddd"),
            404,
        ),
    ]

    async def story(*, again):
        async with running(path, auth=signed) as world:
            for method, place, body, signature, status in asked:
                for replay in [True] if again else [False, True]:
                    told = await ask(world.app, method, place, body, signature)
                    assert told[0] == (401 if replay else status)
                    if replay:
                        assert told[1] == {"detail": "nonce: used before"}
            assert world.kinds() == ["policy", "offer", "start"]
            source = world.daemon.machine.jobs[TASK].source
            assert source == VALIDATOR_KEY
            assert (await ask(world.app, "POST", "/task_offer/", offer))[0] == 401

    asyncio.run(story(again=False))
    asyncio.run(story(again=True))


def test_the_same_signed_request_twice_at_once_passes_once(path):
    async def story():
        async with running(path, auth=signed) as world:
            body = json.dumps(OFFER).encode()
            asked = headers(body, f"{NOW}000000_aaaaaaaaaa")
            several = (ask(world.app, "POST", "/task_offer/", body, asked) for _ in range(20))
            statuses = sorted([status for status, _ in await asyncio.gather(*several)])
            assert statuses == [200] + [401] * 19

    asyncio.run(story())


def test_a_taken_port_is_one_line_and_a_free_one_is_told(path):
    async def story():
        async with running(path) as world, served(world.app) as at:
            assert at.port > 0
            with pytest.raises(InputError, match=rf"^host, port: found .*, {at.port}: address"):
                await serve(world.app, "127.0.0.1", at.port, asyncio.Event())
            with pytest.raises(InputError, match=r"^host, port: found"):
                await serve(world.app, "no.such.host.invalid", 0, asyncio.Event())

    asyncio.run(story())


def test_answers_are_not_held_back_by_nagle(monkeypatch):
    made = []
    before = BoundedProtocol.connection_made

    def note(self, transport):
        sock = transport.get_extra_info("socket")
        made.append(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
        before(self, transport)

    async def story():
        monkeypatch.setattr(BoundedProtocol, "connection_made", note)
        async with served(BodyCap(lambda *_: None)) as at:
            _, writer = await slow(at.port, HALF_HEAD)
            async with asyncio.timeout(10):
                while not made:
                    await asyncio.sleep(0)
            writer.close()
        assert made[0] != 0

    asyncio.run(story())


def test_requests_in_hand_are_answered_at_the_end(path):
    async def story():
        entered, go = asyncio.Event(), asyncio.Event()

        async def app(scope, body, send):
            entered.set()
            await go.wait()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"{}"})

        stop = asyncio.Event()
        at = await serve(BodyCap(app), "127.0.0.1", 0, stop)
        dawdler, writer = await slow(at.port, HALF_HEAD)
        async with client_of(at.port) as client:
            asked = asyncio.create_task(client.post("/", content=b"x"))
            await entered.wait()
            stop.set()
            with suppress(ConnectionError):
                assert await dawdler.read() == b""
            go.set()
            assert (await asked).status_code == 200
        await at.task
        writer.close()
        with pytest.raises(ConnectionError):
            await asyncio.open_connection("127.0.0.1", at.port)

    asyncio.run(story())
