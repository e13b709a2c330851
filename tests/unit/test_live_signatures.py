"""Signed requests: who is let in, and that none is let in twice."""

from hashlib import sha256

import pytest
import sr25519

from live.intake.nonces import Nonces
from live.intake.refusals import Refused
from live.intake.signatures import LOCAL_SOURCE, Open, Signed, need_loopback
from live.intake.ss58 import address_of, public_key
from live.rows import ForgetNonces, Nonce
from shared.errors import InputError

ALICE = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"
ALICE_KEY = "d43593c715fdd31c61141abd04a99fd6822c8558854ccde39a5684e7a56da27d"
NOW = 1_700_000_000_000
BODY = b'{"task_id":"x"}'

OURS = sr25519.pair_from_seed(bytes([1]) * 32)
VALIDATOR = sr25519.pair_from_seed(bytes([2]) * 32)
STRANGER = sr25519.pair_from_seed(bytes([3]) * 32)
POOR = sr25519.pair_from_seed(bytes([4]) * 32)
OUR_KEY, VALIDATOR_KEY, POOR_KEY = (address_of(pair[0]) for pair in (OURS, VALIDATOR, POOR))
STAKES = {VALIDATOR_KEY: 1_000.0, POOR_KEY: 999.9}

BAD_SIGNATURES = ["0x" + "g" * 128, "zz", "0x", "0x00", "00" * 64, "0x" + "ff" * 64, "é"]


def signed(nonces: Nonces | None = None) -> Signed:
    return Signed(OUR_KEY, STAKES, 1_000.0, Nonces() if nonces is None else nonces)


def headers(
    pair=VALIDATOR, body: bytes | None = BODY, miner=OUR_KEY, nonce=f"{NOW}000000_abcdefghij", **put
) -> list[tuple[bytes, bytes]]:
    text = f"{nonce}:{miner}" + (f":{sha256(body).hexdigest()}" if body is not None else "")
    told = {
        "validator-hotkey": address_of(pair[0]),
        "miner-hotkey": miner,
        "nonce": nonce,
        "signature": "0x" + sr25519.sign(pair, text.encode()).hex(),
    }
    told |= {key.replace("_", "-"): value for key, value in put.items()}
    return [(key.encode(), value.encode("latin-1")) for key, value in told.items() if value != ""]


def refused(asked: list[tuple[bytes, bytes]], now=NOW, body=BODY, bodiless=False, auth=None) -> str:
    nonces = Nonces()
    with pytest.raises(Refused) as caught:
        (auth or signed(nonces)).caller(asked, body, now, bodiless=bodiless)
    assert not len(nonces)  # nothing is stored of what is refused
    assert caught.value.status in (401, 403)
    return f"{caught.value.status} {caught.value}"


def test_known_addresses():
    assert public_key(ALICE).hex() == ALICE_KEY
    assert address_of(bytes.fromhex(ALICE_KEY)) == ALICE
    assert address_of(bytes(32), 0).startswith("1")
    assert public_key(address_of(bytes(32), 0)) == bytes(32)


@pytest.mark.parametrize("text", ["", "5", ALICE[:-1] + "Z", ALICE[:-1], "0" * 48, "5" * 500, "é"])
def test_other_text_is_no_address(text):
    with pytest.raises(InputError, match="allowed is an SS58 address"):
        public_key(text)


def test_a_good_signature_names_its_source_and_nonce():
    caller = signed().caller(headers(), BODY, NOW, bodiless=False)
    assert caller.source == VALIDATOR_KEY
    nonce = Nonce(VALIDATOR_KEY, f"{NOW}000000_abcdefghij", NOW + 120_000)
    assert caller.rows == (nonce, ForgetNonces(NOW))


def test_who_may_not_ask():
    assert refused(headers(STRANGER)).startswith("403 validator-hotkey: not one of")
    assert refused(headers(POOR)).startswith("403 validator-hotkey: its stake")
    assert refused(headers(miner=VALIDATOR_KEY)).startswith("401 miner-hotkey")
    forged = headers(STRANGER, validator_hotkey=VALIDATOR_KEY)
    assert refused(forged).startswith("401 signature: it does not fit")


def test_the_body_is_signed():
    assert refused(headers(), body=BODY + b" ").startswith("401 signature: it does not fit")
    assert refused(headers(body=None)).startswith("401 signature: it does not fit")


@pytest.mark.parametrize("body", [None, b""])
def test_a_request_that_has_no_body_may_leave_its_hash_out(body):
    caller = signed().caller(headers(body=body), b"", NOW, bodiless=True)
    assert caller.source == VALIDATOR_KEY
    assert refused(headers(body=None), body=b"", bodiless=False).startswith("401 signature")


@pytest.mark.parametrize("signature", BAD_SIGNATURES)
def test_no_signature_at_all_is_a_401(signature):
    assert refused(headers(signature=signature)).startswith("401 signature")


