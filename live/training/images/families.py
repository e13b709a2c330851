"""The two kinds of image models that are trained: what a pair becomes, and what is learnt of it.

Text encoders and VAE run once over all pairs; only the denoiser stays on the GPU to be trained.
"""

import gc
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    DDPMScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from PIL import Image
from safetensors import SafetensorError

from live.training.images.pairs import Pair
from shared.errors import InputError
from shared.wire import found

INDEX = "model_index.json"
MODULES = ("to_k", "to_q", "to_v", "to_out.0")
"""The attention's projections, which diffusers' own scripts adapt."""
PACKED = 2
"""Flux sees latents in squares of so many a side."""
HALF = ".fp16."
"""In the names of weights in half precision."""
GUIDANCE = 1.0
"""What a guidance-distilled Flux is told in training: no guidance."""

Row = dict[str, torch.Tensor]


class Family(ABC):
    """How one kind of model is read, fed and trained. source: its folder, diffusers' layout."""

    pipeline: type[Any]
    model: type[Any]
    prefix: str

    def __init__(self, folder: Path, device: torch.device) -> None:
        self.folder, self.device = folder, device
        self.dtype = torch.bfloat16 if device.type == "cuda" else torch.float32

    def rows(self, pairs: Sequence[Pair], image: Callable[[Pair], Image.Image]) -> list[Row]:
        """Every pair encoded, on the CPU; the encoders are gone afterwards. Raises InputError."""
        pipe = self.loaded(lambda: self.encoders())
        vae = self.loaded(lambda: self.autoencoder())
        with torch.no_grad():
            rows = [self._row(pipe, vae, pair, image(pair)) for pair in pairs]
        del pipe, vae
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        return rows

    def _row(self, pipe: Any, vae: Any, pair: Pair, image: Image.Image) -> Row:
        pixels = np.array(image, dtype=np.float32) / 127.5 - 1.0  # [-1, 1], as VAEs are trained
        batch = torch.from_numpy(pixels).permute(2, 0, 1)[None].to(self.device)
        mean = vae.encode(batch).latent_dist.mode()
        shift = getattr(vae.config, "shift_factor", None) or 0.0
        latents = (mean - shift) * vae.config.scaling_factor
        told = self.told(pipe, pair, image.width)
        return {key: each.cpu() for key, each in {"latents": latents[0].float(), **told}.items()}

    def denoiser(self) -> Any:
        """The model to train, frozen, on its device. Raises InputError."""
        model = self.loaded(lambda: self.unfrozen())
        return model.requires_grad_(False).to(self.device)

    def loaded(self, load: Callable[[], Any]) -> Any:
        """What it loads. Raises InputError in place of what the libraries raise."""
        try:
            return load()
        except (OSError, ValueError, TypeError, SafetensorError) as why:
            said = (str(why).splitlines() or [type(why).__name__])[0]
            raise InputError(f"{self.folder}: cannot be loaded: {said}") from None

    # What a stand-in makes and others read.

    def encoders(self) -> Any:
        """A pipeline of the text encoders alone, on the device."""
        absent = {self.prefix: None, "vae": None}
        safe = self._safe(self.dtype, "text_encoder")
        pipe = self.pipeline.from_pretrained(self.folder, **absent, **safe)
        return pipe.to(self.device)

    def autoencoder(self) -> Any:
        """In fp32: SDXL's overflows in half precision."""
        vae: Any = AutoencoderKL.from_pretrained(
            self.folder, subfolder="vae", **self._safe(torch.float32, "vae")
        )
        return vae.to(self.device)

    def unfrozen(self) -> Any:
        """The denoiser as it is read."""
        return self.model.from_pretrained(
            self.folder, subfolder=self.prefix, **self._safe(self.dtype, self.prefix)
        )

    def _safe(self, dtype: torch.dtype, component: str) -> dict[str, Any]:
        names = [each.name for each in (self.folder / component).glob("*.safetensors")]
        halves = bool(names) and all(HALF in name for name in names)
        return {
            "torch_dtype": dtype,
            "use_safetensors": True,
            "local_files_only": True,
            "variant": "fp16" if halves else None,
        }

    # What differs.

    @abstractmethod
    def told(self, pipe: Any, pair: Pair, pixels: int) -> Row:
        """What the denoiser is told of a pair beside its latents."""

    @abstractmethod
    def loss(self, model: Any, batch: Row, noise: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        """The mean squared error of what the model says of the noise.

        noise: like the latents. at: how far from the image to the noise, uniform in (0, 1).
        """


class Sdxl(Family):
    """Stable Diffusion XL: a UNet that predicts the noise, or the velocity.

    Ho et al. 2020 (2006.11239), Podell et al. 2023 (2307.01952).
    """

    pipeline, model, prefix = StableDiffusionXLPipeline, UNet2DConditionModel, "unet"

    def __init__(self, folder: Path, device: torch.device) -> None:
        super().__init__(folder, device)
        self._noise: Any = self.loaded(lambda: self.scheduler())

    def scheduler(self) -> Any:
        """How noise is added."""
        return DDPMScheduler.from_pretrained(
            self.folder, subfolder="scheduler", local_files_only=True
        )

    def told(self, pipe: Any, pair: Pair, pixels: int) -> Row:
        """Both encoders' words, and the sizes that the model is conditioned on."""
        embeds, _, pooled, _ = pipe.encode_prompt(
            pair.caption, device=self.device, do_classifier_free_guidance=False
        )
        sizes = [pair.height, pair.width, pair.top, pair.left, pixels, pixels]
        return {
            "embeds": embeds[0],
            "pooled": pooled[0],
            "sizes": torch.tensor(sizes, dtype=torch.float32),
        }

    def loss(self, model: Any, batch: Row, noise: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        """As ``Family.loss``; times are even."""
        latents, config = batch["latents"], self._noise.config
        steps = (at * config.num_train_timesteps).long().clamp(max=config.num_train_timesteps - 1)
        said = model(
            self._noise.add_noise(latents, noise, steps),
            steps,
            encoder_hidden_states=batch["embeds"],
            added_cond_kwargs={"text_embeds": batch["pooled"], "time_ids": batch["sizes"]},
            return_dict=False,
        )[0]
        wanted = noise
        if config.prediction_type == "v_prediction":
            wanted = self._noise.get_velocity(latents, noise, steps)
        return torch.nn.functional.mse_loss(said.float(), wanted.float())


class Flux(Family):
    """FLUX.1: a transformer that predicts the way from image to noise.

    Rectified flow with times by a logistic normal: Esser et al. 2024 (2403.03206).
    """

    pipeline, model, prefix = FluxPipeline, FluxTransformer2DModel, "transformer"

    def told(self, pipe: Any, pair: Pair, pixels: int) -> Row:
        """T5's words and CLIP's summary."""
        del pixels
        embeds, pooled, _ = pipe.encode_prompt(pair.caption, None, device=self.device)
        return {"embeds": embeds[0], "pooled": pooled[0]}

    def loss(self, model: Any, batch: Row, noise: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        """As ``Family.loss``; times cluster in the middle."""
        latents = batch["latents"]
        sigma = torch.special.ndtri(at).sigmoid()
        share = sigma[:, None, None, None]
        height, width = latents.shape[2] // PACKED, latents.shape[3] // PACKED
        guidance = torch.full_like(at, GUIDANCE) if guided(model) else None
        said = model(
            hidden_states=packed((1 - share) * latents + share * noise),
            timestep=sigma,
            guidance=guidance,
            pooled_projections=batch["pooled"],
            encoder_hidden_states=batch["embeds"],
            txt_ids=torch.zeros(batch["embeds"].shape[1], 3, device=latents.device),
            img_ids=places(height, width).to(latents.device),
            return_dict=False,
        )[0]
        return torch.nn.functional.mse_loss(said.float(), packed(noise - latents).float())


def guided(model: Any) -> bool:
    """Whether a Flux wants to be told its guidance (dev), or not (schnell)."""
    return bool(getattr(model, "module", model).config.guidance_embeds)


def packed(latents: torch.Tensor) -> torch.Tensor:
    """(rows, channels, height, width) to (rows, squares, channels * 4)."""
    return torch.nn.functional.pixel_unshuffle(latents, PACKED).flatten(2).transpose(1, 2)


def places(height: int, width: int) -> torch.Tensor:
    """(squares, 3): zero, row and column of each."""
    down = torch.arange(height, dtype=torch.float32)
    across = torch.arange(width, dtype=torch.float32)
    grid = torch.meshgrid(down, across, indexing="ij")
    return torch.stack([torch.zeros(height, width), *grid], dim=-1).reshape(-1, 3)


FAMILIES: dict[str, type[Family]] = {"StableDiffusionXLPipeline": Sdxl, "FluxPipeline": Flux}


def family_of(folder: Path, device: torch.device) -> Family:
    """The family of the model in a folder. Raises InputError."""
    path = folder / INDEX
    try:
        name = json.loads(path.read_bytes()).get("_class_name")
    except (OSError, ValueError, AttributeError) as why:
        raise InputError(f"{path}: cannot be read: {why}") from None
    if name not in FAMILIES:
        raise InputError(f"{path}: found {found(name)}, allowed is {' or '.join(FAMILIES)}")
    return FAMILIES[name](folder, device)
