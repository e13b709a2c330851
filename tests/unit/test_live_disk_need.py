"""Disk that jobs may need: by their models, at the rank that fits, and safe for the next one."""

import pytest

from live.disk_need import Slot, need_of, next_job_bytes, slot_of
from shared.architectures import architecture_of
from shared.box import BoxDeclaration
from shared.decisions import Policy
from shared.offers import Offer
from shared.plan import largest_plan
from shared.presets import ACCURACY_4, THROUGHPUT_24, Preset, preset_named


def slot(preset: Preset) -> Slot:
    return slot_of(Policy(preset), None, 200 * 10**9)


def test_a_job_s_disk_is_that_of_its_model_at_the_rank_that_fits() -> None:
    """At full rank a 70B would want 1,200 GB, and no slot could train it so."""
    whole = preset_named("maximum_2")
    need = need_of("meta-llama/Llama-3.3-70B", None, "ChatTask", slot(whole))
    assert need.model == pytest.approx(141e9, rel=0.01)
    plan = largest_plan(
        architecture_of("meta-llama/Llama-3.3-70B"), whole.profile, gpus=4, gb_per_gpu=80.0,
        longest_row=1, chunked_loss=True,
    )  # fmt: skip
    assert plan is not None
    assert plan.lora_r < whole.profile.lora_r
    lora = architecture_of("meta-llama/Llama-3.3-70B").lora_parameters(plan.lora_r)
    assert 3 * 4 * lora < need.own < 3 * 12 * lora + 4 * lora
    small = need_of("meta-llama/Llama-3.1-8B", None, "ChatTask", slot(ACCURACY_4))
    assert small.own > 3 * 60 * 10**9
    shared = need_of("meta-llama/Llama-3.1-8B", None, "ChatTask", slot(THROUGHPUT_24))
    assert shared.own < small.own / 4
    assert need_of("x/70b", None, "ChatTask", slot(THROUGHPUT_24)).own < 3 * 10**9  # fits none
    picture = need_of("x/flux", 12 * 10**9, "ImageTask", slot(ACCURACY_4))
    assert small.own > picture.own > 10**9


@pytest.mark.parametrize("name", ["accuracy_4", "throughput_24", "universal_24", "maximum_2"])
@pytest.mark.parametrize("row", [None, 512])
def test_the_next_job_s_disk_is_safe_for_every_model_that_fits(name: str, row: int | None) -> None:
    preset = preset_named(name)
    policy = Policy(preset, BoxDeclaration(shortest_row=row))
    kept = next_job_bytes(policy, None, 200 * 10**9)
    assert row is None or preset.layout.gpu_share == 1 or kept < 60 * 10**9
    for model in (
        "Llama-3.2-1B",
        "Llama-3.1-8B",
        "Llama-3.3-70B",
        "Llama-2-13b",
        "Qwen2.5-14B",
        "Qwen2.5-32B",
        "Qwen2.5-72B",
        "Mistral-Nemo",
        "Mixtral-8x7B",
        "Qwen3-14B",
    ):
        for task_type in ("ChatTask", "GrpoTask", "DpoTask"):
            offer = Offer("a", model, task_type, 1.0)
            if policy.box.why_unsupported(offer, preset.layout) is None:
                assert need_of(model, None, task_type, slot(preset)).total <= kept, model
    for params in range(5 * 10**8, 2 * 10**11, 21 * 10**8 + 11):
        offer = Offer("a", "m", "ChatTask", 1.0, None, params)
        if policy.box.why_unsupported(offer, preset.layout) is None:
            assert need_of("m", params, "ChatTask", slot(preset)).total <= kept, params
