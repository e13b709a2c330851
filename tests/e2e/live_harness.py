"""The real daemon as a process, to be fed, killed, started again and looked into."""

import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

import apsw
import httpx

from live.admin import ask
from live.config import PREFIX
from live.job_files import EXIT, lock_held
from live.job_files import launcher_of as launcher_record
from live.reaping import reap
from tests.e2e.live_checks import Asked

ROOT = Path(__file__).parents[2]
PATIENCE_S = 60.0
PORT = re.compile(r"taking offers at http://127\.0\.0\.1:(\d+)")
SETTINGS = {
    "DEVICE": "cpu",
    "LOG": "json",
    "HTTP__PORT": "0",
    "HTTP__METRICS_PORT": "0",
    "JOBS__WORKER": "stub",
    "SPOOL__ENABLED": "false",
    "POLICY__RESERVATION_TTL_MINUTES": "0.05",
}


def wait_for(condition: Callable[[], Any], what: str, patience_s: float = PATIENCE_S) -> Any:
    """What ``condition`` gives once that is true; waiting in vain is an error."""
    end = time.monotonic() + patience_s
    while not (found := condition()):
        assert time.monotonic() < end, f"in vain: {what}"
        time.sleep(0.01)
    return found


def offer_body(task_id: str) -> dict[str, object]:
    return {
        "task_id": task_id,
        "model": "org/model-7b",
        "task_type": "InstructTextTask",
        "hours_to_complete": 8,
        "ds_size": 100_000,
        "model_params_count": None,
    }


def start_body(task_id: str, seconds: float, behaviour: str = "work") -> dict[str, object]:
    return {
        "task_id": task_id,
        "model": "org/model-7b",
        "hours_to_complete": 8,
        "expected_repo_name": "repo-1",
        "dataset": "https://data.example/train.json",
        "dataset_type": {"field_instruction": "q", "field_output": "a"},
        "file_format": "s3",
        "stub_seconds": seconds,
        "behaviour": behaviour,
    }


class Box:
    """One data folder and the daemon on it, which may be dead."""

    def __init__(self, data: Path, **settings: str) -> None:
        """settings: of the configuration, as ``HTTP__PORT="0"``."""
        self.data, self.log = data, data.with_name(data.name + ".log")
        told = {PREFIX + key: value for key, value in (SETTINGS | settings).items()}
        clean = {key: value for key, value in os.environ.items() if not key.startswith(PREFIX)}
        self._environment = {**clean, **told, PREFIX + "DATA": str(data)}
        self.process: subprocess.Popen[bytes] | None = None
        self.port: int | None = None
        self.replayed = 0

    def start(self, fault: str | None = None) -> float | None:
        """Start the daemon; seconds until it was ready, None when it died before."""
        with self.starting(fault) as ready:
            return ready()

    @contextmanager
    def starting(self, fault: str | None = None) -> Iterator[Callable[[], float | None]]:
        """Start the daemon; what is given waits until it is ready."""
        assert self.process is None
        with tempfile.TemporaryDirectory() as folder, socket.socket(
            socket.AF_UNIX, socket.SOCK_DGRAM
        ) as told:  # fmt: skip
            told.bind(folder + "/notify")
            environment = {**self._environment, "NOTIFY_SOCKET": folder + "/notify"}
            if fault is not None:
                environment["FOUR_SLOT_FAULT"] = fault
            with self.log.open("ab") as log:
                at, begun = log.tell(), time.monotonic()
                self.process = subprocess.Popen(
                    [sys.executable, "-m", "live"],
                    cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                )  # fmt: skip
            yield lambda: self._ready(told, at, begun)

    def _ready(self, told: socket.socket, at: int, begun: float) -> float | None:
        assert self.process is not None
        while not select.select([told], [], [], 0.05)[0]:
            if self.process.poll() is not None:
                return None
            assert time.monotonic() < begun + PATIENCE_S, f"not ready: {self.tail()}"
        took = time.monotonic() - begun
        text = wait_for(lambda: self._told_all(at), "its log")
        if "ready: " not in text:  # it was killed at its first commit, before it could say so
            return None
        self.replayed = int(re.search(r"(\d+) ledger entries", text)[1])  # type: ignore[index]
        self.port = int(PORT.search(text)[1])  # type: ignore[index]
        return took

    def _told_all(self, at: int) -> str:
        """Its log once it says that it is ready or says nothing any more, else nothing."""
        over = self.dead()
        text = self._said(at)
        return text or "dead" if over or "ready: " in text else ""

    def _said(self, at: int) -> str:
        with self.log.open("rb") as log:
            log.seek(at)
            return log.read().decode()

    def tail(self) -> str:
        """The end of its log."""
        return self.log.read_text(encoding="utf-8")[-2000:]

    @property
    def pid(self) -> int:
        """Of the daemon, which was started."""
        assert self.process is not None
        return self.process.pid

    def dead(self) -> bool:
        """Whether the daemon has ended by itself."""
        return self.process is None or self.process.poll() is not None

    def kill(self) -> int:
        """SIGKILL, unless it is dead already; its return code."""
        return self._end(signal.SIGKILL)

    def stop(self) -> int:
        """SIGTERM; its return code."""
        return self._end(signal.SIGTERM)

    def _end(self, sign: int) -> int:
        assert self.process is not None
        self.port = None
        self.process.send_signal(sign)
        code = self.process.wait(PATIENCE_S)
        self.process = None
        return code

    def status(self) -> dict[str, Any]:
        """What it answers to ``live status``."""
        return ask(self.data, {"ask": "status"})

    def ledger(self) -> list[dict[str, Any]]:
        """Every line, of a daemon that was stopped."""
        flags = apsw.SQLITE_OPEN_READWRITE
        with apsw.Connection(str(self.data / "ledger.db"), flags=flags) as file:
            rows = file.execute("SELECT line FROM ledger ORDER BY seq").fetchall()
        file.close()
        return [json.loads(line) for (line,) in rows]

    def verify(self) -> None:
        """``sim verify`` must find no difference."""
        command = [sys.executable, "-m", "sim", "verify", str(self.data / "ledger.db")]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def folders(self) -> list[Path]:
        """The job folders, in the order of their starts."""
        with suppress(FileNotFoundError):
            return sorted((self.data / "jobs").iterdir())
        return []

    def clear(self) -> None:
        """Leave no process behind."""
        if self.process is not None:
            self.kill()
        for folder in self.folders():
            if (folder / EXIT).exists() and not lock_held(folder):
                continue
            record = launcher_record(folder)
            if record is not None and lock_held(folder):
                with suppress(ProcessLookupError):
                    os.kill(record.pid, signal.SIGKILL)
            reap(folder, record.cgroup if record else None, patience_s=10.0)


