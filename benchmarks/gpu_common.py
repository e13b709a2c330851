"""What the GPU benches share: models of real width without weights, their arithmetic, options.

Nothing here imports torch: a bench's own process holds no GPU memory while its cases run.
"""

import argparse
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from shared.architectures import Architecture, architecture_from_config

ROOT = Path(__file__).resolve().parents[1]
PEAKS_TFLOPS = {"H100 PCIe": 756.0, "H100 NVL": 835.0, "H100": 989.0, "H200": 989.0}
"""bf16 dense, as the maker gives it, by a part of the card's name; the plain names are SXM parts.
The first that is in the name counts."""
USUAL_TFLOPS = 989.0
WIDTHS: dict[str, dict[str, int]] = {
    "tiny": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2,
             "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 512},
    "1b": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
           "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256},
    "8b": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
           "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128256},
}  # fmt: skip
"""Llama's shapes at 1B and 8B, with an output head of its own."""
SLOT_GB = 80.0
"""What a case is held to unless it says otherwise: an H100, on a bigger card too."""
SHORT_HOURS, LONG_HOURS = 0.5, 6.0
"""Jobs so long are trained eager, and compiled where the plan does that at all."""

PLAIN = ("torch", "transformers", "peft")
OURS = (*PLAIN, "accelerate", "trl", "datasets", "pydantic")
"""What the worker's own step cannot do without, as importable names."""

BUDGET_S = 540.0
START_S, COMPILE_S, LOW_UTILISATION = 35.0, 80.0, 0.3
"""Assumed, for the estimates: imports and the model's making; compiling; share of the peak."""


def parser(what: str) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        description=what, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("--out", type=Path, metavar="FILE", help="append each JSON line there too")
    made.add_argument("--trial", action="store_true", help="toy size on the CPU: tries the bench")
    made.add_argument("--list", action="store_true", help="name the cases and end")
    made.add_argument(
        "--only", action="append", metavar="NAME", help="cases of this name; * stands for any part"
    )
    made.add_argument(
        "--budget-s", type=float, default=BUDGET_S, metavar="S",
        help="cases that no longer fit in so long are not begun (default %(default)s)",
    )  # fmt: skip
    made.add_argument(
        "--case-s", type=float, metavar="S",
        help="kill a case after so long (default: twice its estimate, and a minute)",
    )  # fmt: skip
    made.add_argument(
        "--peak-tflops", type=float, metavar="N", help="of the card, bf16 dense, for MFU and HFU"
    )
    return made


def missing(packages: tuple[str, ...]) -> list[str]:
    """Which of these are not installed."""
    return [name for name in packages if find_spec(name) is None]


def peak_of(card: str, told: float | None) -> tuple[float, str]:
    """TFLOP/s of bf16 that utilisation is counted against, and where the figure is from."""
    if told is not None:
        return told, "--peak-tflops"
    for name, peak in PEAKS_TFLOPS.items():
        if name in card:
            return peak, f"the maker's for {name}"
    return USUAL_TFLOPS, f"H100 SXM; {card} is not known: give --peak-tflops"


def shape_of(width: str) -> Architecture:
    return architecture_from_config(WIDTHS[width])


def flops_per_token(base: int, lora: int, *, recomputed: bool) -> int:
    """4 base + 6 lora for the model's own work, 6 base + 8 lora with checkpointing's second
    forward: two a weight forward, two for the gradient of what it is fed, two for that of a trained
    weight itself.
    """
    return 6 * base + 8 * lora if recomputed else 4 * base + 6 * lora


def attention_flops_per_token(shape: Architecture, span: float, *, recomputed: bool) -> float:
    """Scores and their use, of the tokens before each one: 2 * span * width a layer forward, twice
    that backward, once more where it is recomputed.

    span: tokens of the row that a token is in, on average.
    """
    return (4 if recomputed else 3) * 2 * span * shape.q_width * shape.layers


def utilisation(
    tokens_per_s: float, base: int, lora: int, shape: Architecture, span: float, peak_flops: float
) -> dict[str, float]:
    """MFU and HFU as shares of the peak, by training.md's formula; and as the card sees it: the
    input embedding is looked up and multiplies nothing, attention is no weight and multiplies.
    """
    multiplied = base - shape.vocab_size * shape.hidden_size
    found = {}
    for name, recomputed in (("mfu", False), ("hfu", True)):
        formula = flops_per_token(base, lora, recomputed=recomputed)
        seen = flops_per_token(multiplied, lora, recomputed=recomputed)
        seen += attention_flops_per_token(shape, span, recomputed=recomputed)
        found[name] = tokens_per_s * formula / peak_flops
        found[f"{name}_without_embedding_with_attention"] = tokens_per_s * seen / peak_flops
    return found


def estimate_s(settings: dict[str, Any]) -> float:
    """How long a case may take: its start, compiling, its tokens at a low share of the peak."""
    if settings.get("trial"):
        return 1.0
    shape = shape_of(settings["width"])
    base, lora = shape.base_parameters, shape.lora_parameters(settings["rank"])
    flops = flops_per_token(base, lora, recomputed=True) * settings.get("jobs", 1)
    rate = LOW_UTILISATION * USUAL_TFLOPS * 1e12 / flops
    steps = settings["steps"] + settings.get("warm_up", 2)
    tokens = steps * settings["rows_a_step"] * settings["row_tokens"]
    compiling = COMPILE_S if settings.get("hours", 0.0) >= LONG_HOURS else 0.0
    return START_S + compiling + tokens / rate
