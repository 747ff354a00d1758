"""What operators on complex tensors are on their parts."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from penstock.compiler.fx.record import whole
from penstock.compiler.rewrite import fourier, spectrogram
from penstock.compiler.rewrite.complex_tensor import (
    REAL,
    Complex,
    is_complex,
    joined,
    minus,
    paired,
    part_of,
    parts,
    plus,
    product,
    times,
    zero_of,
)

aten = torch.ops.aten

#: Operators that do the same to both parts, and the positions of arguments that are values (of
#: which a real one has an imaginary part of zero).
PARTWISE: dict[Any, tuple[int, ...]] = {
    **dict.fromkeys(
        (
            aten.view.default, aten._unsafe_view.default, aten.reshape.default,
            aten._reshape_copy.default, aten.expand.default, aten.permute.default,
            aten.transpose.int, aten.t.default, aten.unsqueeze.default, aten.squeeze.default,
            aten.squeeze.dim, aten.squeeze.dims, aten.select.int, aten.slice.Tensor,
            aten.cat.default, aten.stack.default, aten.split.Tensor, aten.unbind.int,
            aten.split_with_sizes.default, aten.index.Tensor, aten.index_select.default,
            aten.gather.default, aten.flip.default, aten.roll.default, aten.repeat.default,
            aten.clone.default, aten.alias.default, aten.detach.default, aten.lift_fresh.default,
            aten.lift_fresh_copy.default, aten.diagonal.default, aten.unfold.default,
            aten.neg.default, aten.sum.default, aten.sum.dim_IntList, aten.mean.default,
            aten.mean.dim, aten.cumsum.default, aten.tril.default, aten.triu.default,
            aten.zeros_like.default, aten.new_zeros.default,
            aten.empty_like.default, aten.reflection_pad1d.default,
            aten.reflection_pad2d.default, aten.replication_pad1d.default,
            aten.replication_pad2d.default, aten.constant_pad_nd.default, aten.full.default,
            aten.masked_select.default,
        ),
        (0,),
    ),
    aten.zeros.default: (),
    aten.empty.memory_format: (),
    aten.where.self: (1, 2),
    aten.masked_fill.Scalar: (0, 2),
    aten.constant_pad_nd.default: (0, 2),
    aten.full.default: (1,),
    aten.full_like.default: (1,),
    aten.scalar_tensor.default: (0,),
    aten.slice_scatter.default: (0, 1),
    aten.select_scatter.default: (0, 1),
    aten.index_put.default: (0, 2),
    aten.scatter.src: (0, 3),
    aten.index_add.default: (0, 3),
}  # fmt: skip


#: A part need not lie in memory as the whole does, of which a view can be had.
VIEWS = (aten.view.default, aten._unsafe_view.default)


def partwise(function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    values = PARTWISE[function]
    function = aten.reshape.default if function in VIEWS else function
    imaginary = tuple(zero_of(item) if place in values else item for place, item in enumerate(args))
    re = function(*part_of(args, 0), **part_of(kwargs, 0))
    return paired(re, function(*part_of(imaginary, 1), **part_of(kwargs, 1)))


def add(left: Any, right: Any, alpha: float = 1) -> Complex:
    (a, b), (c, d) = parts(left), parts(right)
    return joined(plus(a, times(c, alpha)), plus(b, times(d, alpha)), _tensor(left, right))


def sub(left: Any, right: Any, alpha: float = 1) -> Complex:
    (a, b), (c, d) = parts(left), parts(right)
    return joined(minus(a, times(c, alpha)), minus(b, times(d, alpha)), _tensor(left, right))


def mul(left: Any, right: Any) -> Complex:
    return joined(*product(left, right), _tensor(left, right))


def _tensor(left: Any, right: Any) -> Tensor:
    """A real tensor in the shape of what is made of two operands."""
    found = [
        item.re if isinstance(item, Complex) else item
        for item in (left, right) if isinstance(item, Tensor)
    ]  # fmt: skip
    return found[0] if len(found) == 1 else torch.broadcast_tensors(*found)[0]


def div(left: Any, right: Any) -> Complex:
    """By the conjugate over the squared modulus."""
    c, d = parts(right)
    if isinstance(right, complex):
        return mul(left, 1 / right)
    if d is None:
        a, b = parts(left)
        return joined(*(None if part is None else part / c for part in (a, b)))
    size = c * c + d * d
    re, im = product(left, Complex(c, -d))
    return joined(*(None if part is None else part / size for part in (re, im)))


def modulus(x: Complex) -> Tensor:
    return torch.sqrt(x.re * x.re + x.im * x.im)


def angle(x: Complex) -> Tensor:
    return torch.atan2(x.im, x.re)


def polar(size: Tensor, turn: Tensor) -> Complex:
    return Complex(size * torch.cos(turn), size * torch.sin(turn))


def exp(x: Complex) -> Complex:
    return polar(torch.exp(x.re), x.im)


def log(x: Complex) -> Complex:
    return Complex(torch.log(modulus(x)), angle(x))


def sqrt(x: Complex) -> Complex:
    """The larger part first, which does not cancel; the other from what their product is."""
    large = torch.sqrt((modulus(x) + x.re.abs()) * 0.5)
    small = x.im.abs() / torch.where(large == 0, 1.0, large * 2)
    right = x.re >= 0
    re, im = torch.where(right, large, small), torch.where(right, small, large)
    return Complex(re, torch.where(x.im < 0, -im, im))


def sgn(x: Complex) -> Complex:
    size = modulus(x)
    safe = torch.where(size == 0, 1.0, size)
    return Complex(x.re / safe, x.im / safe)


def power(base: Any, exponent: Any) -> Complex:
    if isinstance(exponent, (int, float)) and exponent == int(exponent) and 0 < exponent <= 8:
        result: Complex = base
        for _ in range(int(exponent) - 1):
            result = mul(result, base)
        return result
    if not isinstance(base, Complex):
        real = base if isinstance(base, complex) else complex(base)
        size, turn = abs(real), math.atan2(real.imag, real.real)
        return exp(mul(exponent, complex(math.log(size), turn)))
    return exp(mul(log(base), exponent))


def tanh(x: Complex) -> Complex:
    """Of the number with a real part that is not negative, where nothing overflows."""
    sign = torch.where(x.re < 0, -1.0, 1.0)
    falling = exp(mul(x, -2 * sign))
    return mul(div(sub(1.0, falling), add(1.0, falling)), sign)


def prod(x: Complex, dim: int, keepdim: bool = False, *, dtype: Any = None) -> Complex:
    result = running_product(x, dim)[-1]
    if not keepdim:
        return result
    return Complex(result.re.unsqueeze(dim), result.im.unsqueeze(dim))


def running_product(x: Complex, dim: int) -> list[Complex]:
    parts_of_it = zip(x.re.unbind(dim), x.im.unbind(dim), strict=True)
    return list(itertools.accumulate((Complex(*pair) for pair in parts_of_it), mul))


def cumprod(x: Complex, dim: int, *, dtype: Any = None) -> Complex:
    found = running_product(x, dim)
    return Complex(
        torch.stack([one.re for one in found], dim), torch.stack([one.im for one in found], dim)
    )


def var(
    x: Complex, dim: list[int] | None = None, *, correction: float | None = None,
    keepdim: bool = False,
) -> Tensor:  # fmt: skip
    """The spread in both directions."""
    options: Any = {"correction": correction, "keepdim": keepdim}
    return torch.var(x.re, dim, **options) + torch.var(x.im, dim, **options)


def sine(x: Complex) -> Complex:
    return Complex(torch.sin(x.re) * torch.cosh(x.im), torch.cos(x.re) * torch.sinh(x.im))


def cosine(x: Complex) -> Complex:
    return Complex(torch.cos(x.re) * torch.cosh(x.im), -torch.sin(x.re) * torch.sinh(x.im))


def conj(x: Complex) -> Complex:
    return Complex(x.re, -x.im)


def view_as_real(x: Complex) -> Tensor:
    if x.stacked is None:
        x.stacked = torch.stack([x.re, x.im], -1)
    return x.stacked


def view_as_complex(x: Tensor) -> Complex:
    return Complex(x.select(-1, 0), x.select(-1, 1))


def to_copy(x: Any, *, dtype: torch.dtype | None = None, **_: Any) -> Any:
    re, im = parts(x)
    if dtype is None:
        return Complex(re.clone(), im.clone())
    if dtype not in REAL:
        return re.to(dtype)
    part = REAL[dtype]
    return joined(re.to(part), None if im is None else im.to(part))


def equal(left: Any, right: Any) -> Tensor:
    def same(one: Any, other: Any) -> Any:
        return (0.0 if one is None else one) == (0.0 if other is None else other)

    (a, b), (c, d) = parts(left), parts(right)
    result: Tensor = same(a, c) & same(b, d)
    return result


def addmm(x: Any, left: Any, right: Any, *, beta: float = 1, alpha: float = 1) -> Complex:
    return add(mul(x, beta), mul(bilinear(aten.mm.default)(left, right), alpha))


def baddbmm(x: Any, left: Any, right: Any, *, beta: float = 1, alpha: float = 1) -> Complex:
    return add(mul(x, beta), mul(bilinear(aten.bmm.default)(left, right), alpha))


def bilinear(function: Callable[..., Any]) -> Callable[..., Complex]:
    """A product of matrices, as products of the parts."""

    def compute(left: Any, right: Any) -> Complex:
        return joined(*product(left, right, function))

    return compute


def convolution(target: Any) -> Callable[..., Complex]:
    def compute(x: Any, weight: Any, bias: Any = None, *rest: Any) -> Complex:
        found = product(x, weight, lambda one, other: whole(target, one, other, None, *rest))
        result = joined(*found)
        if bias is None:
            return result
        shape = [-1] + [1] * (weight.dim() - 2)
        re, im = (part if part is None else part.reshape(shape) for part in parts(bias))
        return joined(plus(result.re, re), plus(result.im, im))

    return compute


def _either(function: Callable[[Tensor], Tensor]) -> Callable[[Complex], Tensor]:
    return lambda x: function(x.re) | function(x.im)


OPERATORS: dict[Any, Callable[..., Any]] = {
    aten.add.Tensor: add,
    aten.add.Scalar: add,
    aten.sub.Tensor: sub,
    aten.sub.Scalar: sub,
    aten.rsub.Scalar: lambda x, y, alpha=1: sub(y, x, alpha),
    aten.rsub.Tensor: lambda x, y, alpha=1: sub(y, x, alpha),
    aten.mul.Tensor: mul,
    aten.mul.Scalar: mul,
    aten.div.Tensor: div,
    aten.div.Scalar: div,
    aten.reciprocal.default: lambda x: div(1.0, x),
    aten.square.default: lambda x: mul(x, x),
    aten.abs.default: modulus,
    aten.angle.default: angle,
    aten.exp.default: exp,
    aten.log.default: log,
    aten.sqrt.default: sqrt,
    aten.sgn.default: sgn,
    aten.sin.default: sine,
    aten.cos.default: cosine,
    aten.tanh.default: tanh,
    aten.sigmoid.default: lambda x: div(1.0, add(1.0, exp(mul(x, -1.0)))),
    aten.log10.default: lambda x: mul(log(x), 1 / math.log(10)),
    aten.log2.default: lambda x: mul(log(x), 1 / math.log(2)),
    aten.log1p.default: lambda x: log(add(x, 1.0)),
    aten.expm1.default: lambda x: sub(exp(x), 1.0),
    aten.prod.dim_int: prod,
    aten.prod.default: lambda x, dtype=None: prod(Complex(x.re.flatten(), x.im.flatten()), 0),
    aten.cumprod.default: cumprod,
    aten.var.correction: var,
    aten.std.correction: lambda *args, **kwargs: torch.sqrt(var(*args, **kwargs)),
    aten.pow.Tensor_Scalar: power,
    aten.pow.Tensor_Tensor: power,
    aten.pow.Scalar: power,
    aten.real.default: lambda x: parts(x)[0],
    aten.imag.default: lambda x: x.im,
    aten._conj.default: conj,
    aten.conj.default: conj,
    aten._conj_physical.default: conj,
    aten.conj_physical.default: conj,
    aten.resolve_conj.default: lambda x: x,
    aten.resolve_neg.default: lambda x: x,
    aten.contiguous.default: lambda x, memory_format=None: x,
    aten.view_as_real.default: view_as_real,
    aten.view_as_real_copy.default: view_as_real,
    aten.view_as_complex.default: view_as_complex,
    aten.view_as_complex_copy.default: view_as_complex,
    aten.complex.default: lambda re, im: joined(re, im),
    aten.polar.default: polar,
    aten._to_copy.default: to_copy,
    aten.to.dtype: lambda x, dtype, *_, **__: to_copy(x, dtype=dtype),
    aten.eq.Tensor: equal,
    aten.eq.Scalar: equal,
    aten.ne.Tensor: lambda x, y: ~equal(x, y),
    aten.ne.Scalar: lambda x, y: ~equal(x, y),
    aten.isnan.default: _either(torch.isnan),
    aten.isinf.default: _either(torch.isinf),
    aten.isfinite.default: lambda x: torch.isfinite(x.re) & torch.isfinite(x.im),
    aten.ones.default: lambda size, dtype, **_: joined(torch.ones(size, dtype=REAL[dtype]), None),
    aten.ones_like.default: lambda x, **_: joined(torch.ones_like(x.re), None),
    aten.mm.default: bilinear(aten.mm.default),
    aten.bmm.default: bilinear(aten.bmm.default),
    aten.mv.default: bilinear(torch.mv),
    aten.dot.default: bilinear(torch.dot),
    aten.matmul.default: bilinear(fourier.matmul),
    aten.addmm.default: addmm,
    aten.baddbmm.default: baddbmm,
    **{
        target: convolution(target)
        for target in (
            aten.conv1d.default,
            aten.conv2d.default,
            aten.conv3d.default,
            aten.conv1d.padding,
            aten.conv2d.padding,
            aten.conv3d.padding,
            aten.conv_transpose1d.default,
            aten.conv_transpose2d.input,
            aten.conv_transpose3d.input,
            aten.convolution.default,
        )
    },
    aten._fft_r2c.default: fourier.r2c,
    aten._fft_c2c.default: fourier.c2c,
    aten._fft_c2r.default: fourier.c2r,
    aten.stft.default: spectrogram.stft,
    aten.istft.default: spectrogram.istft,
}

#: They make complex tensors of real ones, if only on their way to real ones.
MAKERS = {
    aten.fft_hfft.default, aten.fft_hfft2.default, aten.fft_hfftn.default,
    aten.complex.default, aten.polar.default, aten.view_as_complex.default,
    aten.view_as_complex_copy.default, aten._fft_r2c.default, aten.stft.default,
}  # fmt: skip


def concerns(function: Any, arguments: list[Any]) -> bool:
    """Whether a call has to do with complex numbers; ``arguments`` are its leaves."""
    return function in MAKERS or any(is_complex(item) for item in arguments)
