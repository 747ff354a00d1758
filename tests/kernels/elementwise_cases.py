"""Cases for functions of elements: unary, binary, comparisons, activations, selections."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from kernel_harness import (
    BFLOAT16,
    BOOL,
    C64,
    DTYPES,
    F16,
    F32,
    F64,
    FLOATS,
    U8,
    Case,
    cases,
    values,
)

HALVES = (F16, BFLOAT16)

SHAPES = ((), (0,), (5,), (2, 3, 4), (1, 0, 3))
PAIRS = (
    ((3, 4), (3, 4)),
    ((3, 4), (4,)),
    ((), (2, 3)),
    ((2, 3), ()),
    ((), ()),
    ((2, 1), (1, 3)),
    ((0, 3), (3,)),
)
Rng = np.random.Generator

UNARY = """
    abs acos acosh asin asinh atan atanh bitwise_not ceil cos cosh erf exp exp2 expm1 floor isinf
    isnan log log10 log1p log2 logical_not neg reciprocal relu round rsqrt sigmoid sign signbit sin
    sinh sqrt tan tanh trunc _conj_physical
"""


def words(text: str) -> list[str]:
    return text.split()


@cases(*(f"aten::{name}.out" for name in words(UNARY)))
def unary(rng: Rng) -> Iterator[Case]:
    for dtype in DTYPES:
        for shape in SHAPES:
            yield Case([values(rng, shape, dtype, special=True)], same_type=True)
        # Beyond one block of the blockwise functions.
    yield Case([values(rng, (3, 12345), F32)], same_type=True)
    for dtype in (F32, F64):
        yield Case([np.linspace(-30, 30, 5001).astype(dtype)], same_type=True)


@cases("aten::_conj_physical.out", "aten::abs.out")
def complex_unary(rng: Rng) -> Iterator[Case]:
    yield from unary(rng)
    yield Case([values(rng, (2, 3), C64)])


BINARY = """
    div atan2 copysign fmax fmin fmod.Tensor remainder.Tensor pow.Tensor_Tensor mul maximum minimum
    floor_divide
    logical_and logical_or logical_xor bitwise_and.Tensor bitwise_or.Tensor bitwise_xor.Tensor
    eq.Tensor ne.Tensor lt.Tensor le.Tensor gt.Tensor ge.Tensor
"""


def out_name(name: str) -> str:
    base, _, overload = name.partition(".")
    return f"aten::{base}.{overload}_out" if overload else f"aten::{base}.out"


@cases(*map(out_name, words(BINARY)))
def binary(rng: Rng) -> Iterator[Case]:
    for first in DTYPES:
        for second in DTYPES:
            for left, right in PAIRS:
                a = values(rng, left, first, special=True)
                b = values(rng, right, second, special=True)
                # No negative powers of integers, no integer divisions by zero.
                if second.kind in "iu":
                    b = np.where(b <= 0, 3, b).astype(second)
                elif second == BOOL:
                    b = np.ones_like(b)
                yield Case([a, b], same_type=True)
    yield from large_integers()


def large_integers() -> Iterator[Case]:
    """Integers beside halves are rounded to halves first."""
    for dtype in HALVES:
        x, integers = np.array([1, 2048, 4096, -332], dtype), np.array([2049, 4097, 70000, -333])
        yield Case([x, integers], same_type=True)
        yield Case([integers, x], same_type=True)


@cases("aten::pow.Tensor_Tensor_out")
def power(rng: Rng) -> Iterator[Case]:
    yield from binary(rng)
    for base in (-3, -1, 0, 1, 2):
        exponents = np.arange(-4, 5)
        yield Case([np.full(9, base), exponents], same_type=True)


@cases("aten::add.out", "aten::sub.out")
def add(rng: Rng) -> Iterator[Case]:
    for first in DTYPES:
        for second in DTYPES:
            for left, right in PAIRS:
                a, b = values(rng, left, first), values(rng, right, second)
                yield Case([a, b, 1], same_type=True)
                yield Case([a, b, 2], same_type=True, tolerance=rough(a, b))
                yield Case([a, b, -0.5], same_type=True, tolerance=rough(a, b))
    for case in large_integers():
        yield Case([*case.args, 1], same_type=True)


def rough(*tensors: np.ndarray) -> tuple[float, float] | None:
    """Eager rounds alpha * b to a half type before it adds."""
    kinds = {tensor.dtype for tensor in tensors}
    return (2e-2, 0.1) if BFLOAT16 in kinds else (2e-3, 1e-2) if F16 in kinds else None


SCALARS = (2, -3, 0.5, -2.5, True, 1)


@cases(
    "aten::add.Scalar_out",
    "aten::sub.Scalar_out",
    "aten::rsub.Scalar_out",
)
def add_scalar(rng: Rng) -> Iterator[Case]:
    for dtype in DTYPES:
        for shape in SHAPES:
            for scalar in SCALARS:
                yield Case([values(rng, shape, dtype), scalar, 1], out=(), same_type=True)
                x = values(rng, shape, dtype)
                yield Case([x, scalar, 3], same_type=True, tolerance=rough(x))


SCALAR_BINARY = """
    div mul fmod remainder pow.Tensor bitwise_and bitwise_or bitwise_xor eq ne lt le gt ge
