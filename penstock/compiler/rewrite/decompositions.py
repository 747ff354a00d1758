"""Decompositions that PyTorch lacks: into operators that have kernels.

Each function takes what its operator takes and computes the same out of others; it is traced, so
only its calls matter. PyTorch's own table ends in places at ``prims``, which say themselves how
ATen computes them.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from penstock.compiler.fx import dynamic_recurrence, layout
from penstock.compiler.fx.arguments import arguments
from penstock.compiler.fx.marks import (
    ATTENTION_OF_PARTS,
    PLACES_OF_LARGEST,
    attention_of_parts,
    places_of_largest,
)
from penstock.compiler.rewrite import (
    agreed_kernels,
    contraction,
    convolution_3d,
    losses,
    pooling,
    random_numbers,
    resizing,
    running,
    scattering,
    selecting,
    small_matrices,
    sorting,
    special_functions,
    volume_sampling,
)

aten = torch.ops.aten


def bilinear(x: Tensor, y: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A linear layer of ``x`` gives the factors of ``y``."""
    out, rows, columns = weight.shape
    factors = torch.nn.functional.linear(
        x, weight.transpose(1, 2).contiguous().view(out * columns, rows)
    )
    factors = factors.unflatten(-1, (out, columns))
    result = (factors * y.unsqueeze(-2)).sum(-1, dtype=factors.dtype)
    return result if bias is None else torch.add(result, bias)


def copysign(x: Tensor, sign: Tensor) -> Tensor:
    """The sign of a zero is that of its reciprocal."""
    dtype = torch.result_type(x, sign)
    dtype = dtype if dtype.is_floating_point else torch.get_default_dtype()
    x, sign = x.to(dtype), sign.to(dtype)
    negative = torch.where(sign == 0, torch.reciprocal(sign), sign) < 0
    return torch.where(negative, -x.abs(), x.abs())


def hypot(x: Tensor, y: Tensor) -> Tensor:
    """By the ratio of the smaller to the larger: the squares may be too large."""
    x, y = x.abs(), y.abs()
    large = torch.maximum(x, y)
    ratio = torch.where(large > 0, torch.minimum(x, y) / large, 0)
    endless = torch.isinf(x) | torch.isinf(y)
    return torch.where(endless, math.inf, large * torch.sqrt(1 + ratio * ratio)).to(large.dtype)


def fmax(x: Tensor, y: Tensor) -> Tensor:
    """NaN only where both are."""
    return torch.where(torch.isnan(x), y, torch.where(torch.isnan(y), x, torch.maximum(x, y)))


def fmin(x: Tensor, y: Tensor) -> Tensor:
    return torch.where(torch.isnan(x), y, torch.where(torch.isnan(y), x, torch.minimum(x, y)))


