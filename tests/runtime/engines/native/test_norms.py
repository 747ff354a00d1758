"""Layer norms: found in what the compiler makes of them, and run as one."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from native_harness import ISAS, native, nodes_of, xnnpack
from torch import nn

import penstock
from penstock.runtime.engines.native.engine import NativeEngine

VECTOR_ISAS = [isa for isa in ISAS if isa != "scalar"]


class Unread(nn.Module):
    """Something else reads what a norm has in its midst."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        centred = x - x.mean(-1, keepdim=True)
        power = (centred**2).mean(-1, keepdim=True)
        return centred * torch.rsqrt(power + 1e-5), centred


class OfAnother(nn.Module):
    """The mean of something else, and the variance beside another mean."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        centred = x - (x * 2).mean(-1, keepdim=True)
        return centred * torch.rsqrt((centred**2).mean(-1, keepdim=True) + 1e-5)


def lively(norm: nn.LayerNorm) -> nn.LayerNorm:
    with torch.no_grad():
        for parameter in norm.parameters():
            parameter.normal_(1.0, 0.5)
    return norm


CASES = {
    "wide": (lively(nn.LayerNorm(768)), (2, 5, 768), 1),
    "narrow": (lively(nn.LayerNorm(7)), (3, 7), 1),
    "no bias": (lively(nn.LayerNorm(96, bias=False)), (1, 50, 96), 1),
    "plain": (nn.LayerNorm(64, elementwise_affine=False), (4, 64), 1),
    "followed": (nn.Sequential(lively(nn.LayerNorm(24)), nn.ReLU()), (6, 24), None),
    "two": (nn.Sequential(lively(nn.LayerNorm(40)), lively(nn.LayerNorm(40))), (6, 40), 2),
    "over two dimensions": (lively(nn.LayerNorm((4, 6))), (3, 4, 6), None),
    "read inside": (Unread(), (3, 64), 0),
    "of something else": (OfAnother(), (3, 64), 0),
}


@pytest.mark.parametrize("name", CASES)
def test_layer_norms(name: str) -> None:
    model, shape, wanted = CASES[name]
    torch.manual_seed(0)
    x = torch.randn(shape) * 3 + 5
    data = penstock.lower(model.eval(), (x,)).to_bytes()
    found = model(x)
    expected = [y.detach().numpy() for y in (found if isinstance(found, tuple) else (found,))]
    for isa in VECTOR_ISAS:
        program = penstock.load(data, threads=1, engine=[native(isa), xnnpack()])
        for y, z in zip(program(x.numpy()), expected, strict=True):
            np.testing.assert_allclose(y, z, rtol=1e-4, atol=2e-5)
    if VECTOR_ISAS and wanted is not None:
        assert nodes_of("f32_norm", data, [x.numpy()]) == wanted


def test_sizes_that_vary() -> None:
    batch = torch.export.Dim("batch", max=40)
    norm = lively(nn.LayerNorm(72))
    lowered = penstock.lower(norm.eval(), (torch.randn(8, 72),), dynamic_shapes=({0: batch},))
    program = penstock.load(lowered.to_bytes(), threads=2, engine="native")
    for rows in (1, 40, 3):
        x = torch.randn(rows, 72)
        expected = norm(x).detach().numpy()
        np.testing.assert_allclose(program(x.numpy())[0], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("scheme", ["static", "dynamic"])
def test_int8_keeps_its_bits(scheme: str) -> None:
    """What a norm rounds otherwise would show in int8."""
    model = nn.Sequential(lively(nn.LayerNorm(512)), nn.Linear(512, 256), nn.LayerNorm(256))
    x = torch.randn(100, 512)
    data = penstock.lower(model.eval(), (x,), quantize=scheme).to_bytes()
    found = [
        penstock.load(data, threads=1, engine=[engine, xnnpack()])(x.numpy())[0]
        for engine in (NativeEngine(), xnnpack())
    ]
    np.testing.assert_array_equal(*found)
