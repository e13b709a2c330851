"""A tiny random SDXL and built-in pictures: what a rehearsal on the CPU trains in their place."""

from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDPMScheduler,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from PIL import Image, ImageDraw
from tokenizers import pre_tokenizers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from live.training.images.families import Sdxl
from live.training.images.pairs import Pair

COUNT, HELD_OUT = 24, 4
COLOURS = ("red", "green", "blue", "black", "orange", "purple")
SHAPES = ("square", "circle", "bar", "frame")
WIDTH = 32
"""Of the text encoders."""
SEED = 20_240_101


def pictures(pixels: int) -> tuple[tuple[Pair, ...], tuple[Image.Image, ...]]:
    """One coloured shape each, always the same; the last few are held out."""
    pairs, images = [], []
    for at in range(COUNT):
        colour, shape = COLOURS[at % len(COLOURS)], SHAPES[at // len(COLOURS)]
        image = Image.new("RGB", (pixels, pixels), "white")
        _draw(ImageDraw.Draw(image), shape, colour, pixels)
        held = at >= COUNT - HELD_OUT
        name = f"{at:05d}.png"
        pairs.append(Pair(name, f"a {colour} {shape}", pixels, pixels, 0, 0, held))
        images.append(image)
    return tuple(pairs), tuple(images)


def _draw(pen: ImageDraw.ImageDraw, shape: str, colour: str, pixels: int) -> None:
    low, high = pixels // 4, 3 * pixels // 4
    if shape == "circle":
        pen.ellipse((low, low, high, high), fill=colour)
    elif shape == "bar":
        pen.rectangle((low, 0, high, pixels), fill=colour)
    elif shape == "frame":
        pen.rectangle((low, low, high, high), outline=colour, width=max(1, pixels // 16))
    else:
        pen.rectangle((low, low, high, high), fill=colour)


class TinySdxl(Sdxl):
    """An SDXL of some 200,000 weights, made here and the same everywhere."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(Path("tiny-random"), device)

    def scheduler(self) -> Any:
        """SDXL's own figures."""
        return DDPMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")

    def encoders(self) -> Any:
        """Two CLIPs over the bytes."""
        return StableDiffusionXLPipeline(
            vae=None,
            unet=None,
            text_encoder=CLIPTextModel(self._clip),
            text_encoder_2=CLIPTextModelWithProjection(self._clip),
            tokenizer=byte_tokenizer(),
            tokenizer_2=byte_tokenizer(),
            scheduler=self.scheduler(),
        )

    @cached_property
    def _clip(self) -> CLIPTextConfig:
        torch.manual_seed(SEED)
        return CLIPTextConfig(
            vocab_size=len(vocabulary()),
            hidden_size=WIDTH,
            intermediate_size=2 * WIDTH,
            num_hidden_layers=2,
            num_attention_heads=2,
            projection_dim=WIDTH,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=1,
        )

    def autoencoder(self) -> Any:
        """Eight pixels to one latent, as SDXL has it."""
        torch.manual_seed(SEED)
        return AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(8, 8, 8, 8),
            norm_num_groups=4,
            layers_per_block=1,
        )

    def unfrozen(self) -> Any:
        """A UNet with two levels, one of them with attention."""
        torch.manual_seed(SEED)
        return UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(16, 32),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            layers_per_block=1,
            attention_head_dim=(2, 4),
            norm_num_groups=8,
            cross_attention_dim=2 * WIDTH,
            transformer_layers_per_block=(1, 1),
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=WIDTH + 6 * 8,
            use_linear_projection=True,
        )


def vocabulary() -> dict[str, int]:
    """CLIP's two marks, the bytes, and the bytes at a word's end."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    marks = ["<|startoftext|>", "<|endoftext|>"]
    return {
        token: at for at, token in enumerate([*marks, *alphabet, *(f"{a}</w>" for a in alphabet)])
    }


def byte_tokenizer() -> Any:
    """CLIP's tokenizer without a merge."""
    return CLIPTokenizer(vocab=vocabulary(), merges=[], model_max_length=77)
