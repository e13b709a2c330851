"""Shapes of the language models that the memory planner knows, and where it gets the others'.

A shape comes from the model's name when it is in the built-in table, else from a config.json that
somebody has already parsed, else from the parameter count alone by interpolation.
"""

import re
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from math import exp, log

from shared.errors import InputError
from shared.offers import DEFAULT_PARAMS_B, model_name, size_in_name

ATTENTION_MODULES = ("q_proj", "k_proj", "v_proj", "o_proj")
MLP_MODULES = ("gate_proj", "up_proj", "down_proj")
MODULES = ATTENTION_MODULES + MLP_MODULES
"""The linear layers of one decoder layer that LoRA may adapt, in the order they run."""

NAME_TRUST = 0.2
"""A stated parameter count further than this share from the table's overrules the name: the model
is then a pruned, merged or mislabelled one. Quantisation and added tokens stay well inside."""


class ArchitectureError(InputError):
    """A model description that no shape can be made of; the message names the key."""


@dataclass(frozen=True, slots=True)
class Architecture:
    """A decoder-only transformer: grouped-query attention, gated MLP, RMSNorm.

    hidden_size, intermediate_size, head_dim, vocab_size: widths in elements. heads, kv_heads:
    query heads and key/value heads. experts: MLPs per layer, of which each token visits
    experts_per_token. qkv_bias: the Qwen2 family's biases on q, k and v. qk_norm: the Qwen3
    family's norms on each query and key head. stated_parameters: a count told from outside that
    replaces the one derived from the shape (an interpolated shape is never exact).
    """

    hidden_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    tied_embeddings: bool = False
    qkv_bias: bool = False
    qk_norm: bool = False
    experts: int = 1
    experts_per_token: int = 1
    stated_parameters: int | None = None

    @property
    def q_width(self) -> int:
        """Elements of all query heads of one token."""
        return self.heads * self.head_dim

    @property
    def kv_width(self) -> int:
        """Elements of all key heads (as many again for the values) of one token."""
        return self.kv_heads * self.head_dim

    def module_widths(self, module: str) -> tuple[int, int]:
        """(input, output) elements of one adapted linear layer; KeyError for an unknown name."""
        hidden, q, kv, mlp = self.hidden_size, self.q_width, self.kv_width, self.intermediate_size
        return {
            "q_proj": (hidden, q),
            "k_proj": (hidden, kv),
            "v_proj": (hidden, kv),
            "o_proj": (q, hidden),
            "gate_proj": (hidden, mlp),
            "up_proj": (hidden, mlp),
            "down_proj": (mlp, hidden),
        }[module]

    def copies(self, module: str) -> int:
        """How many of this linear layer one decoder layer has (one per expert in the MLP)."""
        return self.experts if module in MLP_MODULES else 1

    @property
    def embedding_parameters(self) -> int:
        """Parameters of the embedding and, where it is not tied to it, the output head."""
        return self.vocab_size * self.hidden_size * (1 if self.tied_embeddings else 2)

    @property
    def layer_parameters(self) -> int:
        """Parameters of one decoder layer: its linear layers, biases, norms and router."""
        linear = 0
        for module in MODULES:
            width_in, width_out = self.module_widths(module)
            linear += width_in * width_out * self.copies(module)
        bias = (self.q_width + 2 * self.kv_width) if self.qkv_bias else 0
        norms = 2 * self.hidden_size + (2 * self.head_dim if self.qk_norm else 0)
        router = self.hidden_size * self.experts if self.experts > 1 else 0
        return linear + bias + norms + router

    @property
    def base_parameters(self) -> int:
        """Parameters of the whole base model."""
        if self.stated_parameters is not None:
            return self.stated_parameters
        final_norm = self.hidden_size
        return self.embedding_parameters + self.layers * self.layer_parameters + final_norm

    def lora_layer_parameters(self, rank: int, modules: Sequence[str] = MODULES) -> int:
        """Adapter parameters in one decoder layer: rank * (in + out) for each adapted linear."""
        return sum(rank * sum(self.module_widths(m)) * self.copies(m) for m in modules)

    def lora_parameters(self, rank: int, modules: Sequence[str] = MODULES) -> int:
        """Adapter parameters of the whole model."""
        return self.layers * self.lora_layer_parameters(rank, modules)


