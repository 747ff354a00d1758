"""How large a model's own constants are."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.fx import GraphModule

from penstock.compiler.builder import attribute
from penstock.compiler.control_flow import all_graphs


@dataclass(frozen=True)
class Weights:
    """How many numbers a model's own constants (parameters, buffers, tensors in its code) hold, and
    how many bytes."""

    elements: int = 0
    bytes: int = 0


def weights_of(module: GraphModule) -> Weights:
    """Of all that the graph and those within it read; shared memory counts once."""
    found: dict[int, torch.Tensor] = {}
    for graph in all_graphs(module):
        for node in graph.graph.nodes:
            if node.op == "get_attr" and isinstance(node.meta.get("val"), torch.Tensor):
                tensor = attribute(graph, str(node.target))
                known = found.get(tensor.data_ptr())
                if known is None or known.numel() < tensor.numel():
                    found[tensor.data_ptr()] = tensor
    return Weights(
        sum(tensor.numel() for tensor in found.values()),
        sum(tensor.numel() * tensor.element_size() for tensor in found.values()),
    )
