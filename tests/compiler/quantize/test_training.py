"""Quantization-aware training: the quantizer in torchao's ``prepare_qat_pt2e``."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from graphs import Model, aten, calls, sqnr_db
from test_quantizer_selection import configuration
from torch import nn
from torchao.quantization.pt2e import move_exported_model_to_eval
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_qat_pt2e
from torchao.quantization.pt2e.quantizer import QuantizationConfig

import penstock
from penstock.compiler.quantize import XNNPACKQuantizer
from penstock.compiler.quantize.training import (
    NEW_PART,
    CurrentPerChannelWeightObserver,
    MovingRangeObserver,
)
from penstock.errors import QuantizationError
from penstock.formats.payload_reader import read_payload
from penstock.formats.program_reader import read_program
from penstock.graph.dtypes import DataType

GENERATOR = torch.Generator().manual_seed(0)
IMAGES = torch.randn(8, 3, 8, 8, generator=GENERATOR)
WANTED = torch.randn(8, 4, generator=GENERATOR)


class Net(nn.Module):
    """In place as models write it: activations, and a residual."""

    def __init__(self, norm: type[nn.Module]) -> None:
        super().__init__()
        stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        body = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.stem = nn.Sequential(stem, norm(8), nn.ReLU6(True))
        self.body = nn.Sequential(body, norm(8), nn.Hardswish(True))
        self.head = nn.Sequential(nn.Dropout(0.05), nn.Linear(8, 4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        y = self.body(x)
        y += x
        result: torch.Tensor = self.head(y.mean((2, 3)))
        return result


def prepared(model: nn.Module, *args: torch.Tensor, **options: Any) -> Any:
    quantizer = XNNPACKQuantizer(options.pop("scheme", "static"), is_qat=True)
    return prepare_qat_pt2e(torch.export.export(model, args, **options).module(), quantizer)


def trained(module: Any, steps: int = 40) -> list[float]:
    """The losses."""
    optimizer = torch.optim.SGD(module.parameters(), 0.05)
    losses = []
    for _ in range(steps):
        loss = (module(IMAGES) - WANTED).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize(
    ("norm", "scheme"),
    [
        (nn.BatchNorm2d, "static"),
        (nn.Identity, "static"),
        (nn.Identity, "static_per_tensor"),
        (nn.Identity, "dynamic"),
    ],
)
def test_what_is_trained_is_what_runs(norm: type[nn.Module], scheme: str) -> None:
    torch.manual_seed(0)
    model = Net(norm).train()
    module = prepared(model, IMAGES, scheme=scheme)
    with torch.no_grad():
        first, again = model(IMAGES), Net(norm).train()
        again.load_state_dict(model.state_dict())
        assert not torch.equal(module(IMAGES), first), "nothing is rounded"
    losses = trained(module)
    assert sum(losses[-5:]) < sum(losses[:5])
    converted = convert_pt2e(module)
    move_exported_model_to_eval(converted)
    assert not calls(converted, aten.batch_norm.default)
    with torch.no_grad():
        expected = converted(IMAGES)
    lowered = penstock.lower(torch.export.export(converted, (IMAGES,)))
    assert not lowered.delegation.undelegated and len(lowered.delegation.subgraphs) == 1
    (found,) = penstock.load(lowered.to_bytes())(IMAGES)
    assert sqnr_db(expected, torch.from_numpy(found)) > 35


class Volumes(nn.Module):
    """Layers before batch norms that torchao does not fold."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv3d(2, 8, 3, padding=1, bias=False), nn.BatchNorm3d(8), nn.ReLU(),
            nn.Conv3d(8, 8, 3, padding=1, groups=8), nn.BatchNorm3d(8), nn.ReLU(),
            nn.ConvTranspose3d(8, 8, 2, 2), nn.BatchNorm3d(8), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.head(self.body(x).mean((2, 3, 4)))
        return result


