"""Layer norms: found in what the compiler makes of them, and run as one."""

from __future__ import annotations

import ctypes

import numpy as np
import pytest
import torch
from native_harness import (
    ARM,
    ISAS,
    THREADS,
    guarded,
    native,
    nodes_of,
    numbers,
    xnnpack,
)
from torch import nn

import penstock
from penstock.runtime.blocks import address
from penstock.runtime.engines.native import norms
from penstock.runtime.engines.native.engine import NativeEngine
from penstock.runtime.engines.native.families import bind_families
from penstock.runtime.engines.native.library import open_library, shared_library
from penstock.runtime.engines.native.norms_bits import has_the_same_bits
from penstock.runtime.engines.native.plan import pool_of

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
@pytest.mark.parametrize(
    ("rows", "channels"),
    [(100, 512), (197, 768), (3136, 96), (784, 192), (11, 48), (5, 37), (1, 8)],
)
def test_int8_keeps_its_bits(scheme: str, rows: int, channels: int) -> None:
    """What a norm rounds otherwise would show in int8: XNNPACK's own order of operations does not,
    with means by pooling in one or two passes or without, and of half the rows in a call."""
    torch.manual_seed(1)
    first, second = lively(nn.LayerNorm(channels)), nn.LayerNorm(32, elementwise_affine=False)
    model = nn.Sequential(first, nn.Linear(channels, 32), second, nn.Linear(32, 20))
    x = torch.randn(rows, channels) * 3 + 1
    batch = torch.export.Dim("batch", max=rows)
    sizes = ({0: batch},) if rows > 1 else None
    lowered = penstock.lower(
        model.eval(), (x,), quantize=scheme, calibration=[(x,)], dynamic_shapes=sizes
    )
    data = lowered.to_bytes()
    for given in (x, x[: (rows + 1) // 2]):
        found = [
            penstock.load(data, threads=2, engine=[engine, xnnpack()])(given.numpy())[0]
            for engine in (NativeEngine(), xnnpack())
        ]
        np.testing.assert_array_equal(*found)
    if has_the_same_bits(shared_library()) and scheme == "dynamic":
        assert nodes_of("f32_layer_norm", data, [x.numpy()]) == 2


@pytest.mark.skipif(ARM or not VECTOR_ISAS, reason="XNNPACK's inverse root is another one there")
def test_the_highest_instruction_set_has_the_same_bits() -> None:
    assert has_the_same_bits(shared_library())


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("affine", ["", "weight", "bias", "weight bias"])
def test_exact_norms_of_every_size(isa: str, affine: str) -> None:
    library = open_library(shared_library().path, isa)
    bind_families(library)
    pool = pool_of(THREADS[2])
    for parts, width in (
        (1, 1),
        (1, 15),
        (1, 130),
        (2, 16),
        (3, 20),
        (8, 7),
        (9, 16),
        (10, 33),
        (28, 64),
    ):
        rows, channels = 3 * width % 19 + 1, parts * width
        x, weight, bias = (
            numbers((rows, channels), width),
            *(numbers((channels,), n) for n in (1, 2)),
        )
        means = norms.CMean(parts, width, 1 / width), norms.CMean(1, channels, 1 / channels)
        if channels > 512:
            means = means[0], means[0]
        with guarded([x, weight, bias, np.zeros_like(x)]) as (gx, gw, gb, output):
            task = norms.CTask(
                int(library.isa), 1e-3, rows, channels, *means,
                address(gw) if "weight" in affine else None,
                address(gb) if "bias" in affine else None, address(gx), address(output),
            )  # fmt: skip
            library.functions.pk_f32_layer_norm_run(ctypes.byref(task), ctypes.byref(pool))
            wide = x.astype(np.float64)
            centred = wide - wide.mean(-1, keepdims=True)
            wanted = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-3)
            wanted = wanted * (weight if "weight" in affine else 1)
            wanted = wanted + (bias if "bias" in affine else 0)
            np.testing.assert_allclose(output, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("isa", VECTOR_ISAS)
def test_rows_without_numbers(isa: str) -> None:
    """A row with NaN or infinity, which int8 cannot hold, leaves the other rows alone."""
    x = np.random.default_rng(0).standard_normal((20, 96), np.float32)
    x[3, 5], x[9, 0], x[17] = np.nan, np.inf, -np.inf
    torch.manual_seed(0)
    model = nn.Sequential(lively(nn.LayerNorm(96)), nn.Linear(96, 8)).eval()
    data = penstock.lower(model, (torch.from_numpy(x),), quantize="dynamic").to_bytes()
    (theirs,) = penstock.load(data, threads=1, engine=[xnnpack()])(x)
    (found,) = penstock.load(data, threads=1, engine=[native(isa), xnnpack()])(x)
    rest = [i for i in range(20) if i not in (3, 9, 17)]
    np.testing.assert_allclose(found[rest], theirs[rest], rtol=0.05, atol=0.05)
