"""Movement along dynamic dimensions: slices from the end, steps, padding by values, rolls."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from dynamic_harness import check_on_stock, check_sizes
from torch.export import Dim
from torch.nn import functional as F

BATCH, HEIGHT, WIDTH = Dim("b", min=1, max=4), Dim("h", min=5, max=24), Dim("w", min=5, max=40)
SIZES = [(2, 16, 12), (1, 5, 5), (4, 24, 40), (3, 7, 31), (1, 24, 6), (2, 17, 18)]
PICTURE = {0: BATCH, 2: HEIGHT, 3: WIDTH}
Function = Callable[[torch.Tensor], Any]

#: Of [N, 3, H, W], three of them dynamic.
PICTURES: dict[str, Function] = {
    "last": lambda x: x[..., -1],
    "last row": lambda x: x[:, :, -1],
    "third from the end": lambda x: x[:, :, -3],
    "all but the last": lambda x: x[:, :, :-1, :-2],
    "middle": lambda x: x[:, :, 1:-2, 2:],
    "the last ones": lambda x: x[..., -4:],
    "of the last ones": lambda x: x[:, :, -4:-1],
    "steps": lambda x: x[:, :, ::2, 1::3],
    "steps to the end": lambda x: x[..., 1:-1:2],
    "narrow": lambda x: x.narrow(2, 1, 3),
    "split": lambda x: torch.split(x, [2, x.shape[3] - 2], 3),
    "replicate": lambda x: F.pad(x, (2, 1, 0, 3), mode="replicate"),
    "reflect": lambda x: F.pad(x, (2, 1, 3, 2), mode="reflect"),
    "circular": lambda x: F.pad(x, (2, 1, 0, 3), mode="circular"),
    "roll forth": lambda x: x.roll((1, 2), (2, 3)),
    "roll back": lambda x: x.roll(-3, 2),
    "constant": lambda x: F.pad(x, (2, -1, 0, 3), value=1.5),
}
#: Of [N, L, 6], two of them dynamic.
LINES: dict[str, Function] = {
    "last step": lambda x: x[:, -1],
    "last step kept": lambda x: x[:, -1:],
    "shifted": lambda x: x[:, 1:] - x[:, :-1],
    "every other": lambda x: x[:, ::2],
    "replicate": lambda x: F.pad(x.transpose(1, 2), (2, 3), mode="replicate"),
    "reflect": lambda x: F.pad(x.transpose(1, 2), (2, 3), mode="reflect"),
    "roll": lambda x: x.roll(2, 1),
    "of the batch": lambda x: x[-1],
}


@pytest.mark.parametrize("name", PICTURES)
def test_pictures(name: str, folder: Path) -> None:
    torch.manual_seed(0)
    inputs = [(torch.randn(n, 3, h, w),) for n, h, w in SIZES]
    inputs[1][0][0, 0, 1] = torch.inf
    inputs[1][0][0, 1, :, -1] = -torch.inf
    check_sizes(PICTURES[name], inputs, (PICTURE,), tolerance=0.0, folder=folder, name=name)


@pytest.mark.parametrize("times", [2, 3])
def test_halves_and_thirds(times: int) -> None:
    """Of frames those of each film, where they lie one film behind the other."""

    def parts(x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        films, frames = torch.cat([x * (film + 1) for film in range(times)]), x.shape[0]
        sliced = films[:frames], films[frames : 2 * frames], films[-frames:]
        gated = F.glu(films, 0) if times == 2 else films.narrow(0, 2 * frames, frames)
        return torch.cat([*films.split(frames), *sliced]) * 2, gated

    inputs = [(torch.randn(n, 4, 6),) for n, _, _ in SIZES]
    check_sizes(parts, inputs, ({0: BATCH},))


@pytest.mark.parametrize("name", LINES)
def test_lines(name: str, folder: Path) -> None:
    inputs = [(torch.randn(n, h, 6),) for n, h, _ in SIZES]
    sizes = ({0: BATCH, 1: HEIGHT},)
    check_sizes(LINES[name], inputs, sizes, tolerance=0.0, folder=folder, name=f"line {name}")


@pytest.mark.parametrize(
    "function", [lambda x: x.narrow(1, x.shape[1] - 2, 2), lambda x: x[:, x.shape[1] - 2 :]]
)
def test_starts_of_sizes(function: Function) -> None:
    """A start that is computed from a size is known to no node."""
    inputs = [(torch.randn(n, h, 6),) for n, h, _ in SIZES]
    sizes = ({0: BATCH, 1: HEIGHT},)
    check_sizes(function, inputs, sizes, tolerance=0.0, pieces=None)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.add(x, x, alpha=x.shape[1]),
        lambda x: torch.addcmul(x, x, x, value=x.shape[1]),
        lambda x: (9 * x).clamp(-x.shape[1], x.shape[1] // 2),
        lambda x: F.elu(x, x.shape[1]),
        lambda x: F.leaky_relu(x, 1 / x.shape[1]),
        lambda x: x.shape[1] ** x.sigmoid(),
    ],
)
def test_attributes_of_sizes(function: Function) -> None:
    """Factors, bounds and slopes that are computed from a size are attributes of no node."""
    inputs = [(torch.randn(n, h, 6),) for n, h, _ in SIZES]
    sizes = ({0: BATCH, 1: HEIGHT},)
    check_sizes(function, inputs, sizes, pieces=None)


def test_on_stock(folder: Path) -> None:
    """Of the programs of the tests above, as far as they ran."""
    test_pictures("last", folder)
    check_on_stock(folder, tolerance=0.0)
