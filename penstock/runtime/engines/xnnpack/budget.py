"""How much memory a run of a graph takes, so that a damaged file cannot exhaust the machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

from penstock.graph.graph import Node, Shape
from penstock.graph.kinds import Conv2dAttributes, Pool2dAttributes, ResizeAttributes

_POINTER = 8


def peak_memory(nodes: Sequence[Node], shapes: Mapping[int, Shape], bits: Mapping[int, int]) -> int:
    """Bytes of intermediate values alive at once, at most, and of XNNPACK's tables.

    ``bits`` has the bits of an element of each value that is not a constant.
    """
    last_use = {i: index for index, node in enumerate(nodes) for i in node.inputs}
    alive = peak = tables = 0
    for index, node in enumerate(nodes):
        alive += sum(_size(shapes[i], bits[i]) for i in node.outputs)
        tables += _indirection(node, shapes)
        peak = max(peak, alive)
        for i in {*node.inputs, *node.outputs}:
            if last_use.get(i, index) == index and i in bits:
                alive -= _size(shapes[i], bits[i])
    return peak + tables


def _size(shape: Shape, bits: int) -> int:
    return prod(shape) * bits // 8


def _indirection(node: Node, shapes: Mapping[int, Shape]) -> int:
    """Convolutions and pools keep a pointer for each tap of each output pixel."""
    a = node.attributes
    if isinstance(a, (Conv2dAttributes, Pool2dAttributes)):
        taps = prod(a.kernel)
        return 0 if taps == 1 else prod(shapes[node.outputs[0]][1:3]) * taps * _POINTER
    if isinstance(a, ResizeAttributes):
        return a.height * a.width * 5 * _POINTER  # four corners and two weights
    return 0
