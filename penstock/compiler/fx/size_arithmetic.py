"""Arithmetic on sizes and other numbers: the one table of how each function is computed.

A captured graph computes sizes by Python's functions (``operator.floordiv``, ``math.ceil``,
``torch.sym_max`` …). A program has the ``executorch_prim`` operators for that, which are fewer, and
not all Python's: ``mod`` has C's sign, ``ceil`` takes floats alone, ``sym_max`` integers alone.
:data:`PRIMITIVES` says which operator computes a function just as Python does, :data:`COMPOSED` how
the others come out of those and of kernels on zero-dimensional tensors.
"""

from __future__ import annotations

import builtins
import math
import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import sympy
import torch
from torch.fx import Node
from torch.fx.experimental.symbolic_shapes import cast_symbool_to_symint_guardless
from torch.utils._sympy import functions as symbolic

from penstock.errors import UnsupportedError

aten = torch.ops.aten

#: A number, or the node that computes one.
Operand: TypeAlias = "Node | int | float | bool"

#: The primitive operator of a function whose operands have no entry in :data:`COMPOSED`, or for
#: which that entry returns None.
PRIMITIVES: dict[Any, str] = {
    operator.add: "add", operator.sub: "sub", operator.mul: "mul", operator.neg: "neg",
    operator.floordiv: "floordiv", operator.truediv: "truediv",
    operator.eq: "eq", operator.gt: "gt", operator.ge: "ge", operator.lt: "lt", operator.le: "le",
    math.ceil: "ceil", math.trunc: "trunc", builtins.round: "round",
    torch.sym_float: "sym_float", torch.sym_int: "sym_int",
    torch.sym_max: "sym_max", torch.sym_min: "sym_min",
    torch.sym_ite: "sym_ite", torch.sym_not: "sym_not",
}  # fmt: skip


class Arithmetic(ABC):
    """Computes functions of :class:`Operand`: by nodes, and at once where there are only numbers.
    Whoever makes the nodes says how; this class says which."""

    def call(self, function: Any, *operands: Any) -> Operand:
        """``function(*operands)`` out of primitive operators. Raises :class:`UnsupportedError`
        where nothing computes that exactly."""
        if not any(isinstance(item, Node) for item in _flat(operands)):
            result: Operand = function(*operands)
            return result
        rule = COMPOSED.get(function)
        composed = rule(self, *operands) if rule is not None else None
        if composed is not None:
            return composed
        if function not in PRIMITIVES:
            name = getattr(function, "__name__", str(function))
            raise UnsupportedError(
                f"{name} of a dynamic size cannot be computed at run time: neither a primitive "
                "operator nor a kernel does"
            )
        return self.primitive(function, operands, _result_type(function, operands))

    @abstractmethod
    def primitive(self, function: Any, operands: Sequence[Operand], kind: type) -> Node:
        """The node that calls a function of :data:`PRIMITIVES`, which gives a ``kind``."""

    @abstractmethod
    def by_tensors(
        self, kernel: torch._ops.OpOverload, operands: Sequence[Operand], dtype: torch.dtype
    ) -> Node:
        """The node with the number that ``kernel`` gives of zero-dimensional tensors of type
        ``dtype``, which hold the operands."""


def _flat(operands: Sequence[Any]) -> list[Any]:
    return [
        leaf for item in operands for leaf in (item if isinstance(item, (list, tuple)) else (item,))
    ]


def type_of(operand: Operand) -> type:
    """``int``, ``float`` or ``bool``."""
    value = operand.meta["val"] if isinstance(operand, Node) else operand
    for kind, symbol in ((bool, torch.SymBool), (float, torch.SymFloat), (int, torch.SymInt)):
        if isinstance(value, (kind, symbol)):
            return kind
    raise UnsupportedError(f"a size is computed from a {type(value).__name__}")


def _result_type(function: Any, operands: Sequence[Operand]) -> type:
    if function in (operator.eq, operator.gt, operator.ge, operator.lt, operator.le):
        return bool
    if function is torch.sym_not:
        return bool
    if function in (operator.truediv, torch.sym_float):
        return float
    if function in (math.ceil, math.trunc, builtins.round, torch.sym_int):
        return int
    if function is torch.sym_ite:
        return type_of(operands[1])
    return float if float in map(type_of, operands) else int


# --- what is composed ----------------------------------------------------------------------------


def _number(s: Arithmetic, value: Operand) -> Operand:
    """A truth value as 0 or 1, as Python takes it in arithmetic."""
    return s.call(torch.sym_int, value) if type_of(value) is bool else value


