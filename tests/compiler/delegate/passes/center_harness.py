"""Graphs of layer norms, for the tests of :mod:`penstock.compiler.delegate.passes.center`."""

from __future__ import annotations

import numpy as np
from graph_builder import GraphBuilder, kinds
from graph_passes_harness import after

from penstock.compiler.delegate.passes import center
from penstock.graph.graph import XnnGraph
from penstock.graph.kinds import NodeKind

PRODUCT, ADD, SUBTRACT = NodeKind.FULLY_CONNECTED, NodeKind.ADD, NodeKind.SUBTRACT
MULTIPLY, SQUARE, CONCATENATE = NodeKind.MULTIPLY, NodeKind.SQUARE, NodeKind.CONCATENATE_2
INVALID = 0xFFFFFFFF
CHANNELS = 8


class Norms(GraphBuilder):
    """Rows of CHANNELS numbers, and what a transformer does with them."""

    def shape(self, x: int) -> tuple[int, ...]:
        return self.graph.values[x].shape

    def rows(self, *lead: int, bias: bool = True) -> int:
        """What can be centred: a product [*lead, CHANNELS] of an input."""
        return self.product(self.input((*lead, 5)), CHANNELS, bias)

    def product(self, x: int, outputs: int = CHANNELS, bias: bool = True) -> int:
        last = self.random(outputs) if bias else INVALID
        inputs = (x, self.random(outputs, self.shape(x)[-1]), last)
        return self.apply(PRODUCT, inputs, (*self.shape(x)[:-1], outputs))

    def mean(self, x: int, factor: float = 1.0) -> int:
        row = self.constant(np.full((1, self.shape(x)[-1]), factor / self.shape(x)[-1]))
        return self.apply(PRODUCT, (x, row, INVALID), (*self.shape(x)[:-1], 1))

    def norm(self, x: int) -> int:
        """A layer norm."""
        centred = self.apply(SUBTRACT, (x, self.mean(x)), self.shape(x))
        variance = self.mean(self.apply(SQUARE, (centred,), self.shape(x)))
        safe = self.apply(ADD, (variance, self.constant(np.array(1e-5))), self.shape(variance))
        factor = self.apply(NodeKind.RECIPROCAL_SQUARE_ROOT, (safe,), self.shape(safe))
        return self.apply(MULTIPLY, (centred, factor), self.shape(x))

    def block(self, x: int) -> int:
        """``x + product(gelu(product(norm(x))))``"""
        wide = self.product(self.norm(x), 12)
        active = self.apply(NodeKind.GELU, (wide,), self.shape(wide))
        return self.apply(ADD, (x, self.product(active)), self.shape(x))


def differences(graph: XnnGraph) -> int:
    return kinds(graph)[SUBTRACT]


def centred(sketch: GraphBuilder, *outputs: int, tolerance: float = 2e-5) -> XnnGraph:
    return after(sketch.finish(*outputs), center.apply, tolerance)
