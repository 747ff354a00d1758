"""Weights are rounded by what that does to the results, and the noise model knows of it."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from graphs import captured, sqnr_db
from torch import nn

import penstock
from penstock.compiler.quantize import flow, rounding
from penstock.compiler.quantize.interpreter import Snapshot
from penstock.compiler.quantize.judge import SnapshotRunner
from penstock.compiler.quantize.mixtures import Mixture
from penstock.compiler.quantize.noise import find_noise
from penstock.compiler.quantize.rounding import moments, rounded


def power(weight: torch.Tensor, real: torch.Tensor, products: torch.Tensor) -> torch.Tensor:
    """Of the error of each channel."""
    error = (weight - real).reshape(products.shape[0], -1, products.shape[1]).double()
    return torch.einsum("gok,gkl,gol->go", error, products, error).flatten()


def problem(channels: int, size: int, groups: int = 1) -> tuple[torch.Tensor, ...]:
    """(weight, scale, moments), of inputs that rise and fall together."""
    weight = torch.randn(groups * channels, size)
    scale = weight.abs().amax(1) / 127.0
    inputs = torch.randn(groups, 200, 1) + 0.3 * torch.randn(groups, 200, size)
    return weight, scale, (inputs.mT @ inputs).double() / 200


def test_it_is_better_than_the_nearest() -> None:
    torch.manual_seed(0)
    weight, scale, products = problem(8, 9, groups=4)
    integers, wider = rounded(weight, scale, products, -127, 127)
    assert integers.dtype == torch.int8 and integers.abs().max() <= 127
    assert bool((wider >= scale).all()) and bool((wider <= scale * 1.151).all())
    nearest = (weight / scale[:, None]).round() * scale[:, None]
    before = power(weight, nearest, products)
    after = power(weight, integers * wider[:, None], products)
    assert float(after.sum()) < 0.15 * float(before.sum())


def test_it_is_nearly_the_best(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of all neighbours of the nearest integers, for the scale that was given."""
    monkeypatch.setattr(rounding, "SCALES", 1)
    monkeypatch.setattr(rounding, "DAMPING", 0.0)
    torch.manual_seed(1)
    weight, scale, products = problem(24, 4)
    integers, same = rounded(weight, scale, products, -127, 127)
    assert torch.equal(same, scale)
    nearest = (weight / scale[:, None]).round()
    tried = [
        power(weight, (nearest + torch.tensor(step)) * scale[:, None], products)
        for step in itertools.product((-2, -1, 0, 1, 2), repeat=4)
    ]
    best = torch.stack(tried).amin(0)
    found = power(weight, integers * scale[:, None], products)
    assert float(found.mean()) < 2.0 * float(best.mean())
    assert bool((found <= power(weight, nearest * scale[:, None], products) + 1e-12).all())


def test_nothing_can_be_gained_of_silence() -> None:
    weight = torch.tensor([[0.5, -1.0, 0.3]])
    integers, scale = rounded(
        weight, torch.tensor([1 / 127]), torch.zeros(1, 3, 3).double(), -127, 127
    )
    error = weight - integers * scale
    assert float(error.abs().max()) <= 0.5 * float(scale) * 1.001


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Conv1d(4, 6, 3, stride=2, padding=1, groups=2), (3, 4, 60)),
        (nn.Conv2d(4, 8, (3, 2), stride=(1, 2), padding=(2, 0), dilation=(2, 1)), (2, 4, 20, 20)),
        (nn.Conv2d(6, 6, 3, groups=6), (2, 6, 9, 9)),
        (nn.Conv3d(2, 3, (1, 2, 2), padding=(1, 0, 1)), (2, 2, 4, 8, 8)),
    ],
    ids=["conv1d", "dilated", "depthwise", "conv3d"],
)
def test_what_is_looked_at_is_what_is_multiplied(layer: nn.Module, shape: tuple[int, ...]) -> None:
    torch.manual_seed(2)
    x, weight = torch.randn(shape), layer.weight.detach()  # type: ignore[union-attr]
    module = captured(layer, (x,))
    (node,) = (n for n in module.graph.nodes if n.target in rounding._CONVOLUTIONS)
    rows = rounding._patches(node, weight, [x, x])
    groups = rows.shape[0]
    found = torch.einsum("gnk,gok->ngo", rows, weight.reshape(groups, -1, rows.shape[2]))
    bias = layer.bias.detach()  # type: ignore[union-attr]
    every = layer(x).detach().movedim(1, -1).reshape(-1, weight.shape[0]) - bias
    sums = found.reshape(len(found), -1)[:50, None]
    assert float((sums - every).abs().amax(2).amin(1).max()) < 1e-4
    assert moments(node, weight, [x], centred=True) is not None


