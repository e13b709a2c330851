"""What the GPU benches share: models of real width without weights, cases in their own processes.

Without a GPU a bench says so in one line and ends with 0. ``--trial`` runs the whole path on the
CPU at toy size: it tries the bench, and its figures mean nothing.
"""

import argparse
import json
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PEAK_FLOPS = 989e12
"""bf16 dense of an H100 SXM, as its maker gives it."""
WIDTHS: dict[str, dict[str, int]] = {
    "tiny": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
             "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 512},
    "1b": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
           "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256},
    "8b": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
           "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256},
}  # fmt: skip
"""Llama's shapes at 1B and 8B."""
PACKAGES = ("torch", "transformers", "peft", "trl", "flash-attn", "bitsandbytes")
CASE_S = 1800.0


def parser(what: str) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=what)
    made.add_argument("--out", type=Path, metavar="FILE", help="write the JSON there too")
    made.add_argument("--trial", action="store_true", help="toy size on the CPU: tries the bench")
    return made


def gpus() -> int:
    """CUDA devices, 0 without."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def skipped(call: argparse.Namespace, needed: int = 1) -> bool:
    """Whether there are too few GPUs; says so."""
    there = gpus()
    if call.trial or there >= needed:
        return False
    print(f"found {there} CUDA device(s), needed {needed}: nothing measured")
    return True


def machine(trial: bool) -> dict[str, Any]:
    """What the figures are of."""
    import torch

    versions = {}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    device = platform.processor() or platform.machine()
    if not trial:
        device = torch.cuda.get_device_name(0)
    return {"device": device, "trial": trial, "python": platform.python_version(), **versions}


def flops_per_token(base: int, lora: int, *, recomputed: bool) -> int:
    """4 base + 6 lora for the model's own work, 6 base + 8 lora with checkpointing's second
    forward: two a weight forward, two for the gradient of what it is fed, two for that of a trained
    weight itself.
    """
    return 6 * base + 8 * lora if recomputed else 4 * base + 6 * lora


def utilisation(tokens_per_s: float, base: int, lora: int) -> dict[str, float]:
    """MFU and HFU as shares of the peak."""
    own, run = (flops_per_token(base, lora, recomputed=each) for each in (False, True))
    return {"mfu": tokens_per_s * own / PEAK_FLOPS, "hfu": tokens_per_s * run / PEAK_FLOPS}


def case(settings: dict[str, Any]) -> dict[str, Any]:
    """Run one case in a process of its own, so that memory is clean and its lack is contained."""
    child = begun(settings)
    return ended(child, settings)


def begun(settings: dict[str, Any], environment: dict[str, str] | None = None) -> Any:
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks.gpu_case", json.dumps(settings)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )


def ended(child: Any, settings: dict[str, Any]) -> dict[str, Any]:
    out, err = child.communicate(timeout=CASE_S)
    if child.returncode == 0:
        return {**settings, **json.loads(out.splitlines()[-1])}
    lack = "OutOfMemoryError" in err or "out of memory" in err
    last = err.strip().splitlines()[-1] if err.strip() else "no word"
    return {**settings, "failed": "out of memory" if lack else last[:300]}


def told(call: argparse.Namespace, document: dict[str, Any]) -> None:
    """Print the document, and write it where that is asked for."""
    text = json.dumps({"machine": machine(call.trial), **document}, indent=1)
    print(text)
    if call.out:
        call.out.write_text(text + "\n")