@pytest.mark.parametrize("scheme", ["static", "static_per_tensor"])
def test_norms_that_torchao_leaves(scheme: str) -> None:
    torch.manual_seed(0)
    model, x = Volumes().train(), torch.randn(4, 2, 4, 6, 6)
    for part in model.modules():
        if isinstance(part, (nn.BatchNorm1d, nn.BatchNorm3d)):
            part.weight.data[::3].neg_()
    module = prepared(model, x, scheme=scheme)
    optimizer = torch.optim.SGD(module.parameters(), 0.02)
    for _ in range(4):
        loss = (module(x) - 1).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    converted = convert_pt2e(module)
    move_exported_model_to_eval(converted)
    with torch.no_grad():
        expected = converted(x)
    lowered = penstock.lower(torch.export.export(converted, (x,)))
    assert not lowered.delegation.undelegated and len(lowered.delegation.subgraphs) == 1
    program = read_program(lowered.to_bytes())
    (delegate,) = program.methods[0].delegates
    graph = read_payload(delegate.payload, program.named_data)
    made = [graph.values[number].dtype for node in graph.nodes for number in node.outputs]
    assert made.count(DataType.FP32) == 1, "more than the result is in float"
    (found,) = penstock.load(lowered.to_bytes())(x)
    assert sqnr_db(expected, torch.from_numpy(found)) > 30


def test_layers_and_their_norms_have_one_range() -> None:
    module = prepared(Net(nn.BatchNorm2d).train(), IMAGES)
    for norm in calls(module, aten.batch_norm.default):
        source = norm.args[0]
        assert isinstance(source, torch.fx.Node) and source.op == "call_function"
    (clamp,) = calls(module, aten.hardtanh.default)
    assert clamp.args[0] in calls(module, aten.batch_norm.default)


def test_ranges_follow_the_model() -> None:
    observer = MovingRangeObserver(
        dtype=torch.int8, quant_min=-128, quant_max=127, qscheme=torch.per_tensor_affine, eps=1e-9
    )
    observer(torch.tensor([-1.0, 3.0]))
    assert (observer.low, observer.high) == (-1.0, 3.0)
    observer(torch.tensor([-2.0, 1.0]))
    assert observer.low == pytest.approx(-1.0 - NEW_PART)
    assert observer.high == pytest.approx(3.0 - 2.0 * NEW_PART)
    observer(torch.tensor([]))
    assert observer.high == pytest.approx(3.0 - 2.0 * NEW_PART)
    weights = CurrentPerChannelWeightObserver(
        dtype=torch.int8, quant_min=-127, quant_max=127, qscheme=torch.per_channel_symmetric,
        ch_axis=0, eps=1e-9,
    )  # fmt: skip
    for width in (4.0, 1.0):
        weights(torch.tensor([[width, -1.0]]))
        scale, _ = weights.calculate_qparams()
        assert float(scale) == pytest.approx(width / 127)


def test_a_configuration_for_training() -> None:
    given = configuration({"is_per_channel": True})
    assert given is not None
    config = QuantizationConfig(
        given.input_activation, given.output_activation, given.weight, None, True
    )
    quantizer = XNNPACKQuantizer().set_module_type(nn.Linear, config)
    assert quantizer.is_qat
    assert not XNNPACKQuantizer().set_global(given).is_qat


def test_a_write_to_a_view() -> None:
    def function(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = layer(x)
        y[:, 0] += 1.0
        return y

    with pytest.raises(QuantizationError, match="writes to a view"):
        prepared(Model(function, layer=nn.Linear(8, 8)), IMAGES)


def test_weights_of_four_bits() -> None:
    model = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.LayerNorm(32), nn.Linear(32, 4))
    with pytest.raises(QuantizationError, match="cannot be trained; give 'dynamic'"):
        prepared(model, torch.randn(2, 32), scheme="4bit")


@pytest.mark.parametrize("scheme", ["static", "static_per_tensor", "dynamic", "4bit"])
def test_training_what_rounds_nothing_is_an_error(scheme: str) -> None:
    model = nn.Sequential(nn.Linear(32, 32), nn.Linear(32, 4))
    x = torch.randn(2, 32)
    module = torch.export.export(model, (x,)).module()
    calibrated = prepare_qat_pt2e(module, XNNPACKQuantizer(scheme))
    loss = calibrated(x).square().sum()
    with pytest.raises(QuantizationError, match=r"rounds nothing.*is_qat=True"):
        loss.backward()
    model(x).square().sum().backward()
