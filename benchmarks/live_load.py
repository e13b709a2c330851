"""``python -m benchmarks.live_load``: offers at a steady rate against the real daemon.

The daemon runs as a process of its own, with real syncs and stub jobs; clients are raw sockets that
are kept open. Each request is timed from the moment it was due, so one that has to wait for the
answer before it on its connection, or for a busy machine, shows that wait. A bare sync of the same
disk is timed before and after.
"""

import argparse
import json
import os
import re
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path
from statistics import median
from typing import Any
from uuid import UUID

from benchmarks.fsync import fsync_ms
from benchmarks.wanted import MEDIAN_MS, P99_MS, READY_S, verdict
from tests.e2e.live_harness import Box, offer_body

LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)


def main() -> int:
    """Measure and print; 1 when a wanted figure is missed."""
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
    answer = found["answer_ms"]
    return verdict(
        {
            "median, ms": (answer["median"], MEDIAN_MS),
            "p99, ms": (answer["p99"], P99_MS),
            "ready, s": (found["ready_s"], READY_S),
        }
    )


def measured(folder: Path, rate: int, seconds: int, connections: int) -> dict[str, Any]:
    """Start the daemon, send the offers, and say what was seen; times in milliseconds."""
    box = Box(folder / "data")
    before = fsync_ms(folder)
    try:
        ready_s = box.start()
        assert box.port is not None, box.tail()
        times, slept = loaded(box.port, rate, seconds, connections)
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
        "client_late_ms": {"median": median(slept), "p99": slept[int(0.99 * (len(slept) - 1))]},
        "daemon_mb": memory,
        "ready_s": ready_s,
        "fsync_ms": {"before": before, "after": fsync_ms(folder)},
        "cores": os.cpu_count(),
    }  # fmt: skip


def loaded(port: int, rate: int, seconds: int, connections: int) -> tuple[list[float], list[float]]:
    """Milliseconds of each request from its due moment; and how late clients slept by themselves.

    A thread a connection: it sleeps to the microsecond, where an event loop's timers come up to a
    millisecond late, which would be counted as the daemon's.
    """
    times: list[float] = []
    slept: list[float] = []
    begun = time.perf_counter() + 0.5
    due = [begun + number / rate for number in range(rate * seconds)]
    clients = [
        threading.Thread(target=_client, args=(port, first, connections, due, times, slept))
        for first in range(connections)
    ]
    for each in clients:
        each.start()
    for each in clients:
        each.join()
    if len(times) != len(due):
        raise RuntimeError(f"{len(due) - len(times)} of {len(due)} requests had no answer")
    return sorted(times), sorted(slept)


def _request(number: int) -> bytes:
    body = json.dumps(offer_body(str(UUID(int=number + 1, version=4)))).encode()
    head = (
        "POST /task_offer/ HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _client(
    port: int,
    first: int,
    step: int,
    due: list[float],
    times: list[float],
    slept: list[float],
) -> None:
    """One connection: every ``step``-th request, from ``first`` on."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for number in range(first, len(due), step):
            request = _request(number)
            left_s = due[number] - time.perf_counter()
            if left_s > 0:
                time.sleep(left_s)
                slept.append((time.perf_counter() - due[number]) * 1e3)
            connection.sendall(request)
            _receive(connection)
            times.append((time.perf_counter() - due[number]) * 1e3)


def _receive(connection: socket.socket) -> None:
    """One answer, whole."""
    got = b""
    while b"\r\n\r\n" not in got:
        got += _some(connection)
    head, body = got.split(b"\r\n\r\n", 1)
    assert head.startswith(b"HTTP/1.1 200 "), head
    length = LENGTH.search(head)
    assert length is not None
    while len(body) < int(length[1]):
        body += _some(connection)


def _some(connection: socket.socket) -> bytes:
    part = connection.recv(65_536)
    assert part, "the daemon closed the connection"
    return part


def _memory_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) / 1e3


if __name__ == "__main__":
    sys.exit(main())
