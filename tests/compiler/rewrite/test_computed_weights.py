"""Convolutions with weights that are computed: by a network, out of styles, out of a template."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import penstock
from penstock.tools.bench.workers import Worker

Function = Callable[..., Tensor]


class Of(nn.Module):
    def __init__(self, function: Function) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.function(*inputs)


class Modulated(nn.Module):
    """A weight for each picture of the batch, which are groups of one convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.style = nn.Parameter(torch.randn(6, 4, 3, 3)), nn.Linear(5, 4)

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        weight = self.weight * self.style(style).view(batch, 1, channels, 1, 1)
        weight = weight * torch.rsqrt(weight.square().sum((2, 3, 4), keepdim=True) + 1e-8)
        flat = x.reshape(1, batch * channels, height, width)
        y = F.conv2d(flat, weight.flatten(0, 1), padding=1, groups=batch)
        return y.view(batch, 6, height, width)


CASES: dict[str, tuple[Function | nn.Module, list[tuple[int, ...]]]] = {
    "all arguments": (
        lambda x, w, b: F.conv2d(x, w, b, (2, 1), (1, 2), (1, 2)),
        [(2, 4, 9, 10), (6, 4, 3, 3), (6,)],
    ),
    "many windows": (
        lambda x, w, b: F.conv2d(x, w, b, (2, 1), (1, 2), (1, 2), 2),
        [(1, 16, 160, 130), (6, 8, 3, 3), (6,)],
    ),
    "1x1": (lambda x, w: F.conv2d(x, w), [(2, 4, 9, 10), (6, 4, 1, 1)]),
    "1x1, every second": (lambda x, w: F.conv2d(x, w, stride=2), [(2, 4, 9, 10), (6, 4, 1, 1)]),
    "groups": (
        lambda x, w: F.conv2d(x, w, padding=2, dilation=2, groups=2),
        [(2, 4, 9, 10), (6, 2, 3, 3)],
    ),
    "depthwise, same": (
        lambda x, w: F.conv2d(x, w, padding="same", groups=4),
        [(2, 4, 9, 10), (4, 1, 4, 3)],
    ),
    "one axis": (
        lambda x, w, b: F.conv1d(x, w, b, stride=2, padding=1, dilation=2),
        [(2, 4, 19), (6, 4, 3), (6,)],
    ),
    "no batch": (lambda x, w: F.conv1d(x, w, padding=1), [(4, 19), (6, 4, 3)]),
    "transposed": (
        lambda x, w, b: F.conv_transpose2d(x, w, b, 2, 1, output_padding=1, dilation=2),
        [(2, 4, 5, 6), (4, 3, 3, 3), (3,)],
    ),
    "transposed, groups, one axis": (
        lambda x, w: F.conv_transpose1d(x, w, stride=3, padding=1, groups=2),
        [(2, 4, 7), (4, 3, 4)],
    ),
    "transposed, no batch": (
        lambda x, w: F.conv_transpose2d(x, w),
        [(4, 5, 6), (4, 3, 3, 2)],
    ),
    "a template": (lambda x, z: F.conv2d(x, z), [(1, 8, 12, 12), (1, 8, 4, 4)]),
    "modulated": (Modulated(), [(3, 4, 7, 8), (3, 5)]),
}


@pytest.mark.parametrize("name", CASES)
def test_one_delegate(name: str) -> None:
    function, shapes = CASES[name]
    model = (function if isinstance(function, nn.Module) else Of(function)).eval()
    inputs = tuple(map(torch.randn, shapes))
    lowered = penstock.lower(model, inputs)
    assert len(lowered.delegation.subgraphs) == 1 and not lowered.delegation.undelegated
    for engine in ("xnnpack", "native"):
        (found,) = penstock.load(lowered.to_bytes(), engine=engine)(*inputs)
        torch.testing.assert_close(
            torch.from_numpy(found), model(*inputs), rtol=1e-4, atol=1e-4, check_stride=False
        )


class OwnBias(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(6, 3, 3, 3)), nn.Linear(4, 6)

    def forward(self, x: Tensor, z: Tensor) -> Tensor:
        return F.conv2d(x, self.weight, self.bias(z), padding=1)


@pytest.mark.parametrize("quantize", [None, "static", "dynamic"])
def test_a_computed_bias(quantize: str | None) -> None:
    torch.manual_seed(0)
    model, inputs = OwnBias().eval(), (torch.randn(2, 3, 8, 8), torch.randn(4))
    lowered = penstock.lower(model, inputs, quantize=quantize)
    assert len(lowered.delegation.subgraphs) == 1 and not lowered.delegation.undelegated
    if lowered.quantization is not None:
        quantized = {layer.operator for layer in lowered.quantization.quantized}
        assert "general convolution" in quantized
    (found,) = penstock.load(lowered.to_bytes())(*inputs)
    expected = model(*inputs).detach()
    # Int8 has 127 steps up to the largest value; the sum and what goes into it are rounded.
    tolerance = 1e-4 if quantize is None else 3 * float(expected.abs().max()) / 127
    torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-4, atol=tolerance)


def test_dynamic_batch_and_size() -> None:
    """Pictures of dynamic size stay with the kernel, a dynamic batch does not."""
    sizes = torch.export.Dim("n", min=1, max=9)
    model = Of(lambda x, w: F.conv2d(x, w, padding=1)).eval()
    weight = torch.randn(6, 3, 3, 3)
    for dim, outside in ((0, 0), (2, 1)):
        x = torch.randn(4, 3, 4, 4)
        dynamic: Any = {"inputs": ({dim: sizes}, None)}
        lowered = penstock.lower(model, (x, weight), dynamic_shapes=dynamic)
        assert len(lowered.delegation.undelegated) == outside
        for size in (1, 9):
            given = x.repeat_interleave(3, dim).narrow(dim, 0, size).contiguous()
            (found,) = penstock.load(lowered.to_bytes())(given, weight)
            np.testing.assert_allclose(found, model(given, weight).numpy(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["modulated", "transposed", "many windows"])
def test_on_the_stock_runtime(name: str, tmp_path: Path) -> None:
    pytest.importorskip("executorch")
    function, shapes = CASES[name]
    model = (function if isinstance(function, nn.Module) else Of(function)).eval()
    inputs = [np.random.default_rng(0).standard_normal(shape, np.float32) for shape in shapes]
    penstock.lower(model, tuple(map(torch.from_numpy, inputs))).save(tmp_path / "model.pte")
    np.savez(tmp_path / "inputs.npz", *inputs)
    with Worker("executorch", 1) as stock:
        stock.load("model", tmp_path / "model.pte", tmp_path / "inputs.npz")
        (expected,) = stock.outputs("model")
    (found,) = penstock.load(tmp_path / "model.pte", engine="xnnpack", threads=1)(*inputs)
    np.testing.assert_array_equal(found, expected)
