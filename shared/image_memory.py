"""Peak GPU memory of one LoRA step of an image model (SDXL, Flux), by what is known of it.

Weights and adapter are counted; what one image's activations take is an assumption, so this is no
match for ``shared.memory``, which names every tensor of a language model's step. GB is 10**9 bytes.
"""

from shared.memory import CUDA_CONTEXT_BYTES, NCCL_BYTES, usable_gb
from shared.units import GB

WEIGHT_BYTES = 2
"""Of the base model, bf16."""
ADAPTER_BYTES = 20
"""Of one adapter parameter: fp32 weight, gradient, two moments of AdamW, and DDP's bucket."""
IMAGE_BYTES = 4_000_000_000
"""Activations of one image of 1024 x 1024 pixels, every block recomputed in the backward pass.
Assumption: to be replaced by a GPU's figure. They go by the image's area."""
FULL_SIDE = 1024


def image_peak_gb(
    params: int, adapter_params: int, images: int, pixels: int, gpus: int = 1
) -> float:
    """The peak of one GPU, GB.

    params: of the denoiser, which alone is on the GPU while it is trained. images: at once, of
    ``pixels`` a side. gpus: of the job, one rank each.
    """
    activations = images * IMAGE_BYTES * (pixels / FULL_SIDE) ** 2
    overhead = CUDA_CONTEXT_BYTES + (NCCL_BYTES if gpus > 1 else 0)
    weights = WEIGHT_BYTES * params + ADAPTER_BYTES * adapter_params
    return (weights + activations + overhead) / GB


def image_fits(params: int | None, gpus: int, gb_per_gpu: float) -> bool:
    """Whether one image of full size can be trained on, with an adapter that is next to nothing.

    params: of the model, as the offer tells them; of a model that nobody knows the size of, yes.
    """
    if params is None or params <= 0:
        return True
    return image_peak_gb(params, 0, 1, FULL_SIDE, gpus) <= usable_gb(gb_per_gpu)
