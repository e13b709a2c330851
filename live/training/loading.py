"""The base model and its tokenizer: from a folder, or on the CPU a tiny one in their place."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)
from transformers.pytorch_utils import Conv1D

from live.training.attention import (
    attentions_of,
    heads_of,
    kernel_fault,
    register,
    stay_apart,
)
from live.training.ways import PACKED, Attention, Family
from shared.architectures import Architecture, architecture_from_config
from shared.errors import InputError

TINY = "tiny-random"
TINY_SEED = 20_240_101
_SAFE = {"local_files_only": True, "trust_remote_code": False}
_SPECIAL = ("<pad>", "<s>", "</s>")
CHAT = (
    "{% for m in messages %}<s>{{ m['role'] }}\n{{ m['content'] }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<s>assistant\n{% endif %}"
)

CHATML = (
    "{% for m in messages %}"
    "{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>' + '\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
TEMPLATES = {"chatml": CHATML}
"""Chat templates that a request may name; any other word means the tokenizer's own."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where the model comes from. folder: None for the tiny one; why: it stands in for another."""

    name: str
    folder: Path | None
    why: str = ""


def tokenizer_of(source: Source) -> Any:
    """The tokenizer, which has a token to pad with. Raises InputError."""
    if source.folder is None:
        return _byte_tokenizer()
    try:
        tokenizer = AutoTokenizer.from_pretrained(source.folder, **_SAFE)
    except (OSError, ValueError) as why:
        raise InputError(f"{source.folder}: no tokenizer: {_first_line(why)}") from None
    if tokenizer.eos_token is None:
        raise InputError(f"{source.folder}: the tokenizer has no end-of-text token")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def shape_of(source: Source) -> Architecture:
    """The model's shape, for the memory plan. Raises InputError."""
    if source.folder is None:
        return architecture_from_config(_tiny_config().to_dict())
    try:
        config = AutoConfig.from_pretrained(source.folder, **_SAFE)
    except (OSError, ValueError) as why:
        raise InputError(f"{source.folder}: no config: {_first_line(why)}") from None
    return architecture_from_config(config.to_dict())


def family_of(source: Source, device: torch.device) -> Family:
    """What the model's family can be trained with on this device; no weight is read.

    Its linear layers are those inside the model, its output head aside. Raises InputError.
    """
    try:
        config = (
            _tiny_config()
            if source.folder is None
            else AutoConfig.from_pretrained(source.folder, **_SAFE)
        )
        with torch.device("meta"):
            auto: Any = AutoModelForCausalLM  # it tells no types
            model = auto.from_config(config, trust_remote_code=False)
    except (OSError, ValueError, AssertionError, ImportError) as why:
        raise InputError(f"{source.folder}: no such model: {_first_line(why)}") from None
    head = model.get_output_embeddings()
    found = {
        name.rsplit(".", 1)[-1]
        for name, each in model.named_modules()
        if isinstance(each, torch.nn.Linear | Conv1D) and each is not head
    }
    able, heads, lacks = attentions_of(model), heads_of(model), None
    if PACKED in able and device.type == "cuda" and heads is not None:
        lacks = kernel_fault(device, *heads)
    usable = tuple(way for way in able if way != PACKED or lacks is None)
    return Family(tuple(sorted(found)), usable, lacks or "", apart=stay_apart(model))


def model_of(
    source: Source, attention: Attention, device: torch.device, *, half: bool = False
) -> Any:
    """The model on its device, safetensors alone, no foreign code. Raises InputError.

    half: bf16, for a job on GPUs wherever it is loaded: to be sharded, it waits on the CPU. A GPU
    is given the weights one by one, so that there is no second copy in the machine's memory.
    """
    register()
    if source.folder is None:
        torch.manual_seed(TINY_SEED)
        config = _tiny_config()
        config._attn_implementation = attention
        tiny: Any = LlamaForCausalLM(config)
        return tiny.to(device)
    place = {} if device.type == "cpu" else {"device_map": {"": device}}
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(
            source.folder,
            use_safetensors=True,
            dtype=torch.bfloat16 if half else torch.float32,
            attn_implementation=attention,
            **place,
            **_SAFE,
        )
    except (OSError, ValueError, ImportError, SafetensorError) as why:
        raise InputError(f"{source.folder}: cannot be loaded: {_first_line(why)}") from None
    return model.to(device)


def _first_line(why: Exception) -> str:
    return (str(why).splitlines() or [type(why).__name__])[0]


def _tiny_config() -> LlamaConfig:
    """A Llama of some 100,000 weights over the bytes."""
    return LlamaConfig(
        vocab_size=256 + len(_SPECIAL),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )


@lru_cache(maxsize=1)
def _byte_tokenizer() -> Any:
    """One token a byte, three special ones before them."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    names = {name: at for at, name in enumerate((*_SPECIAL, *alphabet))}
    raw = Tokenizer(models.BPE(vocab=names, merges=[]))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    pad, begin, end = _SPECIAL
    made: Any = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=raw, pad_token=pad, bos_token=begin, eos_token=end
    )
    made.chat_template = CHAT
    return made


def with_template(tokenizer: Any, request: Mapping[str, Any]) -> Any:
    """The tokenizer with the chat template that the request names.

    A template's source is never taken from a request: it is a program.
    """
    kind = request.get("dataset_type")
    name = kind.get("chat_template") if isinstance(kind, Mapping) else None
    if isinstance(name, str) and name in TEMPLATES:
        tokenizer.chat_template = TEMPLATES[name]
    return tokenizer
