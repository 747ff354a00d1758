"""Symbolic sizes in arguments become nodes that compute them from the inputs."""

from __future__ import annotations

import operator
from typing import Any, cast

import sympy
import torch
from sympy import Expr
from torch.fx import GraphModule, Node
from torch.utils._sympy import functions as sizes

from penstock.errors import UnsupportedError

#: How an expression of sizes is computed: by these functions, from left to right.
FUNCTIONS: dict[Any, Any] = {
    sympy.Add: operator.add,
    sympy.Mul: operator.mul,
    sympy.Max: torch.sym_max,
    sympy.Min: torch.sym_min,
    sizes.Max: torch.sym_max,
    sizes.Min: torch.sym_min,
    sizes.FloorDiv: operator.floordiv,
    sizes.CleanDiv: operator.floordiv,
    sizes.Mod: operator.mod,
    sizes.PythonMod: operator.mod,
    sizes.IntTrueDiv: operator.truediv,
    sizes.FloatTrueDiv: operator.truediv,
    sizes.ToFloat: torch.sym_float,
    sizes.TruncToInt: torch.sym_int,
}


class SizeNodes:
    """Makes the nodes for symbolic sizes, each once, right behind the nodes that they come from
    (as a rule the inputs), so that whatever comes later can read them."""

    def __init__(self, module: GraphModule) -> None:
        self._graph = module.graph
        self._made: dict[Expr, Node | int | float] = {}
        self._places: dict[Node, int] = {}
        self._origins: dict[Expr, tuple[Node, int | None]] | None = None

    def replace(self, arguments: Any) -> Any:
        """``arguments`` with every symbolic number as a node or a number."""
        if isinstance(arguments, (torch.SymInt, torch.SymFloat)):
            return self.node(arguments.node.expr)
        if isinstance(arguments, (list, tuple)):
            return type(arguments)(self.replace(item) for item in arguments)
        if isinstance(arguments, dict):
            return {key: self.replace(item) for key, item in arguments.items()}
        return arguments

    def node(self, expression: Expr) -> Node | int | float:
        """The node (made where need be) that has the value ``expression``, or the number."""
        if expression not in self._made:
            self._made[expression] = self._compute(expression)
        return self._made[expression]

    def know(self, value: Any, node: Node) -> None:
        """``node`` computes the symbolic number ``value``."""
        if isinstance(value, (torch.SymInt, torch.SymFloat)):
            self._made.setdefault(value.node.expr, node)

    def _compute(self, expression: Expr) -> Node | int | float:
        if expression.is_Integer:
            return int(expression)
        if expression.is_number:
            return float(expression)
        if isinstance(expression, sympy.Symbol):
            return self._symbol(expression)
        if isinstance(expression, sympy.Pow) and expression.exp.is_Integer and expression.exp > 0:
            return self._fold(operator.mul, [expression.base] * int(expression.exp))
        if isinstance(expression, sizes.CeilToInt):
            (inner,) = expression.args
            return self._fold(operator.neg, [sizes.FloorToInt(-inner)])
        if isinstance(expression, sizes.FloorToInt):
            return self._fold(operator.floordiv, [*expression.args, sympy.Integer(1)])
        function = FUNCTIONS.get(expression.func)
        if function is None:
            raise UnsupportedError(f"the size {expression} cannot be computed at run time")
        return self._fold(function, list(expression.args))

    def _fold(self, function: Any, expressions: list[Any]) -> Node | int | float:
        operands = [self.node(item) for item in expressions]
        result: Node | int | float = operands[0]
        if len(operands) == 1:
            result = self._call(function, result)
        for operand in operands[1:]:
            result = self._call(function, result, operand)
        return result

    def _call(self, function: Any, *operands: Any) -> Any:
        sources = [item for item in operands if isinstance(item, Node)]
        values = [item.meta["val"] if isinstance(item, Node) else item for item in operands]
        if not sources:
            return function(*values)
        last = max(sources)
        with self._graph.inserting_after(last):
            node = self._graph.call_function(function, tuple(operands))
        node.meta["val"] = function(*values)
        return node

    def _symbol(self, symbol: sympy.Symbol) -> Node:
        if self._origins is None:
            self._origins = self._find_origins()
        origin = self._origins.get(symbol)
        if origin is not None and (origin[0].op == "placeholder" or origin[1] is None):
            return self._read(*origin)
        solved = self._solved(symbol)
        if solved is not None:
            return solved
        if origin is None:
            raise UnsupportedError(f"no input has the size {symbol}")
        return self._read(*origin)

    def _solved(self, symbol: sympy.Symbol) -> Node | None:
        """From an input's size that is a multiple of the symbol and a constant."""
        assert self._origins is not None
        for expression, (node, dim) in self._origins.items():
            if node.op != "placeholder" or expression.free_symbols != {symbol}:
                continue
            if expression.is_polynomial(symbol):
                terms = sympy.Poly(expression, symbol)
                if terms.degree() == 1:
                    factor, constant = (int(number) for number in terms.all_coeffs())
                    size = self._call(operator.sub, self._read(node, dim), constant)
                    return cast(Node, self._call(operator.floordiv, size, factor))
        return None

    def _read(self, node: Node, dim: int | None) -> Node:
        if dim is None:
            return node
        behind = node
        while node.op == "placeholder" and behind.next.op == "placeholder":
            behind = behind.next
        with self._graph.inserting_after(behind):
            made = self._graph.call_function(torch.ops.aten.sym_size.int, (node, dim))
        made.meta["val"] = node.meta["val"].shape[dim]
        return made

    def _find_origins(self) -> dict[Expr, tuple[Node, int | None]]:
        """The first node that has each expression as a size, or as its value."""
        found: dict[Expr, tuple[Node, int | None]] = {}
        for node in self._graph.nodes:
            value = node.meta.get("val")
            if isinstance(value, (torch.SymInt, torch.SymFloat)):
                found.setdefault(value.node.expr, (node, None))
            elif isinstance(value, torch.Tensor):
                for dim, size in enumerate(value.shape):
                    if isinstance(size, torch.SymInt):
                        found.setdefault(size.node.expr, (node, dim))
        return found