aten = torch.ops.aten


class Separable(nn.Module):
    """A stem and depthwise convolutions, whose biases leave the mean of the inputs in the sums."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1)
        self.depthwise = nn.Conv2d(16, 16, 5, padding=2, groups=16)
        self.pointwise = nn.Conv2d(16, 24, 1)
        self.head = nn.Linear(24, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.depthwise(torch.relu(self.stem(x))))
        return torch.as_tensor(self.head(torch.relu(self.pointwise(x)).mean((2, 3))))


def pictures(count: int) -> list[tuple[torch.Tensor]]:
    """Smooth, as pictures are, and mostly positive."""
    generator = torch.Generator().manual_seed(3)
    small = torch.rand(count, 3, 5, 5, generator=generator)
    large = nn.functional.interpolate(small, (20, 20), mode="bilinear")
    return [(one[None],) for one in large]


def simulated(
    patch: pytest.MonkeyPatch, model: nn.Module, data: list[tuple[torch.Tensor]]
) -> tuple[Mixture, Snapshot]:
    """The quantized model as it is before the compiler goes on with it."""
    made = []

    def noted(*args: Any) -> Mixture:
        made.append((Mixture(*args), Snapshot.of(args[1])))
        return made[-1][0]

    patch.setattr(flow, "Mixture", noted)
    penstock.lower(model, data[0], quantize="static", calibration=data[:8])
    return made[0]


def error_of_the_stem(
    model: Separable, snapshot: Snapshot, data: list[tuple[torch.Tensor]]
) -> float:
    """The power of what rounding its weight makes, without the mean of each channel."""
    node = next(n for n in snapshot.graph.nodes if n.target is aten.conv2d.default)
    dequantize = node.args[1]
    integers, scales = (snapshot.attributes[str(part.target)] for part in dequantize.args[:2])
    error = integers * scales.view(-1, 1, 1, 1) - model.stem.weight.detach()
    sums = nn.functional.conv2d(torch.cat([x for (x,) in data]), error, padding=1)
    return float((sums - sums.mean((0, 2, 3), keepdim=True)).square().mean())


def test_a_network_gains(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also on data that nothing was rounded for."""
    torch.manual_seed(4)
    model, data = Separable().eval(), pictures(40)
    _, after = simulated(monkeypatch, model, data)
    monkeypatch.setattr(rounding, "MOST_WEIGHTS", 0)
    _, before = simulated(monkeypatch, model, data)
    errors = [error_of_the_stem(model, one, data[8:]) for one in (before, after)]
    assert errors[1] < 0.4 * errors[0], errors


def test_noise_is_foretold_with_what_biases_take_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounding the weights of inputs that are mostly positive shifts the sums; the correction of
    biases takes that back, and it must not count as noise."""
    torch.manual_seed(4)
    model, data = Separable().eval(), pictures(12)
    for part in model.children():
        nn.init.uniform_(part.weight, 0.0, 0.2)
    mixture, snapshot = simulated(monkeypatch, model, data)
    noise = find_noise(mixture.floating, snapshot, mixture.plan, data[8:], {})
    with torch.no_grad():
        pairs = [(model(x), SnapshotRunner(snapshot).leaves((x,))[0]) for (x,) in data[8:]]
    found = sqnr_db(*(torch.cat(side) for side in zip(*pairs, strict=True)))
    assert -10.0 * math.log10(noise.total(frozenset())) == pytest.approx(found, abs=2.5)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_few_batches_are_looked_at_from_more_directions(
    monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    """The estimate is a mean of squares: of a few it would be anything."""
    torch.manual_seed(4)
    model, data = Separable().eval(), pictures(8 + count)
    mixture, snapshot = simulated(monkeypatch, model, data)
    noise = find_noise(mixture.floating, snapshot, mixture.plan, data[8:], {})
    numbers = {len(one.products) for group in noise.groups.values() for one in group}
    assert len(numbers) == 1 and 24 <= min(numbers) < 28


def test_an_image_without_a_batch() -> None:
    """Convolutions take [C, H, W] too."""
    model = nn.Conv2d(2, 3, (1, 2), stride=(1, 2))
    data = [(torch.randn(2, 16, 16),) for _ in range(4)]
    lowered = penstock.lower(model, data[0], quantize="static", calibration=data)
    (found,) = penstock.load(lowered.to_bytes())(data[0][0].numpy())
    assert sqnr_db(model(*data[0]), torch.from_numpy(found)) > 30
