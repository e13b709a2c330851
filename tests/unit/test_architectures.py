import pytest

from shared.architectures import (
    MODULES,
    Architecture,
    ArchitectureError,
    architecture_from_config,
    architecture_of,
    interpolated_architecture,
    parameters_in_name,
)
from shared.errors import InputError

LLAMA_8B = architecture_of("meta-llama/Llama-3.1-8B")

PUBLISHED = {  # parameters that the safetensors index of each model states
    "meta-llama/Llama-3.2-1B": 1_235_814_400,
    "unsloth/Llama-3.2-1B-Instruct": 1_235_814_400,
    "meta-llama/Llama-3.2-3B-Instruct": 3_212_749_824,
    "meta-llama/Llama-3.1-8B": 8_030_261_248,
    "meta-llama/Meta-Llama-3-8B-Instruct": 8_030_261_248,
    "NousResearch/Hermes-3-Llama-3.1-8B": 8_030_261_248,
    "meta-llama/Llama-3.1-70B-Instruct": 70_553_706_496,
    "meta-llama/Llama-3.3-70B-Instruct": 70_553_706_496,
    "meta-llama/Meta-Llama-3-70B": 70_553_706_496,
    "meta-llama/Llama-2-7b-hf": 6_738_415_616,
    "TheBloke/Llama_2_13B_chat": 13_015_864_320,
    "meta-llama/Llama-2-70b-hf": 68_976_648_192,
    "TinyLlama/TinyLlama-1.1B-Chat-v1.0": 1_100_048_384,
    "mistralai/Mixtral-8x7B-v0.1": 46_702_792_704,
    "mistralai/Mistral-Nemo-Instruct-2407": 12_247_782_400,
    "mistralai/Mistral-7B-Instruct-v0.2": 7_241_732_096,
    "mistralai/Mistral-7B-Instruct-v0.3": 7_248_023_552,
    "HuggingFaceTB/SmolLM2-135M-Instruct": 134_515_008,
    "HuggingFaceTB/SmolLM2-360M": 361_821_120,
    "HuggingFaceTB/SmolLM2-1.7B": 1_711_376_384,
    "microsoft/Phi-3.5-mini-instruct": 3_821_079_552,
    "Qwen/Qwen2.5-0.5B": 494_032_768,
    "Qwen/Qwen2.5-Coder-1.5B": 1_543_714_304,
    "Qwen/Qwen2.5-3B-Instruct": 3_085_938_688,
    "Qwen/Qwen2.5-7B": 7_615_616_512,
    "Qwen/Qwen2-7B-Instruct": 7_615_616_512,
    "Qwen/Qwen2.5-Math-7B": 7_615_616_512,
    "Qwen/Qwen2.5-14B-Instruct": 14_770_033_664,
    "Qwen/Qwen2.5-32B": 32_763_876_352,
    "Qwen/Qwen2.5-72B-Instruct": 72_706_203_648,
    "Qwen/Qwen3-0.6B": 596_049_920,
    "Qwen/Qwen3-1.7B": 1_720_574_976,
    "Qwen/Qwen3-4B": 4_022_468_096,
    "Qwen/Qwen3-8B": 8_190_735_360,
    "Qwen/Qwen3-14B": 14_768_307_200,
    "Qwen/Qwen3-32B": 32_762_123_264,
}


@pytest.mark.parametrize(("model", "parameters"), PUBLISHED.items())
def test_the_table_gives_each_models_published_parameter_count(model, parameters):
    assert architecture_of(model).base_parameters == parameters
    assert architecture_of(model).stated_parameters is None


@pytest.mark.parametrize(
    ("model", "billions"),
    [
        ("meta-llama/Llama-3.2-1B", 1.44),
        ("meta-llama/Llama-3.1-8B", 5.37),
        ("Qwen/Qwen2.5-14B", 8.81),
        ("meta-llama/Llama-3.1-70B", 26.5),
    ],
)
def test_lora_parameters_of_rank_2048_on_seven_projections(model, billions):
    lora = architecture_of(model).lora_parameters(2048)
    assert lora / 1e9 == pytest.approx(billions, abs=0.05 if billions > 10 else 0.005)


def test_lora_parameters_count_only_the_modules_named():
    # q: 4096 -> 4096, k: 4096 -> 1024, per rank and layer
    assert LLAMA_8B.lora_parameters(16, ("q_proj", "k_proj")) == 32 * 16 * (8192 + 5120)
    assert LLAMA_8B.lora_parameters(16, ()) == 0


def test_experts_multiply_the_mlps_adapters_only():
    mixtral = architecture_of("mistralai/Mixtral-8x7B-v0.1")
    assert mixtral.lora_parameters(8, ("q_proj",)) == 32 * 8 * 8192
    assert mixtral.lora_parameters(8, ("up_proj",)) == 32 * 8 * (4096 + 14336) * 8


