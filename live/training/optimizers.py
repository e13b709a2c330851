"""The optimizers of a plan: fused AdamW, which transformers makes, and AdamW with 8-bit moments."""

from collections.abc import Callable, Iterable
from typing import Any

import torch

from live.training.sharding import share

TORCH_NAMES = {"cuda": "adamw_torch_fused", "cpu": "adamw_torch"}
"""What transformers calls the plan's ``adamw``, by device."""

Make = Callable[[list[torch.nn.Parameter]], torch.optim.Optimizer]


class OverShares(torch.optim.Optimizer):
    """An optimizer that knows no sharded tensors, over the share of each weight that is here.

    Right for one that takes each element (or each block of them) for itself, as Adam does, and
    under DDP too, where the share is the whole. make: makes it over the shares. The states it
    keeps are told as the weights' own; of sharded weights they are this rank's alone.
    """

    def __init__(
        self, weights: Iterable[torch.nn.Parameter], make: Make, learning_rate: float
    ) -> None:
        super().__init__(list(weights), {"lr": learning_rate})
        held = [each for group in self.param_groups for each in group["params"]]
        shares = [(each, torch.nn.Parameter(share(each.detach()))) for each in held]
        self._shares = [(whole, part) for whole, part in shares if part.numel()]
        self._inner = make([part for _, part in self._shares])

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step from the weights' gradients; no closure is ever given here."""
        del closure
        for group in self._inner.param_groups:
            group["lr"] = self.param_groups[0]["lr"]
        for whole, part in self._shares:
            part.data = share(whole.detach())
            part.grad = None if whole.grad is None else share(whole.grad)
            # Whoever loads a state puts other dictionaries in place, as accelerate does at once.
            self._inner.state[part] = self.state[whole]
        self._inner.step()
        for _, part in self._shares:
            part.grad = None


def adam_8bit(weights: Iterable[torch.nn.Parameter], learning_rate: float) -> OverShares:
    """AdamW of bitsandbytes, its moments in 8 bits, without weight decay.

    Through ``OverShares``, since it has no rules for the tensors of FSDP2. Raises ImportError.
    """
    from bitsandbytes.optim.adamw import AdamW8bit

    def make(shares: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        adam: Any = AdamW8bit  # it tells no types
        made: torch.optim.Optimizer = adam(shares, lr=learning_rate, weight_decay=0.0)
        return made

    return OverShares(weights, make, learning_rate)
