"""What is known of a run, gathered as it goes; its record and its result are made of it."""

from dataclasses import dataclass, field
from typing import Any

from live.training.loading import Source
from live.training.terms import Terms


@dataclass(slots=True)
class Facts:
    """Seconds are of this process.

    data_record: what the data came to; None for built-in rows, of which data_why tells. rows: of
    the data, usable ones; held_out: of those, not trained on. base_params: parameters of the base
    model. most_steps: of the wanted passes. measure: what the held-out rows are judged by. final:
    its value for what is handed in. faults: in one line each, what is wrong with that.
    """

    source: Source
    data_record: dict[str, Any] | None
    data_why: str
    rows: int
    held_out: int
    settled: Terms
    base_params: int
    most_steps: int
    load_s: float
    measure: str = ""
    finish_s: float = 0.0
    final: float | None = None
    beats_base: bool | None = None
    submission: str | None = None
    faults: list[str] = field(default_factory=list)
