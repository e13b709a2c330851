"""One job from its request to its submission: data, model, plan, training, checks, delivery."""

from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.util import find_spec
from math import ceil, isfinite
from pathlib import Path
from time import monotonic
from typing import Any

import torch
import torch.distributed as dist

from live.job_files import OUTPUT, JobResult, launcher_of, stop_reason
from live.training import checkpoints, stand_ins, trainers
from live.training.checkpoints import CheckpointMismatch
from live.training.inputs import Texts, data_of, source_of, texts_of
from live.training.loading import Source, model_of, shape_of, tokenizer_of, with_template
from live.training.pacing import EVALUATION_S, Pacing
from live.training.planning import CPU_TOKENS, GRPO, Machine, Settled, settle
from live.training.schedule import Schedule, ScheduleSettings
from live.training.submission import Checked, checked, put_back, shapes
from live.training.together import rank_0_says
from live.training.trainers import ADAPTER, Data
from live.worker_files import INTERRUPT, WorkerFiles
from shared.errors import InputError

FINISH_FACTOR = 1.5
"""The last evaluation is made when so many times its usual time is left."""


@dataclass(slots=True)
class Facts:
    """What the run came to, gathered as it goes; the record is made of it."""

    source: Source
    texts: Texts
    data: Data
    settled: Settled
    base_params: int
    most_steps: int
    load_s: float
    measure: str = ""
    resumed_from: int | None = None
    trained_s: float = 0.0
    finish_s: float = 0.0
    final: float | None = None
    checked: Checked | None = None
    faults: list[str] = field(default_factory=list)


