"""Instance and group norms: found in what the compiler makes of them, and run as one."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
import torch
from native_harness import ISAS, guarded, native, nodes_of, xnnpack
from torch import nn

import penstock
from penstock.runtime.blocks import address
from penstock.runtime.engines.native.engine import NativeEngine
from penstock.runtime.engines.native.group_norms import CGroupNorm

VECTOR_ISAS = [isa for isa in ISAS if isa != "scalar"]


def lively(*layers: nn.Module) -> nn.Module:
    with torch.no_grad():
        for layer in layers:
            for parameter in layer.parameters():
                parameter.normal_(1.0, 0.5)
    return nn.Sequential(*layers)


class Unread(nn.Module):
    """Something else reads what a norm has in its midst."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        centred = x - x.mean((2, 3), keepdim=True)
        power = (centred**2).mean((2, 3), keepdim=True)
        return centred * torch.rsqrt(power + 1e-5), centred


class Mixed(nn.Module):
    """The mean over all places, the variance over those of a line."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        centred = x - x.mean((2, 3), keepdim=True)
        return centred * torch.rsqrt((centred**2).mean(3, keepdim=True) + 1e-5)


IMAGE = nn.Conv2d(3, 32, 3)
LINE = nn.Conv1d(4, 48, 3)
CASES = {
    "instance": (lively(IMAGE, nn.InstanceNorm2d(32, affine=True)), (1, 3, 20, 31), 1),
    "plain": (lively(IMAGE, nn.InstanceNorm2d(32)), (2, 3, 9, 7), 1),
    "followed": (lively(IMAGE, nn.InstanceNorm2d(32, affine=True), nn.ReLU()), (1, 3, 64, 64), 1),
    "groups": (lively(IMAGE, nn.GroupNorm(8, 32), nn.SiLU()), (3, 3, 12, 13), 1),
    "one group": (lively(IMAGE, nn.GroupNorm(1, 32)), (2, 3, 40, 50), 1),
    "line": (lively(LINE, nn.GroupNorm(6, 48), nn.ReLU()), (2, 4, 333), 1),
    "line, one group": (lively(LINE, nn.GroupNorm(1, 48), nn.Conv1d(48, 3, 1)), (1, 4, 999), 1),
    "tail": (lively(nn.Conv2d(3, 39, 1), nn.GroupNorm(3, 39)), (2, 3, 11, 5), 1),
    "few channels": (lively(nn.Conv2d(3, 6, 1), nn.GroupNorm(3, 6)), (2, 3, 11, 5), 0),
    "read inside": (nn.Sequential(IMAGE, Unread()), (1, 3, 9, 9), 0),
    "mixed": (nn.Sequential(IMAGE, Mixed()), (1, 3, 9, 9), 0),
}


@pytest.mark.parametrize("name", CASES)
def test_beside_eager(name: str) -> None:
    model, shape, wanted = CASES[name]
    torch.manual_seed(0)
    x = torch.randn(shape) * 3 + 5
    data = penstock.lower(model.eval(), (x,)).to_bytes()
    found = model(x)
    expected = [y.detach().numpy() for y in (found if isinstance(found, tuple) else (found,))]
    for isa in VECTOR_ISAS:
        for threads in (1, 2):
            program = penstock.load(data, threads=threads, engine=[native(isa), xnnpack()])
            for y, z in zip(program(x.numpy()), expected, strict=True):
                np.testing.assert_allclose(y, z, rtol=0, atol=1e-5 * float(np.abs(z).max()))
    if VECTOR_ISAS:
        assert nodes_of("f32_group_norm", data, [x.numpy()]) == wanted


@pytest.mark.parametrize("isa", ISAS)
def test_places_far_from_zero(isa: str) -> None:
    """In the kernel, between protected pages: what lies beside a large mean is not lost."""
    rng = np.random.default_rng(0)
    library = native(isa).library
    for images, places, channels, groups in ((2, 700, 33, 11), (1, 5000, 16, 16), (3, 1, 40, 2)):
        x = rng.standard_normal((images, places, channels)).astype(np.float32) + 3000
        scale, shift = (rng.standard_normal(channels).astype(np.float32) for _ in range(2))
        split = x.astype(np.float64).reshape(images, places, groups, -1)
        mean = split.mean((1, 3), keepdims=True)
        normal = (split - mean) / np.sqrt(split.var((1, 3), keepdims=True) + 1e-5)
        expected = np.clip(normal.reshape(x.shape) * scale + shift, -2, 2)
        with guarded([x, scale, shift, np.full_like(x, np.nan)]) as (source, a, b, out):
            task = CGroupNorm(
                int(library.isa), 1e-5, -2, 2, images, places, channels, groups,
                address(a), address(b), address(source), address(out),
            )  # fmt: skip
            size = library.functions.pk_f32_group_norm_scratch_size(ctypes.byref(task))
            with guarded([np.zeros(size // 4, np.float32)]) as (scratch,):
                task.scratch = address(scratch)
                library.functions.pk_f32_group_norm_run(ctypes.addressof(task), None)
                np.testing.assert_allclose(out, expected, atol=3e-3)


def test_int8_keeps_its_bits() -> None:
    """What a norm rounds otherwise would show in int8."""
    model = lively(IMAGE, nn.GroupNorm(8, 32), nn.Conv2d(32, 16, 3), nn.InstanceNorm2d(16))
    x = torch.randn(1, 3, 24, 24)
    data = penstock.lower(model.eval(), (x,), quantize="static").to_bytes()
    found = [
        penstock.load(data, threads=1, engine=[engine, xnnpack()])(x.numpy())[0]
        for engine in (NativeEngine(), xnnpack())
    ]
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("layer", [nn.InstanceNorm2d(8, affine=True), nn.GroupNorm(4, 8)])
def test_a_width_that_varies(layer: nn.Module) -> None:
    """Of one image whose channels come first, the last dimension is its width: it may vary."""
    width = torch.export.Dim("width", min=2, max=40)
    model, x = lively(layer).eval(), torch.randn(1, 8, 6, 19)
    data = penstock.lower(model, (x,), dynamic_shapes=({3: width},)).to_bytes()
    for engine in ("auto", "native"):
        program = penstock.load(data, threads=1, engine=engine)
        for size in (2, 5, 19, 33, 40):
            y = torch.randn(1, 8, 6, size)
            (found,) = program(y.numpy())
            np.testing.assert_allclose(found, model(y).detach().numpy(), rtol=2e-4, atol=2e-5)
