"""What is known of a run, gathered as it goes; its record and its result are made of it."""

from dataclasses import dataclass, field

from live.training.inputs import Texts
from live.training.loading import Source
from live.training.planning import Settled
from live.training.trainers import Data


@dataclass(slots=True)
class Facts:
    """Seconds are of this process.

    base_params: parameters of the base model. most_steps: of the wanted epochs. measure: what the
    held-out rows are judged by. final: its value for what is handed in. faults: in one line each,
    what is wrong with that.
    """

    source: Source
    texts: Texts
    data: Data
    settled: Settled
    base_params: int
    most_steps: int
    load_s: float
    measure: str = ""
    finish_s: float = 0.0
    final: float | None = None
    beats_base: bool | None = None
    submission: str | None = None
    faults: list[str] = field(default_factory=list)