@pytest.mark.parametrize("name", ["validator_hotkey", "miner_hotkey", "nonce", "signature"])
def test_each_header_once(name):
    shown = name.replace("_", "-")
    assert refused(headers(**{name: ""})) == f"401 {shown}: the header is missing"
    twice = [*headers(), (shown.encode(), b"x")]
    assert refused(twice) == f"401 {shown}: found twice, allowed is once"


@pytest.mark.parametrize("nonce", ["x", "_a", f"{NOW}", f"{NOW}000000_", "9" * 400 + "_a", "-5_a"])
def test_odd_nonces(nonce):
    assert refused(headers(nonce=nonce)).startswith("401 nonce: allowed is")


def test_the_window_is_two_minutes_either_way():
    for off in (-120_000, 120_000):
        assert signed().caller(headers(), BODY, NOW + off, bodiless=False).source == VALIDATOR_KEY
    for off in (-120_001, 120_001):
        assert refused(headers(), now=NOW + off).startswith("401 nonce: more than 120 seconds")


def test_a_nonce_is_good_once_before_and_after_a_restart():
    first = signed()
    rows = first.caller(headers(), BODY, NOW, bodiless=False).rows
    for auth in (first, signed(Nonces([row for row in rows if isinstance(row, Nonce)]))):
        with pytest.raises(Refused, match="nonce: used before"):
            auth.caller(headers(), BODY, NOW + 1, bodiless=False)
    late = headers(nonce=f"{NOW}000000_abcdefghik")
    assert first.caller(late, BODY, NOW, bodiless=False).source == VALIDATOR_KEY


def test_a_nonce_older_than_the_run_is_refused():
    auth = Signed(OUR_KEY, STAKES, 1_000.0, Nonces(), since_ms=NOW)
    late = headers(nonce=f"{NOW - 1}999999_abcdefghij")
    assert refused(late, auth=auth) == "401 nonce: older than this run of the daemon"
    assert auth.caller(headers(), BODY, NOW + 5, bodiless=False).source == VALIDATOR_KEY


def test_a_nonce_from_the_future_is_remembered_until_it_is_too_old():
    auth = signed()
    ahead = headers(nonce=f"{NOW + 120_000}000000_a")
    auth.caller(ahead, BODY, NOW, bodiless=False)
    with pytest.raises(Refused, match="used before"):
        auth.caller(ahead, BODY, NOW + 240_000, bodiless=False)
    with pytest.raises(Refused, match="more than 120"):
        auth.caller(ahead, BODY, NOW + 240_001, bodiless=False)


def test_the_memory_is_bounded_and_forgets():
    nonces = Nonces(most=2)
    assert nonces.claim(Nonce("h", "a", 10), 0) == (Nonce("h", "a", 10), ForgetNonces(0))
    assert nonces.claim(Nonce("h", "b", 20), 0) == (Nonce("h", "b", 20),)
    with pytest.raises(Refused) as caught:
        nonces.claim(Nonce("h", "c", 20), 10)
    assert caught.value.status == 429
    nonces.claim(Nonce("h", "c", 20), 11)
    assert len(nonces) == 2
    assert nonces.claim(Nonce("h", "d", 90_000), 60_000)[1] == ForgetNonces(60_000)


def test_bad_configuration_is_one_line():
    with pytest.raises(InputError, match=r"^hotkey: found"):
        Signed("x", {}, 0, Nonces())
    with pytest.raises(InputError, match=r"^validators: found"):
        Signed(OUR_KEY, {"x": 1.0}, 0, Nonces())


def test_open_to_all_only_on_the_loopback():
    assert Open().caller([], b"", NOW, bodiless=False).source == LOCAL_SOURCE
    for host in ("127.0.0.1", "127.8.8.8", "::1", "localhost"):
        need_loopback(host)
    for host in ("0.0.0.0", "::", "10.0.0.1", "example.org", "", "localhost.example.org"):
        with pytest.raises(InputError, match=r"^auth: found host"):
            need_loopback(host)


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost:7999", "LOCALHOST", "127.0.0.1:7999", "127.1.2.3", "[::1]", "[::1]:1"],
)
def test_a_program_of_this_machine_needs_no_signature(host):
    asked = [(b"Host", host.encode()), (b"accept", b"*/*")]
    assert Open().caller(asked, b"", NOW, bodiless=False).source == LOCAL_SOURCE


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:7999", "127.0.0.1.evil.example", "localhost.evil.example", "",
     "10.0.0.1", "[::2]:7999", "::1", "localhost:x", "a@localhost", "é"],
)  # fmt: skip
def test_a_page_that_led_its_browser_here_by_a_name_of_its_own_is_refused(host):
    for asked in ([host], ["localhost", host]):
        told = [(b"host", each.encode("latin-1")) for each in asked]
        assert refused(told, auth=Open()).startswith("403 host: allowed")


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://localhost:7999", ""])
def test_a_web_page_is_refused_wherever_it_comes_from(origin):
    told = [(b"host", b"localhost"), (b"Origin", origin.encode())]
    assert refused(told, auth=Open()).startswith("403 origin: found a web page's")