@pytest.mark.parametrize(
    ("model", "params", "parameters"),
    [
        ("org/unknown", 13_000_000_000, 13_000_000_000),
        ("org/unknown-13b", None, 13_000_000_000),
        ("org/unknown-13B-chat", 0, 13_000_000_000),
        ("org/Mixtral-8x22B-v0.1", None, 176_000_000_000),
        ("org/unknown", None, 7_000_000_000),
        ("org/unknown-0b", None, 7_000_000_000),
        ("org/Llama-3.1-8B", 8_100_000_000, 8_030_261_248),  # near enough: the name is right
        ("org/Llama-3.1-8B-pruned", 4_000_000_000, 4_000_000_000),  # the name is not
        ("org/notllama-3.1-8b", None, 8_000_000_000),  # no boundary before the name
        ("org/Llama-3.1-80B", None, 80_000_000_000),
        ("llama-3.1-8b/other-3b", None, 3_000_000_000),  # the organisation says nothing
        ("org/x-" + "9" * 400 + "b", None, 10_000_000_000_000),
        ("org/Llama-3.1-8B", 10**400, 10_000_000_000_000),
    ],
)
def test_where_the_size_comes_from(model, params, parameters):
    assert architecture_of(model, params).base_parameters == parameters


def test_the_number_in_a_name_counts_experts():
    assert parameters_in_name("org/a-8x7b") == 56_000_000_000
    assert parameters_in_name("org/a-1.5B") == 1_500_000_000
    assert parameters_in_name("7b/none") is None


@pytest.mark.parametrize("model", ["Llama-3.2-1B", "Llama-3.2-3B", "Llama-3.1-8B", "Llama-3.1-70B"])
def test_interpolation_meets_its_anchors(model):
    known = architecture_of(model)
    guessed = interpolated_architecture(known.base_parameters)
    for field in ("hidden_size", "layers", "heads", "kv_heads", "intermediate_size", "vocab_size"):
        assert getattr(guessed, field) == getattr(known, field)


@pytest.mark.parametrize("billions", [0.3, 2, 7, 14, 32, 100])
def test_an_interpolated_shape_has_about_the_parameters_it_stands_for(billions):
    guessed = interpolated_architecture(int(billions * 1e9))
    derived = guessed.embedding_parameters + guessed.layers * guessed.layer_parameters
    assert derived == pytest.approx(billions * 1e9, rel=0.25)


CONFIG = {
    "model_type": "llama",
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "intermediate_size": 14336,
    "vocab_size": 128256,
    "tie_word_embeddings": False,
}


def test_a_config_gives_the_same_shape_as_the_table():
    assert architecture_from_config(CONFIG) == LLAMA_8B
    assert architecture_from_config({"text_config": CONFIG}) == LLAMA_8B


def test_what_a_config_may_leave_out():
    least = {k: v for k, v in CONFIG.items() if k not in ("num_key_value_heads", "model_type")}
    shape = architecture_from_config(least | {"num_key_value_heads": None, "head_dim": 64})
    assert (shape.kv_heads, shape.head_dim, shape.tied_embeddings) == (32, 64, False)
    del least["tie_word_embeddings"]
    assert not architecture_from_config(least).tied_embeddings
    assert architecture_from_config(least | {"tie_word_embeddings": True}).tied_embeddings


def test_families_that_a_config_names():
    qwen2 = architecture_from_config(CONFIG | {"model_type": "qwen2"})
    qwen3 = architecture_from_config(CONFIG | {"model_type": "qwen3"})
    biased = architecture_from_config(CONFIG | {"attention_bias": True})
    assert (qwen2.qkv_bias, qwen2.qk_norm) == (True, False)
    assert (qwen3.qkv_bias, qwen3.qk_norm) == (False, True)
    assert (biased.qkv_bias, biased.qk_norm) == (True, False)


def test_experts_in_a_config():
    mixtral = architecture_from_config(
        CONFIG | {"num_local_experts": 8, "num_experts_per_tok": 2, "vocab_size": 32000}
    )
    assert mixtral == architecture_of("mistralai/Mixtral-8x7B-v0.1")
    wide = {"num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768}
    qwen3_moe = architecture_from_config(CONFIG | wide)
    assert (qwen3_moe.experts, qwen3_moe.experts_per_token) == (128, 8)
    assert qwen3_moe.intermediate_size == 768


@pytest.mark.parametrize(
    "key", ["hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size"]
)
@pytest.mark.parametrize("value", [None, 0, -1, 1.5, "32", True])
def test_a_bad_config_is_named_by_its_key(key, value):
    with pytest.raises(ArchitectureError, match=key):
        architecture_from_config(CONFIG | {key: value})


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"num_attention_heads": 33}, "head_dim"),
        ({"intermediate_size": "wide"}, "intermediate_size"),
        ({"tie_word_embeddings": "yes"}, "tie_word_embeddings"),
        ({"attention_bias": 1}, "attention_bias"),
        ({"num_experts": 0}, "num_experts"),
    ],
)
def test_other_bad_values_in_a_config(change, named):
    with pytest.raises(ArchitectureError, match=named):
        architecture_from_config(CONFIG | change)


def test_the_error_is_a_value_error_and_an_input_error():
    assert issubclass(ArchitectureError, ValueError)
    assert issubclass(ArchitectureError, InputError)


def test_module_widths_follow_the_data_through_the_layer():
    shape = Architecture(64, 1, 4, 2, 8, 100, 10)
    assert [shape.module_widths(m) for m in MODULES] == [
        (64, 32), (64, 16), (64, 16), (32, 64), (64, 100), (64, 100), (100, 64),
    ]  # fmt: skip
