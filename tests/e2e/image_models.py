"""Tiny random image models in diffusers' layout, and an archive of pictures with captions."""

import io
import zipfile
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    T5Config,
    T5EncoderModel,
    T5TokenizerFast,
)

from live.training.images.stand_ins import TinySdxl, byte_tokenizer, pictures, vocabulary

WIDTH = 32


def saved_sdxl(folder: Path) -> Path:
    """The stand-in, as a folder that any program of diffusers reads."""
    tiny = TinySdxl(torch.device("cpu"))
    pipe = tiny.encoders()
    pipe.register_modules(vae=tiny.autoencoder(), unet=tiny.unfrozen())
    pipe.save_pretrained(folder)
    return folder


def saved_flux(folder: Path) -> Path:
    torch.manual_seed(0)
    words = vocabulary()
    clip = CLIPTextConfig(
        vocab_size=len(words), hidden_size=WIDTH, intermediate_size=64, num_hidden_layers=1,
        num_attention_heads=2, projection_dim=WIDTH, bos_token_id=0, eos_token_id=1, pad_token_id=1,
    )  # fmt: skip
    pieces: list[tuple[str, float]] = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -5.0)]
    pieces += [(word, -3.0) for word in words if len(word) == 1]
    t5 = T5Config(
        vocab_size=len(pieces) + 100, d_model=WIDTH, d_kv=8, d_ff=64, num_layers=1, num_heads=4
    )
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 8, 8, 8), norm_num_groups=4, latent_channels=16,
        shift_factor=0.1159, scaling_factor=0.3611, use_quant_conv=False, use_post_quant_conv=False,
    )  # fmt: skip
    transformer = FluxTransformer2DModel(
        in_channels=64, num_layers=1, num_single_layers=1, attention_head_dim=16,
        num_attention_heads=2, joint_attention_dim=WIDTH, pooled_projection_dim=WIDTH,
        axes_dims_rope=(4, 4, 8), guidance_embeds=True,
    )  # fmt: skip
    pipe = FluxPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(), vae=vae, text_encoder=CLIPTextModel(clip),
        tokenizer=byte_tokenizer(), text_encoder_2=T5EncoderModel(t5),
        tokenizer_2=T5TokenizerFast(vocab=pieces), transformer=transformer,
    )  # fmt: skip
    pipe.save_pretrained(folder)
    return folder


def archive(path: Path, **more: bytes) -> Path:
    """The built-in pictures, a caption beside each. more: other files, ``__`` for a dot."""
    pairs, images = pictures(64)
    with zipfile.ZipFile(path, "w") as held:
        for pair, image in zip(pairs, images, strict=True):
            name = pair.file.removesuffix(".png")
            held.writestr(f"set/{name}.png", png(image))
            held.writestr(f"set/{name}.txt", pair.caption)
        for key, content in more.items():
            held.writestr(key.replace("__", "."), content)
    return path


def png(image: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
