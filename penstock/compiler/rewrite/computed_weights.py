"""Convolutions whose weights or bias are computed at run time, of which XNNPACK has none."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node
from torch.nn import functional

from penstock.compiler.delegate.operators.constraints import is_constant
from penstock.compiler.fx import layout
from penstock.compiler.fx.arguments import arguments

aten = torch.ops.aten

#: Windows of more elements than these are not laid out side by side, where the kernel has so few
#: places that one product for each takes less time: a quarter of it for 32 channels of 128 x 128.
_MOST_TOGETHER = 1 << 20
_MOST_PLACES = 49
#: More (256 MB a picture) are not laid out at all.
_MOST_ELEMENTS = 1 << 26


def convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: Sequence[int],
    padding: Sequence[int] | str, dilation: Sequence[int], groups: int,
) -> Tensor:  # fmt: skip
    """The product of the weights and of the windows they are laid over, [N, groups, C * kh * kw,
    windows], each group for itself; or, of many windows, the sum of the products for each place in
    them."""
    if x.dim() == weight.dim() - 1:
        batch = convolution(x.unsqueeze(0), weight, bias, stride, padding, dilation, groups)
        return batch.squeeze(0)
    axes = weight.dim() - 2
    kernel, image = _two(weight.shape[2:], 1), _two(x.shape[2:], 1)
    steps, apart = _two(_each(stride, axes), 1), _two(_each(dilation, axes), 1)
    around = [0, 0]
    if padding == "same":
        around = [d * (k - 1) for d, k in zip(apart, kernel, strict=True)]
    elif not isinstance(padding, str):
        around = [2 * amount for amount in _two(_each(padding, axes), 0)]
    pads = [(total // 2, total - total // 2) for total in around]
    size = [
        (extent + total - d * (k - 1) - 1) // s + 1
        for extent, total, d, k, s in zip(image, around, apart, kernel, steps, strict=True)
    ]
    x = x.reshape(*x.shape[:2], *image)
    if any(around):
        x = functional.pad(x, [amount for pad in reversed(pads) for amount in pad])
    rows = weight.reshape(1, groups, weight.shape[0] // groups, weight.shape[1], *kernel)
    if _in_one(kernel, math.prod(size) * groups * math.prod(weight.shape[1:])):
        if kernel != (1, 1) or steps != (1, 1):
            x = functional.unfold(x, kernel, apart, 0, steps)
        windows = x.reshape(x.shape[0], groups, -1, math.prod(size))
        result = torch.matmul(rows.flatten(3), windows)
    else:
        ends = [(count - 1) * s + 1 for count, s in zip(size, steps, strict=True)]
        products = []
        for row, column in itertools.product(*map(range, kernel)):
            top, left = row * apart[0], column * apart[1]
            seen = x[:, :, top : top + ends[0] : steps[0], left : left + ends[1] : steps[1]]
            seen = seen.reshape(x.shape[0], groups, -1, math.prod(size))
            products.append(torch.matmul(rows[..., row, column], seen))
        result = functools.reduce(torch.add, products)
    result = result.reshape(x.shape[0], weight.shape[0], *size[-axes:])
    return result if bias is None else result + bias.reshape(-1, *[1] * axes)


def _in_one(kernel: Sequence[int], windows: int) -> bool:
    """Whether windows of so many elements are laid out side by side."""
    return windows <= _MOST_TOGETHER or math.prod(kernel) > _MOST_PLACES


def transposed(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: Sequence[int],
    padding: Sequence[int], output_padding: Sequence[int], groups: int, dilation: Sequence[int],
) -> Tensor:  # fmt: skip
    """What each pixel adds to its window, [N, groups * C * kh * kw, pixels], summed where windows
    overlap."""
    if x.dim() == weight.dim() - 1:
        given = (weight, bias, stride, padding, output_padding, groups, dilation)
        return transposed(x.unsqueeze(0), *given).squeeze(0)
    axes = weight.dim() - 2
    kernel, extents = _two(weight.shape[2:], 1), _two(x.shape[2:], 1)
    steps, apart = _two(_each(stride, axes), 1), _two(_each(dilation, axes), 1)
    pads, extra = _two(_each(padding, axes), 0), _two(_each(output_padding, axes), 0)
    size = tuple(
        (extent - 1) * s - 2 * p + d * (k - 1) + e + 1
        for extent, s, p, d, k, e in zip(extents, steps, pads, apart, kernel, extra, strict=True)
    )
    rows = weight.reshape(1, groups, weight.shape[0] // groups, -1).transpose(2, 3)
    pixels = x.reshape(x.shape[0], groups, -1, math.prod(extents))
    windows = torch.matmul(rows, pixels).reshape(x.shape[0], -1, math.prod(extents))
    result = functional.fold(windows, size, kernel, apart, pads, steps)
    result = result.reshape(*result.shape[:2], *size[-axes:])
    return result if bias is None else result + bias.reshape(-1, *[1] * axes)


def _each(values: Sequence[int], axes: int) -> tuple[int, ...]:
    return tuple(values) * axes if len(values) == 1 else tuple(values)


def _two(values: Sequence[int], first: int) -> tuple[int, int]:
    """The value of each of two axes; a missing one has ``first``."""
    columns = values[-1]
    return (values[0] if len(values) == 2 else first, columns)


def definition_for(node: Node) -> Callable[..., Any] | None:
    """How to compute a convolution with computed weights or bias from operators that XNNPACK has;
    ``None`` for what is no such node, and for images of dynamic size, whose windows are not known,
    or so large that laying their windows out takes too much memory."""
    found = _DEFINITIONS.get(node.target)
    if found is None:
        return None
    named = arguments(node)
    if is_constant(named["weight"]):
        target: Any = node.target
        return functools.partial(_bias_apart, target)
    image, weight, result = (
        layout.shape_of(value.meta["val"]) for value in (named["input"], named["weight"], node)
    )
    axes, groups = len(weight) - 2, named["groups"]
    fixed = layout.is_static((*image[-axes:], *weight)) and isinstance(groups, int)
    if not 1 <= axes <= 2 or not fixed:
        return None
    # Those of a transposed convolution are laid over the result, of fewer places than pixels.
    pixels = max(math.prod(map(int, shape[-axes:])) for shape in (image, result))
    windows = groups * math.prod(map(int, weight[1:])) * pixels
    apart = found is not _plain_transposed and not named.get("transposed")
    together = _in_one(weight[2:], windows) or not apart
    return found if windows <= _MOST_ELEMENTS or not together else None


def _bias_apart(
    target: Callable[..., Tensor], x: Tensor, weight: Tensor, bias: Tensor, *rest: Any, **named: Any
) -> Tensor:
    return target(x, weight, None, *rest, **named) + bias.reshape(-1, *[1] * (weight.dim() - 2))


def _general(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: Sequence[int],
    padding: Sequence[int], dilation: Sequence[int], transpose: bool,
    output_padding: Sequence[int], groups: int,
) -> Tensor:  # fmt: skip
    if transpose:
        given = (stride, padding, output_padding, groups, dilation)
        return transposed(x, weight, bias, *given)
    return convolution(x, weight, bias, stride, padding, dilation, groups)


def _plain(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Sequence[int] = (1,),
    padding: Sequence[int] | str = (0,), dilation: Sequence[int] = (1,), groups: int = 1,
) -> Tensor:  # fmt: skip
    return convolution(x, weight, bias, stride, padding, dilation, groups)


def _plain_transposed(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, stride: Sequence[int] = (1,),
    padding: Sequence[int] = (0,), output_padding: Sequence[int] = (0,), groups: int = 1,
    dilation: Sequence[int] = (1,),
) -> Tensor:  # fmt: skip
    return transposed(x, weight, bias, stride, padding, output_padding, groups, dilation)


_DEFINITIONS: dict[Any, Callable[..., Any]] = {
    aten.conv1d.default: _plain,
    aten.conv2d.default: _plain,
    aten.conv1d.padding: _plain,
    aten.conv2d.padding: _plain,
    aten.conv_transpose1d.default: _plain_transposed,
    aten.conv_transpose2d.input: _plain_transposed,
    aten.convolution.default: _general,
}
