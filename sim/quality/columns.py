"""What goes into a model of training outcomes and what comes out, one element a job.

Losses are relative: 1.0 is the loss of the reference run of the same task, lower is better, for
every task type. The market ranks GRPO by a reward, higher is better: ``reward`` maps a relative
loss to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from shared.presets import Preset
from shared.profiles import TrainingProfile
from shared.units import MS_PER_HOUR
from sim.quality.config import Noise
from sim.stream import Floats, Ints, Labels
from sim.streams import uniforms

Bools = NDArray[np.bool_]

GRPO, IMAGE = "GrpoTask", "ImageTask"
_LEAST_U = 2.0**-54


@dataclass(frozen=True, slots=True)
class Slot:
    """A preset's slot: ``gpus`` whole GPUs, ``gpu_share`` of each while every slot runs.

    gb_per_gpu: GB of each GPU that the slot may use. profile: the training it asks for.
    """

    gpus: int
    gpu_share: float
    gb_per_gpu: float
    profile: TrainingProfile

    @property
    def gpus_worth(self) -> float:
        """GPUs' worth of compute while every slot runs: 2 for the pairs, 1/3 for 24 slots."""
        return self.gpus * self.gpu_share


def slot_of(preset: Preset) -> Slot:
    """The slot that every job of this preset trains in."""
    layout = preset.layout
    gpus = len(layout.gpus[0])
    return Slot(gpus, layout.gpu_share, layout.memory_gb_per_gpu, preset.profile)


@dataclass(frozen=True, slots=True)
class Jobs:
    """n jobs of one preset.

    offer: int64, each job's index into the stream. hours: float64, hours until the deadline.
    train_ms: int64, how long the job really trains, set-up included. params: int64, -1 when not
    told. gpu_share: float64 in (0, 1], the part of each of its GPUs the job had on average.
    """

    offer: Ints
    task_type: Labels
    model: Labels
    params: Ints
    hours: Floats
    train_ms: Ints
    gpu_share: Floats

    def __len__(self) -> int:
        return len(self.offer)

    @property
    def late(self) -> Bools:
        """Jobs that end after their deadline."""
        return np.asarray(self.train_ms > np.rint(self.hours * MS_PER_HOUR), dtype=np.bool_)


@dataclass(frozen=True, slots=True)
class Luck:
    """The luck of n jobs (or of every offer of a stream): element i belongs to offer i alone.

    run, synth: standard normal. test_range, synth_range, fate: uniform in [0, 1). The same for
    every preset and every model.
    """

    run: Floats
    synth: Floats
    test_range: Floats
    synth_range: Floats
    fate: Floats

    def of(self, offer: Ints) -> Luck:
        """The luck of the jobs on these offers."""
        return Luck(
            self.run[offer],
            self.synth[offer],
            self.test_range[offer],
            self.synth_range[offer],
            self.fate[offer],
        )


def draw_luck(seed: int, replication: int, offers: int) -> Luck:
    """The luck of every offer of a stream; the first k of n offers have the luck of k."""

    def draw(purpose: str) -> Floats:
        return uniforms(seed, replication, f"quality.{purpose}", offers)

    return Luck(
        normal(draw("run")),
        normal(draw("synth")),
        draw("test_range"),
        draw("synth_range"),
        draw("fate"),
    )


def normal(u: Floats) -> Floats:
    """Standard normal values of uniforms in [0, 1), by the inverse CDF, same shape."""
    from scipy.special import ndtri  # here: scipy is slow to import and --help needs none

    return np.asarray(ndtri(np.maximum(u, _LEAST_U)), dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What became of n jobs, float64 and bool (n,).

    test_loss, synth_loss: relative losses, NaN where the job failed. tokens_trained: tokens before
    the deadline, NaN where it cannot be told (image models). succeeded: a model was handed in on
    time and can be evaluated.
    """

    test_loss: Floats
    synth_loss: Floats
    tokens_trained: Floats
    succeeded: Bools


def outcomes_of(
    test: Floats, synth: Floats, tokens: Floats, survives: Bools, luck: Luck, noise: Noise
) -> Outcomes:
    """Outcomes of jobs whose losses would be ``test`` and ``synth`` without the luck of a run."""
    run = np.exp(noise.run * luck.run)
    apart = np.exp(noise.synth * luck.synth)
    return Outcomes(
        np.where(survives, test * run, np.nan),
        np.where(survives, synth * run * apart, np.nan),
        tokens,
        survives,
    )


def reward(loss: Floats) -> Floats:
    """The reward of a GRPO task by its relative loss, same shape: 1 / loss.

    The reference run's is 1.0 and a loss 20% lower is a reward 25% higher. Ours: the rules fix
    only that more is better. Rewards are positive, so the rule about test > 0 never bites.
    """
    return np.asarray(1.0 / loss, dtype=np.float64)


class QualityModel(Protocol):
    """A model of training outcomes. Jobs in, outcomes out, nothing kept between calls."""

    def outcomes(self, jobs: Jobs, slot: Slot, luck: Luck) -> Outcomes:
        """What becomes of these jobs in such a slot; ``luck`` is that of the jobs."""
        ...
