"""The gradients of a convolution, from the same gather and scatter as the convolution itself."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from penstock.runtime.kernels.blas import matmul
from penstock.runtime.kernels.columns import columns
from penstock.runtime.kernels.common import Array, promote, rounded, widened
from penstock.runtime.kernels.convolution import convolution, scatter, transposed_axes
from penstock.runtime.kernels.registry import KernelError, kernel, reserve
from penstock.runtime.kernels.windows import Axis, axes


@kernel("aten::convolution_backward.out", outs=3)
def convolution_backward(
    grad: Array,
    x: Array,
    weight: Array,
    bias_sizes: Sequence[int] | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
    output_mask: Sequence[bool],
    grad_input: Array,
    grad_weight: Array,
    grad_bias: Array,
) -> tuple[Array, Array, Array]:
    """The gradients with respect to input, weights and bias, those that the mask asks for."""
    dtype = promote(promote(grad.dtype, x.dtype), weight.dtype)
    g, wide, kernels = (widened(value, dtype) for value in (grad, x, weight))
    if x.ndim < 3 or not x.ndim == weight.ndim == grad.ndim or groups < 1 or len(output_mask) != 3:
        raise KernelError(f"no convolution of the shapes {x.shape} and {weight.shape}")
    if transposed:
        dims = transposed_axes(x, weight, stride, padding, dilation, output_padding)
        expected = (x.shape[0], weight.shape[1] * groups, *(axis.size for axis in dims))
    else:
        dims = axes(x.shape[2:], weight.shape[2:], stride, padding, dilation)
        expected = (x.shape[0], weight.shape[0], *(axis.out for axis in dims))
    if grad.shape != expected or x.shape[1] != weight.shape[0 if transposed else 1] * (
        1 if transposed else groups
    ):
        raise KernelError(f"a gradient of shape {grad.shape}, expected {expected}")

    empty = np.zeros(0, dtype)
    to_input = to_weight = to_bias = empty
    if output_mask[0]:
        reserve(x.shape, grad_input)
        if transposed:
            rank = len(dims)
            scratch = np.empty(x.shape, g.dtype)
            to_input = convolution(
                g, kernels, None, stride, padding, dilation, False, [0] * rank, groups, scratch
            )
        else:
            to_input = scatter(g, kernels, dims, groups)
    if output_mask[1]:
        wide_side, narrow_side = (g, wide) if transposed else (wide, g)
        to_weight = _weight_gradient(wide_side, narrow_side, weight.shape, dims, groups)
    if output_mask[2]:
        to_bias = g.sum((0, *range(2, g.ndim)))
    return rounded(to_input, dtype), rounded(to_weight, dtype), rounded(to_bias, dtype)


def _weight_gradient(
    x: Array, grad: Array, shape: tuple[int, ...], dims: tuple[Axis, ...], groups: int
) -> Array:
    """``x`` has the input sizes of the axes, ``grad`` their output sizes."""
    total = np.zeros(shape, x.dtype).reshape(groups, shape[0] // groups, -1)
    for image, slope in zip(x, grad, strict=True):
        for rows, piece in columns(image, dims):
            gathered = piece.reshape(groups, total.shape[2], -1)
            part = slope[:, rows].reshape(groups, total.shape[1], -1)
            total += matmul(part, gathered.swapaxes(1, 2))
    return total.reshape(shape)
