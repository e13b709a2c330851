"""What card there is, in a process of its own: ``python -m benchmarks.gpu_card``."""

import json
import sys
from time import perf_counter
from typing import Any

import torch

SIDE, PRODUCTS = 8192, 10


def matmul_tflops() -> float:
    """What a large bf16 product reaches: a ceiling that can be had, unlike the maker's."""
    left = torch.randn(SIDE, SIDE, device="cuda", dtype=torch.bfloat16)
    for _ in range(3):
        left @ left
    torch.cuda.synchronize()
    began_s = perf_counter()
    for _ in range(PRODUCTS):
        left @ left
    torch.cuda.synchronize()
    return PRODUCTS * 2 * SIDE**3 / (perf_counter() - began_s) / 1e12


def card() -> dict[str, Any]:
    if not torch.cuda.is_available():
        return {"devices": 0}
    free, total = torch.cuda.mem_get_info()
    return {
        "devices": torch.cuda.device_count(), "device": torch.cuda.get_device_name(0),
        "total_gb": total / 1e9, "free_gb": free / 1e9,
        "capability": list(torch.cuda.get_device_capability(0)), "cuda": torch.version.cuda,
        "matmul_tflops": matmul_tflops(),
    }  # fmt: skip


if __name__ == "__main__":
    sys.stdout.write(json.dumps(card()) + "\n")
