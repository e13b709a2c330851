"""``python -m benchmarks.live_load``: offers at a steady rate against the real daemon.

The daemon runs as a process of its own, with real syncs and stub jobs; clients are raw sockets that
are kept open. Each request is timed from the moment it was due, so one that has to wait for the
answer before it on its connection, or for a busy machine, shows that wait. A bare sync of the same
disk is timed before and after.
"""

import argparse
import asyncio
import json
import os
import re
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any
from uuid import UUID

from benchmarks.soak import fsync_ms
from tests.e2e.live_harness import Box, offer_body

Due = asyncio.Queue[tuple[float, bytes] | None]
LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.live_load", description=__doc__)
    parser.add_argument("--rate", type=int, default=100, help="requests a second")
    parser.add_argument("--seconds", type=int, default=600)
    parser.add_argument("--connections", type=int, default=8)
    parser.add_argument("--json", action="store_true")
    call = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        found = measured(Path(folder), call.rate, call.seconds, call.connections)
    if call.json:
        print(json.dumps(found, indent=2))
    else:
        for name, value in found.items():
            print(f"{name}: {value}")
    return 0


def measured(folder: Path, rate: int, seconds: int, connections: int) -> dict[str, Any]:
    """Start the daemon, send the offers, and say what was seen; times in milliseconds."""
    box = Box(folder / "data")
    before = fsync_ms(folder)
    try:
        ready_s = box.start()
        assert box.port is not None, box.tail()
        times = sorted(asyncio.run(_load(box.port, rate, seconds, connections)))
        memory = _memory_mb(box.pid)
        box.stop()
        box.verify()
    finally:
        box.clear()
    return {
        "requests": len(times),
        "a_second": rate,
        "answer_ms": {"median": median(times), "p99": times[int(0.99 * (len(times) - 1))],
                      "most": times[-1]},
        "daemon_mb": memory,
        "ready_s": ready_s,
        "fsync_ms": {"before": before, "after": fsync_ms(folder)},
        "cores": os.cpu_count(),
    }  # fmt: skip


async def _load(port: int, rate: int, seconds: int, connections: int) -> list[float]:
    """Milliseconds of each request."""
    queues: list[Due] = [asyncio.Queue() for _ in range(connections)]
    times: list[float] = []
    clients = [asyncio.create_task(_client(port, queue, times)) for queue in queues]
    begun = time.perf_counter()
    for number in range(rate * seconds):
        due = begun + number / rate
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        queues[number % connections].put_nowait((due, _request(number)))
    for queue in queues:
        queue.put_nowait(None)
    await asyncio.gather(*clients)
    return times


def _request(number: int) -> bytes:
    body = json.dumps(offer_body(str(UUID(int=number + 1, version=4)))).encode()
    head = (
        "POST /task_offer/ HTTP/1.1\r\nhost: box\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def _client(port: int, queue: Due, times: list[float]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while (waiting := await queue.get()) is not None:
        due, request = waiting
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 "), head
        length = LENGTH.search(head)
        assert length is not None
        await reader.readexactly(int(length[1]))
        times.append((time.perf_counter() - due) * 1e3)
    writer.close()


def _memory_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) / 1e3


if __name__ == "__main__":
    sys.exit(main())
