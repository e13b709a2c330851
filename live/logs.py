"""Structured logs: one event a line, for people at a terminal and as JSON elsewhere."""

import asyncio
import logging
import sys
from typing import Literal

import structlog
from structlog.typing import Processor

from live.stamping import MachineView
from shared.decisions import Decision, Gate, capacity_warning
from shared.jobs import Answer, Effect
from shared.ledger import LedgerEntry

log = structlog.get_logger("live")

SOON_S = 0.05
"""Seconds after which decisions are logged."""


def set_up(form: Literal["auto", "console", "json"]) -> None:
    """Have everything that is logged written to stderr, what the libraries say from warnings on."""
    people = sys.stderr.isatty() if form == "auto" else form == "console"
    shared: list[Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    last: Processor = (
        structlog.dev.ConsoleRenderer(colors=people and sys.stderr.isatty())
        if people
        else structlog.processors.JSONRenderer(ensure_ascii=False)
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    remove = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(processors=[remove, last], foreign_pre_chain=shared)
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    logging.getLogger("live").setLevel(logging.INFO)


class DecisionLog:
    """Logs every decision and effect once it is durable. A listener of the daemon's.

    Lines are written a moment later, many at once: an answer does not wait for its log line.
    """

    def __init__(self, machine: MachineView) -> None:
        """machine: for the number of slots in use beside a capacity refusal."""
        self._machine = machine
        self._waiting: list[tuple[int, Answer, int]] = []

    def on_entry(self, entry: LedgerEntry, answers: list[Answer]) -> None:
        """Have one entry logged soon."""
        if not self._waiting:
            asyncio.get_running_loop().call_later(SOON_S, self.flush)
        in_use = self._machine.slots_in_use
        self._waiting += [(entry.seq, answer, in_use) for answer in answers]

    def flush(self) -> None:
        """Write what waits."""
        waiting, self._waiting = self._waiting, []
        for seq, answer, in_use in waiting:
            if isinstance(answer, Effect):
                _log_effect(seq, answer)
            else:
                self._log_decision(seq, answer, in_use)

    def _log_decision(self, seq: int, decision: Decision, in_use: int) -> None:
        log.info(
            "decided", seq=seq, task_id=decision.task_id, accepted=decision.accepted,
            gate=decision.gate, slot=decision.slot, reason=decision.reason, repeat=decision.repeat,
        )  # fmt: skip
        if decision.gate == Gate.CAPACITY.label and not decision.repeat:
            log.warning(capacity_warning(self._machine.policy.preset, in_use))


def _log_effect(seq: int, effect: Effect) -> None:
    told = {"reason": effect.reason, "slot": effect.slot, "gpu": effect.gpu}
    known = {key: value for key, value in told.items() if value is not None}
    log.info(effect.effect, seq=seq, task_id=effect.task_id, **known)
