"""The trainer's callback: signs of life, the schedule's orders, and the best adapter so far."""

from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf, isfinite
from time import monotonic
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from live.training.schedule import Schedule
from live.training.together import highest, rank_0_says
from live.worker_files import FINISH, GO_ON, INTERRUPT, WorkerFiles

LOSS, REWARD = "eval_loss", "eval_reward"
WARM_UP_STEPS = 3
SAMPLING_S = 600.0
"""How long the answers of one step may take to be sampled."""
IDLE_SHARE = 0.2
"""Of the planned steps: what has to pass without a better evaluation before training ends early.
Assumed."""
REWARD_SHARE = 0.6
"""Of the planned steps, before which a job of rewards is not ended early. Assumed."""
COMPILING_S = 600.0
"""How long a batch may take of a model that is compiled: a length, or a shorter last batch, that it
has not met compiles anew, at any step and in evaluations. 160 s were measured for a first one."""
EVALUATION_S = 1800.0
"""How long one evaluation or save may take without a sign of life."""


@dataclass(slots=True)
class Evaluation:
    """One evaluation on the held-out rows: the value of the job's measure at a step."""

    step: int
    value: float


@dataclass(slots=True)
class Told:
    """What happened in the run, for the result and the record. Seconds are this process's."""

    losses: list[float] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)
    base: float | None = None
    best: Evaluation | None = None
    stopped: int = GO_ON
    why: str = ""
    step_s: list[float] = field(default_factory=list)
    evaluation_s: list[float] = field(default_factory=list)
    save_s: list[float] = field(default_factory=list)
    tokens: int = 0
    resumed_from: list[int] = field(default_factory=list)
    held_out: int = 0

    def pace(self) -> dict[str, Any]:
        """What a checkpoint keeps of it."""
        return {
            "base": self.base,
            "evaluations": [[each.step, each.value] for each in self.evaluations],
            "best": None if self.best is None else [self.best.step, self.best.value],
            "tokens": self.tokens,
            "resumed_from": self.resumed_from,
            "held_out": self.held_out,
        }

    def take_up(self, step: int, losses: list[float], pace: dict[str, Any]) -> None:
        """Go on from a checkpoint's."""
        self.resumed_from = [*pace["resumed_from"], step]
        self.losses = list(losses)
        self.base, self.tokens, self.held_out = pace["base"], pace["tokens"], pace["held_out"]
        self.evaluations = [Evaluation(int(step), value) for step, value in pace["evaluations"]]
        best = pace["best"]
        self.best = None if best is None else Evaluation(int(best[0]), best[1])


