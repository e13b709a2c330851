"""A disk with no byte left under the whole daemon: nothing is acknowledged that is not written."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from uuid import UUID

import httpx
import pytest

from shared.presets import ACCURACY_4
from tests.e2e.live_checks import Asked, check_answers
from tests.e2e.live_harness import Box, Market, offer_body, wait_for

STORAGE = ACCURACY_4.messages.storage
SIZE_MB = 300
"""Room for a job, which a daemon without GPUs wants to see free, and a little more."""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE_MB}m", "tmpfs", str(place)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("a file system of its own needs mount(8)")
    if done.returncode:
        pytest.skip(f"a file system of its own needs root: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.fixture
def box(disk: Path) -> Iterator[Box]:
    box = Box(disk / "data")
    box.log = disk.with_name("daemon.log")  # its log lies on another disk
    yield box
    box.clear()


def fill(disk: Path) -> Path:
    """Take every block that is left; the file that holds them."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        os.posix_fallocate(file.fileno(), 0, (SIZE_MB - 8) << 20)
    for size in (1 << 20, 4096):
        with ballast.open("ab", buffering=0) as file, suppress(OSError):
            while file.write(b"\0" * size):
                pass
    assert os.statvfs(disk).f_bavail == 0
    return ballast


def test_while_the_disk_is_full_offers_are_refused_and_afterwards_taken(
    disk: Path, box: Box
) -> None:
    assert box.start() is not None
    market = Market(box, seed=1)
    numbers = iter(range(1, 100_000))

    def offer(client: httpx.Client) -> Asked:
        task_id = str(UUID(int=next(numbers), version=4))
        return market.ask(client, "offer", task_id, offer_body(task_id))

    def refused() -> int:
        return sum(told.message == STORAGE for told in market.asked)

    with httpx.Client(base_url=f"http://127.0.0.1:{box.port}", timeout=15) as client:
        assert offer(client).accepted
        ballast = fill(disk)
        # Blocks that the ledger holds already may take some more entries; those are written.
        wait_for(lambda: offer(client) and refused() >= 100, "the refusals")
        ballast.unlink()
        wait_for(lambda: offer(client).accepted, "an offer to be accepted again")
    wait_for(lambda: box.status()["slots_in_use"] == 0, "the reservations to lapse")
    assert box.stop() == 0
    ledger = box.ledger()
    written = {line["input"]["offer"]["task_id"] for line in ledger if line["kind"] == "offer"}
    for told in market.asked:
        assert told.task_id in written or told.message == STORAGE, told
    check_answers([told for told in market.asked if told.task_id in written], ledger)
    box.verify()
