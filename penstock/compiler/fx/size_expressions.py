"""Sizes as expressions of symbols, in one form, so that equal sizes are seen to be equal.

PyTorch and our own lowerings write the same size in many ways: ``floor((s - 1)/2) + 1``,
``(s - 1)//2 + 1`` and ``(s + 1)//2``; or ``((s - 1)//2)//2`` and ``(s - 1)//4``. In canonical form
an expression is a sum, and a floor division in it has a numerator whose terms have coefficients
from 1 to the divisor less 1, holds no other floor division with a coefficient of 1, and shares no
factor with its divisor.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import sympy
from torch.utils._sympy import functions

#: Larger sums are left as they are.
MOST_TERMS = 64
#: Scale factors are fractions of up to so many parts.
MOST_PARTS = 64


@functools.lru_cache(maxsize=4096)
def canonical(expression: sympy.Expr) -> sympy.Expr:
    """``expression``, a size, in the form in which equal sizes are the same expression."""
    if not expression.args:
        return expression
    arguments = [canonical(argument) for argument in expression.args]
    if isinstance(expression, functions.FloorDiv) and _is_count(arguments[1]):
        return floor_divide(arguments[0], int(arguments[1]))
    if isinstance(expression, functions.CeilDiv) and _is_count(arguments[1]):
        return floor_divide(arguments[0] + arguments[1] - 1, int(arguments[1]))
    if isinstance(expression, (functions.Mod, functions.PythonMod)) and _is_count(arguments[1]):
        number, divisor = arguments
        return sympy.expand(number - divisor * floor_divide(number, int(divisor)))
    if isinstance(expression, (sympy.floor, functions.FloorToInt)):
        numerator, divisor = sympy.fraction(sympy.together(arguments[0]))
        if _is_count(divisor):
            return floor_divide(sympy.expand(numerator), int(divisor))
    if isinstance(expression, functions.TruncToInt):
        scaled = _scaled(arguments[0])
        if scaled is not None:
            return floor_divide(*scaled)
    if isinstance(expression, functions.CleanDiv) and _is_count(arguments[1]):
        return floor_divide(arguments[0], int(arguments[1]))
    return sympy.expand(expression.func(*arguments))


def _scaled(product: sympy.Expr) -> tuple[sympy.Expr, int] | None:
    """Numerator and divisor of ``0.75 * ToFloat(size)``, where floating point has it exactly."""
    factor, rest = product.as_coeff_Mul()
    if not isinstance(rest, functions.ToFloat) or not factor.is_positive:
        return None
    numerator, divisor = float(factor).as_integer_ratio()
    if divisor > MOST_PARTS or numerator > MOST_PARTS**2:
        return None
    return sympy.expand(numerator * rest.args[0]), divisor


def _is_count(value: Any) -> bool:
    return bool(value.is_Integer and value > 0)


def floor_divide(numerator: sympy.Expr, divisor: int) -> sympy.Expr:
    """``numerator // divisor`` in canonical form; the numerator is in it already."""
    terms = sympy.Add.make_args(sympy.expand(numerator))
    if divisor == 1 or len(terms) > MOST_TERMS:
        return functions.FloorDiv(numerator, sympy.Integer(divisor))
    parts: dict[sympy.Expr, int] = {}
    for term in terms:
        coefficient, rest = term.as_coeff_Mul()
        if not coefficient.is_Integer:
            return functions.FloorDiv(numerator, sympy.Integer(divisor))
        parts[rest] = parts.get(rest, 0) + int(coefficient)
    constant = parts.pop(sympy.S.One, 0)
    if parts and all(coefficient < 0 for coefficient in parts.values()):
        # floor(-a / n) is -ceil(a / n).
        positive = {rest: -coefficient for rest, coefficient in parts.items()}
        return sympy.expand(-_divided(positive, divisor - 1 - constant, divisor))
    return _divided(parts, constant, divisor)


def _divided(parts: dict[sympy.Expr, int], constant: int, divisor: int) -> sympy.Expr:
    """The floor of ``sum(coefficient * part) + constant`` over ``divisor``."""
    whole: sympy.Expr = sympy.Integer(constant // divisor)
    constant %= divisor
    left: dict[sympy.Expr, int] = {}
    for rest, coefficient in parts.items():
        whole += coefficient // divisor * rest
        if coefficient % divisor:
            left[rest] = coefficient % divisor
    common = math.gcd(divisor, *left.values()) if left else divisor
    constant, divisor = constant // common, divisor // common
    left = {rest: coefficient // common for rest, coefficient in left.items()}
    if divisor == 1:
        # Nothing is left, or what is left is whole.
        return sympy.expand(whole + sum(c * rest for rest, c in left.items()) + constant)
    inner = next(
        (r for r, c in left.items() if c == 1 and isinstance(r, functions.FloorDiv)
         and _is_count(r.args[1])),
        None,
    )  # fmt: skip
    if inner is not None:
        # floor((floor(a / m) + b) / n) is floor((a + m b) / (m n)).
        base, scale = inner.args[0], int(inner.args[1])
        others = sum(c * rest for rest, c in left.items() if rest != inner)
        merged = base + scale * (others + constant)
        return sympy.expand(whole + floor_divide(sympy.expand(merged), scale * divisor))
    numerator = sum(c * rest for rest, c in left.items()) + constant
    return sympy.expand(whole + functions.FloorDiv(numerator, sympy.Integer(divisor)))
