"""One job from its plan to its submission, whatever it trains: training, checks, delivery."""

from abc import ABC, abstractmethod
from contextlib import ExitStack
from math import inf, isfinite
from pathlib import Path
from time import monotonic
from typing import Any

import torch
import torch.distributed as dist

from live.job_files import OUTPUT, JobResult, launcher_of, stop_reason
from live.training import checkpoints
from live.training.checkpoints import CheckpointMismatch
from live.training.delivery import delivered
from live.training.facts import Facts
from live.training.kept import ADAPTER, SEED, paced
from live.training.pacing import EVALUATION_S, Pacing
from live.training.record import write_training
from live.training.rows import GRPO
from live.training.schedule import Schedule
from live.training.submission import checked, put_back
from live.training.telling import record_of
from live.training.timing import ScheduleSettings, most_evaluation_s
from live.training.together import on_rank_0, rank_0_says
from live.worker_files import INTERRUPT, WorkerFiles
from shared.errors import InputError
from shared.units import MS_PER_SECOND

FINISH_FACTOR = 1.5
"""The last evaluation is made when so many times its usual time is left."""
EVEN = 4
"""Evaluations, and saves, of a job without a deadline."""
DISK_BYTES_S = 0.5e9
"""Bytes a second that an adapter is written, and read back; *assumed*, on the low side of NVMe."""
READINGS = 3
"""Times that an adapter passes the disk at the end: written, looked at, put back to be measured."""
CHECKPOINT_SHARE = 6
"""Of a checkpoint, over the adapter handed in: fp32 weights and both moments, over bf16."""
PROBE_BATCHES = 2
"""Batches of a rank that are timed to know how many rows can be evaluated."""


