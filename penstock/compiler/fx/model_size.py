"""How large a model's own constants are."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.fx import GraphModule

from penstock.compiler.fx.attributes import attribute
from penstock.compiler.fx.control_flow import all_graphs
from penstock.compiler.fx.marks import MADE, Made


@dataclass(frozen=True)
class Weights:
    """How many numbers a model's own constants (parameters, buffers, tensors in its code) hold, and
    how many bytes."""

    elements: int = 0
    bytes: int = 0


def weights_of(module: GraphModule) -> Weights:
    """Of all that the graph and those within it read; shared memory counts once, and a constant
    that was computed as what it was computed from."""
    found: dict[int, torch.Tensor] = {}
    computed: dict[int, int] = {}
    for graph in all_graphs(module):
        for node in graph.graph.nodes:
            if node.op == "get_attr" and isinstance(node.meta.get("val"), torch.Tensor):
                tensor = attribute(graph, str(node.target))
                made: Made | None = node.meta.get(MADE)
                if made is not None:
                    computed[tensor.data_ptr()] = made.source_bytes
                known = found.get(tensor.data_ptr())
                if known is None or known.numel() < tensor.numel():
                    found[tensor.data_ptr()] = tensor
    return Weights(
        sum(tensor.numel() for tensor in found.values()),
        sum(
            computed.get(place, tensor.numel() * tensor.element_size())
            for place, tensor in found.items()
        ),
    )
