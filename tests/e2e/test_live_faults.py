"""The whole daemon, killed: at every named point and at random, while offers and jobs go on.

After each death the same data folder is served again. At the end every answer that was received
stands in the ledger once, no slot was given twice, every started job ran once and ended.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import httpx
import pytest

from live.faults import POINTS
from tests.e2e.live_checks import check_answers, check_jobs, check_slots
from tests.e2e.live_harness import Box, Market, offer_body, wait_for

DAEMON_POINTS = [point for point in POINTS if not point.endswith("exit_record")]


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    box = Box(tmp_path / "data")
    yield box
    box.clear()


def settle(box: Box) -> None:
    """Serve until no job holds a slot, then stop and look at everything."""
    wait_for(lambda: not _holding(box), "all slots to be free")
    assert box.stop() == 0


def _holding(box: Box) -> int:
    return int(box.status()["slots_in_use"])


def examine(box: Box, market: Market) -> None:
    assert not market.broken, market.broken
    ledger = box.ledger()
    check_answers(market.asked, ledger)
    check_slots(ledger)
    check_jobs(box.folders(), ledger, killed=set())
    box.verify()
    assert sum(told.accepted is True for told in market.asked) > 5


def test_killed_at_every_named_point_nothing_acknowledged_is_lost(box: Box) -> None:
    with Market(box, seed=1) as market:
        for number, point in enumerate(DAEMON_POINTS):
            if box.start(f"{point}:{2 + number % 3}") is not None:
                wait_for(box.dead, f"death at {point}")
            box.kill()
        assert box.start() is not None
        time.sleep(1.0)
    settle(box)
    examine(box, market)


def test_killed_at_random_it_finds_its_jobs_again(box: Box) -> None:
    draw = Random(7)
    with Market(box, seed=2) as market:
        for _ in range(6):
            assert box.start() is not None
            time.sleep(draw.uniform(0.2, 1.2))
            box.kill()
        assert box.start() is not None
        assert box.replayed > 10
        time.sleep(0.5)
    settle(box)
    examine(box, market)


def test_the_same_offer_a_thousand_times_is_one_decision(box: Box) -> None:
    import asyncio

    assert box.start() is not None
    body = offer_body("7d2b9a54-0d7c-4f43-9d7d-4f3d0f8f2a11")

    async def ask() -> list[bytes]:
        limits = httpx.Limits(max_connections=32)
        base = f"http://127.0.0.1:{box.port}"
        async with httpx.AsyncClient(base_url=base, limits=limits, timeout=60) as client:
            asking = (client.post("/task_offer/", json=body) for _ in range(1_000))
            return [answer.content for answer in await asyncio.gather(*asking)]

    answers = asyncio.run(ask())
    assert len(set(answers)) == 1
    wait_for(lambda: not _holding(box), "the reservation to lapse")
    assert box.stop() == 0
    told = [line["decisions"][0] for line in box.ledger() if line["kind"] == "offer"]
    assert len(told) == 1_000
    assert [each["repeat"] for each in told].count(False) == 1
    box.verify()
