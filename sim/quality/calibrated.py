"""Outcomes as a live ledger's jobs had them, read from a calibration file.

A slot between two measured sizes is read linearly in the logarithm of its GPUs' worth; beyond the
measured sizes the nearest one stands. Ratios are lognormal with the file's mean and deviation, so
the run's own noise is in them and none is added. Where the file has no speed for a model's size the
tokens are the physical model's.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log

import numpy as np

from shared.errors import InputError
from shared.units import MS_PER_MINUTE, MS_PER_SECOND
from sim.quality.calibration import ANY_TYPE, Calibration, Measured, SlotOutcomes, TypeOutcomes
from sim.quality.columns import Bools, Jobs, Luck, Outcomes, Slot
from sim.quality.config import QualityConfig
from sim.quality.throughput import trained
from sim.stream import Floats


@dataclass(frozen=True, slots=True)
class _At:
    """One task type at one slot size: mean and deviation of each ratio, the success rate."""

    test: tuple[float, float]
    synth: tuple[float, float]
    success: float


class Calibrated:
    """Losses, success and speed by task type and slot size, as measured."""

    def __init__(self, config: QualityConfig, calibration: Calibration) -> None:
        self._config = config
        self._calibration = calibration

    def outcomes(self, jobs: Jobs, slot: Slot, luck: Luck) -> Outcomes:
        """Raises InputError when the calibration has no entry for a task type among the jobs."""
        n = len(jobs)
        test, synth, success = np.empty(n), np.empty(n), np.empty(n)
        tokens = trained(jobs, slot, self._config.physical, self._config.reference).tokens
        for code in np.unique(jobs.task_type.codes).tolist():
            mine = jobs.task_type.codes == code
            entry = self._entry(jobs.task_type.names[code])
            at = _at(entry, slot.gpus_worth)
            test[mine] = _lognormal(at.test, luck.run[mine])
            synth[mine] = _lognormal(at.synth, _with_run(luck)[mine])
            success[mine] = at.success
            tokens = self._measured_tokens(tokens, jobs, slot, entry, mine)
        survives = (luck.fate < success) & ~jobs.late
        return Outcomes(
            np.where(survives, test, np.nan), np.where(survives, synth, np.nan), tokens, survives
        )

    def _entry(self, task_type: str) -> TypeOutcomes:
        known = self._calibration.task_types
        entry = known.get(task_type) or known.get(ANY_TYPE)
        if entry is None:
            raise InputError(
                f"calibration: task_types.{task_type}: found nothing, it is required "
                f"(or an entry {ANY_TYPE!r} for all others)"
            )
        return entry

    def _measured_tokens(
        self, tokens: Floats, jobs: Jobs, slot: Slot, entry: TypeOutcomes, mine: Bools
    ) -> Floats:
        nearest = min(entry.slots, key=lambda one: abs(log(one.gpus / slot.gpus_worth)))
        setup_ms = self._config.physical.setup_minutes * MS_PER_MINUTE
        in_time_ms = np.minimum(jobs.train_ms, jobs.hours * 3_600_000.0)
        seconds = np.maximum(in_time_ms - setup_ms, 0.0) / MS_PER_SECOND
        for speed in nearest.tokens_per_second:
            of_size = (jobs.params >= speed.params_from) & (jobs.params < speed.params_below)
            measured = seconds * slot.gpus * jobs.gpu_share * speed.mean
            tokens = np.where(mine & of_size, measured, tokens)
        return tokens


def _with_run(luck: Luck) -> Floats:
    """Luck of the synthetic ratio: half its variance is the run's, so good runs are good in both.

    The correlation is this model's assumption; the file has none.
    """
    return np.asarray((luck.run + luck.synth) * 0.5**0.5)


def _at(entry: TypeOutcomes, gpus_worth: float) -> _At:
    """The entry's numbers at a slot size, between its neighbours in the logarithm."""
    sizes = [log(slot.gpus) for slot in entry.slots]

    def read(values: list[float]) -> float:
        return float(np.interp(log(gpus_worth), sizes, values))

    def pair(of: list[Measured]) -> tuple[float, float]:
        return read([one.mean for one in of]), read([one.sd for one in of])

    slots: tuple[SlotOutcomes, ...] = entry.slots
    return _At(
        pair([slot.test_ratio for slot in slots]),
        pair([slot.synth_ratio for slot in slots]),
        read([slot.success.rate for slot in slots]),
    )


def _lognormal(of: tuple[float, float], z: Floats) -> Floats:
    """Lognormal values of this mean and deviation (of the values) from standard normal ones."""
    mean, sd = of
    variance = log(1.0 + (sd / mean) ** 2)
    return np.asarray(mean * np.exp(variance**0.5 * z - variance / 2))
