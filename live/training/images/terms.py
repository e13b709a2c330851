"""From the preset's profile to what an image job is trained with, and what could not be had.

The profile speaks of language models: its rows, rank and memory have a meaning here, its tokens
and projections have none.
"""

from dataclasses import dataclass
from typing import Any

from live.job_files import JobSpec
from live.training.images.families import MODULES
from live.training.left_out import left_out
from live.training.planning import CPU_RANK, CPU_ROWS
from live.training.terms import Terms
from shared.errors import InputError
from shared.image_memory import image_peak_gb
from shared.memory import LOWEST_RANK, usable_gb
from shared.plan import Deviation, Setting
from shared.units import GB

LEARNING_RATE = 1e-4
"""Peak rate of a LoRA whose alpha is its rank: what diffusers' training scripts start from."""
STEPS_A_PASS = 8
"""At the least. The market's tasks have 10 to 50 pairs: the profile's batch would be all of them,
and a pass one step."""
CPU_PIXELS = 64
CPU_RATE = 3e-3
"""A tiny random model learns next to nothing at the real one's."""


@dataclass(frozen=True, slots=True)
class ImageTerms(Terms):
    """All that a trainer of images is told. pixels: of a side of the squares."""

    pixels: int


@dataclass(frozen=True, slots=True)
class Shape:
    """What is known of a denoiser. params: its own. narrowest: of the adapted layers' widths.

    adapter_params: adapter parameters for each rank.
    """

    params: int
    narrowest: int
    adapter_params: int


def shape_of(model: Any) -> Shape:
    """The shape of a denoiser that has no adapter yet."""
    widths = [
        (each.in_features, each.out_features)
        for name, each in model.named_modules()
        if name.endswith(tuple(f".{one}" for one in MODULES)) and hasattr(each, "in_features")
    ]
    if not widths:
        raise InputError(f"model: found no layer named {', '.join(MODULES)}, nothing to adapt")
    params = sum(each.numel() for each in model.parameters())
    return Shape(params, min(map(min, widths)), sum(map(sum, widths)))


def pixels_of(spec: JobSpec) -> int:
    """A side of the squares that are trained on, in pixels."""
    return CPU_PIXELS if spec.device == "cpu" else spec.training.image_pixels


def settle(spec: JobSpec, shape: Shape, rows: int, lacks_of_memory: int) -> ImageTerms:
    """What the job is trained with.

    rows: to train on. lacks_of_memory: attempts that ran out of memory; each halves the images at
    once. Raises InputError when not one image fits.
    """
    profile, cpu = spec.profile, spec.device == "cpu"
    missing: list[Deviation] = []

    def given(setting: str, wanted: Setting, value: Setting, why: str) -> None:
        if wanted != value:
            missing.append(Deviation(setting, wanted, value, why))

    asked = profile.batch_size * profile.gradient_accumulation_steps
    each = max(1, min(asked, rows // (STEPS_A_PASS * spec.processes)))
    rank = min(profile.lora_r, shape.narrowest, CPU_RANK if cpu else profile.lora_r)
    given("lora_r", profile.lora_r, rank,
          "on the CPU a job is a rehearsal" if cpu else "no adapted layer is wider")  # fmt: skip
    if cpu:
        micro, predicted = next(n for n in range(CPU_ROWS, 0, -1) if each % n == 0), None
    else:
        rank, micro, predicted = _fitting(spec, shape, rank, each, missing)
    micro = max(1, micro >> lacks_of_memory)
    while each % micro:
        micro -= 1
    if lacks_of_memory and not cpu:
        predicted = _peak_gb(spec, shape, rank, micro)
    why = f"a pass over {rows} images is to have {STEPS_A_PASS} steps, and they have to fit"
    given("per_device_train_batch_size", profile.batch_size, micro, why)
    given("gradient_accumulation_steps", profile.gradient_accumulation_steps, each // micro, why)
    given("lora_alpha", profile.lora_alpha, rank, "who reads image adapters takes alpha for rank")
    given("target_modules", ", ".join(profile.target_modules), ", ".join(MODULES),
          "an image model has no others of them")  # fmt: skip
    given("torch_compile", profile.torch_compile, False, "not tried with image models")
    given("attention", profile.attention, "sdpa", "diffusers' own")
    given("max_length", profile.max_length, pixels_of(spec), "pixels of a side, not tokens")
    checkpointing = profile.gradient_checkpointing and not cpu
    given("gradient_checkpointing", profile.gradient_checkpointing, checkpointing,
          "on the CPU a job is a rehearsal")  # fmt: skip
    eval_batch = min(profile.eval_batch_size, micro)
    missing += left_out(spec, "ddp", "adamw", eval_batch)
    return ImageTerms(
        micro=micro,
        accumulation=each // micro,
        eval_batch=eval_batch,
        lora_r=rank,
        lora_alpha=float(rank),
        lora_dropout=profile.lora_dropout,
        target_modules=MODULES,
        parallel="ddp",
        optimizer="adamw",
        compile=False,
        checkpointing=checkpointing,
        bucket_mb=profile.ddp_bucket_cap_mb,
        learning_rate=CPU_RATE if cpu else LEARNING_RATE,
        predicted_gb=predicted,
        not_taken=tuple(missing),
        pixels=pixels_of(spec),
    )


def _fitting(
    spec: JobSpec, shape: Shape, rank: int, most: int, missing: list[Deviation]
) -> tuple[int, int, float]:
    """Rank, images at once and predicted GB: the rank is lowered last. Raises InputError."""
    free, wanted = usable_gb(spec.memory_gb_per_gpu), rank
    while True:
        for micro in (n for n in range(most, 0, -1) if most % n == 0):
            peak = _peak_gb(spec, shape, rank, micro)
            if peak <= free:
                if rank != wanted:
                    missing.append(Deviation("lora_r", wanted, rank, "it does not fit the slot"))
                return rank, micro, peak
        if rank <= LOWEST_RANK:
            raise InputError(
                f"model: {spec.model}: {shape.params * 2 / GB:.1f} GB of weights, and not one "
                f"image of {pixels_of(spec)} pixels a side fits a GPU of "
                f"{spec.memory_gb_per_gpu:.1f} GB"
            )
        rank = max(LOWEST_RANK, rank // 2)


def _peak_gb(spec: JobSpec, shape: Shape, rank: int, micro: int) -> float:
    adapters = rank * shape.adapter_params
    return image_peak_gb(shape.params, adapters, micro, pixels_of(spec), spec.processes)
