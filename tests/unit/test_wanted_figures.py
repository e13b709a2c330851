"""A benchmark that misses a wanted figure says so and exits with 1."""

import json
import sys
from typing import Any

import pytest

from benchmarks import live_load, slow_sockets, soak
from benchmarks.wanted import verdict


def test_each_missed_figure_has_its_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert verdict({"a": (2.0, 2.0), "b": (0.1, 20.0)}) == 0
    assert capsys.readouterr().err == ""
    assert verdict({"a": (2.1, 2.0), "b": (0.1, 20.0), "c": (float("nan"), 1.0)}) == 1
    assert capsys.readouterr().err.splitlines() == [
        "missed: a: found 2.1, wanted at most 2",
        "missed: c: found nan, wanted at most 1",
    ]


@pytest.mark.parametrize(
    ("median", "p99", "ready", "code"),
    [(1.9, 19.0, 2.9, 0), (2.1, 19.0, 2.9, 1), (1.9, 21.0, 2.9, 1), (1.9, 19.0, 3.1, 1)],
)
def test_the_load_wants_what_is_promised(
    monkeypatch: pytest.MonkeyPatch, median: float, p99: float, ready: float, code: int
) -> None:
    found = {"answer_ms": {"median": median, "p99": p99, "most": 99.0}, "ready_s": ready}
    monkeypatch.setattr(live_load, "measured", lambda *_: found)
    monkeypatch.setattr(sys, "argv", ["live_load", "--json"])
    assert live_load.main() == code


@pytest.mark.parametrize(("ready", "slow", "code"), [(3.0, 250.0, 0), (3.1, 1, 1), (1, 251.0, 1)])
def test_the_soak_wants_what_is_promised(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    ready: float,
    slow: float,
    code: int,
) -> None:
    told: dict[str, Any] = {"answer_ms": {"p99": slow}}
    monkeypatch.setattr(soak, "soak", lambda *_: {"ready_s": {"max": ready}})
    monkeypatch.setattr(slow_sockets, "measured", lambda _: told)
    monkeypatch.setattr(soak, "fsync_ms", lambda _: {})
    monkeypatch.setattr(sys, "argv", ["soak", "--kills", "1"])
    assert soak.main() == code
    assert json.loads(capsys.readouterr().out)["slow_sockets"] == told
