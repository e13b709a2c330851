"""Layers that are compiled compute what they did, and what one has compiled serves all."""

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")
peft = pytest.importorskip("peft")

from trl.trainer.sft_trainer import DataCollatorForLanguageModeling  # noqa: E402

from live.training import attention  # noqa: E402
from live.training.compiling import compile_layers  # noqa: E402
from live.training.ways import PACKED  # noqa: E402
from tests.unit.cpu_kernel import use_a_kernel_of_the_cpu  # noqa: E402

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
BATCHES = [[[5, 6, 7], [9, 3]], [list(range(3, 24)), [8, 4, 4]], [[7, 8], [9, 9, 9, 9]]]


def model_of(layers: int):
    attention.register()
    config = transformers.LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=layers,
        num_attention_heads=4, num_key_value_heads=2, pad_token_id=0, use_cache=False,
    )  # fmt: skip
    config._attn_implementation = PACKED
    torch.manual_seed(3)
    model = peft.get_peft_model(
        transformers.LlamaForCausalLM(config),
        peft.LoraConfig(r=4, lora_dropout=0.0, target_modules=["q_proj", "down_proj"],
                        init_lora_weights=False),
    )  # fmt: skip
    model.gradient_checkpointing_enable({"use_reentrant": False})
    model.enable_input_require_grads()
    return model.train()


def steps(model):
    collate = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)
    found = []
    for rows in BATCHES:
        told = collate([{"input_ids": row, "labels": row} for row in rows])
        model(**told).loss.backward()
        found.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.requires_grad]))
        model.zero_grad()
    return found


@pytest.fixture
def graphs():
    """How many graphs were compiled since the last call."""
    torch._dynamo.reset()
    seen = []

    def backend(graph, _):
        seen.append(graph)
        return graph.forward

    torch._dynamo.register_backend(backend, name="counted")
    yield seen
    del torch._dynamo.backends.registry._COMPILER_FNS["counted"]
    torch._dynamo.reset()


def test_compiled_layers_compute_what_they_did():
    torch._dynamo.reset()
    plain, compiled = model_of(2), model_of(2)
    assert compile_layers(compiled, backend="aot_eager") == 2
    for wanted, got in zip(steps(plain), steps(compiled), strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kernel", [False, True])
def test_one_layers_graphs_serve_all(graphs, kernel, monkeypatch):
    """With the flash kernel's interface too."""
    if kernel:
        use_a_kernel_of_the_cpu(monkeypatch)
    made = {}
    for layers in (1, 5):
        torch._dynamo.reset()
        graphs.clear()
        model = model_of(layers)
        compile_layers(model, backend="counted")
        steps(model)
        made[layers] = len(graphs)
    assert made[1] == made[5] == 2  # of the first length, and of any
