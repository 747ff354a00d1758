"""NumPy references for XNNPACK's nodes, in float64; images are NHWC."""

from __future__ import annotations

import math

import numpy as np

from penstock.graph.kinds import Conv2dAttributes, NodeKind, Pool2dAttributes

_erf = np.vectorize(math.erf)

UNARY = {
    NodeKind.ABS: np.abs,
    NodeKind.CEILING: np.ceil,
    NodeKind.COPY: lambda x: x,
    NodeKind.COS: np.cos,
    NodeKind.EXP: np.exp,
    NodeKind.FLOOR: np.floor,
    NodeKind.GELU: lambda x: 0.5 * x * (1 + _erf(x / math.sqrt(2))),
    NodeKind.HARDSWISH: lambda x: x * np.clip(x + 3, 0, 6) / 6,
    NodeKind.LOG: np.log,
    NodeKind.NEGATE: np.negative,
    NodeKind.RECIPROCAL_SQUARE_ROOT: lambda x: 1 / np.sqrt(x),
    NodeKind.SIGMOID: lambda x: 1 / (1 + np.exp(-x)),
    NodeKind.SIN: np.sin,
    NodeKind.SQUARE: np.square,
    NodeKind.SQUARE_ROOT: np.sqrt,
    NodeKind.TANH: np.tanh,
}
POSITIVE = {NodeKind.LOG, NodeKind.RECIPROCAL_SQUARE_ROOT, NodeKind.SQUARE_ROOT}
BINARY = {
    NodeKind.ADD: np.add,
    NodeKind.SUBTRACT: np.subtract,
    NodeKind.MULTIPLY: np.multiply,
    NodeKind.DIV: np.divide,
    NodeKind.MINIMUM: np.minimum,
    NodeKind.MAXIMUM: np.maximum,
    NodeKind.PRELU: lambda x, slope: np.where(x < 0, x * slope, x),
}


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def patches(image: np.ndarray, a: Conv2dAttributes | Pool2dAttributes, fill: float) -> np.ndarray:
    """[batch, out height, out width, kernel height, kernel width, channels]."""
    top, right, bottom, left = a.padding
    padded = np.pad(image, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=fill)
    extent = [(k - 1) * d + 1 for k, d in zip(a.kernel, a.dilation, strict=True)]
    windows = np.lib.stride_tricks.sliding_window_view(padded, extent, (1, 2))
    windows = windows[:, :: a.stride[0], :: a.stride[1], :, :: a.dilation[0], :: a.dilation[1]]
    return np.moveaxis(windows, 3, 5)


def convolution(image: np.ndarray, weights: np.ndarray, a: Conv2dAttributes) -> np.ndarray:
    """``weights``: [groups * outputs, kernel height, kernel width, inputs per group]."""
    split = patches(image, a, 0.0)
    split = split.reshape(*split.shape[:5], a.groups, a.group_input_channels)
    grouped = weights.reshape(a.groups, a.group_output_channels, *weights.shape[1:])
    result = np.einsum("nhwklgi,gokli->nhwgo", split, grouped)
    return result.reshape(*result.shape[:3], -1)


def depthwise_convolution(
    image: np.ndarray, weights: np.ndarray, a: Conv2dAttributes
) -> np.ndarray:
    """``weights``: [1, kernel height, kernel width, channels * multiplier]."""
    split = patches(image, a, 0.0)
    kernel = weights[0].reshape(*a.kernel, a.groups, -1)
    result = np.einsum("nhwklc,klcm->nhwcm", split, kernel)
    return result.reshape(*result.shape[:3], -1)


def transposed_convolution(
    image: np.ndarray, weights: np.ndarray, a: Conv2dAttributes
) -> np.ndarray:
    n, height, width, _ = image.shape
    top, right, bottom, left = a.padding
    sizes = [
        (size - 1) * s + (k - 1) * d + 1 + adjustment
        for size, s, k, d, adjustment in zip(
            (height, width), a.stride, a.kernel, a.dilation, a.adjustment, strict=True
        )
    ]
    result = np.zeros((n, *sizes, a.groups, a.group_output_channels))
    split = image.reshape(n, height, width, a.groups, a.group_input_channels)
    kernel = weights.reshape(a.groups, a.group_output_channels, *weights.shape[1:])
    for y in range(height):
        for x in range(width):
            for k in range(a.kernel[0]):
                for m in range(a.kernel[1]):
                    result[:, y * a.stride[0] + k * a.dilation[0],
                           x * a.stride[1] + m * a.dilation[1]] += np.einsum(
                        "ngi,goi->ngo", split[:, y, x], kernel[:, :, k, m]
                    )  # fmt: skip
    cropped = result[:, top : sizes[0] - bottom, left : sizes[1] - right]
    return cropped.reshape(*cropped.shape[:3], -1)


def max_pooling(image: np.ndarray, a: Pool2dAttributes) -> np.ndarray:
    return patches(image, a, -np.inf).max((3, 4))


def average_pooling(image: np.ndarray, a: Pool2dAttributes) -> np.ndarray:
    """Padding does not count."""
    total = patches(image, a, 0.0).sum((3, 4))
    return total / patches(np.ones_like(image), a, 0.0).sum((3, 4))


def resize_bilinear(image: np.ndarray, height: int, width: int, align_corners: bool) -> np.ndarray:
    def coordinates(old: int, new: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        if align_corners:
            at = np.arange(new) * ((old - 1) / (new - 1) if new > 1 else 0.0)
        else:
            at = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, None)
        low = np.minimum(np.floor(at).astype(int), old - 1)
        return low, np.minimum(low + 1, old - 1), at - low

    top, bottom, dy = coordinates(image.shape[1], height)
    left, right, dx = coordinates(image.shape[2], width)
    dy, dx = dy[:, None, None], dx[:, None]
    upper = image[:, top][:, :, left] * (1 - dx) + image[:, top][:, :, right] * dx
    lower = image[:, bottom][:, :, left] * (1 - dx) + image[:, bottom][:, :, right] * dx
    return upper * (1 - dy) + lower * dy
