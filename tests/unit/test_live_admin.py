"""The admin socket: who may open it, and what it answers to good and bad requests."""

import asyncio
import json
import socket
import stat

import pytest

from live.admin import LONGEST, SOCKET, AdminSocket, ask
from shared.errors import InputError


async def _double(asked):
    return {"twice": asked["n"] * 2}


async def _complain(_):
    raise InputError("n: found 1, allowed is 2")


COMMANDS = {"double": _double, "complain": _complain}


def served(folder, *requests):
    """The answers of an open socket to these questions, asked one after another."""

    async def play():
        admin = AdminSocket(folder, COMMANDS)
        await admin.open()
        try:
            return [await asyncio.to_thread(request) for request in requests]
        finally:
            await admin.close()

    return asyncio.run(play())


def raw(folder, sent):
    def request():
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            connection.connect(str(folder / SOCKET))
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            return connection.makefile("rb").readline()

    return request


def test_a_command_is_answered_and_its_complaint_raised(tmp_path):
    def complain():
        with pytest.raises(InputError, match="allowed is 2"):
            ask(tmp_path, {"ask": "complain"})

    answer, _ = served(tmp_path, lambda: ask(tmp_path, {"ask": "double", "n": 4}), complain)
    assert answer == {"twice": 8}


def test_its_owner_alone_can_open_it_and_it_goes_with_the_daemon(tmp_path):
    (mode,) = served(tmp_path, lambda: stat.S_IMODE((tmp_path / SOCKET).stat().st_mode))
    assert mode == 0o600
    assert not (tmp_path / SOCKET).exists()


def test_what_a_dead_daemon_left_is_replaced(tmp_path):
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / SOCKET))
    with pytest.raises(InputError, match="no daemon answers"):
        ask(tmp_path, {"ask": "double", "n": 1})
    assert served(tmp_path, lambda: ask(tmp_path, {"ask": "double", "n": 1})) == [{"twice": 2}]


@pytest.mark.parametrize(
    "sent", [b"\n", b"{\n", b"[]\n", b"3\n", b'{"ask": []}\n', b'{"ask": "x"}\n']
)
def test_a_bad_request_is_told_what_is_allowed(tmp_path, sent):
    answer, after = served(
        tmp_path, raw(tmp_path, sent), raw(tmp_path, b'{"ask":"double","n":1}\n')
    )
    assert json.loads(answer) == {"error": "ask: allowed is one of double, complain"}
    assert json.loads(after) == {"twice": 2}


def test_a_request_too_long_ends_nothing_but_itself(tmp_path):
    def too_long():
        try:
            return raw(tmp_path, b"x" * (LONGEST * 3))()
        except OSError:  # closed while it was being sent
            return b""

    answer, after = served(tmp_path, too_long, lambda: ask(tmp_path, {"ask": "double", "n": 2}))
    assert answer == b""
    assert after == {"twice": 4}


def test_a_folder_deeper_than_an_address_may_be_long(tmp_path):
    folder = tmp_path / ("d" * 100) / ("e" * 100)
    folder.mkdir(parents=True)
    assert served(folder, lambda: ask(folder, {"ask": "double", "n": 3})) == [{"twice": 6}]


def test_no_folder_no_daemon(tmp_path):
    with pytest.raises(InputError, match="no daemon answers there"):
        ask(tmp_path / "none", {"ask": "double"})
