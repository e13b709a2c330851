"""A LoRA adapter of a language model, trained on rows of text by all ranks of the job."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from live import checkpoint
from live.checkpoint import State
from live.job_files import OUTPUT, JobResult, launcher_of, stop_reason
from live.worker_data import Rows, built_in_rows, rows_of
from live.worker_files import FINISH, GO_ON, WorkerFiles
from live.worker_model import Loaded, load

SEED = 17
CPU_ROWS, CPU_TOKENS, CPU_STEPS, MOST_STEPS = 4, 64, 20, 100_000
SLOW_S = 600.0
"""How long loading or saving may take without a sign of life."""
CLIP = 1.0


@dataclass(slots=True)
class CausalTrainer:
    """Trains one job. device: of this rank."""

    files: WorkerFiles
    device: torch.device

    def train(self) -> JobResult | None:
        """Train to the end, or until asked to stop; None when interrupted.

        Raises InputError when the job cannot be trained at all.
        """
        self.files.beat(SLOW_S)
        self.files.progress(0, self._steps(), None, "loading")
        loaded = load(self.files.spec)
        run = _Run(self, loaded, self._rows(loaded), self._steps())
        return run.to_the_end()

    def _steps(self) -> int:
        told = self.files.spec.request.get("steps", CPU_STEPS)
        return told if isinstance(told, int) and 1 <= told <= MOST_STEPS else CPU_STEPS

    def _rows(self, loaded: Loaded) -> Rows:
        spec = self.files.spec
        path = spec.request.get("dataset")
        own = spec.local_files and isinstance(path, str) and Path(path).is_absolute()
        texts = rows_of(Path(str(path))) if own else built_in_rows()
        most = CPU_TOKENS if spec.device == "cpu" else spec.profile.max_length
        return Rows(texts, loaded.encode, most, SEED)


class _Run:
    """The loop, with what it works on."""

    def __init__(self, trainer: CausalTrainer, loaded: Loaded, rows: Rows, steps: int) -> None:
        self.files, self.device = trainer.files, trainer.device
        self.loaded, self.rows, self.steps = loaded, rows, steps
        profile = self.files.spec.profile
        wanted = profile.batch_size * profile.gradient_accumulation_steps
        self.rows_each = min(wanted, CPU_ROWS) if self.device.type == "cpu" else wanted
        self.micro = max(1, min(profile.batch_size, self.rows_each) >> self._lacks_of_memory())
        self.model = loaded.model.to(self.device)
        self.weights = checkpoint.trainable(self.model)
        self.optimizer = torch.optim.AdamW(
            list(self.weights.values()), lr=loaded.learning_rate, weight_decay=0.0
        )
        self.state = State(
            step=0,
            trainable=sum(weight.numel() for weight in self.weights.values()),
            rows_per_step=self.rows_each * dist.get_world_size(),
            seed=SEED,
            losses=[],
        )
        self.checkpoints = self.files.folder / OUTPUT / "checkpoints"

    def _lacks_of_memory(self) -> int:
        """Each attempt that ran out of memory halves the rows at once, not those of a step."""
        record = launcher_of(self.files.folder)
        return record.faults.count("oom") if record else 0

    def to_the_end(self) -> JobResult | None:
        found = checkpoint.resume(self.checkpoints, self.weights, self.optimizer, self.state)
        self.state = found or self.state
        gpus = [self.device.index] if self.device.type == "cuda" else None
        parallel: Any = DistributedDataParallel(self.model, device_ids=gpus)
        parallel.train()
        asked, slowest_s = GO_ON, 0.0
        while self.state.step < self.steps and asked == GO_ON:
            began_s = monotonic()
            loss, asked = self._step(parallel, slowest_s)
            slowest_s = max(slowest_s, monotonic() - began_s)
            self._note(loss)
        return self._finish(asked, found.step if found else None)

    def _step(self, model: Any, slowest_s: float) -> tuple[float, int]:
        """One optimizer step; its loss over all ranks, and what any rank was asked."""
        step, rank, world = self.state.step, dist.get_rank(), dist.get_world_size()
        torch.manual_seed(SEED * 1_000_003 + step * world + rank)  # of the dropout
        first = (step * world + rank) * self.rows_each
        total = torch.zeros((), device=self.device)
        for at in range(0, self.rows_each, self.micro):
            count = min(self.micro, self.rows_each - at)
            batch = (part.to(self.device) for part in self.rows.batch(first + at, count))
            tokens, mask, labels = batch
            model.require_backward_grad_sync = at + count >= self.rows_each
            loss = model(input_ids=tokens, attention_mask=mask, labels=labels).loss
            (loss * count / self.rows_each).backward()
            total += loss.detach() * count / self.rows_each
            self.files.beat()
        torch.nn.utils.clip_grad_norm_(list(self.weights.values()), CLIP)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        dist.all_reduce(total)
        return float(total) / world, self._agreed(slowest_s)

    def _agreed(self, slowest_s: float) -> int:
        """What is asked, the same on every rank: all stop at one step or none does."""
        asked = self.files.asked()
        if self.files.left_s() < 2 * slowest_s:
            asked = FINISH
        flag = torch.tensor(asked, device=self.device)
        dist.all_reduce(flag, op=dist.ReduceOp.MAX)
        return int(flag)

    def _note(self, loss: float) -> None:
        before = self.state
        self.state = State(
            step=before.step + 1,
            trainable=before.trainable,
            rows_per_step=before.rows_per_step,
            seed=before.seed,
            losses=[*before.losses, loss],
        )
        self.files.progress(self.state.step, self.steps, loss, "training")
        if self.state.step % self.files.spec.checkpoint_every == 0:
            self._save()

    def _save(self) -> None:
        """Rank 0 writes; the others wait for it at the next step's first exchange."""
        if dist.get_rank() == 0:
            self.files.beat(SLOW_S)
            checkpoint.save(self.checkpoints, self.weights, self.optimizer, self.state)
            self.files.beat()

    def _finish(self, asked: int, resumed_from: int | None) -> JobResult | None:
        self.files.progress(self.state.step, self.steps, None, "saving")
        if asked not in (GO_ON, FINISH):
            self._save()
            return None
        early = self.state.step < self.steps
        why = stop_reason(self.files.folder) or "the deadline is near"
        return JobResult(
            outcome="completed",
            reason=f"stopped at step {self.state.step} of {self.steps}: {why}" if early else "",
            submission=str(self._adapter()),
            losses=tuple(self.state.losses),
            steps=self.state.step,
            resumed_from=resumed_from,
            model=self.loaded.name,
            why=self.loaded.why,
        )

    def _adapter(self) -> Path:
        """The adapter as peft loads it, safetensors, in its place all at once."""
        final = self.files.folder / OUTPUT / "adapter"
        if dist.get_rank() == 0:
            self.files.beat(SLOW_S)
            scratch = final.with_name(".adapter")
            shutil.rmtree(scratch, ignore_errors=True)
            self.model.save_pretrained(scratch, save_embedding_layers=False)
            checkpoint.put_in_place(scratch, final)
        return final
