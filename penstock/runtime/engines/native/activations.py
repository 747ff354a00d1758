"""Activations in fp32: SiLU, which a file has as a sigmoid and a product, and single ones."""

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
    found = []
    if any(node.kind is NodeKind.SIGMOID for node in nodes):
        found = [_silu(pattern, n) for n in nodes if n.kind is NodeKind.MULTIPLY]
    chains = [m for m in found if m and not any(id(node) in taken for node in m.nodes)]
    inside = {id(node) for chain in chains for node in chain.nodes}
    chains += [
        match
        for node in nodes
        if node.kind in FORMS and id(node) not in inside and id(node) not in taken
        if (match := _single(pattern, node))
    ]
    return chains


def _single(p: Pattern, node: Node) -> Match | None:
    """One activation alone."""
    (x,), (output,) = node.inputs, node.outputs
    if node.clamp is not None or any(p.values[i].dtype is not DataType.FP32 for i in (x, output)):
        return None
    pack = partial(Activation, x, output, FORMS[node.kind])
    return Match((node,), decoder.GATE, pack, elementwise_gain(0, p.shapes[output]))


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
            return Match(nodes, decoder.GATE, partial(Activation, x, output, _SILU), gain)
    return None


#: ``enum pk_f32_gate_form`` of activations that are nodes.
FORMS = {NodeKind.SIGMOID: 1, NodeKind.HARDSWISH: 2}
#: The form of a SiLU.
_SILU = 0


@dataclass(frozen=True)
class Activation:
    """An elementwise function of ``x``."""

    x: int
    output: int
    form: int
    workshop: Workshop

    def step(self, shapes: Mapping[int, Shape]) -> Step:
        """See :class:`~penstock.runtime.engines.native.family.Prepared`."""
        isa = int(self.workshop.library.isa)
        task = decoder.CGate(isa, 0.0, 0.0, math.prod(shapes[self.x]), form=self.form)
        return Step(
            "pk_f32_gate_run",
            task,
            ((self.x, "a"), (self.output, "output")),
            over=(self.output, self.x),
        )
