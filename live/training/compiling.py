"""Compilation, a layer at a time.

Compiled whole, a model makes its attention mask inside the graph, where transformers cannot see
that none is needed: the flash kernel is lost, and the mask is a matrix of tokens x tokens. A layer
is given the mask that was made outside, and all layers share what is compiled once.
"""

from typing import Any

import torch
from transformers.modeling_layers import GradientCheckpointingLayer

MOST_GRAPHS = 64
"""Graphs of one layer's code: training and evaluation, the first length and any, kinds of layers,
with room to spare. At torch's own limit of 8 it would quietly go on without."""


def compile_layers(model: torch.nn.Module, backend: str = "inductor") -> int:
    """Have each layer compiled when it first runs; returns how many there are.

    Lengths that differ make one more graph, for any length.
    """
    config: Any = torch._dynamo.config
    config.recompile_limit = max(config.recompile_limit, MOST_GRAPHS)
    config.optimize_ddp = False  # it splits graphs of whole models, and takes no checkpoints
    layers = [each for each in model.modules() if isinstance(each, GradientCheckpointingLayer)]
    for layer in layers:
        layer.compile(backend=backend)
    return len(layers)