"""


def scalar_name(name: str) -> str:
    base, _, overload = name.partition(".")
    return f"aten::{base}.{overload}_Scalar_out" if overload else f"aten::{base}.Scalar_out"


@cases(*map(scalar_name, words(SCALAR_BINARY)))
def binary_scalar(rng: Rng) -> Iterator[Case]:
    for dtype in DTYPES:
        for shape in SHAPES:
            for scalar in (*SCALARS, 3, 3.0, float("nan"), float("inf")):
                x = values(rng, shape, dtype, special=True)
                # float16 goes another way in eager, and has no NaN for the root of -inf.
                if dtype == F16 and scalar == 0.5:
                    x = np.abs(x)
                yield Case([x, scalar], same_type=True)


@cases("aten::pow.Scalar_out")
def scalar_power(rng: Rng) -> Iterator[Case]:
    for dtype in DTYPES:
        for shape in SHAPES:
            for scalar in (2, 0.5, 1, 0, 3.5):
                x = np.abs(values(rng, shape, dtype))
                yield Case([scalar, x], same_type=True)


@cases("aten::div.out_mode", "aten::div.Scalar_mode_out")
def div_mode(rng: Rng) -> Iterator[Case]:
    for first in DTYPES:
        for mode in (None, "trunc", "floor"):
            for scalar in (4, -2, 0.5, -0.25):
                yield Case([values(rng, (17,), first, low=-20, high=20), scalar, mode])
            for second in DTYPES:
                for left, right in PAIRS:
                    a = values(rng, left, first, low=-20, high=20)
                    b = values(rng, right, second)
                    # Quotients that rounding cannot push over an integer.
                    if {first, second} & set(HALVES):
                        a = np.asarray(np.rint(a.astype(F32)), first)
                        b = np.where(b > 0, 4, -2)
                    b = np.where(b == 0, 3, b).astype(second)
                    yield Case([a, b, mode], same_type=True)


@cases("aten::bitwise_left_shift.Tensor_out", "aten::bitwise_right_shift.Tensor_out")
def shift(rng: Rng) -> Iterator[Case]:
    for first in DTYPES:
        for second in DTYPES:
            for left, right in PAIRS:
                a = values(rng, left, first, low=-100, high=100)
                # Negative shifts, and such beyond the width, in the promoted type.
                b = values(rng, right, second, low=-3, high=9)
                yield Case([a, b], same_type=True)


@cases("aten::bitwise_left_shift.Tensor_Scalar_out", "aten::bitwise_right_shift.Tensor_Scalar_out")
def shift_scalar(rng: Rng) -> Iterator[Case]:
    for dtype in DTYPES:
        for amount in (0, 1, 3, 7, 40, -1):
            a = values(rng, (9,), dtype, low=-100, high=100)
            yield Case([a, amount], same_type=True)


@cases("aten::where.self_out")
def where(rng: Rng) -> Iterator[Case]:
    for first in DTYPES:
        for second in DTYPES:
            for left, right in PAIRS:
                condition = values(rng, left, BOOL)
                a, b = values(rng, right, first), values(rng, left, second)
                yield Case([condition, a, b], same_type=True)
    condition = values(rng, (2, 3), U8, low=0, high=1)
    yield Case([condition, values(rng, (3,), F32), values(rng, (), F32)])


@cases("aten::clamp.out")
def clamp(rng: Rng) -> Iterator[Case]:
    bounds = ((-1, 2), (None, 1), (0.5, None), (-0.5, 0.75), (2, -1), (float("nan"), 1), (1, 1.5))
    for dtype in DTYPES:
        for shape in SHAPES:
            for low, high in bounds:
                yield Case([values(rng, shape, dtype, special=True), low, high], same_type=True)


@cases("aten::clamp.Tensor_out")
def clamp_tensor(rng: Rng) -> Iterator[Case]:
    for dtype in DTYPES:
        for other in DTYPES:
            x = values(rng, (3, 4), dtype, special=True)
            low, high = values(rng, (4,), other, special=True), values(rng, (3, 1), dtype)
            for bounds in ((low, high), (None, high), (low, None), (low, values(rng, (), other))):
                yield Case([x, *bounds], same_type=True)


@cases("aten::hardtanh.out")
def hardtanh(rng: Rng) -> Iterator[Case]:
    for dtype in DTYPES:
        for shape in SHAPES:
            for low, high in ((-1, 1), (0, 6), (-0.5, 0.25), (0.0, 6.0)):
                yield Case([values(rng, shape, dtype, special=True), low, high], same_type=True)


@cases("aten::gelu.out")
def gelu(rng: Rng) -> Iterator[Case]:
    for dtype in DTYPES:
        for shape in SHAPES:
            for form in ("none", "tanh"):
                # Of infinities, eager makes NaN or not, by type and size.
                x = values(rng, shape, dtype, special=True)
                if dtype in FLOATS:
                    x[np.isinf(x)] = np.nan
                yield Case([x, form], same_type=True)
    for form in ("none", "tanh"):
        yield Case([values(rng, (7, 9999), F32, low=-9, high=9), form], tolerance=(3e-6, 3e-6))


@cases("aten::elu.out")
def elu(rng: Rng) -> Iterator[Case]:
    for dtype in DTYPES:
        for shape in SHAPES:
            for factors in ((1, 1, 1), (1.5, 2.0, 0.5), (1.673, 1.05, 1)):
                yield Case([values(rng, shape, dtype, special=True), *factors], same_type=True)


@cases("aten::leaky_relu.out")
def leaky_relu(rng: Rng) -> Iterator[Case]:
    for dtype in DTYPES:
        for shape in SHAPES:
            for slope in (0.01, 2, -0.5):
                yield Case([values(rng, shape, dtype, special=True), slope], same_type=True)


@cases("aten::logit.out")
def logit(rng: Rng) -> Iterator[Case]:
    for dtype in DTYPES:
        for shape in SHAPES:
            for eps in (None, 0.1, 1e-3):
                x = values(rng, shape, dtype, low=-0.2, high=1.2)
                # Eager rounds 1 - eps to the half type.
                rough = (0.02, 0.05) if dtype in HALVES else None
                if eps != 1e-3 or dtype not in HALVES:
                    yield Case([x, eps], same_type=True, tolerance=rough)


@cases("aten::glu.out")
def glu(rng: Rng) -> Iterator[Case]:
    for dtype in DTYPES:
        for shape, dim in (((4,), 0), ((2, 6), -1), ((2, 4, 3), 1), ((0, 2), 1)):
            yield Case([values(rng, shape, dtype), dim], same_type=True)


@cases("aten::_softmax.out", "aten::_log_softmax.out")
def softmax(rng: Rng) -> Iterator[Case]:
    for dtype in FLOATS:
        for shape in ((), (0,), (5,), (2, 3, 4), (2, 0, 3), (2, 200)):
            for dim in range(-max(1, len(shape)), max(1, len(shape))):
                # Eager rounds the sum to the half type for log_softmax.
                rough = (
                    (2e-2, 5e-2) if dtype == BFLOAT16 else (2e-3, 2e-3) if dtype == F16 else None
                )
                x = values(rng, shape, dtype, low=-9, high=9)
                yield Case([x, dim, False], same_type=True, tolerance=rough)
    yield Case([np.array([[-np.inf, 0, 1], [-np.inf] * 3], F32), 1, False])


@cases("aten::masked_fill.Scalar_out")
def masked_fill(rng: Rng) -> Iterator[Case]:
    for dtype in DTYPES:
        for left, right in PAIRS:
            for value in (1, 2.5, True, float("-inf")):
                yield Case([values(rng, left, dtype), values(rng, right, BOOL), value])
