"""Chains of activations in fp32: SiLU, which a file has as a sigmoid and a product."""

from __future__ import annotations

import math
from collections.abc import Container, Mapping
from dataclasses import dataclass
from functools import partial

from penstock.graph.dtypes import DataType
from penstock.graph.graph import Node, Shape
from penstock.graph.kinds import NodeKind
from penstock.runtime.engines.native import decoder
from penstock.runtime.engines.native.chains import Match, Pattern
from penstock.runtime.engines.native.costs import elementwise_gain
from penstock.runtime.engines.native.family import Step, Workshop


def activation_chains(pattern: Pattern, taken: Container[int]) -> list[Match]:
    """The chains of a graph of which no node's identity is in ``taken``."""
    nodes = pattern.graph.nodes
    if not any(node.kind is NodeKind.SIGMOID for node in nodes):
        return []
    found = [_silu(pattern, n) for n in nodes if n.kind is NodeKind.MULTIPLY]
    return [m for m in found if m and not any(id(node) in taken for node in m.nodes)]


def _silu(p: Pattern, product: Node) -> Match | None:
    """x * sigmoid(x)"""
    output = product.outputs[0]
    if product.clamp is not None or p.values[output].dtype is not DataType.FP32:
        return None
    for x, chosen in p.pairs(product):
        sigmoid = p.made(chosen, NodeKind.SIGMOID)
        if sigmoid is None or sigmoid.inputs[0] != x or p.values[x].data is not None:
            continue
        nodes = p.ordered([sigmoid, product])
        if p.values[x].dtype is DataType.FP32 and p.closed(nodes):
            gain = elementwise_gain(2, p.shapes[output])
            return Match(nodes, decoder.GATE, partial(Silu, x, output), gain)
    return None


@dataclass(frozen=True)
class Silu:
    """``x * sigmoid(x)``."""

    x: int
    output: int
    workshop: Workshop

    def step(self, shapes: Mapping[int, Shape]) -> Step:
        """See :class:`~penstock.runtime.engines.native.family.Prepared`."""
        isa = int(self.workshop.library.isa)
        task = decoder.CGate(isa, 0.0, 0.0, math.prod(shapes[self.x]))
        return Step(
            "pk_f32_gate_run",
            task,
            ((self.x, "a"), (self.output, "output")),
            over=(self.output, self.x),
        )
