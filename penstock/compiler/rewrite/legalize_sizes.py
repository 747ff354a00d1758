"""Legalize sizes: arithmetic to the runtime's primitive operators, inferred ones to numbers."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch.fx import GraphModule, Node

from penstock.compiler.fx import layout, origins
from penstock.compiler.fx.edit import copy_origin, fake
from penstock.compiler.fx.size_arithmetic import Arithmetic, Operand
from penstock.compiler.fx.size_nodes import SYMBOLIC
from penstock.errors import UnsupportedError

aten = torch.ops.aten

VIEWS = (aten.view.default, aten.view_copy.default)


def apply(module: GraphModule) -> int:
    """Given a node that computes a size by a function of Python's → Result: the same number out of
    the functions that have a primitive operator (``size_arithmetic.PRIMITIVES``) and of kernels.
    Given a -1 among the sizes of a view, which stands for a size that is known → Result: that size;
    of a tensor that turns out to have no elements, it could be any.

    Raises :class:`UnsupportedError` where nothing computes it."""
    changes = 0
    for node in list(module.graph.nodes):
        if _is_arithmetic(node):
            changes += _legalize(module, node)
        elif node.target in VIEWS and -1 in node.args[1]:
            changes += _name_inferred(node)
    return changes


def _name_inferred(node: Node) -> int:
    sizes = list(node.args[1])  # type: ignore[arg-type]
    place = sizes.index(-1)
    known = layout.shape_of(node.meta["val"])[place]
    if not isinstance(known, int):
        return 0
    sizes[place] = known
    node.args = (node.args[0], sizes)
    return 1


def _is_arithmetic(node: Node) -> bool:
    """A call of a function of Python's that gives a number, and does not only pick one out of the
    results of a branch or loop."""
    if node.op != "call_function" or isinstance(node.target, torch._ops.OperatorBase):
        return False
    if node.target is operator.getitem:
        return False
    return isinstance(node.meta.get("val"), (*SYMBOLIC, int, float, bool))


def _legalize(module: GraphModule, node: Node) -> int:
    arithmetic = _Nodes(module, node)
    try:
        result = arithmetic.call(node.target, *node.args, **node.kwargs)
    except UnsupportedError as error:
        raise UnsupportedError(f"{error}{origins.describe_origin(node)}") from None
    if isinstance(result, Node) and result in arithmetic.made:
        result.meta["val"] = node.meta["val"]
    node.replace_all_uses_with(result)  # type: ignore[arg-type]
    module.graph.erase_node(node)
    return 1


class _Nodes(Arithmetic):
    """Puts what is computed before ``node``."""

    def __init__(self, module: GraphModule, node: Node) -> None:
        self._module = module
        self._node = node
        self.made: list[Node] = []

    def primitive(self, function: Any, operands: Sequence[Operand], kind: type) -> Node:
        return self._add(function, operands, kind())

    def by_tensors(
        self, kernel: torch._ops.OpOverload, operands: Sequence[Operand], dtype: torch.dtype
    ) -> Node:
        tensors = [
            self._add(aten.scalar_tensor.default, (operand,), self._tensor(dtype), dtype=dtype)
            for operand in operands
        ]
        result = self._add(kernel, tensors, self._tensor(dtype))
        number = 0.0 if dtype.is_floating_point else 0
        return self._add(aten._local_scalar_dense.default, (result,), number)

    def _tensor(self, dtype: torch.dtype) -> torch.Tensor:
        return fake(self._module, torch.empty((), dtype=dtype))

    def _add(self, target: Any, args: Sequence[Any], value: Any, **kwargs: Any) -> Node:
        with self._module.graph.inserting_before(self._node):
            made = self._module.graph.call_function(target, tuple(args), kwargs)
        made.meta["val"] = value
        copy_origin(self._node, made)
        self.made.append(made)
        return made
