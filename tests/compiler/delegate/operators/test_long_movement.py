"""Movement of long dimensions is exact, small, and leaves infinities and NaN where they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from operator_harness import assert_close, captured_graph, one_piece, run_graph
from torch.nn import functional as F

LONG = (torch.arange(4000) * 7) % 3989

MOVES: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], tuple[int, ...]]] = {
    "flip": (lambda x: x.flip(-1), (2, 4000)),
    "flip of a prime number": (lambda x: x.flip(1), (1, 3989)),
    "flip of rows": (lambda x: x.flip(0), (997, 24)),
    "flip in six dimensions": (lambda x: x.flip(4), (1, 2, 1, 2, 500, 3)),
    "index in six dimensions": (
        lambda x: x[:, :, :, :, torch.arange(499, -1, -1) ^ 1],
        (1, 2, 1, 2, 500, 3),
    ),
    "flip of a picture": (lambda x: x.flip(2, 3), (1, 3, 224, 300)),
    "flip of a signal": (lambda x: x.flip(-1), (1, 48_000)),
    "reflect": (lambda x: F.pad(x, (200, 200), mode="reflect"), (1, 16_000)),
    "reflect by most": (lambda x: F.pad(x, (998, 999), mode="reflect"), (2, 3, 1000)),
    "replicate": (lambda x: F.pad(x, (700, 900), mode="replicate"), (1, 2, 4000)),
    "circular": (lambda x: F.pad(x, (700, 900), mode="circular"), (1, 2, 4000)),
    "index by steps that wrap": (lambda x: x[:, LONG], (2, 4000)),
    "index backwards in pairs": (lambda x: x[:, torch.arange(3999, -1, -1) ^ 1], (2, 4000)),
    "every third": (lambda x: x[:, 1::3], (2, 4000)),
    "repeated": (lambda x: x.repeat_interleave(300, 1), (2, 40)),
    "nearest by three halves": (lambda x: F.interpolate(x, size=6000), (1, 2, 4000)),
    "nearest by a fraction": (lambda x: F.interpolate(x, size=1511), (1, 2, 997)),
    "unfold": (lambda x: x.unfold(-1, 400, 160), (1, 16_000)),
    "unfold by single steps": (lambda x: x.unfold(-1, 7, 1), (2, 2000)),
    "windows of a picture": (lambda x: F.unfold(x, (20, 30), stride=(10, 7)), (1, 2, 100, 120)),
    "expanded": (lambda x: x.expand(2, 3, 1000, 70).reshape(6, 70_000), (1, 3, 1, 70)),
    "rolled": (lambda x: x.roll(1234, -1), (2, 4000)),
}


def with_specials(shape: tuple[int, ...]) -> torch.Tensor:
    """Random numbers, a few infinities, zeros and not-a-numbers among them."""
    x = torch.randn(shape)
    flat = x.view(-1)
    flat[:: flat.numel() // 5] = torch.inf
    flat[3 :: flat.numel() // 4] = torch.nan
    flat[5 :: flat.numel() // 4] = -0.0
    return x


FOLDS: dict[str, tuple[tuple[int, int], tuple[int, int], dict[str, Any]]] = {
    "a signal": ((1, 15_920), (1, 400), {"stride": (1, 160)}),
    "a picture": ((64, 66), (8, 6), {"stride": (4, 3)}),
    "with padding": ((31, 33), (5, 3), {"stride": 2, "padding": (2, 1)}),
    "more padding than window": ((20, 20), (2, 3), {"padding": (1, 2), "stride": (1, 4)}),
    "with a dilation": ((32, 32), (3, 2), {"dilation": (2, 3), "stride": (1, 2), "padding": 1}),
    "with gaps": ((32, 34), (2, 3), {"stride": (3, 4)}),
}


@pytest.mark.parametrize("name", FOLDS)
def test_folds_are_sums_of_parts(name: str) -> None:
    size, kernel, options = FOLDS[name]
    windows = F.unfold(torch.zeros(1, 3, *size), kernel, **options)
    x = torch.randn(windows.shape)
    function = lambda x: F.fold(x, size, kernel, **options)  # noqa: E731
    lowered = one_piece(captured_graph(function, [x]))
    assert not any(value.data is not None for value in lowered.graph.values)
    x[0, 1, windows.shape[2] // 2] = torch.inf
    x[0, 2, 0] = torch.nan
    (found,) = run_graph(lowered.graph, [x.numpy()])
    assert_close(found, function(x).numpy(), 1e-6)


@pytest.mark.parametrize("name", MOVES)
def test_long_movement(name: str) -> None:
    function, shape = MOVES[name]
    x = with_specials(shape)
    lowered = one_piece(captured_graph(function, [x]))
    constants = [value.data.nbytes for value in lowered.graph.values if value.data is not None]
    assert sum(constants) <= 10_000
    assert len(lowered.graph.nodes) <= 200
    (found,) = run_graph(lowered.graph, [x.numpy()])
    wanted = function(x).numpy()
    np.testing.assert_array_equal(found.view(np.int32), wanted.view(np.int32))