class Market:
    """Clients that offer tasks, start what is accepted, and note every answer they got."""

    def __init__(self, box: Box, seed: int, clients: int = 3, pause_s: float = 0.06) -> None:
        """pause_s: a client waits up to so long between two tasks."""
        self._box, self._pause_s, self._over = box, pause_s, threading.Event()
        self._lock = threading.Lock()
        self.asked: list[Asked] = []
        self.broken: list[BaseException] = []
        self._threads = [
            threading.Thread(target=self._guarded, args=(Random(seed * 1000 + each),))
            for each in range(clients)
        ]

    def __enter__(self) -> "Market":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _guarded(self, draw: Random) -> None:
        try:
            self._trade(draw)
        except BaseException as why:
            self.broken.append(why)

    def _trade(self, draw: Random) -> None:
        while not self._over.wait(draw.uniform(0, self._pause_s)):
            port = self._box.port
            if port is None:
                continue
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=15) as client:
                while self._box.port == port and self._task(client, draw):
                    if self._over.wait(draw.uniform(0, self._pause_s)):
                        return

    def _task(self, client: httpx.Client, draw: Random) -> bool:
        """One task from its offer to its start; False when an answer did not come."""
        task_id = str(UUID(int=draw.getrandbits(128), version=4))
        told = self.ask(client, "offer", task_id, offer_body(task_id))
        if told.accepted is None or draw.random() < 0.1:  # asked again, elsewhere in time
            with suppress(TimeoutError), self._again() as other:
                told = self.ask(other, "offer", task_id, offer_body(task_id))
        if told.accepted:
            with suppress(TimeoutError), self._again() as other:
                body = start_body(task_id, draw.uniform(0.1, 1.5))
                told = self.ask(other, "start", task_id, body)
        return told.accepted is not None

    @contextmanager
    def _again(self) -> Iterator[httpx.Client]:
        """A client of the daemon that is there by now. Raises TimeoutError at the end."""
        while (port := self._box.port) is None:
            if self._over.wait(0.01):
                raise TimeoutError
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=15) as client:
            yield client

    def ask(self, client: httpx.Client, kind: str, task_id: str, body: object) -> Asked:
        """Send one request and note what came back, or that nothing did."""
        path = {"offer": "/task_offer/", "start": "/start_training/"}[kind]
        sent_ms, accepted, message = time.time_ns() // 1_000_000, None, ""
        with suppress(httpx.TransportError):
            answer = client.post(path, json=body)
            assert answer.status_code == 200, answer.text
            accepted, message = answer.json()["accepted"], answer.json()["message"]
        asked = Asked(kind, task_id, sent_ms, time.time_ns() // 1_000_000, accepted, message)
        with self._lock:
            self.asked.append(asked)
        return asked
