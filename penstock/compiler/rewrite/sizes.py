"""Symbolic sizes in arguments become nodes that compute them from the inputs."""

from __future__ import annotations

import operator
from typing import Any

import sympy
import torch
from torch.fx import GraphModule, Node
from torch.utils._sympy.functions import FloorDiv, Mod

from penstock.errors import UnsupportedError


class SizeNodes:
    """Makes (and finds again) the nodes for symbolic sizes that code before ``anchor`` needs."""

    def __init__(self, module: GraphModule, anchor: Node) -> None:
        self._graph = module.graph
        self._anchor = anchor

    def replace(self, arguments: Any) -> Any:
        """``arguments`` with every SymInt as a node or an int."""
        if isinstance(arguments, torch.SymInt):
            return self.node(arguments.node.expr)
        if isinstance(arguments, (list, tuple)):
            return type(arguments)(self.replace(item) for item in arguments)
        if isinstance(arguments, dict):
            return {key: self.replace(item) for key, item in arguments.items()}
        return arguments

    def node(self, expression: sympy.Expr) -> Node | int:
        """The node (made at the graph's start where need be) that has the value ``expression``."""
        if expression.is_Integer:
            return int(expression)
        if isinstance(expression, sympy.Symbol):
            return self._symbol(expression)
        operands = [self.node(item) for item in expression.args]
        function = {sympy.Add: operator.add, sympy.Mul: operator.mul,
                    FloorDiv: operator.floordiv, Mod: operator.mod}.get(expression.func)  # fmt: skip
        if function is None:
            raise UnsupportedError(f"the size {expression} cannot be computed at run time")
        result = operands[0]
        with self._graph.inserting_before(self._anchor):
            for operand in operands[1:]:
                node = self._graph.call_function(function, (result, operand))
                node.meta["val"] = self._value(function, result, operand)
                result = node
        return result

    @staticmethod
    def _value(function: Any, left: Node | int, right: Node | int) -> Any:
        values = [item.meta["val"] if isinstance(item, Node) else item for item in (left, right)]
        return function(*values)

    def _symbol(self, symbol: sympy.Symbol) -> Node:
        for node in self._graph.nodes:
            if node.op != "placeholder":
                continue
            value = node.meta.get("val")
            if not isinstance(value, torch.Tensor):
                continue
            for dim, size in enumerate(value.shape):
                if isinstance(size, torch.SymInt) and size.node.expr == symbol:
                    with self._graph.inserting_before(self._anchor):
                        made = self._graph.call_function(
                            torch.ops.aten.sym_size.int, (node, dim)
                        )
                    made.meta["val"] = size
                    return made
        raise UnsupportedError(f"no input has the size {symbol}")
