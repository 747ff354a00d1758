"""Symbolic sizes in arguments become nodes that compute them from the inputs."""

from __future__ import annotations

import operator
from typing import Any, cast

import sympy
import torch
from sympy import Expr
from torch.fx import GraphModule, Node
from torch.utils._sympy import functions as symbolic

from penstock.compiler.fx.size_arithmetic import EQUIVALENT, EXPRESSIONS
from penstock.errors import UnsupportedError

#: What a symbolic number is.
SYMBOLIC = (torch.SymInt, torch.SymFloat, torch.SymBool)
#: What is in an expression that is computed in floating point.
FLOATING = (sympy.Float, symbolic.ToFloat, symbolic.IntTrueDiv, symbolic.FloatTrueDiv)


class SizeNodes:
    """Makes the nodes for symbolic sizes, each once, right behind the nodes that they come from
    (as a rule the inputs), so that whatever comes later can read them."""

    def __init__(self, module: GraphModule) -> None:
        self._graph = module.graph
        self._made: dict[Expr, Node | int | float] = {}
        self._origins: dict[Expr, tuple[Node, int | None]] | None = None

    def replace(self, arguments: Any) -> Any:
        """``arguments`` with every symbolic number as a node or a number."""
        if isinstance(arguments, SYMBOLIC):
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
        """``node`` computes the symbolic number ``value``, which depends on data."""
        if isinstance(value, SYMBOLIC) and isinstance(value.node.expr, sympy.Symbol):
            self._made.setdefault(value.node.expr, node)

    def _compute(self, expression: Expr) -> Node | int | float:
        if expression.is_Integer:
            return int(expression)
        if expression in (sympy.true, sympy.false):
            return bool(expression)
        if expression.is_number:
            return float(expression)
        if isinstance(expression, sympy.Symbol):
            return self._symbol(expression)
        if expression.has(*FLOATING) or expression.is_Relational:
            # In the model's own order of operations, if it has computed that. (A boolean that is
            # read off a tensor is a comparison with a symbol which nothing else has.)
            node, dim = self._all_origins().get(expression, (None, None))
            if node is not None and dim is None:
                return node
        if expression.func in EQUIVALENT:
            return self.node(EQUIVALENT[expression.func](*expression.args))
        if isinstance(expression, sympy.Piecewise):
            return self._piecewise(expression)
        function = EXPRESSIONS.get(expression.func)
        if function is None:
            raise UnsupportedError(f"the size {expression} cannot be computed at run time")
        return self._fold(function, list(expression.args))

    def _piecewise(self, expression: Any) -> Node | int | float:
        *pieces, (result, _) = expression.args
        chosen = self.node(result)
        for value, condition in reversed(pieces):
            chosen = self._call(torch.sym_ite, self.node(condition), self.node(value), chosen)
        return chosen

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
        node.meta["val"] = _value(function, values)
        return node

    def _symbol(self, symbol: sympy.Symbol) -> Node:
        """From an input's size, else from what first has it: a size or number that depends on
        data. (What the model computes of the symbol may stand behind its readers.)"""
        node, dim = self._all_origins().get(symbol, (None, None))
        if node is not None and node.op == "placeholder":
            return self._read(node, dim)
        solved = self._solved(symbol)
        if solved is not None:
            return solved
        if node is None:
            raise UnsupportedError(f"no input has the size {symbol}")
        return self._read(node, dim)

    def _solved(self, symbol: sympy.Symbol) -> Node | None:
        """From an input's size that is a multiple of the symbol and a constant."""
        for expression, (node, dim) in self._all_origins().items():
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

    def _all_origins(self) -> dict[Expr, tuple[Node, int | None]]:
        if self._origins is None:
            self._origins = self._find_origins()
        return self._origins

    def _find_origins(self) -> dict[Expr, tuple[Node, int | None]]:
        """The first node that has each expression as a size, or as its value."""
        found: dict[Expr, tuple[Node, int | None]] = {}
        for node in self._graph.nodes:
            value = node.meta.get("val")
            if isinstance(value, SYMBOLIC):
                found.setdefault(value.node.expr, (node, None))
            elif isinstance(value, torch.Tensor):
                for dim, size in enumerate(value.shape):
                    if isinstance(size, torch.SymInt):
                        found.setdefault(size.node.expr, (node, dim))
        return found


def _value(function: Any, values: list[Any]) -> Any:
    """``function(*values)`` of symbolic numbers; ``sym_ite`` wants two of one type."""
    if function is torch.sym_ite and type(values[1]) is not type(values[2]):
        values = [values[0], *(value + (values[1] - values[1]) for value in values[1:])]
    return function(*values)