class TextTrainer:
    """Trains one job on this rank, with all others. device: this rank's."""

    def __init__(self, files: WorkerFiles, device: torch.device) -> None:
        self.files, self.device = files, device
        self._began_s = monotonic()

    def train(self) -> JobResult | None:
        """Train until done or asked to stop; None when interrupted, to be taken up again.

        Raises InputError when the job cannot be trained at all.
        """
        self.files.beat(EVALUATION_S)
        self.files.progress(0, 0, None, "loading")
        with ExitStack() as held:
            facts, trainer = self._made(held)
            return self._trained(facts, trainer)

    # Before the first step.

    def _made(self, held: ExitStack) -> tuple[Facts, Any]:
        spec = self.files.spec
        texts = texts_of(self.files)
        source = source_of(self.files, self._fetched_model)
        tokenizer = with_template(tokenizer_of(source), spec.request)
        shape = shape_of(source)
        most = CPU_TOKENS if spec.device == "cpu" else spec.profile.max_length
        data = data_of(self.files, texts, tokenizer, most)
        settled = settle(spec, shape, data.longest_row, machine(spec.device), self._lacks())
        place = torch.device("cpu") if settled.parallel == "fsdp2" else self.device
        model = model_of(source, settled.attention, place)
        most_steps = self._most_steps(data, settled)
        parts = (model, tokenizer, data)
        trainer = trainers.made(
            spec, settled, self.files.folder, parts, most_steps, lambda: self._rewards(held)
        )
        facts = Facts(
            source, texts, data, settled, shape.base_parameters, most_steps,
            load_s=monotonic() - self._began_s,
        )  # fmt: skip
        return facts, trainer

    def _lacks(self) -> int:
        """Attempts that ran out of memory: each halves the rows at once."""
        record = launcher_of(self.files.folder)
        return record.faults.count("oom") if record else 0

    def _most_steps(self, data: Data, settled: Settled) -> int:
        """Steps of the wanted epochs, or what a rehearsal's request says."""
        told = self.files.spec.request.get("steps")
        if self.files.spec.device == "cpu" and isinstance(told, int) and told > 0:
            return told
        rows = settled.micro * settled.accumulation * dist.get_world_size()
        if self.files.spec.task_type == GRPO:
            rows = max(1, rows // 8)  # a prompt has so many answers
        steps = ceil(len(data.train) * self.files.spec.training.epochs / rows)
        return max(1, min(steps, 20) if data_is_built_in(self.files, data) else steps)

    def _fetched_model(self) -> Path:
        raise InputError(f"model: found {self.files.spec.model!r}, allowed is a folder")

    def _rewards(self, held: ExitStack) -> dict[str, Any]:
        """Reward functions in their jails, and their weights."""
        from live.training.rewards import RewardPool, RewardSettings, read_functions

        spec = self.files.spec
        kind = spec.request.get("dataset_type")
        asked = kind.get("reward_functions") if isinstance(kind, dict) else None
        if not spec.training.rewards:
            if spec.device == "cpu" and not asked:
                return {"functions": [stand_ins.reward], "weights": [1.0]}
            raise InputError("training.rewards: reward functions are off in the configuration")
        functions, refused = read_functions(asked)
        if not functions:
            raise InputError(f"reward_functions: none may run: {refused[0]}")
        settings = RewardSettings(enabled=True, seconds=spec.training.reward_seconds)
        pool = held.enter_context(RewardPool(functions, settings))
        return {"functions": pool.as_trl(), "weights": [each.weight for each in functions]}

    # Training.

    def _trained(self, facts: Facts, trainer: Any) -> JobResult | None:
        found = self._found(trainer)
        pace = found[1].pace if found else {}
        schedule = Schedule(self._schedule_settings(), facts.most_steps, pace.get("schedule"))
        pacing = Pacing(
            self.files,
            self.device,
            schedule,
            greater=self.files.spec.task_type == GRPO,
            patience=self.files.spec.training.patience,
            keep_best=trainer.write_adapter,
        )
        trainers.paced(trainer, pacing)
        facts.measure = pacing.measure
        if found is not None:
            pacing.told.take_up(found[1].losses, pace)
            facts.resumed_from = found[1].step
        trainer.args.eval_on_start = found is None  # what the base model does
        began_s = monotonic()
        trainer.train(resume_from_checkpoint=str(found[0]) if found else None)
        facts.trained_s = monotonic() - began_s
        if pacing.told.stopped == INTERRUPT:
            self.files.progress(trainer.state.global_step, facts.most_steps, None, "saving")
            return None
        return self._finished(facts, trainer, pacing)

    def _schedule_settings(self) -> ScheduleSettings:
        spec = self.files.spec
        margin_s = max(0.0, (spec.deadline_ms - spec.warn_ms) / 1000)
        uploads = spec.training.submit == "hub"
        return ScheduleSettings(
            margin_s=margin_s, finish_s=60.0 if uploads else 10.0, even=4,
            evaluation_s=5.0 if spec.device == "cpu" else 30.0,
        )  # fmt: skip

    def _found(self, trainer: Any) -> tuple[Path, checkpoints.State] | None:
        """The checkpoint to go on from, the same on every rank. Raises InputError."""
        like = checkpoints.State(
            0,
            sum(each.numel() for each in trainer.weights.values()),
            trainer.settled.micro * trainer.settled.accumulation * dist.get_world_size(),
            trainers.SEED,
            [],
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
        folder = self._best(facts, trainer, pacing)
        facts.checked = checked(folder, shapes(trainer))
        facts.faults += facts.checked.faults
        self._judge(facts, trainer, pacing)
        facts.finish_s = monotonic() - began_s
        early = step < facts.most_steps
        why = stop_reason(self.files.folder) or told.why or "the deadline is near"
        return JobResult(
            outcome="completed",
            reason=f"stopped at step {step} of {facts.most_steps}: {why}" if early else "",
            submission=str(folder),
            losses=tuple(each for each in told.losses if isfinite(each)),
            steps=step,
            resumed_from=facts.resumed_from,
            model=facts.source.name,
            why="; ".join(each for each in (facts.source.why, facts.texts.why) if each),
        )

    def _best(self, facts: Facts, trainer: Any, pacing: Pacing) -> Path:
        """The folder of the best adapter: the last one where none was evaluated after training."""
        folder = self.files.folder / OUTPUT / ADAPTER
        step = trainer.state.global_step
        evaluated = {each.step for each in pacing.told.evaluations}
        if pacing.told.best is None or (step not in evaluated and self._may_evaluate(pacing)):
            if self._may_evaluate(pacing) and step not in evaluated:
                trainer.evaluate()  # keeps it, when it is the best
            if pacing.told.best is None:
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
            pacing.begin()
            facts.final = pacing.measured(trainer.evaluate)
        if facts.final is None or told.base is None:
            facts.faults.append("it was not evaluated")
        elif not pacing.better(facts.final, told.base):
            facts.faults.append(
                f"it does not beat the base model: {facts.final:.4f} against {told.base:.4f}"
            )


def data_is_built_in(files: WorkerFiles, data: Data) -> bool:
    """Whether a rehearsal trains on rows of our own: a few steps of them will do."""
    return files.spec.device == "cpu" and len(data.train) + len(data.held_out) == stand_ins.ROWS


def machine(device: str) -> Machine:
    """What this process may use."""
    cuda = device == "cuda"
    return Machine(
        cuda=cuda,
        flash=cuda and find_spec("flash_attn") is not None,
        bits8=cuda and find_spec("bitsandbytes") is not None,
    )