def _of_numbers(function: Any) -> Callable[..., Operand | None]:
    """Primitive operators take no truth values among numbers."""

    def rule(s: Arithmetic, *operands: Operand) -> Operand | None:
        if not any(type_of(item) is bool for item in operands):
            return None
        return s.call(function, *(_number(s, item) for item in operands))

    return rule


def _equal(s: Arithmetic, a: Operand, b: Operand) -> Operand | None:
    if type_of(a) is type_of(b) or bool not in (type_of(a), type_of(b)):
        return None
    return s.call(operator.eq, _number(s, a), _number(s, b))


def _not_equal(s: Arithmetic, a: Operand, b: Operand) -> Operand:
    return s.call(torch.sym_not, s.call(operator.eq, a, b))


def _remainder(s: Arithmetic, a: Operand, b: Operand) -> Operand:
    """With the divisor's sign; the primitive operator's has the dividend's."""
    a, b = _number(s, a), _number(s, b)
    if float in (type_of(a), type_of(b)):
        # The stock runtime's kernel for ``remainder`` works in single precision.
        rest = s.by_tensors(aten.fmod.Tensor, (a, b), torch.float64)
        signs_differ = s.call(operator.ne, s.call(operator.lt, rest, 0), s.call(operator.lt, b, 0))
        wrong = s.call(operator.and_, signs_differ, s.call(operator.ne, rest, 0))
        return s.call(torch.sym_ite, wrong, s.call(operator.add, rest, b), rest)
    multiple = s.call(operator.mul, s.call(operator.floordiv, a, b), b)
    return s.call(operator.sub, a, multiple)


def _whole(function: Any) -> Callable[..., Operand | None]:
    """Rounding an integer changes nothing."""

    def rule(s: Arithmetic, value: Operand) -> Operand | None:
        return None if type_of(value) is float else _number(s, value)

    return rule


def _round(s: Arithmetic, value: Operand, digits: Operand | None = None) -> Operand:
    if digits is not None:
        raise UnsupportedError(
            f"round(…, {digits}) of a dynamic size cannot be computed at run time; "
            "round to whole numbers"
        )
    if type_of(value) is float:
        return s.primitive(builtins.round, (value,), int)
    return _number(s, value)


def _floor(s: Arithmetic, value: Operand) -> Operand:
    """Down is up, seen from the other side."""
    if type_of(value) is not float:
        return _number(s, value)
    return s.call(operator.neg, s.call(math.ceil, s.call(operator.neg, value)))


def _to_float(s: Arithmetic, value: Operand) -> Operand | None:
    return value if type_of(value) is float else None


def _extreme(function: Any, first: Any) -> Callable[..., Operand | None]:
    """The primitive operators take integers alone. ``first(a, b)`` says that ``a`` it is."""

    def rule(s: Arithmetic, a: Operand, b: Operand) -> Operand | None:
        a, b = _number(s, a), _number(s, b)
        if float not in (type_of(a), type_of(b)):
            return s.primitive(function, (a, b), int)
        a, b = s.call(torch.sym_float, a), s.call(torch.sym_float, b)
        return s.call(torch.sym_ite, s.call(first, a, b), a, b)

    return rule


def _absolute(s: Arithmetic, value: Operand) -> Operand:
    value = _number(s, value)
    negative = s.call(operator.lt, value, type_of(value)(0))
    return s.call(torch.sym_ite, negative, s.call(operator.neg, value), value)


def _chosen(s: Arithmetic, condition: Operand, yes: Operand, no: Operand) -> Operand | None:
    if isinstance(condition, bool):
        return yes if condition else no
    if type_of(yes) is type_of(no):
        return None
    common = torch.sym_float if float in (type_of(yes), type_of(no)) else torch.sym_int
    return s.call(torch.sym_ite, condition, s.call(common, yes), s.call(common, no))


def _and(s: Arithmetic, a: Operand, b: Operand) -> Operand:
    if type_of(a) is type_of(b) is bool:
        return s.call(torch.sym_ite, a, b, False)
    return _bits(aten.bitwise_and.Tensor)(s, a, b)


def _or(s: Arithmetic, a: Operand, b: Operand) -> Operand:
    if type_of(a) is type_of(b) is bool:
        return s.call(torch.sym_ite, a, True, b)
    return _bits(aten.bitwise_or.Tensor)(s, a, b)


def _bits(kernel: torch._ops.OpOverload) -> Callable[..., Operand]:
    def rule(s: Arithmetic, a: Operand, b: Operand) -> Operand:
        return s.by_tensors(kernel, (_number(s, a), _number(s, b)), torch.int64)

    return rule


def _sum(s: Arithmetic, terms: Sequence[Operand]) -> Operand:
    total: Operand = 0
    for term in terms:
        total = (
            term
            if total == 0 and not isinstance(total, Node)
            else s.call(operator.add, total, term)
        )
    return total