class Run(ABC):
    """Trains one job on this rank, with all others. device: this rank's."""

    def __init__(self, files: WorkerFiles, device: torch.device) -> None:
        self.files, self.spec, self.device = files, files.spec, device
        self._began_s = monotonic()

    def train(self) -> JobResult | None:
        """Train until done or asked to stop; None when interrupted, to be taken up again.

        Raises InputError when the job cannot be trained at all.
        """
        self.files.beat(EVALUATION_S)
        self.files.progress(0, 0, None, "loading")
        with ExitStack() as held:
            facts, trainer = self.made(held)
            return self._trained(facts, trainer)

    @abstractmethod
    def made(self, held: ExitStack) -> tuple[Facts, Any]:
        """Bring data and model, settle the plan, and make the trainer, which has no pacing yet.

        held: closes what stays open while the job runs. Raises InputError.
        """

    def lacks(self) -> int:
        """Attempts that ran out of memory: each halves the rows at once."""
        record = launcher_of(self.files.folder)
        return record.faults.count("oom") if record else 0

    def faults(self) -> int:
        """Attempts that failed, whatever of."""
        record = launcher_of(self.files.folder)
        return len(record.faults) if record else 0

    def load_s(self) -> float:
        """Seconds since the run began."""
        return monotonic() - self._began_s

    def told_steps(self) -> int | None:
        """Steps that a rehearsal's request asks for, which only counts on the CPU."""
        told = self.spec.request.get("steps")
        counts = self.spec.device == "cpu" and isinstance(told, int) and told > 0
        return told if counts else None

    # Training.

    def _trained(self, facts: Facts, trainer: Any) -> JobResult | None:
        self.files.beat(EVALUATION_S)  # a checkpoint may be of many gigabytes
        found = self._found(trainer)
        pacing = self._pacing(facts, trainer, found[1].pace if found else {})
        if found is not None:
            pacing.told.take_up(found[1].step, found[1].losses, found[1].pace)
            evaluate_on(trainer, pacing.told.held_out)
        else:
            # From within train(): accelerate takes a model that was evaluated before for one that
            # is joined to the other ranks already.
            settings = self._schedule_settings(trainer.adapter_bytes)
            pacing.first_look = lambda: look_at_base(trainer, pacing, settings)
        self._record(facts, pacing)
        self.files.beat(EVALUATION_S)
        if pacing.may_begin(found[1].step if found else 0):
            trainer.train(resume_from_checkpoint=str(found[0]) if found else None)
        if pacing.told.stopped == INTERRUPT:
            self.files.progress(trainer.state.global_step, facts.most_steps, None, "saving")
            return None
        return self._finished(facts, trainer, pacing)

    def _pacing(self, facts: Facts, trainer: Any, pace: dict[str, Any]) -> Pacing:
        settings = self._schedule_settings(trainer.adapter_bytes)
        schedule = Schedule(settings, facts.most_steps, pace.get("schedule"))
        pacing = Pacing(
            self.files,
            self.device,
            schedule,
            greater=self.spec.task_type == GRPO,
            compiled=facts.settled.compile,
            patience=self.spec.training.patience,
            keep_best=trainer.write_adapter,
        )
        pacing.saved_hook = lambda: self._record(facts, pacing)
        paced(trainer, pacing)
        facts.measure = pacing.measure
        return pacing

    def _record(self, facts: Facts, pacing: Pacing) -> None:
        """What is known by now, for the ledger."""
        record = record_of(self.spec, facts, pacing)
        if not self.files.rank:
            write_training(self.files.folder, record)

    def _schedule_settings(self, adapter_bytes: int) -> ScheduleSettings:
        """The estimates until they are measured, of an adapter of so many bytes when handed in."""
        spec = self.spec
        files_s = adapter_bytes / DISK_BYTES_S
        uploads = spec.training.submit == "hub"
        upload_s = adapter_bytes / 1e6 / spec.training.upload_megabytes_per_second
        return ScheduleSettings(
            margin_s=max(0.0, (spec.deadline_ms - spec.warn_ms) / MS_PER_SECOND),
            finish_s=READINGS * files_s + (60.0 + upload_s if uploads else 10.0),
            save_s=15.0 + CHECKPOINT_SHARE * files_s,
            evaluation_s=5.0 if spec.device == "cpu" else 30.0,
            even=EVEN,
        )

    def _found(self, trainer: Any) -> tuple[Path, checkpoints.State] | None:
        """The checkpoint to go on from, the same on every rank. Raises InputError."""
        like = checkpoints.State(
            step=0,
            trainable=sum(each.numel() for each in trainer.weights.values()),
            rows_per_step=trainer.rows_per_step,
            seed=SEED,
            losses=[],
        )
        try:
            return checkpoints.newest(self.files.folder / OUTPUT / "checkpoints", like)
        except CheckpointMismatch as why:
            raise InputError(str(why)) from None

    # After the last step.

    def _finished(self, facts: Facts, trainer: Any, pacing: Pacing) -> JobResult:
        began_s = monotonic()
        told, step = pacing.told, trainer.state.global_step
        self.files.progress(step, facts.most_steps, None, "saving")
        self.files.beat(EVALUATION_S)
        folder = self._best(trainer, pacing)
        facts.faults += checked(trainer, folder)
        self._judge(facts, trainer, pacing)
        record = record_of(self.spec, facts, pacing)
        facts.submission, wrong = on_rank_0(lambda: delivered(self.files, record, folder))
        facts.faults += [wrong] if wrong else []
        facts.finish_s = monotonic() - began_s
        self._record(facts, pacing)
        early = step < facts.most_steps
        given_up = self.files.given_up()
        facts.faults += [given_up] if given_up else []
        why = stop_reason(self.files.folder) or given_up or told.why or "the deadline is near"
        said = [f"stopped at step {step} of {facts.most_steps}: {why}"] if early else []
        return JobResult(
            outcome="failed" if wrong else "completed",
            reason="; ".join([*said, *facts.faults]),
            submission=facts.submission,
            losses=tuple(each for each in told.losses if isfinite(each)),
            steps=step,
            resumed_from=told.resumed_from[-1] if told.resumed_from else None,
            model=facts.source.name,
            why="; ".join(each for each in (facts.source.why, facts.data_why) if each),
        )

    def _best(self, trainer: Any, pacing: Pacing) -> Path:
        """The folder of the best adapter: the last one where none was evaluated after training."""
        evaluated = {each.step for each in pacing.told.evaluations}
        if trainer.state.global_step not in evaluated and self._may_evaluate(pacing):
            pacing.begin()
            trainer.evaluate()  # keeps it, when it is the best
        folder = self.files.folder / OUTPUT / ADAPTER
        if pacing.told.best is None and (trainer.state.global_step or not folder.exists()):
            trainer.write_adapter()
        return folder

    def _may_evaluate(self, pacing: Pacing) -> bool:
        """Rank 0's word on whether there is time for one more evaluation."""
        took_s = max(pacing.told.evaluation_s[-3:], default=0.0)
        enough = self.files.left_s() > FINISH_FACTOR * took_s
        return bool(rank_0_says([float(enough)], self.device)[0])

    def _judge(self, facts: Facts, trainer: Any, pacing: Pacing) -> None:
        """The measure of the very file that is handed in, against the base model's."""
        told = pacing.told
        facts.final = told.best.value if told.best else None
        if not facts.faults and self._may_evaluate(pacing):
            put_back(trainer, self.files.folder / OUTPUT / ADAPTER)
            facts.final = pacing.measured(trainer.evaluate)
        if facts.final is None or told.base is None:
            facts.faults.append("it was not evaluated against the base model")
            return
        facts.beats_base = pacing.better(facts.final, told.base)
        if not facts.beats_base:
            facts.faults.append(
                f"it does not beat the base model: {facts.measure} {facts.final:.4f} "
                f"against {told.base:.4f}"
            )


def evaluate_on(trainer: Any, rows: int) -> None:
    """Evaluate on so many of the rows held out, the same ones every time; 0 means all."""
    if 0 < rows < len(trainer.eval_dataset):
        trainer.eval_dataset = trainer.eval_dataset.select(range(rows))


def look_at_base(trainer: Any, pacing: Pacing, settings: ScheduleSettings) -> None:
    """What the base model does on the rows held out: an adapter that is untrained changes nothing.

    With a deadline a few rows are timed first, and no more are kept than can be evaluated in the
    time that evaluations may take.
    """
    told, rows, left_s = pacing.told, trainer.eval_dataset, pacing.files.left_s()
    probe = trainer.settled.eval_batch * dist.get_world_size() * PROBE_BATCHES
    if left_s < inf and len(rows) > probe:
        evaluate_on(trainer, probe)
        pacing.measured(trainer.evaluate)
        most_s = most_evaluation_s(settings, left_s)
        kept = max(probe, int(len(rows) * min(1.0, most_s * probe / len(rows) / pacing.took_s)))
        trainer.eval_dataset = rows
        told.held_out = int(rank_0_says([kept], pacing.device)[0])
        evaluate_on(trainer, told.held_out)
    told.base = pacing.measured(trainer.evaluate)
    told.held_out = len(trainer.eval_dataset)
    pacing.schedule.took("finish", FINISH_FACTOR * pacing.took_s + settings.finish_s)