def _qwen2(hidden: int, layers: int, heads: int, kv: int, mlp: int, vocab: int) -> Architecture:
    # Up to 3B the family ties the embeddings and keeps the shorter vocabulary padding (151936).
    tied = vocab == 151936
    return Architecture(hidden, layers, heads, kv, hidden // heads, mlp, vocab, tied, qkv_bias=True)


def _qwen3(hidden: int, layers: int, heads: int, mlp: int, *, tied: bool) -> Architecture:
    return Architecture(hidden, layers, heads, 8, 128, mlp, 151936, tied, qk_norm=True)


_LLAMA_1B = Architecture(2048, 16, 32, 8, 64, 8192, 128256, tied_embeddings=True)
_LLAMA_3B = Architecture(3072, 28, 24, 8, 128, 8192, 128256, tied_embeddings=True)
_LLAMA_8B = Architecture(4096, 32, 32, 8, 128, 14336, 128256)
_LLAMA_70B = Architecture(8192, 80, 64, 8, 128, 28672, 128256)
_SMOLLM2_135M = Architecture(576, 30, 9, 3, 64, 1536, 49152, tied_embeddings=True)

# Each shape is that model's published config.json; the names it goes by stand before it, as a
# pattern on the lower-case name after the organisation with "-" for "_". The first match wins.
_TABLE: tuple[tuple[str, Architecture], ...] = (
    (r"llama-?3\.2-1b", _LLAMA_1B),
    (r"llama-?3\.2-3b", _LLAMA_3B),
    (r"llama-?3(\.1)?-8b", _LLAMA_8B),
    (r"llama-?3(\.[13])?-70b", _LLAMA_70B),
    (r"llama-?2-7b", Architecture(4096, 32, 32, 32, 128, 11008, 32000)),
    (r"llama-?2-13b", Architecture(5120, 40, 40, 40, 128, 13824, 32000)),
    (r"llama-?2-70b", Architecture(8192, 80, 64, 8, 128, 28672, 32000)),
    (r"tinyllama-1\.1b", Architecture(2048, 22, 32, 4, 64, 5632, 32000)),
    (r"mixtral-8x7b", Architecture(
        4096, 32, 32, 8, 128, 14336, 32000, experts=8, experts_per_token=2)),
    (r"mistral-nemo", Architecture(5120, 40, 32, 8, 128, 14336, 131072)),
    (r"mistral-7b(-instruct)?-v0\.3", Architecture(4096, 32, 32, 8, 128, 14336, 32768)),
    (r"mistral-7b", Architecture(4096, 32, 32, 8, 128, 14336, 32000)),
    (r"smollm2-135m", _SMOLLM2_135M),
    (r"smollm2-360m", Architecture(960, 32, 15, 5, 64, 2560, 49152, tied_embeddings=True)),
    (r"smollm2-1\.7b", Architecture(2048, 24, 32, 32, 64, 8192, 49152, tied_embeddings=True)),
    (r"phi-3\.5-mini", Architecture(3072, 32, 32, 32, 96, 8192, 32064)),
    (r"qwen2(\.5)?(-coder|-math)?-0\.5b", _qwen2(896, 24, 14, 2, 4864, 151936)),
    (r"qwen2(\.5)?(-coder|-math)?-1\.5b", _qwen2(1536, 28, 12, 2, 8960, 151936)),
    (r"qwen2(\.5)?(-coder|-math)?-3b", _qwen2(2048, 36, 16, 2, 11008, 151936)),
    (r"qwen2(\.5)?(-coder|-math)?-7b", _qwen2(3584, 28, 28, 4, 18944, 152064)),
    (r"qwen2(\.5)?(-coder|-math)?-14b", _qwen2(5120, 48, 40, 8, 13824, 152064)),
    (r"qwen2(\.5)?(-coder|-math)?-32b", _qwen2(5120, 64, 40, 8, 27648, 152064)),
    (r"qwen2(\.5)?(-coder|-math)?-72b", _qwen2(8192, 80, 64, 8, 29568, 152064)),
    (r"qwen3-0\.6b", _qwen3(1024, 28, 16, 3072, tied=True)),
    (r"qwen3-1\.7b", _qwen3(2048, 28, 16, 6144, tied=True)),
    (r"qwen3-4b", _qwen3(2560, 36, 32, 9728, tied=True)),
    (r"qwen3-8b", _qwen3(4096, 36, 32, 12288, tied=False)),
    (r"qwen3-14b", _qwen3(5120, 40, 40, 17408, tied=False)),
    (r"qwen3-32b", _qwen3(5120, 64, 64, 25600, tied=False)),
)  # fmt: skip

_ANCHORS = (_SMOLLM2_135M, _LLAMA_1B, _LLAMA_3B, _LLAMA_8B, _LLAMA_70B)
"""The Llama line, in which every width grows with the parameter count: the shapes between them
are interpolated. A mix of families would make the shape jump back and forth with the size."""

_EXPERTS = re.compile(r"(\d+)x\d")
LARGEST_PARAMETERS = 10**13
"""The shape of anything larger is that of this size, so that no count can overflow a float."""


def _from_table(name: str) -> Architecture | None:
    for pattern, architecture in _TABLE:
        if re.search(rf"(?<![a-z0-9.]){pattern}(?![a-z0-9.])", name):
            return architecture
    return None


def parameters_in_name(model_id: str) -> int | None:
    """Parameters by the number before a b in the model's name, 8x7b counting 56; None without."""
    size = size_in_name(model_id)
    experts = _EXPERTS.search(model_name(model_id).lower())
    if size is None:
        return None
    return round(min(size * int(experts[1] if experts else 1), 1e4) * 1e9) or None


def _between(low: int, high: int, share: float) -> int:
    return max(1, round(exp(log(low) + share * (log(high) - log(low)))))


def interpolated_architecture(parameters: int) -> Architecture:
    """A shape from the parameter count alone.

    Hidden size, layers, heads, key/value heads, MLP width and vocabulary are interpolated
    log-log in the parameter count between the two neighbouring anchors of the Llama line, or
    extended along the nearest pair outside it; the count itself is kept as given. Untied
    embeddings are assumed, which only matters to the memory of a sharded base.
    """
    sizes = [anchor.base_parameters for anchor in _ANCHORS]
    counted = min(parameters, LARGEST_PARAMETERS)
    upper = min(max(bisect_right(sizes, counted), 1), len(sizes) - 1)
    low, high = _ANCHORS[upper - 1], _ANCHORS[upper]
    share = log(counted / sizes[upper - 1]) / log(sizes[upper] / sizes[upper - 1])
    kv_heads = _between(low.kv_heads, high.kv_heads, share)
    return Architecture(
        hidden_size=_between(low.hidden_size, high.hidden_size, share),
        layers=_between(low.layers, high.layers, share),
        heads=max(kv_heads, _between(low.heads, high.heads, share)),
        kv_heads=kv_heads,
        head_dim=_between(low.head_dim, high.head_dim, share),
        intermediate_size=_between(low.intermediate_size, high.intermediate_size, share),
        vocab_size=_between(low.vocab_size, high.vocab_size, share),
        stated_parameters=counted,
    )


def _agrees(told: int, counted: int) -> bool:
    return abs(told - counted) <= NAME_TRUST * counted


@lru_cache(maxsize=4096)
def architecture_of(model_id: str, params: int | None = None) -> Architecture:
    """The shape of a model from its name and, where told, its parameter count.

    The built-in table when it knows the name (and the count, if given, is within NAME_TRUST of
    it); else interpolated from the count, else from the number before a b in the name, else from
    7 billion. A count that is not positive is one that was not told. Never raises.
    """
    told = params if params is not None and params > 0 else None
    known = _from_table(model_name(model_id).lower().replace("_", "-"))
    if known and (told is None or _agrees(told, known.base_parameters)):
        return known
    named = told or parameters_in_name(model_id)
    return interpolated_architecture(named or round(DEFAULT_PARAMS_B * 1e9))


def _whole(config: Mapping[str, object], key: str, default: int | None = None) -> int:
    value = config.get(key)
    if value is None and default is not None:
        return default
    if value is None:
        raise ArchitectureError(f"config.json: {key} is missing")
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ArchitectureError(f"config.json: {key} is {value!r}, not a positive whole number")
    return value


def _flag(config: Mapping[str, object], key: str, default: bool) -> bool:
    value = config.get(key, default)
    if not isinstance(value, bool):
        raise ArchitectureError(f"config.json: {key} is {value!r}, not true or false")
    return value


def _experts(config: Mapping[str, object]) -> tuple[int, int, str]:
    """(experts, experts a token visits, the key of one expert's width)."""
    key = "num_local_experts" if "num_local_experts" in config else "num_experts"
    width = "moe_intermediate_size" if "moe_intermediate_size" in config else "intermediate_size"
    return _whole(config, key, 1), _whole(config, "num_experts_per_tok", 1), width


def _head_dim(config: Mapping[str, object], hidden: int, heads: int) -> int:
    if config.get("head_dim") is None and hidden % heads:
        raise ArchitectureError(
            f"config.json: head_dim is missing and num_attention_heads ({heads}) does not divide "
            f"hidden_size ({hidden})"
        )
    return _whole(config, "head_dim", hidden // heads)


def architecture_from_config(config: Mapping[str, object]) -> Architecture:
    """The shape that a parsed config.json describes, in the Llama family's key names.

    A nested text_config (multimodal models) is followed. Missing key/value heads mean as many
    as query heads, a missing tie_word_embeddings untied. Raises ArchitectureError naming the
    first key that is missing or not a positive whole number.
    """
    nested = config.get("text_config")
    if isinstance(nested, Mapping):
        return architecture_from_config(nested)
    hidden, heads = _whole(config, "hidden_size"), _whole(config, "num_attention_heads")
    experts, per_token, width_key = _experts(config)
    family = str(config.get("model_type", ""))
    shape = Architecture(
        hidden_size=hidden,
        layers=_whole(config, "num_hidden_layers"),
        heads=heads,
        kv_heads=_whole(config, "num_key_value_heads", heads),
        head_dim=_head_dim(config, hidden, heads),
        intermediate_size=_whole(config, width_key),
        vocab_size=_whole(config, "vocab_size"),
        tied_embeddings=_flag(config, "tie_word_embeddings", default=False),
    )
    return replace(
        shape,
        qkv_bias=family.startswith("qwen2") or _flag(config, "attention_bias", default=False),
        qk_norm=family.startswith("qwen3"),
        experts=experts,
        experts_per_token=per_token,
    )