def wait_for(device: torch.device) -> None:
    """Until the device has done all that it was given: a step's kernels are only queued before."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Pacing(TrainerCallback):
    """Runs on every rank; rank 0 decides and the others follow.

    greater: whether the measure is a reward. compiled: whether the model is compiled. keep_best:
    writes the present adapter as the best one.
    """

    def __init__(
        self,
        files: WorkerFiles,
        device: torch.device,
        schedule: Schedule,
        *,
        greater: bool,
        compiled: bool,
        patience: int,
        keep_best: Callable[[], None],
    ) -> None:
        self.files, self.schedule, self.told = files, schedule, Told()
        self.measure = REWARD if greater else LOSS
        self.device, self._patience, self._keep_best = device, patience, keep_best
        self._sign = -1.0 if greater else 1.0
        self._batch_s = max(SAMPLING_S * greater, COMPILING_S * compiled)
        self._factor = schedule.learning_rate(0)
        self._boundary_s = monotonic()
        self._value = inf
        self._weighing = True
        self.tokens_here = 0
        self.took_s = 0.0
        self.saved_hook: Callable[[], None] = lambda: None
        self.first_look: Callable[[], None] | None = None

    # Steps.

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Before the first step: what the base model does, with the ranks joined by now."""
        if self.first_look is not None:
            self.first_look()
        self.files.beat(EVALUATION_S)  # the first steps compile, and allocate what lasts
        self._boundary_s = monotonic()

    def on_step_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        optimizer: Any = None,
        **_: Any,
    ) -> None:
        """The learning rate of the step about to be taken."""
        for group in optimizer.param_groups:
            group["lr"] = args.learning_rate * self._factor

    def on_substep_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """A micro-batch is done."""
        self._beat_of_a_step()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Measure the step, and decide on all ranks alike what comes now."""
        wait_for(self.device)
        self._beat_of_a_step()
        took_s = monotonic() - self._boundary_s
        self.told.step_s.append(took_s)
        self.schedule.took("step", took_s)
        control.should_log = True
        self._order(state.global_step, control)
        self._boundary_s = monotonic()

    def _beat_of_a_step(self) -> None:
        """Of the first steps of a process every one may compile anew: the next may be late."""
        first = len(self.told.step_s) < WARM_UP_STEPS
        self.files.beat(EVALUATION_S if first else self._batch_s)

    def may_begin(self, step: int) -> bool:
        """Whether there is time for a step at all; asked once, before the first of a process."""
        asked, (_, _, stop) = self._agreed(step)
        if asked != GO_ON or stop:
            self.told.stopped = FINISH if asked == GO_ON else asked
        return self.told.stopped == GO_ON

    def _agreed(self, step: int) -> tuple[int, tuple[bool, bool, bool]]:
        """What is asked, and rank 0's orders: evaluate, save, stop."""
        left_s = self.files.left_s()
        asked = highest(self.files.asked(), self.device)
        orders = self.schedule.after_step(step, left_s)
        told = [orders.evaluate, orders.save or self._save_by_count(step, left_s), orders.stop]
        said = [*map(float, told), self.schedule.learning_rate(step)]
        evaluate, save, stop, self._factor = rank_0_says(said, self.device)
        return asked, (bool(evaluate), bool(save), bool(stop))

    def _save_by_count(self, step: int, left_s: float) -> bool:
        """Without a deadline there is no interval to be had from it."""
        return left_s == inf and step % self.files.spec.checkpoint_every == 0

    def _order(self, step: int, control: TrainerControl) -> None:
        asked, (evaluate, save, stop) = self._agreed(step)
        control.should_evaluate, control.should_save = evaluate, save
        if asked != GO_ON:
            self.told.stopped = asked
            control.should_training_stop = True
            control.should_evaluate = False
            control.should_save = asked == INTERRUPT
        elif stop:
            self.told.stopped = FINISH
            control.should_training_stop = True
        if control.should_evaluate or control.should_save:
            self.files.beat(EVALUATION_S)

    # Evaluations and saves.

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """A batch of an evaluation is done."""
        self.files.beat(self._batch_s)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Catch what is logged: a step's loss, an evaluation's measure."""
        if not logs:
            return
        if self.measure in logs:
            self._value = float(logs[self.measure])
        elif "loss" in logs and state.global_step > len(self.told.losses):
            self.told.losses.append(float(logs["loss"]))
            self._count_tokens(logs)
            self.files.progress(
                state.global_step, self.schedule.planned_steps, float(logs["loss"]), "training"
            )

    def _count_tokens(self, logs: dict[str, Any]) -> None:
        """The trainers count from 0 in every process."""
        here = int(float(logs.get("num_tokens", self.tokens_here)))
        self.told.tokens += here - self.tokens_here
        self.tokens_here = here

    def begin(self) -> None:
        """What comes now is timed from here: an evaluation out of turn."""
        self._boundary_s = monotonic()

    def measured(self, evaluate: Callable[[], Any]) -> float:
        """One more evaluation, of something else than the run: it is not weighed."""
        self.begin()
        self.files.beat(EVALUATION_S)
        self._weighing = False
        evaluate()
        self._weighing = True
        return self._value

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Keep the adapter when it is the best so far; stop when none was better for long."""
        value = rank_0_says([self._value], self.device)[0]
        self._value = value
        if self._weighing:
            self._weigh(Evaluation(state.global_step, value), control)
        self.took_s = monotonic() - self._boundary_s  # writing the best adapter with it
        self.told.evaluation_s.append(self.took_s)
        self.schedule.took("evaluation", self.took_s)
        self._boundary_s = monotonic()

    def _weigh(self, found: Evaluation, control: TrainerControl) -> None:
        told = self.told
        told.evaluations.append(found)
        best = told.best
        if isfinite(found.value) and (best is None or self.better(found.value, best.value)):
            told.best = found
            self.files.beat(EVALUATION_S)
            self._keep_best()
            self.files.beat(self._batch_s)
        if told.best is not found and self._idle(found.step):
            told.why = f"no better evaluation since step {told.best.step if told.best else 0}"
            told.stopped = FINISH
            control.should_training_stop = True

    def _idle(self, step: int) -> bool:
        """Whether so many evaluations were no better, over so much of the plan, that none will be.

        The learning rate falls all the way and the last steps gain most, so a few evaluations in a
        row say little where there are many; a reward is noisy besides, and its early best is luck.
        Numbers that are none say enough.
        """
        told, planned = self.told, self.schedule.planned_steps
        best = told.best.step if told.best else 0
        since = [each for each in told.evaluations if each.step > best]
        if len(since) < self._patience:
            return False
        if not any(isfinite(each.value) for each in since):
            return True
        earliest = REWARD_SHARE * planned if self.measure == REWARD else 0.0
        return step - best >= IDLE_SHARE * planned and step >= earliest

    def better(self, value: float, than: float) -> bool:
        """Whether one value of the measure is better than another."""
        return self._sign * value < self._sign * than

    def saved(self, seconds: float) -> None:
        """A checkpoint was written."""
        self.told.save_s.append(seconds)
        self.schedule.took("save", seconds)
        self.saved_hook()
        self.files.beat(self._batch_s)
        self._boundary_s = monotonic()
