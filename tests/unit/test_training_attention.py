"""Rows laid end to end are attended to as if each were alone, in every family that says so."""

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from trl.trainer.sft_trainer import DataCollatorForLanguageModeling  # noqa: E402

from live.training import attention  # noqa: E402
from live.training.attention import attentions_of  # noqa: E402
from live.training.ways import EAGER, FLASH, PACKED, SDPA  # noqa: E402
from tests.unit.cpu_kernel import use_a_kernel_of_the_cpu  # noqa: E402

SMALL = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "pad_token_id": 0,
}
FAMILIES = {
    "Llama": {},
    "Mistral": {"sliding_window": 6},
    "Qwen2": {},
    "Qwen3": {},
    "Phi3": {"sliding_window": 6},
    "Gemma3Text": {"sliding_window": 6, "layer_types": ["full_attention", "sliding_attention"]},
}
ROWS = [[5, 6, 7], [9], list(range(10, 31)), [8, 4]]


def made(family, more, how):
    config = getattr(transformers, f"{family}Config")(**SMALL, **more)
    config._attn_implementation = how
    name = "Gemma3" if family == "Gemma3Text" else family
    torch.manual_seed(3)
    model = getattr(transformers, f"{name}ForCausalLM")(config)
    return model.train()


def batch(rows):
    collate = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)
    return collate([{"input_ids": row, "labels": row} for row in rows])


def loss_and_gradient(model, rows):
    told = batch(rows)
    loss = model(**told, use_cache=False).loss
    loss.backward()
    gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    model.zero_grad()
    return loss.detach(), gradient


@pytest.mark.parametrize("family", FAMILIES)
def test_rows_end_to_end_are_as_rows_alone(family):
    attention.register()
    packed, alone = (made(family, FAMILIES[family], how) for how in (PACKED, "eager"))
    assert PACKED in attentions_of(packed)
    got, gradient = loss_and_gradient(packed, ROWS)
    parts = [loss_and_gradient(alone, [row]) for row in ROWS if len(row) > 1]
    share = torch.tensor([float(len(row) - 1) for row in ROWS if len(row) > 1])
    share /= share.sum()
    assert got == pytest.approx(float(sum(s * it for s, (it, _) in zip(share, parts, strict=True))))
    wanted = sum(s * g for s, (_, g) in zip(share, parts, strict=True))
    torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("family", ["Llama", "Mistral"])
def test_padded_rows_are_as_rows_alone(family):
    attention.register()
    packed, alone = (made(family, FAMILIES[family], how) for how in (PACKED, "eager"))
    ids = torch.zeros(len(ROWS), 21, dtype=torch.long)
    seen = torch.zeros_like(ids)
    for at, row in enumerate(ROWS):
        ids[at, : len(row)], seen[at, : len(row)] = torch.tensor(row), 1
    with torch.no_grad():
        got = packed(input_ids=ids, attention_mask=seen).logits
        for at, row in enumerate(ROWS):
            wanted = alone(input_ids=torch.tensor([row])).logits[0]
            torch.testing.assert_close(got[at, : len(row)], wanted, rtol=1e-4, atol=1e-5)
            whole = packed(input_ids=torch.tensor([row])).logits[0]
            torch.testing.assert_close(whole, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("groups", [True, False])
@pytest.mark.parametrize("family", ["Llama", "Mistral"])
def test_the_kernel_is_called_as_the_mask_is(family, groups, monkeypatch):
    """By the kernel's own interface, with what it computes in our own words: there is no GPU.

    Releases of torch differ in whether it takes fewer key heads than query heads.
    """
    use_a_kernel_of_the_cpu(monkeypatch)
    monkeypatch.setattr(attention, "TAKES_GROUPS", groups)
    test_rows_end_to_end_are_as_rows_alone(family)


def test_what_a_family_can_be_trained_with():
    def of(kind, **more):
        return attentions_of(kind(kind.config_class(**SMALL, **more)))

    assert of(transformers.LlamaForCausalLM) == (FLASH, PACKED, SDPA, EAGER)
    assert of(transformers.Gemma2ForCausalLM, attn_logit_softcapping=50.0) == (FLASH, EAGER)
    assert PACKED not in of(transformers.LlamaForCausalLM, layer_types=["linear_attention"] * 2)
    wide = transformers.LlamaConfig(**{**SMALL, "head_dim": 264})
    assert attentions_of(transformers.LlamaForCausalLM(wide)) == (FLASH, SDPA, EAGER)
    small = {"vocab_size": 9, "hidden_size": 16, "n_layer": 1, "n_head": 2}
    bloom = transformers.BloomForCausalLM(transformers.BloomConfig(**small))
    assert attentions_of(bloom) == (EAGER,)


LATENT = {
    "kv_lora_rank": 8, "q_lora_rank": 8, "qk_rope_head_dim": 8, "qk_nope_head_dim": 16,
    "v_head_dim": 16,
}  # fmt: skip


def test_families_whose_attention_is_of_another_shape_do_not_go_through_the_kernel():
    """Latent attention has keys wider than values; dropout inside attention is not the kernel's."""
    config = transformers.DeepseekV3Config(**{**SMALL, **LATENT})
    with torch.device("meta"):
        latent = transformers.DeepseekV3ForCausalLM(config)
        dropping = transformers.LlamaForCausalLM(
            transformers.LlamaConfig(**SMALL, attention_dropout=0.1)
        )
        falcon = transformers.FalconForCausalLM(
            transformers.FalconConfig(vocab_size=9, hidden_size=16, num_hidden_layers=1,
                                      num_attention_heads=2)
        )  # fmt: skip
    assert attention.heads_of(latent) is None
    for model in (latent, dropping, falcon):
        assert PACKED not in attentions_of(model)


def test_rows_of_layers_that_remember_are_not_laid_end_to_end():
    assert attention.stay_apart(made("Llama", {}, "sdpa"))
    config = transformers.Qwen3NextConfig(
        **SMALL, layer_types=["linear_attention", "full_attention"], num_experts=2,
        moe_intermediate_size=8, num_experts_per_tok=1, shared_expert_intermediate_size=8,
    )  # fmt: skip
    with torch.device("meta"):
        assert not attention.stay_apart(transformers.Qwen3NextForCausalLM(config))


def test_a_kernel_that_is_not_there_is_told(monkeypatch):
    def varlen_attn(*told, **more):
        raise NotImplementedError

    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", varlen_attn)
    why = attention.kernel_fault(torch.device("cpu"), 4, 2, 8)
    assert why is not None
    assert "cannot be used" in why


@pytest.mark.parametrize(("wrong", "fault"), [(1.0, None), (1.1, "computes otherwise")])
def test_a_kernel_that_computes_otherwise_is_told(monkeypatch, wrong, fault):
    def kernel(*told):
        return attention.by_mask(*told) * wrong

    monkeypatch.setattr(attention, "in_the_kernel", kernel)
    why = attention.kernel_fault(torch.device("cpu"), 4, 2, 8)
    assert (why or "None").endswith(fault or "None") or fault in why
