"""What an operator may ask of a running daemon, over the admin socket."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Literal

from live.admin import Json
from live.clock import Clock
from live.daemon import Daemon
from live.gpus import Gpus
from live.intake.serve import Serving
from live.ledger_store import StorageError
from live.status import status
from live.supervisor import Supervisor
from shared.errors import InputError
from shared.inputs import OperatorAsked
from shared.wire import found

log = logging.getLogger(__name__)

OPERATOR_S = 5.0
"""An operator's word takes effect within so long, or not at all."""


class Operator:
    """The commands, by name."""

    def __init__(
        self,
        daemon: Daemon,
        supervisor: Supervisor,
        gpus: Gpus,
        clock: Clock,
        http: Callable[[], Serving | None],
    ) -> None:
        """http: where offers come in by now, if they do."""
        self._daemon, self._supervisor, self._gpus = daemon, supervisor, gpus
        self._clock, self._http = clock, http
        self.commands: dict[str, Callable[[Json], Awaitable[Json]]] = {
            "status": self._status,
            "drain": self._drain,
            "resume": self._resume,
            "cancel": self._cancel,
            "gpu_ok": self._gpu_ok,
        }

    async def _status(self, _: Json) -> Json:
        told = await asyncio.to_thread(
            status, self._daemon.durable(), self._supervisor, self._gpus, self._clock,
            ledger_failing=self._daemon.storage_failing,
        )  # fmt: skip
        http = self._http()
        told["http"] = None if http is None else f"{http.host}:{http.port}"
        return told

    async def _drain(self, _: Json) -> Json:
        await self._operate("drain")
        return {"draining": True, "jobs": len(self._daemon.machine.jobs)}

    async def _resume(self, _: Json) -> Json:
        await self._operate("resume")
        return {"draining": False, "jobs": len(self._daemon.machine.jobs)}

    async def _operate(self, action: Literal["drain", "resume"]) -> None:
        """Enter it in time or not at all. Raises StorageError."""
        try:
            async with asyncio.timeout(OPERATOR_S):
                await self._daemon.enter(OperatorAsked(action))
        except TimeoutError:
            raise StorageError(f"the ledger cannot be written now: no {action}") from None

    async def _cancel(self, asked: Json) -> Json:
        task_id = str(asked.get("task_id", ""))
        self._supervisor.cancel(task_id, "asked by the operator")
        return {"cancelled": task_id}

    async def _gpu_ok(self, asked: Json) -> Json:
        gpu = asked.get("gpu")
        if not isinstance(gpu, int):
            raise InputError(f"gpu: found {found(gpu)}, allowed is a GPU's number")
        reason = await self._supervisor.gpu_watch.clear(gpu)
        log.warning("GPU %d: the operator calls it well; forgotten: %s", gpu, reason or "nothing")
        return {"gpu": gpu, "reason": reason}
