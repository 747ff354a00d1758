"""Weights of int8 with scales along another dimension than the output channels.

ExecuTorch's quantizer makes them, for training, of transposed convolutions. XNNPACK has no such
scales, so the weights become floats of the same values.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.ao.quantization.fx import _decomposed  # noqa: F401  registers the operators

import penstock

q = torch.ops.quantized_decomposed
INT8 = (-128, 127, torch.int8)
STEP = 0.05
#: Of the result.
COARSE = 0.5

#: Name, shape of the weight, shape of the input, the product.
PRODUCTS: list[tuple[str, tuple[int, ...], tuple[int, ...], Any]] = [
    ("linear", (4, 6), (2, 6), nn.functional.linear),
    ("linear, square", (6, 6), (2, 6), nn.functional.linear),
    ("convolution", (4, 6, 3, 3), (1, 6, 5, 5), nn.functional.conv2d),
    ("convolution, square", (6, 6, 3, 3), (1, 6, 5, 5), nn.functional.conv2d),
    ("of one dimension", (4, 6, 3), (1, 6, 5), nn.functional.conv1d),
    ("transposed", (6, 4, 3, 3), (1, 6, 4, 4), nn.functional.conv_transpose2d),
    ("transposed, square", (6, 6, 3, 3), (1, 6, 4, 4), nn.functional.conv_transpose2d),
    ("transposed, of one dimension", (6, 4, 3), (1, 6, 4), nn.functional.conv_transpose1d),
]


class Weighted(nn.Module):
    """A product with an int8 weight, its scales along ``axis``, its input int8 as ``mode`` says."""

    def __init__(self, product: Any, shape: tuple[int, ...], axis: int, mode: str) -> None:
        super().__init__()
        self.product, self.axis, self.mode = product, axis, mode
        transposed = product in (nn.functional.conv_transpose1d, nn.functional.conv_transpose2d)
        self.register_buffer("weight", torch.randint(-127, 128, shape, dtype=torch.int8))
        self.register_buffer("scales", torch.rand(shape[axis]) / 50 + 1e-3)
        self.register_buffer("zeros", torch.zeros(shape[axis], dtype=torch.int64))
        self.register_buffer("bias", torch.randn(shape[int(transposed)]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.mode == "dynamic":
            scale, zero = q.choose_qparams.tensor(x, *INT8[:2], 1e-5, torch.int8)
            small = q.quantize_per_tensor.tensor(x, scale, zero, *INT8)
            x = q.dequantize_per_tensor.tensor(small, scale, zero, *INT8)
        if self.mode == "static":
            x = _rounded(x, STEP)
        weight = q.dequantize_per_channel.default(
            self.weight, self.scales, self.zeros, self.axis, *INT8
        )
        result: torch.Tensor = self.product(x, weight, self.bias)
        return _rounded(result, COARSE) if self.mode == "static" else result


def _rounded(x: torch.Tensor, step: float) -> torch.Tensor:
    small = q.quantize_per_tensor.default(x, step, 0, *INT8)
    rounded: torch.Tensor = q.dequantize_per_tensor.default(small, step, 0, *INT8)
    return rounded


@pytest.mark.parametrize("mode", ["static", "dynamic", "weight only"])
@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize(
    "shape,size,product",
    [row[1:] for row in PRODUCTS],
    ids=[row[0] for row in PRODUCTS],
)
def test_scales_along_either_axis(
    shape: tuple[int, ...], size: tuple[int, ...], product: Any, axis: int, mode: str
) -> None:
    torch.manual_seed(0)
    model, x = Weighted(product, shape, axis, mode).eval(), torch.randn(size)
    expected = model(x)
    lowered = penstock.lower(model, (x,))
    assert not lowered.delegation.undelegated
    (found,) = penstock.load(lowered.to_bytes(), threads=1)(x)
    # One step where the result is rounded. Rounded at run time, in XNNPACK's own way, each value of
    # the input may be half a step off.
    tolerance = {"static": COARSE + 1e-4, "dynamic": 0.03 * float(expected.abs().max())}
    assert abs(found - expected.numpy()).max() <= tolerance.get(mode, 1e-4)
