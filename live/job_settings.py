"""How jobs are run: what the daemon's configuration may set, with what production uses."""

from dataclasses import dataclass, field
from math import inf

from live.training.settings import TrainingSettings
from shared.errors import InputError
from shared.units import MS_PER_MINUTE, MS_PER_SECOND

MARGIN_SHARE = 0.25
"""The warning never takes more of a job's time than this."""


@dataclass(frozen=True, slots=True)
class JobSettings:
    """Settings of launcher and supervisor. Names in ``_s`` are real seconds.

    worker_module, torchrun: what runs; torchrun False means one plain process. processes: ranks of
    a job; None means one for each GPU of its slot. max_restarts, heartbeat_timeout_s,
    start_timeout_s, stop_grace_s, checkpoint_every, log_bytes, cgroup,
    local_files, training: see ``JobSpec``.
    margin_ms: from the warning to the deadline. enforce_deadlines: False lets jobs take the real
    time they need (a rehearsal). speed: clock milliseconds a real one. poll_s: how often a job's
    folder is looked at. launch_timeout_s: for a launcher to appear. kill_timeout_s: for it to end
    when it is told to kill. release_timeout_s: for GPU memory to be released before the GPU is
    quarantined; stable_s: how long it must be well before it is used again. idle_bytes: memory a
    GPU may show while nobody uses it. health_every_s, storage_every_s: rounds of the two watches.
    systemd: whether a launcher gets a scope of its own where systemd runs. Raises InputError.
    """

    worker_module: str = "live.worker"
    torchrun: bool = True
    processes: int | None = None
    max_restarts: int = 2
    heartbeat_timeout_s: float = 25.0
    start_timeout_s: float = 120.0
    stop_grace_s: float = 20.0
    checkpoint_every: int = 50
    log_bytes: int = 20_000_000
    cgroup: bool = True
    local_files: bool = False
    margin_ms: int = 5 * MS_PER_MINUTE
    enforce_deadlines: bool = True
    speed: float = 1.0
    poll_s: float = 0.5
    launch_timeout_s: float = 15.0
    kill_timeout_s: float = 5.0
    release_timeout_s: float = 10.0
    stable_s: float = 30.0
    idle_bytes: int = 1_000_000_000
    health_every_s: float = 5.0
    storage_every_s: float = 15.0
    systemd: bool = True
    training: TrainingSettings = field(default_factory=TrainingSettings)

    def __post_init__(self) -> None:
        for name in (
            "heartbeat_timeout_s", "start_timeout_s", "stop_grace_s", "speed", "poll_s",
            "launch_timeout_s", "kill_timeout_s", "health_every_s", "storage_every_s",
        ):  # fmt: skip
            if not 0 < getattr(self, name) < inf:
                raise InputError(f"{name}: found {getattr(self, name)}, allowed is over 0")
        for name in ("max_restarts", "margin_ms", "release_timeout_s", "stable_s", "idle_bytes"):
            if not 0 <= getattr(self, name) < inf:
                raise InputError(f"{name}: found {getattr(self, name)}, allowed is 0 or more")

    def warn_ms(self, started_ms: int, deadline_ms: int) -> int:
        """When a job is told to save: the margin before its deadline.

        The margin is at least the grace of a stop and at most a quarter of the job's time.
        """
        grace_ms = self.stop_grace_s * MS_PER_SECOND * self.speed
        most_ms = (deadline_ms - started_ms) * MARGIN_SHARE
        return deadline_ms - round(min(max(self.margin_ms, grace_ms), most_ms))
