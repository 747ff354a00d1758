"""What is done to a graph holds for all sizes of its dynamic dimensions, not for the example's.

PyTorch's definitions of operators ask questions about sizes (is this one even? how many rows are
there?). Where the answer does not follow from what was declared of a dynamic dimension, PyTorch
answers for the example inputs, and from there on takes the graph to be one for such sizes only.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import numpy as np
import sympy
import torch
from torch.fx import GraphModule, Node
from torch.fx.experimental import _config
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.utils._sympy import functions as symbolic
from torch.utils._sympy.value_ranges import ValueRanges, bound_sympy

from penstock.compiler.fx.size_arithmetic import EXPRESSIONS
from penstock.errors import UnsupportedError


class SpecializationError(UnsupportedError):
    """Something can be computed for some sizes of a dynamic dimension, and not for others."""


@contextmanager
def for_all_sizes(module: GraphModule) -> Iterator[None]:
    """Within it, a question about sizes whose answer is not the same for all that the graph's
    dynamic dimensions may have raises :class:`SpecializationError`.

    What operators demand of their arguments (``torch._check``) is taken to hold, since eager
    PyTorch demands it too. No size is taken to be 0 or 1 that may be more: what works for others
    works for these. Where a definition can do without an answer (``guard_or_false``), it does.
    """
    modes = _modes(module)
    with ExitStack() as stack:
        if modes:
            stack.enter_context(patch.object(_config, "backed_size_oblivious", True))
            # PyTorch would ask whether a batch is large enough for that library.
            stack.enter_context(torch.backends.nnpack.flags(enabled=False))
        for mode in modes:
            env = mode.shape_env
            watch = _Watch(env, _names(module))
            # What is cached is given out with questions about the memory that it takes.
            stack.enter_context(patch.object(mode, "cache_enabled", False))
            stack.enter_context(patch.object(env, "evaluate_expr", watch.evaluate))
            stack.enter_context(patch.object(env, "guard_or_defer_runtime_assert", watch.check))
            settings = replace(env.settings, prefer_deferred_runtime_asserts_over_guards=True)
            stack.enter_context(patch.object(env, "settings", settings))
        yield


def _modes(module: GraphModule) -> list[Any]:
    """The modes of the graph's fake tensors that know the symbols in their sizes; none where all
    sizes are fixed."""
    modes = {
        id(value.fake_mode): value.fake_mode
        for node in module.graph.nodes
        if isinstance(value := node.meta.get("val"), torch._subclasses.FakeTensor)
    }
    return [mode for mode in modes.values() if mode.shape_env and mode.shape_env.backed_var_to_val]


def _names(module: GraphModule) -> dict[sympy.Symbol, sympy.Symbol]:
    """How people call the symbols: by the input and the dimension."""
    names: dict[sympy.Symbol, sympy.Symbol] = {}
    for node in module.graph.nodes:
        value = node.meta.get("val")
        if node.op != "placeholder" or not isinstance(value, torch.Tensor):
            continue
        for dim, size in enumerate(value.shape):
            if isinstance(size, torch.SymInt) and isinstance(size.node.expr, sympy.Symbol):
                names.setdefault(size.node.expr, sympy.Symbol(f"{node.name}.shape[{dim}]"))
    return names


class _Watch:
    def __init__(self, env: ShapeEnv, names: dict[sympy.Symbol, sympy.Symbol]) -> None:
        self._env = env
        self._names = names
        self._evaluate = env.evaluate_expr
        self._check = env.guard_or_defer_runtime_assert

    def evaluate(self, expression: Any, *args: Any, **kwargs: Any) -> Any:
        if not is_of_inputs(self._env, expression):
            return self._evaluate(expression, *args, **kwargs)
        answer = self._answer(expression)
        if answer is None:
            named = expression.xreplace(self._names)
            what = f"whether {named}" if isinstance(named, sympy.logic.boolalg.Boolean) else named
            raise SpecializationError(f"it depends on {what}, which differs from size to size")
        return answer

    def check(self, expression: Any, message: str, fx_node: Node | None = None) -> bool:
        if not is_of_inputs(self._env, expression):
            return self._check(expression, message, fx_node)
        return self._answer(expression) is not sympy.false

    def _answer(self, expression: Any) -> Any:
        """The value of ``expression`` if it is the same for all sizes, or ``None``."""
        answer = common_answer(self._env, expression)
        if answer is None and self._is_of_small_size(expression):
            return sympy.sympify(isinstance(expression, sympy.Ne))
        return answer

    def _is_of_small_size(self, expression: Any) -> bool:
        """Whether it asks if a size is 0 or 1. Remainders are no sizes: whether one is 0 decides
        whether something is even."""
        if not isinstance(expression, (sympy.Eq, sympy.Ne)) or expression.rhs not in (0, 1):
            return False
        if expression.has(symbolic.Mod, symbolic.PythonMod):
            return False
        return bool(bound_sympy(expression.lhs, self._env.var_to_range).lower >= 0)


def is_of_inputs(env: ShapeEnv, expression: Any) -> bool:
    """Whether it is about sizes of inputs. PyTorch has its own ways with those that depend on
    data."""
    return (
        isinstance(expression, sympy.Basic)
        and bool(expression.free_symbols)
        and expression.free_symbols <= env.backed_var_to_val.keys()
    )


def common_answer(env: ShapeEnv, expression: Any, least: int = 0) -> Any:
    """The value of ``expression`` if it is about inputs' sizes and the same for all that these may
    have, from ``least`` on, or ``None``."""
    if not is_of_inputs(env, expression):
        return None
    answer = env._maybe_evaluate_static(expression)
    if answer is not None:
        return answer
    known = {symbol: env.var_to_range[symbol] for symbol in expression.free_symbols}
    return common_value(
        expression,
        {
            symbol: sizes & ValueRanges(least, max(least, sizes.upper))
            for symbol, sizes in known.items()
        },
    )


#: So many combinations of sizes are looked at one by one.
MOST_COMBINATIONS = 1 << 20

#: How expressions are computed for many sizes at once.
OPERATIONS: dict[Any, Any] = {
    **EXPRESSIONS,
    sympy.Max: np.maximum, sympy.Min: np.minimum, symbolic.Max: np.maximum,
    symbolic.Min: np.minimum, sympy.And: np.logical_and, sympy.Or: np.logical_or,
    sympy.Not: np.logical_not,
}  # fmt: skip


def common_value(expression: Any, ranges: Mapping[sympy.Symbol, ValueRanges[Any]]) -> Any:
    """The value that ``expression`` has for all sizes in ``ranges``, by trying them; ``None`` where
    there are several, or too many to try."""
    symbols = sorted(expression.free_symbols, key=str)
    if not all(isinstance(ranges[s].upper, sympy.Integer) for s in symbols):
        return None
    try:
        spans = [np.arange(int(ranges[s].lower), int(ranges[s].upper) + 1) for s in symbols]
        if math.prod(map(len, spans)) > MOST_COMBINATIONS:
            return None
        grid = np.meshgrid(*spans, indexing="ij", sparse=True)
        with np.errstate(all="raise"):
            values = np.asarray(_computed(expression, dict(zip(symbols, grid, strict=True))))
    except (KeyError, TypeError, ValueError, ArithmeticError, MemoryError):
        return None
    first = values.flat[0]
    return sympy.sympify(first.item()) if (values == first).all() else None


def _computed(expression: Any, sizes: Mapping[sympy.Symbol, Any]) -> Any:
    if isinstance(expression, sympy.Symbol):
        return sizes[expression]
    if expression.is_Integer:
        return int(expression)
    operands = [_computed(operand, sizes) for operand in expression.args]
    function = OPERATIONS[expression.func]
    return function(*operands) if len(operands) == 1 else functools.reduce(function, operands)
