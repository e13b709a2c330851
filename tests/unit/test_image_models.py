"""SDXL and Flux as they are fed and trained, at toy size; and what an image job is told."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("diffusers")
import torch
from diffusers import FluxPipeline

from live.training.images import terms
from live.training.images.families import MODULES, Flux, Sdxl, family_of, packed, places
from live.training.images.stand_ins import TinySdxl, pictures
from live.training.images.trainer import DRAWS, TRAINED, data_of, drawn_for
from shared.errors import InputError
from shared.presets import ACCURACY_4
from tests.e2e.image_models import saved_flux, saved_sdxl
from tests.e2e.test_live_worker import spec

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
CPU = torch.device("cpu")


def batch_of(family: Any, count: int = 2) -> dict[str, torch.Tensor]:
    pairs, images = pictures(64)
    image = dict(zip(pairs, images, strict=True)).__getitem__
    rows = family.rows(pairs[:count], image)
    return {key: torch.stack([row[key] for row in rows]) for key in rows[0]}


@pytest.mark.parametrize(("save", "kind"), [(saved_sdxl, Sdxl), (saved_flux, Flux)])
def test_a_model_is_read_from_its_folder_and_learns(tmp_path: Path, save: Any, kind: Any) -> None:
    family = family_of(save(tmp_path / "model"), CPU)
    assert type(family) is kind
    batch, model = batch_of(family), family.denoiser()
    assert not any(each.requires_grad for each in model.parameters())
    dice = torch.Generator().manual_seed(0)
    noise = torch.randn(batch["latents"].shape, generator=dice)
    at = torch.tensor([0.3, 0.7])
    model.requires_grad_(True)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3)
    first = family.loss(model, batch, noise, at)
    first.backward()
    optimizer.step()
    assert float(family.loss(model, batch, noise, at)) < float(first)


def test_noise_alone_is_told_apart_from_the_picture(tmp_path: Path) -> None:
    """A model that answers zero errs by the noise's own square, or by noise less picture."""

    class Zero(torch.nn.Module):
        config = type("", (), {"guidance_embeds": False})

        def forward(self, *args: Any, **told: Any) -> tuple[torch.Tensor]:
            return (torch.zeros_like(args[0] if args else told["hidden_states"]),)

    sdxl = TinySdxl(CPU)
    latents = torch.full((1, 4, 8, 8), 2.0)
    noise, at = torch.ones(1, 4, 8, 8), torch.tensor([0.5])
    words = {"embeds": torch.zeros(1, 3, 8), "pooled": torch.zeros(1, 8), "sizes": torch.zeros(6)}
    assert float(sdxl.loss(Zero(), {"latents": latents, **words}, noise, at)) == 1.0
    flux = Flux(tmp_path, CPU)
    assert float(flux.loss(Zero(), {"latents": 3 * latents, **words}, noise, at)) == 25.0


def test_flux_s_squares_lie_as_diffusers_lays_them() -> None:
    latents = torch.arange(2 * 16 * 6 * 8, dtype=torch.float32).reshape(2, 16, 6, 8)
    assert torch.equal(packed(latents), FluxPipeline._pack_latents(latents, 2, 16, 6, 8))
    theirs = FluxPipeline._prepare_latent_image_ids(1, 3, 4, CPU, torch.float32)
    assert torch.equal(places(3, 4), theirs)


