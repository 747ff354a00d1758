"""Resizing and adaptive pooling of any sizes: small, and local."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from operator_harness import assert_close, captured_graph, one_piece, run_graph
from torch.nn import functional as F

from penstock.compiler.delegate.lowering import axis_windows
from penstock.compiler.delegate.lowering.axis_windows import Windows, probed, segments, taps

AXIS = torch.ops.aten.upsample_linear1d.default


def matrix(windows: Windows, old: int) -> np.ndarray:
    result = np.zeros((len(windows), old), np.float32)
    for row, start, length, weights in zip(
        result, windows.starts, windows.lengths, windows.weights, strict=True
    ):
        row[start : start + length] = weights[:length]
    return result


def cubic(lines: torch.Tensor, new: int, antialias: bool) -> torch.Tensor:
    size = (1, new)
    picture = lines.unsqueeze(2)
    return F.interpolate(picture, size=size, mode="bicubic", antialias=antialias).squeeze(2)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(1, 90), st.integers(1, 90), st.booleans())
def test_probed_windows_are_the_operator(old: int, new: int, antialias: bool) -> None:
    reach = 3 + int(np.ceil(2 * max(1.0, old / new)))
    windows = probed(lambda lines: cubic(lines, new, antialias), old, new, reach)
    wanted = cubic(torch.eye(old).unsqueeze(0), new, antialias)[0].T.numpy()
    np.testing.assert_allclose(matrix(windows, old), wanted, atol=3e-7)
    places, weights = taps(windows)
    again = np.zeros_like(wanted)
    np.add.at(again, (np.arange(new)[:, None], places), weights)
    np.testing.assert_allclose(again, wanted, atol=3e-7)
    assert (weights[windows.lengths[:, None] <= np.arange(windows.longest)] != 0).all()
    rebuilt = np.zeros_like(wanted)
    for found in segments(windows, new) or []:
        for i in range(found.period * found.count):
            like = found.first + i % found.period
            start = windows.starts[like] + i // found.period * found.step
            length = windows.lengths[like]
            rebuilt[found.first + i, start : start + length] = windows.weights[like, :length]
    np.testing.assert_allclose(rebuilt, wanted, atol=5e-6)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(1, 5000), st.integers(1, 5000))
def test_windows_of_adaptive_pooling_are_few_segments(size: int, count: int) -> None:
    places = np.arange(count, dtype=np.int64)
    spans = np.stack([places * size // count, -(-(places + 1) * size // count)], 1)
    windows = axis_windows.averages(spans)
    found = segments(windows, count)
    assert found is not None
    assert sum(one.period * one.count for one in found) == count


Program = Callable[[torch.Tensor], torch.Tensor]
SIZES: dict[str, tuple[Program, tuple[int, ...], int]] = {
    "bicubic": (
        lambda x: F.interpolate(x, scale_factor=2, mode="bicubic"), (1, 3, 40, 50), 20_000,
    ),
    "bicubic by a fraction": (
        lambda x: F.interpolate(x, size=(75, 31), mode="bicubic"), (1, 3, 56, 40), 60_000,
    ),
    "bicubic of a line": (
        lambda x: F.interpolate(x, size=(1, 1511), mode="bicubic"), (1, 1, 1, 997), 40_000,
    ),
    "antialiased": (
        lambda x: F.interpolate(x, size=(56, 40), mode="bilinear", antialias=True),
        (1, 3, 125, 90), 60_000,
    ),
    "bilinear by a scale": (
        lambda x: F.interpolate(x, scale_factor=1.3, mode="bilinear"), (1, 2, 33, 33), 40_000,
    ),
    "linear of a long line": (
        lambda x: F.interpolate(x, size=6001, mode="linear"), (1, 2, 4000), 60_000,
    ),
    "uneven averages": (lambda x: F.adaptive_avg_pool2d(x, (6, 7)), (1, 8, 65, 41), 1_000),
    "uneven averages of a line": (
        lambda x: F.adaptive_avg_pool1d(x, 1999), (1, 2, 4000), 1_000,
    ),
    "uneven averages of all kinds": (
        lambda x: F.adaptive_avg_pool1d(x, 617), (1, 2, 1000), 10_000,
    ),
    "uneven maxima": (lambda x: F.adaptive_max_pool2d(x, (6, 7)), (1, 8, 65, 41), 1_000),
    "uneven maxima of all kinds": (
        lambda x: F.adaptive_max_pool1d(x, 617), (1, 2, 1000), 1_000,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SIZES)
def test_constants_are_few_and_an_infinity_stays_in_its_windows(name: str) -> None:
    """Where eager PyTorch is finite, so is the answer, and the same. (At the borders of a cubic
    eager has NaN where one infinity is met twice.)"""
    function, shape, most = SIZES[name]
    x = torch.randn(shape)
    lowered = one_piece(captured_graph(function, [x]))
    assert sum(v.data.nbytes for v in lowered.graph.values if v.data is not None) <= most
    assert len(lowered.graph.nodes) <= 800
    for special in (None, torch.inf, -torch.inf, torch.nan):
        if special is not None:
            x[..., shape[-1] // 2] = special
            x[..., 2] = special
        (found,) = run_graph(lowered.graph, [x.numpy()])
        wanted = function(x).numpy()
        finite = np.isfinite(wanted)
        assert finite.any()
        assert_close(found[finite], wanted[finite], 1e-5)
        assert finite.all() or not np.isfinite(found[~finite]).all()
