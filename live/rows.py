"""What is kept in the ledger's file beside the ledger: rows written in the entry's transaction."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Nonce:
    """A signed request's nonce that was used, and until when it has to be remembered (UTC ms)."""

    hotkey: str
    nonce: str
    expires_ms: int


@dataclass(frozen=True, slots=True)
class ForgetNonces:
    """Nonces that expired before this time (UTC ms) need not be remembered any longer."""

    before_ms: int


@dataclass(frozen=True, slots=True)
class StartPayload:
    """What a start request brought, whole, as JSON text. Kept when the start takes effect.

    seq: the ledger seq of the start entry; the daemon fills it in.
    """

    task_id: str
    payload: str
    seq: int = 0


@dataclass(frozen=True, slots=True)
class Submission:
    """What is answered when a task's trained model is asked for. A later one takes its place."""

    task_id: str
    value: str


@dataclass(frozen=True, slots=True)
class Training:
    """What a job's training came to, a ``TrainingRecord`` as JSON text. Kept when the job is gone.

    seq: the ledger seq of the entry that it is gone; the store fills it in.
    """

    task_id: str
    payload: str
    seq: int = 0


@dataclass(frozen=True, slots=True)
class JobFolder:
    """The folder of a started job, by the ledger seq of its start entry; the daemon writes it."""

    seq: int
    task_id: str
    dir: str


Row = Nonce | ForgetNonces | StartPayload | Submission | Training | JobFolder
Extra = Row | tuple[Row, ...]
"""What has to be durable together with an input."""


def job_dir(seq: int) -> str:
    """The name of a job's folder: a task id is a stranger's text and never names a file."""
    return f"{seq:08d}"
