"""Batch norms and layer scales disappear into the weights before them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from rewrites_harness import rewritten
from torch import nn

from penstock.compiler.capture.export import capture
from penstock.compiler.rewrite import fold_batch_norm, fold_layer_scale
from penstock.compiler.rewrite.pipelines import CANONICALIZE


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize(
    ("model", "inputs"),
    [
        (nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)), (torch.randn(1, 3, 6, 6),)),
        (nn.Sequential(nn.Conv1d(3, 8, 3, bias=False), nn.BatchNorm1d(8)), (torch.randn(2, 3, 9),)),
        (nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8, affine=False)), (torch.randn(5, 4),)),
        (nn.Sequential(nn.ConvTranspose2d(3, 8, 3), nn.BatchNorm2d(8)), (torch.randn(1, 3, 6, 6),)),
        (nn.Sequential(nn.Conv3d(3, 8, 3), nn.BatchNorm3d(8)), (torch.randn(1, 3, 4, 5, 6),)),
        (
            nn.Sequential(nn.ConvTranspose3d(3, 8, 3), nn.BatchNorm3d(8)),
            (torch.randn(1, 3, 4, 5, 6),),
        ),
        (
            nn.Sequential(nn.Conv2d(4, 8, 3, groups=2), nn.BatchNorm2d(8)),
            (torch.randn(1, 4, 6, 6),),
        ),
    ],
)
def test_batch_norms_are_folded(model: nn.Sequential, inputs: tuple[torch.Tensor, ...]) -> None:
    norm = model[1]
    assert isinstance(norm, (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d))
    assert norm.running_mean is not None and norm.running_var is not None
    norm.running_mean.uniform_(-1, 1)
    norm.running_var.uniform_(0.5, 2)
    _, targets = rewritten(model, inputs, fold_batch_norm.apply)
    assert "aten.batch_norm.default" not in targets


class WritesToView(nn.Module):
    """Torch's functionalization, which takes batch norms apart, has to follow its write."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm = nn.Conv2d(3, 8, 3), spread(nn.BatchNorm2d(8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.norm(self.layer(x))
        doubled = torch.cat([y, y], 1)
        doubled[:, :5] += 1
        return torch.relu(doubled)


def test_batch_norms_that_were_taken_apart_are_folded() -> None:
    model, inputs = WritesToView().eval(), (torch.randn(1, 3, 6, 6),)
    captured = capture(model, inputs).module
    norms = [str(n.target) for n in captured.graph.nodes if "batch_norm" in str(n.target)]
    assert norms == ["aten._native_batch_norm_legit_no_training.default"]
    _, targets = rewritten(model, inputs, *(step.apply for step in CANONICALIZE))
    assert targets["aten.conv2d.default"] == 1
    assert not any(name in target for target in targets for name in ("norm", "sub", "mul"))


class Normed(nn.Module):
    """A layer, what ``move`` makes of its result, a batch norm, what ``back`` makes of that."""

    def __init__(self, layer: nn.Module, norm: nn.Module, move: Any, back: Any = None) -> None:
        super().__init__()
        self.layer, self.norm = layer, norm
        self.move, self.back = move, back or (lambda x: x)

    def forward(self, x: torch.Tensor) -> Any:
        return self.back(self.norm(self.move(self.layer(x))))


def spread(norm: nn.BatchNorm1d | nn.BatchNorm2d) -> nn.Module:
    assert norm.running_mean is not None and norm.running_var is not None
    norm.running_mean.uniform_(-1, 1)
    norm.running_var.uniform_(0.5, 2)
    return norm


TOKENS = torch.randn(2, 8, 4)
IMAGE = torch.randn(2, 4, 6, 8)


@pytest.mark.parametrize(
    ("model", "x"),
    [
        (
            Normed(
                nn.Linear(4, 8, bias=False), spread(nn.BatchNorm1d(8)),
                lambda x: x.flatten(0, 1), lambda x: x.view(2, 8, 8),
            ),
            TOKENS,
        ),
        (Normed(nn.Linear(4, 8), spread(nn.BatchNorm1d(8)), lambda x: x.transpose(1, 2)), TOKENS),
        (
            Normed(
                nn.Linear(4, 8), spread(nn.BatchNorm2d(8)),
                lambda x: x.transpose(1, 2).view(2, 8, 2, 4),
            ),
            TOKENS,
        ),
        (Normed(nn.Conv2d(4, 8, 3), spread(nn.BatchNorm1d(8)), lambda x: x.flatten(2)), IMAGE),
    ],
)  # fmt: skip
def test_batch_norms_are_folded_through_views(model: nn.Module, x: torch.Tensor) -> None:
    _, targets = rewritten(model, (x,), fold_batch_norm.apply)
    assert "aten.batch_norm.default" not in targets


@pytest.mark.parametrize(
    ("model", "x"),
    [
        # As many channels as the layer has, but others: tokens, parts of channels, both in one.
        (Normed(nn.Linear(4, 8), spread(nn.BatchNorm1d(8)), lambda x: x), TOKENS),
        (Normed(nn.Linear(4, 8), spread(nn.BatchNorm1d(8)), lambda x: x.view(8, 8, 2)), TOKENS),
        (Normed(nn.Linear(4, 8), spread(nn.BatchNorm1d(64)), lambda x: x.flatten(1)), TOKENS),
        (Normed(nn.Conv2d(4, 8, 1), spread(nn.BatchNorm2d(8)), lambda x: x.transpose(1, 3)),
         IMAGE),
        (Normed(nn.Identity(), spread(nn.BatchNorm1d(4)), lambda x: x.transpose(1, 2)), TOKENS),
    ],
)  # fmt: skip
def test_batch_norms_of_something_else_stay(model: nn.Module, x: torch.Tensor) -> None:
    _, targets = rewritten(model, (x,), fold_batch_norm.apply)
    assert targets["aten.batch_norm.default"] == 1