#: The longest power that is written as products.
MOST_FACTORS = 64


def _power(s: Arithmetic, base: Operand, exponent: Operand) -> Operand:
    """Products for a natural exponent, else the kernel's power, whose result for natural numbers
    is a natural number again."""
    base, exponent = _number(s, base), _number(s, exponent)
    whole = type_of(base) is type_of(exponent) is int
    if whole and isinstance(exponent, int) and 0 < exponent <= MOST_FACTORS:
        half = base if exponent == 1 else _power(s, base, exponent // 2)
        square = base if exponent == 1 else s.call(operator.mul, half, half)
        return s.call(operator.mul, square, base) if exponent > 1 and exponent % 2 else square
    power = s.by_tensors(aten.pow.Tensor_Tensor, (base, exponent), torch.float64)
    natural = whole and not (isinstance(exponent, int) and exponent < 0)
    return s.call(builtins.round, power) if natural else power


def _square_root(s: Arithmetic, value: Operand) -> Operand:
    return s.by_tensors(aten.sqrt.default, (value,), torch.float64)


#: How a function comes out of others; a rule that returns None leaves it to the primitive operator.
COMPOSED: dict[Any, Callable[..., Operand | None]] = {
    operator.pos: lambda s, value: _number(s, value),
    **{f: _of_numbers(f) for f in (
        operator.add, operator.sub, operator.mul, operator.neg, operator.floordiv,
        operator.truediv, operator.gt, operator.ge, operator.lt, operator.le,
    )},
    operator.eq: _equal,
    operator.ne: _not_equal,
    operator.mod: _remainder,
    operator.pow: _power,
    operator.abs: _absolute,
    operator.and_: _and,
    operator.or_: _or,
    operator.lshift: _bits(aten.bitwise_left_shift.Tensor),
    operator.rshift: _bits(aten.bitwise_right_shift.Tensor),
    math.ceil: _whole(math.ceil),
    math.trunc: _whole(math.trunc),
    math.floor: _floor,
    builtins.round: _round,
    torch.sym_float: _to_float,
    cast_symbool_to_symint_guardless: _number,
    torch.sym_max: _extreme(torch.sym_max, operator.ge),
    torch.sym_min: _extreme(torch.sym_min, operator.le),
    torch.sym_ite: _chosen,
    torch.sym_sum: _sum,
    torch.sym_sqrt: _square_root,
}  # fmt: skip


# --- expressions ---------------------------------------------------------------------------------


#: How an expression of sizes is computed: by these functions; those of two operands from left to
#: right.
EXPRESSIONS: dict[Any, Any] = {
    sympy.Add: operator.add,
    sympy.Mul: operator.mul,
    sympy.Pow: operator.pow,
    sympy.Abs: operator.abs,
    sympy.Max: torch.sym_max,
    sympy.Min: torch.sym_min,
    sympy.Eq: operator.eq,
    sympy.Ne: operator.ne,
    sympy.Gt: operator.gt,
    sympy.Ge: operator.ge,
    sympy.Lt: operator.lt,
    sympy.Le: operator.le,
    sympy.And: operator.and_,
    sympy.Or: operator.or_,
    sympy.Not: torch.sym_not,
    symbolic.Max: torch.sym_max,
    symbolic.Min: torch.sym_min,
    symbolic.FloorDiv: operator.floordiv,
    symbolic.CleanDiv: operator.floordiv,
    symbolic.Mod: operator.mod,
    symbolic.PythonMod: operator.mod,
    symbolic.IntTrueDiv: operator.truediv,
    symbolic.FloatTrueDiv: operator.truediv,
    symbolic.FloatPow: operator.pow,
    symbolic.PowByNatural: operator.pow,
    symbolic.LShift: operator.lshift,
    symbolic.RShift: operator.rshift,
    symbolic.ToFloat: torch.sym_float,
    symbolic.TruncToInt: math.trunc,
    symbolic.CeilToInt: math.ceil,
    symbolic.FloorToInt: math.floor,
    symbolic.RoundToInt: builtins.round,
    symbolic.BitwiseFn_bitwise_and: operator.and_,
    symbolic.BitwiseFn_bitwise_or: operator.or_,
    symbolic.OpaqueUnaryFn_sqrt: torch.sym_sqrt,
}

#: Expressions that are others in other words.
EQUIVALENT: dict[Any, Callable[..., Any]] = {
    symbolic.Identity: lambda value: value,
    symbolic.TruncToFloat: lambda value: symbolic.ToFloat(symbolic.TruncToInt(value)),
}