def test_wrong_folders_are_told_of(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"model_index\.json: cannot be read"):
        family_of(tmp_path, CPU)
    (tmp_path / "model_index.json").write_text('{"_class_name": "KandinskyPipeline"}')
    with pytest.raises(InputError, match="allowed is StableDiffusionXLPipeline or FluxPipeline"):
        family_of(tmp_path, CPU)
    (tmp_path / "model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    with pytest.raises(InputError, match="cannot be loaded"):
        family_of(tmp_path, CPU).denoiser()


# Noise.


def test_noise_rests_on_seed_step_and_row_alone() -> None:
    size = torch.Size((4, 8, 8))
    one, at = drawn_for(3, 7, TRAINED, size)
    again, at_again = drawn_for(3, 7, TRAINED, size)
    assert torch.equal(one, again)
    assert at == at_again
    for other in ((4, 7), (3, 8)):
        assert not torch.equal(one, drawn_for(*other, TRAINED, size)[0])


def test_pictures_held_out_are_looked_at_evenly_and_always_alike() -> None:
    times = [drawn_for(0, float("inf"), draw, torch.Size((1, 2, 2)))[1] for draw in range(DRAWS)]
    assert [int(at * DRAWS) for at in times] == list(range(DRAWS))
    rows = [{"latents": torch.zeros(1, 2, 2)} for _ in range(5)]
    data = data_of(rows, [0, 1, 2], [3, 4])
    assert (len(data.train), len(data.held_out)) == (3, 2 * DRAWS)
    first = data.held_out.select(range(2))
    assert [int(each["row"]) for each in (first[0], first[1])] == [3, 4]
    assert {int(each["draw"]) for each in (data.train[0], data.train[2])} == {TRAINED}


# What the job is told.


SHAPE = terms.Shape(params=2_600_000_000, narrowest=640, adapter_params=1_450_000)


def settled(rows: int = 40, lacks: int = 0, shape: terms.Shape = SHAPE, **changes: Any) -> Any:
    gpu = {"device": "cuda", "memory_gb_per_gpu": 80.0, "task_type": "ImageTask"}
    return terms.settle(spec(**{**gpu, **changes}), shape, rows, lacks)


def test_a_pass_has_several_steps_and_the_rest_is_told() -> None:
    told = settled()
    assert (told.micro * told.accumulation, told.lora_r, told.lora_alpha) == (2, 640, 640.0)
    missing = {each.setting: each.given for each in told.not_taken}
    assert missing["lora_r"] == 640
    assert missing["per_device_train_batch_size"] == 2
    assert {"lora_alpha", "target_modules", "torch_compile"} <= set(missing)
    assert told.checkpointing
    assert 20 < told.predicted_gb < 80 * 0.95


def test_a_want_of_memory_costs_pictures_at_once_and_then_rank() -> None:
    big = replace(SHAPE, params=11_900_000_000, narrowest=3072, adapter_params=2_000_000)
    told = settled(400, shape=big)
    assert told.lora_r < 2048
    assert told.predicted_gb <= 80 * 0.95
    assert "it does not fit the slot" in {each.why for each in told.not_taken}
    some = settled(400)
    fewer = settled(400, lacks=1)
    assert 1 <= fewer.micro <= some.micro // 2
    assert fewer.micro * fewer.accumulation == some.micro * some.accumulation
    assert fewer.predicted_gb < some.predicted_gb
    missing = {each.setting: each.given for each in fewer.not_taken}
    assert missing["per_device_train_batch_size"] == fewer.micro
    assert missing["gradient_accumulation_steps"] == fewer.accumulation
    assert missing["per_device_eval_batch_size"] == fewer.eval_batch
    with pytest.raises(InputError, match="not one image"):
        settled(shape=big, memory_gb_per_gpu=24.0)


def test_on_the_cpu_it_is_a_rehearsal() -> None:
    told = settled(24, device="cpu")
    assert (told.lora_r, told.pixels, told.predicted_gb) == (8, 64, None)
    assert ACCURACY_4.profile.gradient_checkpointing
    assert not told.checkpointing


def test_the_shape_is_counted() -> None:
    shape = terms.shape_of(TinySdxl(CPU).denoiser())
    assert shape.params > 100_000
    assert shape.narrowest == 32
    with pytest.raises(InputError, match="nothing to adapt"):
        terms.shape_of(torch.nn.Linear(2, 2))
    assert MODULES == ("to_k", "to_q", "to_v", "to_out.0")