quantized = torch.ops.quantized_decomposed
INTEGERS = torch.randint(-127, 128, (4, 3, 3, 3), dtype=torch.int8)
SCALES = torch.rand(4) + 0.5


class Int8Normed(nn.Module):
    """A convolution with dequantized weights, and a batch norm with factors of either sign."""

    def __init__(self, integers: torch.Tensor, points: int = 0, axis: int | None = 0) -> None:
        super().__init__()
        self.register_buffer("integers", integers)
        self.register_buffer("scales", SCALES.clone())
        self.register_buffer("points", torch.full((4,), points))
        self.axis, self.norm = axis, spread(nn.BatchNorm2d(4))
        assert isinstance(self.norm, nn.BatchNorm2d)
        self.norm.weight.data = torch.tensor([1.5, -0.5, 0.0, -2.0])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        limits = (-128, 127, torch.int8)
        if self.axis is None:
            weight = quantized.dequantize_per_tensor(self.integers, 0.02, 0, *limits)
        else:
            weight = quantized.dequantize_per_channel(
                self.integers, self.scales, self.points, self.axis, *limits
            )
        y = torch.conv_transpose2d(x, weight) if self.axis == 1 else torch.conv2d(x, weight)
        result: torch.Tensor = self.norm(y)
        return result


@pytest.mark.parametrize(
    ("model", "channels"),
    [
        (Int8Normed(INTEGERS), 3),
        (Int8Normed(INTEGERS, axis=None), 3),
        (Int8Normed(INTEGERS.transpose(0, 1).contiguous(), axis=1), 3),
    ],
)
def test_batch_norms_are_folded_into_scales(model: nn.Module, channels: int) -> None:
    module, targets = rewritten(model, (torch.randn(2, channels, 6, 6),), fold_batch_norm.apply)
    assert "aten.batch_norm.default" not in targets
    dequantize = quantized.dequantize_per_channel.default
    (weight,) = [node for node in module.graph.nodes if node.target is dequantize]
    integers, scales = (getattr(module, str(node.target)) for node in weight.args[:2])
    assert integers.dtype == torch.int8 and bool((scales > 0).all())


@pytest.mark.parametrize("model", [Int8Normed(INTEGERS.clamp(max=-128)), Int8Normed(INTEGERS, 3)])
def test_batch_norms_that_integers_cannot_take_stay(model: nn.Module) -> None:
    _, targets = rewritten(model, (torch.randn(2, 3, 6, 6),), fold_batch_norm.apply)
    assert targets["aten.batch_norm.default"] == 1


def test_a_view_that_others_read_keeps_its_batch_norm() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.norm = nn.Linear(4, 8), spread(nn.BatchNorm1d(8))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            rows = self.layer(x).flatten(0, 1)
            return self.norm(rows) + rows

    _, targets = rewritten(Twice(), (TOKENS,), fold_batch_norm.apply)
    assert targets["aten.batch_norm.default"] == 1


class Scaled(nn.Module):
    def __init__(self, layer: nn.Module, *shape: int, move: Any = lambda x: x) -> None:
        super().__init__()
        self.layer, self.move = layer, move
        self.scale = nn.Parameter(torch.randn(shape))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.erf(self.scale * self.move(self.layer(x)))


@pytest.mark.parametrize(
    ("model", "x", "folds"),
    [
        (Scaled(nn.Linear(4, 8), 8), TOKENS, True),
        (Scaled(nn.Linear(4, 8, bias=False), 1, 1, 8), TOKENS, True),
        (Scaled(nn.Linear(4, 8), 8, 1, move=lambda x: x.transpose(1, 2)), TOKENS, True),
        (Scaled(nn.Conv2d(4, 8, 3, groups=2), 8, 1, 1), IMAGE, True),
        (Scaled(nn.ConvTranspose2d(4, 8, 3), 1, 8, 1, 1), IMAGE, True),
        # One for each token; for both; more values than there were; a width like the channels.
        (Scaled(nn.Linear(4, 8), 8, 1), TOKENS, False),
        (Scaled(nn.Linear(4, 8), 8, 8), TOKENS, False),
        (Scaled(nn.Linear(4, 1), 8), TOKENS, False),
        (Scaled(nn.Conv2d(4, 8, 1), 8), IMAGE, False),
    ],
)
def test_layer_scales_are_folded(model: nn.Module, x: torch.Tensor, folds: bool) -> None:
    _, targets = rewritten(model, (x,), fold_layer_scale.apply)
    assert targets["aten.mul.Tensor"] == (0 if folds else 1)


def test_a_shared_convolution_keeps_its_batch_norm() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.conv(x)
            return self.norm(y) + y

    _, targets = rewritten(Shared(), (torch.randn(1, 3, 4, 4),), fold_batch_norm.apply)
    assert "aten.batch_norm.default" in targets