def searchsorted(
    rows: Tensor, values: Tensor, *, out_int32: bool = False, right: bool = False,
    side: str | None = None, sorter: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """The place of a value is the number of entries before it; not-a-number is behind all."""
    if sorter is not None:
        rows = torch.gather(rows, -1, sorter)
    entries, wanted = rows.unsqueeze(-2) if rows.dim() > 1 else rows, values.unsqueeze(-1)
    behind = entries > wanted if right or side == "right" else entries >= wanted
    return (~behind).sum(-1).to(torch.int32 if out_int32 else torch.int64)


def bucketize(
    values: Tensor, boundaries: Tensor, *, out_int32: bool = False, right: bool = False
) -> Tensor:
    return searchsorted(boundaries, values, out_int32=out_int32, right=right)


def empty_permuted(
    size: list[int], physical_layout: list[int], *, dtype: torch.dtype | None = None, **_: Any
) -> Tensor:
    """What is in it, and how it lies, does not matter."""
    return torch.empty(size, dtype=dtype)


def addbmm(x: Tensor, left: Tensor, right: Tensor, *, beta: float = 1, alpha: float = 1) -> Tensor:
    """A sum of products is one product of what stands side by side."""
    wide, tall = left.transpose(0, 1).flatten(1), right.flatten(0, 1)
    return torch.addmm(x, wide, tall, beta=beta, alpha=alpha)


def rrelu(x: Tensor, noise: Tensor, lower: float = 1 / 8, upper: float = 1 / 3, *_: Any) -> Tensor:
    """What it is in evaluation mode."""
    return torch.nn.functional.leaky_relu(x, (lower + upper) / 2)


def addcmul(x: Tensor, left: Tensor, right: Tensor, *, value: float = 1) -> Tensor:
    """Of integers, the factor is one too, cut off."""
    floats = any(one.dtype.is_floating_point for one in (x, left, right))
    factor = value if floats else int(value)
    product = left * right if factor == 1 else left * factor * right
    return x + product


def narrow(x: Tensor, dim: int, start: int, length: int) -> Tensor:
    """As a slice, whose kernel takes negative dimensions."""
    start = start + x.shape[dim] if start < 0 else start
    result: Tensor = aten.slice.Tensor(x, dim, start, start + length)
    return result


def reshape(x: Tensor, shape: list[int]) -> Tensor:
    """Tensors lie in memory as they are in programs, so that any reshape is a view; PyTorch's
    definition asks whether this one, which a program never sees, does."""
    result: Tensor = aten.view.default(x.clone(memory_format=torch.contiguous_format), shape)
    return result


def flatten(x: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    if x.dim() == 0:
        return reshape(x, [1])
    start, end = start_dim % x.dim(), end_dim % x.dim()
    return reshape(x, [*x.shape[:start], math.prod(x.shape[start : end + 1]), *x.shape[end + 1 :]])


def tensordot(x: Tensor, y: Tensor, dims_x: list[int], dims_y: list[int]) -> Tensor:
    """A product of matrices: the contracted dimensions go last in ``x``, first in ``y``."""
    summed_x, summed_y = [d % x.dim() for d in dims_x], [d % y.dim() for d in dims_y]
    kept_x = [d for d in range(x.dim()) if d not in summed_x]
    kept_y = [d for d in range(y.dim()) if d not in summed_y]
    for one, other in zip(summed_x, summed_y, strict=True):  # a size of 1 is broadcast
        if x.shape[one] != y.shape[other]:
            x, y = (
                side.sum(d, keepdim=True) if twin.shape[e] == 1 else side
                for side, d, twin, e in ((x, one, y, other), (y, other, x, one))
            )
    length = math.prod(x.shape[d] for d in summed_x)
    left, right = x.permute(*kept_x, *summed_x), y.permute(*summed_y, *kept_y)
    rows, columns = [x.shape[d] for d in kept_x], [y.shape[d] for d in kept_y]
    product = torch.mm(
        reshape(left, [math.prod(rows), length]), reshape(right, [length, math.prod(columns)])
    )
    return reshape(product, [*rows, *columns])


def diagonal_scatter(
    x: Tensor, source: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1
) -> Tensor:
    """The diagonal's places in the flattened tensor get the source's elements."""
    places = torch.arange(x.numel()).reshape(x.shape).diagonal(offset, dim1, dim2).reshape(-1)
    return x.reshape(-1).scatter(0, places, source.reshape(-1)).reshape(x.shape)


def constant_pad(x: Tensor, pad: list[int], value: float = 0.0) -> Tensor:
    """Negative padding cuts off."""
    for position in range(0, len(pad), 2):
        dim = x.dim() - 1 - position // 2
        start, end = (max(0, -int(amount)) for amount in pad[position : position + 2])
        if start or end:
            x = x.narrow(dim, start, x.shape[dim] - start - end)
    kept = [max(0, amount) for amount in pad]
    padded: Tensor = aten.constant_pad_nd.default(x, kept, value)
    return padded


def of_floats(function: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """``function``, of integers and booleans too, as floats."""

    def call(x: Tensor) -> Tensor:
        return function(x if x.is_floating_point() else x.to(torch.get_default_dtype()))

    return call


DECOMPOSITIONS: dict[Any, Callable[..., Any]] = {
    **dynamic_recurrence.DEFINITIONS,
    ATTENTION_OF_PARTS: attention_of_parts,
    PLACES_OF_LARGEST: places_of_largest,
    aten.sort.default: sorting.sort,
    aten.sort.stable: sorting.sort_stable,
    aten.kthvalue.default: sorting.kth,
    aten.median.default: sorting.median,
    aten.median.dim: sorting.median_dim,
    aten.nanmedian.default: selecting.nanmedian,
    aten.nanmedian.dim: selecting.nanmedian_dim,
    aten.nonzero_static.default: selecting.nonzero_static,
    aten.put.default: selecting.put,
    aten.take.default: selecting.take,
    aten.angle.default: of_floats(selecting.angle),
    aten.adaptive_max_pool2d.default: pooling.adaptive_max_pool2d,
    aten.adaptive_max_pool3d.default: pooling.adaptive_max_pool3d,
    aten.bilinear.default: bilinear,
    aten.grid_sampler_3d.default: volume_sampling.grid_sampler_3d,
    aten.upsample_linear1d.vec: resizing.linear,
    aten.upsample_trilinear3d.vec: resizing.linear,
    aten.cumprod.default: running.cumprod,
    aten.logcumsumexp.default: running.logcumsumexp,
    aten.cummax.default: running.cummax,
    aten.cummin.default: running.cummin,
    aten.copysign.Tensor: copysign,
    aten.fmax.default: fmax,
    aten.fmin.default: fmin,
    aten.hypot.default: hypot,
    aten.exp2.default: of_floats(lambda x: torch.exp(x * math.log(2))),
    aten.signbit.default: lambda x: torch.where(x == 0, torch.reciprocal(x), x) < 0,
    aten.searchsorted.Tensor: searchsorted,
    aten.bucketize.Tensor: bucketize,
    aten.rand.generator: random_numbers.rand,
    aten.randn.generator: random_numbers.randn,
    aten.rand_like.default: random_numbers.rand_like,
    aten.randn_like.default: random_numbers.randn_like,
    aten.randint.default: random_numbers.randint,
    aten.randint.low: random_numbers.randint_low,
    aten.randint_like.default: random_numbers.randint_like,
    aten.randint_like.low_dtype: random_numbers.randint_like_low,
    aten.randperm.default: random_numbers.randperm,
    aten.bernoulli.default: random_numbers.bernoulli,
    aten.bernoulli.p: random_numbers.bernoulli_p,
    aten.bernoulli.Tensor: random_numbers.bernoulli_p,
    aten.normal.Tensor_Tensor: random_numbers.normal,
    aten.normal.Tensor_float: random_numbers.normal,
    aten.normal.float_Tensor: random_numbers.normal_of_deviations,
    aten.normal.float_float: random_numbers.normal_of_size,
    aten.normal_functional.default: random_numbers.normal_functional,
    aten.uniform.default: random_numbers.uniform,
    aten.exponential.default: random_numbers.exponential,
    aten.multinomial.default: random_numbers.multinomial,
    aten.empty_permuted.default: empty_permuted,
    aten.addbmm.default: addbmm,
    aten.avg_pool3d.default: pooling.avg_pool3d,
    aten.narrow.default: narrow,
    aten.addcmul.default: addcmul,
    # PyTorch's definition asks how the volume lies in memory.
    aten.adaptive_avg_pool3d.default: pooling.adaptive_avg_pool3d,
    aten._adaptive_avg_pool3d.default: pooling.adaptive_avg_pool3d,
    aten.reshape.default: reshape,
    aten._unsafe_view.default: reshape,
    aten.flatten.using_ints: flatten,
    aten.tensordot.default: tensordot,
    aten.einsum.default: contraction.einsum,
    aten.diagonal_scatter.default: diagonal_scatter,
    aten.rrelu_with_noise.default: rrelu,
    aten._embedding_bag.default: scattering.embedding_bag,
    aten._embedding_bag_forward_only.default: scattering.embedding_bag,
    aten.scatter_reduce.two: scattering.scatter_reduce,
    aten.scatter.reduce: scattering.scatter_of,
    aten.scatter.value_reduce: scattering.scatter_of_number,
    aten.embedding_renorm.default: scattering.embedding_renorm,
    aten.affine_grid_generator.default: resizing.affine_grid,
    aten.index_reduce.default: scattering.index_reduce,
    aten.as_strided_scatter.default: scattering.as_strided_scatter,
    aten.mode.default: scattering.mode,
    aten.histc.default: scattering.histc,
    aten._linalg_det.default: small_matrices.linalg_det,
    aten._linalg_slogdet.default: small_matrices.linalg_slogdet,
    aten.linalg_inv_ex.default: small_matrices.linalg_inv_ex,
    aten._linalg_solve_ex.default: small_matrices.linalg_solve_ex,
    aten.linalg_solve_triangular.default: small_matrices.solve_triangular,
    aten.triangular_solve.default: small_matrices.triangular_solve,
    aten.linalg_qr.default: small_matrices.linalg_qr,
    aten.linalg_matrix_exp.default: small_matrices.matrix_exp,
    aten.linalg_cholesky_ex.default: small_matrices.linalg_cholesky_ex,
    aten.cholesky.default: small_matrices.cholesky,
    aten.cholesky_solve.default: small_matrices.cholesky_solve,
    aten.cholesky_inverse.default: small_matrices.cholesky_inverse,
    aten.multilabel_margin_loss.default: losses.multilabel_margin_loss,
    aten.multilabel_margin_loss_forward.default: losses.multilabel_margin_loss_forward,
    aten.erfinv.default: of_floats(special_functions.erfinv),
    aten.erfc.default: of_floats(special_functions.erfc),
    aten.special_erfcx.default: of_floats(special_functions.erfcx),
    aten.special_log_ndtr.default: of_floats(special_functions.log_ndtr),
    aten.special_ndtri.default: of_floats(special_functions.ndtri),
    aten.lgamma.default: of_floats(special_functions.lgamma),
    aten.digamma.default: of_floats(special_functions.digamma),
    aten.i0.default: of_floats(special_functions.i0),
    aten.special_i0.default: of_floats(special_functions.i0),
    aten.special_i0e.default: of_floats(special_functions.i0e),
    aten.special_i1.default: of_floats(special_functions.i1),
    aten.special_i1e.default: of_floats(special_functions.i1e),
    aten.__lshift__.Scalar: aten.bitwise_left_shift.Tensor_Scalar,
    aten.__rshift__.Scalar: aten.bitwise_right_shift.Tensor_Scalar,
    aten.__lshift__.Tensor: aten.bitwise_left_shift.Tensor,
    aten.__rshift__.Tensor: aten.bitwise_right_shift.Tensor,
}


def unbind(x: Tensor, dim: int = 0) -> list[Tensor]:
    return [aten.select.int(x, dim, index) for index in range(x.shape[dim])]


def split(x: Tensor, size: int, dim: int = 0) -> list[Tensor]:
    extent = x.shape[dim]
    ends = [torch.sym_min((i + 1) * size, extent) for i in range(-(-extent // size))]
    return [aten.slice.Tensor(x, dim, i * size, end) for i, end in enumerate(ends)]


def split_with_sizes(x: Tensor, sizes: list[int], dim: int = 0) -> list[Tensor]:
    ends = list(itertools.accumulate(sizes, initial=0))
    return [aten.slice.Tensor(x, dim, *pair) for pair in itertools.pairwise(ends)]


def _cuts_off(node: Node) -> bool:
    return any(isinstance(size, int) and size < 0 for size in arguments(node)["pad"])


def _is_3d(node: Node) -> bool:
    return arguments(node)["input"].meta["val"].dim() == 5  # type: ignore[no-any-return]


def linear_of_a_vector(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    rows: Tensor = aten.linear.default(aten.unsqueeze.default(x, 0), weight, bias)
    return rows.squeeze(0)


def _is_vector(node: Node) -> bool:
    return arguments(node)["input"].meta["val"].dim() == 1  # type: ignore[no-any-return]


def bilinear_of_bytes(x: Tensor, *arguments: Any) -> Tensor:
    """In float and rounded; eager's has weights of 16 bits, and is one off here and there."""
    resized = aten.upsample_bilinear2d.vec(x.to(torch.float32), *arguments)
    return torch.round(resized).to(x.dtype)


def _is_of_bytes(node: Node) -> bool:
    return arguments(node)["input"].meta["val"].dtype is torch.uint8


def _names_no_dims(node: Node) -> bool:
    return not arguments(node)["dims"]


def sign(x: Tensor) -> Tensor:
    """0 of not-a-number, of which the stock runtime's kernel makes not-a-number."""
    return (x > 0).to(x.dtype) - (x < 0).to(x.dtype)


def _is_of_floats(node: Node) -> bool:
    return node.all_input_nodes[0].meta["val"].is_floating_point()  # type: ignore[no-any-return]


def roll_flat(x: Tensor, shifts: list[int], *_: Any) -> Tensor:
    """All elements in a row."""
    return reshape(torch.roll(reshape(x, [x.numel()]), shifts, [0]), list(x.shape))


def _is_dynamic(node: Node) -> bool:
    return not layout.is_static(layout.shape_of(node.all_input_nodes[0].meta["val"]))


#: Operators that have a kernel, which does not take all that the operator takes: when it does
#: not, and what to compute instead. Kernels with a list of outputs do not change these' shapes.
RESTRICTED: dict[Any, tuple[Callable[[Node], bool], Callable[..., Any]]] = {
    aten.constant_pad_nd.default: (_cuts_off, constant_pad),
    aten.convolution.default: (_is_3d, convolution_3d.convolution),
    aten.linear.default: (_is_vector, linear_of_a_vector),
    aten.sign.default: (_is_of_floats, sign),
    aten.roll.default: (_names_no_dims, roll_flat),
    aten.upsample_bilinear2d.vec: (_is_of_bytes, bilinear_of_bytes),
    aten.unbind.int: (_is_dynamic, unbind),
    aten.split.Tensor: (_is_dynamic, split),
    aten.split_with_sizes.default: (_is_dynamic, split_with_sizes),
    aten.cat.default: (agreed_kernels.joins_types, agreed_kernels.cat),
    aten.where.self: (agreed_kernels.chooses_a_number_of_another_type, agreed_kernels.where),
    aten.add.Tensor: (agreed_kernels.adds_a_multiple_to_one, agreed_kernels.add),
    **dict.fromkeys(
        (aten.remainder.Scalar, aten.remainder.Tensor, aten.remainder.Scalar_Tensor),
        (agreed_kernels.is_of_signed_integers, agreed_kernels.remainder),
    ),
}


def of_prims() -> dict[Any, Callable[..., Any]]:
    """What ATen computes for each operator of ``torch.ops.prims``."""
    import torch._prims

    result: dict[Any, Callable[..., Any]] = {}
    for name in torch._prims.__all__:
        target = getattr(getattr(torch.ops.prims, name, None), "default", None)
        function = getattr(target, "impl_aten", None)
        if target is not None and function is not None:
            result[target] = function
    return result
