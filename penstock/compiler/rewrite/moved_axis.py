"""Where an axis lies in what an operator makes that only moves elements: transposes, views, slices
of other dimensions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.ao.quantization.fx import _decomposed  # noqa: F401  registers the operators
from torch.fx import Node

from penstock.compiler.fx import layout

aten = torch.ops.aten
quantized = torch.ops.quantized_decomposed


def integer(value: Any) -> int:
    return int(value)


def rank_of(node: Node) -> int:
    return int(node.meta["val"].dim())


def axis_of(node: Node, position: int) -> int:
    """The dimension that an operator works along, its argument at ``position`` or ``dim``; -1 where
    it is none."""
    dim = node.args[position] if len(node.args) > position else node.kwargs.get("dim")
    return int(dim) % rank_of(node) if isinstance(dim, int) else -1


def _transpose(node: Node, axis: int) -> int:
    first, second = (integer(d) % rank_of(node) for d in node.args[1:3])
    return {first: second, second: first}.get(axis, axis)


def _permute(node: Node, axis: int) -> int:
    order: Any = node.args[1]
    return [integer(d) % rank_of(node) for d in order].index(axis)


def _unsqueeze(node: Node, axis: int) -> int:
    dim = integer(node.args[1]) % rank_of(node)
    return axis + (dim <= axis)


def _same(node: Node, axis: int) -> int:
    return axis


def _along_others(node: Node, axis: int) -> int | None:
    """Slices and repetitions of other dimensions."""
    position = 2 if node.target is aten.repeat_interleave.self_int else 1
    return None if axis_of(node, position) in (-1, axis) else axis


def _select(node: Node, axis: int) -> int | None:
    dim = integer(node.args[1]) % (rank_of(node) + 1)
    return None if dim == axis else axis - (dim < axis)


def _reshape(node: Node, axis: int) -> int | None:
    """Views and reshapes that leave the axis as it is."""
    before, after = _shapes(node)
    front = layout.product(before[:axis])
    places = [
        place
        for place, size in enumerate(after)
        if layout.same(size, before[axis]) and layout.same(layout.product(after[:place]), front)
    ]
    return places[0] if len(places) == 1 else None


def _expand(node: Node, axis: int) -> int:
    before, after = _shapes(node)
    return axis + len(after) - len(before)


def _shapes(node: Node) -> tuple[Any, Any]:
    source = node.args[0]
    assert isinstance(source, Node)
    return layout.shape_of(source.meta["val"]), layout.shape_of(node.meta["val"])


#: Of each operator, by a node of it and an axis of its first operand: which axis of its result that
#: is; None where the axis does not stay one.
MOVES: dict[object, Callable[[Node, int], int | None]] = {
    aten.transpose.int: _transpose,
    aten.permute.default: _permute,
    aten.unsqueeze.default: _unsqueeze,
    aten.clone.default: _same,
    aten.contiguous.default: _same,
    quantized.dequantize_per_tensor.default: _same,
    aten.slice.Tensor: _along_others,
    aten.repeat_interleave.self_int: _along_others,
    aten.select.int: _select,
    aten.view.default: _reshape,
    aten._unsafe_view.default: _reshape,
    aten.reshape.default: _reshape,
    aten.expand.default: _expand,
}
#: Those whose second argument is the shape of the result.
RESHAPES = frozenset(
    {aten.view.default, aten._unsafe_view.default, aten.reshape.default, aten.expand.default}
)
