"""What is trained: the model asked for, or on the CPU a tiny one, and its LoRA adapter."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from safetensors import SafetensorError
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaConfig, LlamaForCausalLM

from live.job_files import JobSpec
from live.worker_data import BYTE_VOCABULARY, Encode, encode_bytes
from shared.errors import InputError

TINY = "tiny-random"
TINY_SEED = 20_240_101
CPU_RANK = 8
"""The highest rank trained on the CPU, where jobs are rehearsals."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model with its adapter, and how its text becomes tokens. why: not what was asked for."""

    model: Any
    encode: Encode
    name: str
    why: str
    learning_rate: float


def load(spec: JobSpec) -> Loaded:
    """Load the request's model and give it an adapter. Raises InputError when there is none."""
    folder = Path(spec.model)
    if spec.local_files and folder.is_absolute() and (folder / "config.json").is_file():
        model, encode = _from_folder(folder, spec.device)
        return Loaded(_with_adapter(model, spec), encode, str(folder), "", 2e-4)
    if spec.device != "cpu":
        raise InputError(f"model: found {spec.model!r}, allowed is a folder of this machine")
    why = "no weights of the model on this machine; on the CPU a tiny random one takes its place"
    asked_for = spec.model in ("tiny", TINY)
    tiny = _with_adapter(_tiny(), spec)
    return Loaded(tiny, encode_bytes, TINY, "asked for" if asked_for else why, 1e-2)


def _tiny() -> Any:
    """A Llama of some 100,000 weights, always the same ones."""
    torch.manual_seed(TINY_SEED)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=BYTE_VOCABULARY,
            hidden_size=64,
            intermediate_size=128,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=512,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        )
    )


def _from_folder(folder: Path, device: str) -> tuple[Any, Encode]:
    """Weights from safetensors alone, and no code of the folder's."""
    safe = {"local_files_only": True, "trust_remote_code": False}
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder, use_safetensors=True, dtype=dtype, **safe
        )
        tokenizer: Any = AutoTokenizer.from_pretrained(folder, **safe)
    except (OSError, ValueError, SafetensorError) as why:
        raise InputError(f"{folder}: cannot be loaded: {str(why).splitlines()[0]}") from None

    def encode(text: str) -> list[int]:
        return [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]

    return model, encode


def _with_adapter(model: Any, spec: JobSpec) -> Any:
    profile = spec.profile
    rank = min(profile.lora_r, CPU_RANK) if spec.device == "cpu" else profile.lora_r
    settings = LoraConfig(
        r=rank,
        lora_alpha=max(1, profile.lora_alpha * rank // profile.lora_r) * 4
        if spec.device == "cpu"
        else profile.lora_alpha,
        lora_dropout=profile.lora_dropout,
        target_modules=list(profile.target_modules),
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, settings)
