"""Convolutions of volumes in int8: one integer sum for each result, whatever is joined for it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from operator_harness import captured_graph, one_piece, run_graph, sqnr
from torch import nn
from torch.export import Dim
from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

import penstock
from penstock.compiler.quantize import XNNPACKQuantizer
from penstock.graph.dtypes import DataType
from penstock.graph.graph import XnnGraph
from penstock.graph.kinds import NodeKind

torch.manual_seed(7)

VOLUME = (2, 8, 5, 6, 7)


def normed(convolution: nn.Module, channels: int) -> nn.Module:
    norm = nn.BatchNorm3d(channels)
    with torch.no_grad():
        for values in (norm.running_mean, norm.bias):
            assert values is not None
            values.normal_()
        norm.weight.uniform_(-2, 2)
    return nn.Sequential(convolution, norm, nn.ReLU())


CONVOLUTIONS: dict[str, nn.Module] = {
    "padded": nn.Conv3d(8, 6, 3, padding=1),
    "strided, dilated": nn.Conv3d(8, 5, (2, 3, 1), (2, 1, 2), (1, 2, 0), (2, 2, 1), bias=False),
    "same": nn.Conv3d(8, 6, (2, 3, 4), padding="same"),
    "valid": nn.Conv3d(8, 6, (5, 1, 1), padding="valid"),
    "pointwise": nn.Conv3d(8, 6, 1),
    "groups": nn.Conv3d(8, 12, 3, padding=1, groups=4),
    "depthwise": nn.Conv3d(8, 8, (3, 3, 2), padding=1, groups=8),
    "depthwise, dilated": nn.Conv3d(8, 8, 2, padding=1, dilation=2, groups=8),
    "depth alone": nn.Conv3d(8, 6, (3, 1, 1), (2, 1, 1), (1, 0, 0), bias=False),
    "depth alone, depthwise": nn.Conv3d(8, 8, (2, 1, 1), dilation=(2, 1, 1), groups=8),
    "depth alone, same": nn.Conv3d(8, 6, (4, 1, 1), padding="same", groups=2),
    "depthwise, two each": nn.Conv3d(8, 16, 3, (1, 2, 2), groups=8, bias=False),
    "norm and relu": normed(nn.Conv3d(8, 6, 3, padding=1, bias=False), 6),
    "transposed": nn.ConvTranspose3d(8, 6, 2, 2),
    "transposed, overlapping": nn.ConvTranspose3d(8, 6, 4, 2, 1),
    "transposed, uneven": nn.ConvTranspose3d(8, 6, 3, 2, 1, 1, bias=False),
    "transposed, apart": nn.ConvTranspose3d(8, 6, 1, (3, 2, 1), 0, (2, 1, 0)),
    "transposed, dilated": nn.ConvTranspose3d(8, 6, (3, 2, 3), (1, 2, 1), (2, 0, 1), 0, 1, True, 2),
    "transposed, much padding": nn.ConvTranspose3d(8, 6, 5, 1, 4),
    "transposed, groups": nn.ConvTranspose3d(8, 12, 4, 2, 1, 0, 4),
    "transposed, depthwise": nn.ConvTranspose3d(8, 8, (3, 3, 2), 2, groups=8, bias=False),
    "transposed, norm and relu": normed(nn.ConvTranspose3d(8, 6, 2, 2), 6),
}
CONVOLUTION_KINDS = (NodeKind.CONV_2D, NodeKind.DEPTHWISE_CONV_2D, NodeKind.CONV_TRANSPOSE_2D)


def integers(graph: XnnGraph) -> None:
    """One convolution, of integers; the input and the result alone are converted."""
    values = {value.id: value for value in graph.values}
    (convolution,) = (node for node in graph.nodes if node.kind in CONVOLUTION_KINDS)
    types = [values[number].dtype for number in (*convolution.inputs[:2], *convolution.outputs)]
    assert types == [DataType.QINT8, DataType.QCINT8, DataType.QINT8]
    assert [node.kind for node in graph.nodes].count(NodeKind.CONVERT) == 2
    assert not any(node.kind is NodeKind.ADD for node in graph.nodes)


@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_one_sum_of_integers(name: str) -> None:
    """Within one step of the converted graph in eager PyTorch, and the same bits on all engines."""
    model, x = CONVOLUTIONS[name].eval(), torch.randn(VOLUME)
    with torch.no_grad():
        program = torch.export.export(model, (x,)).module()
        prepared = prepare_pt2e(program, XNNPACKQuantizer("static"))
        prepared(x)
        converted = convert_pt2e(prepared)
        expected = converted(x).numpy()
        exact = model(x).numpy()
    captured = captured_graph(converted.forward, (x,))
    graph = one_piece(captured).graph
    integers(graph)
    (actual,) = run_graph(graph, [x.numpy()])
    (last,) = (node for node in captured.module.graph.nodes if node.op == "output")
    step = last.all_input_nodes[0].args[1]
    assert abs(actual - expected).max() <= 1.001 * step
    assert abs(actual - expected).mean() <= 0.05 * step
    assert sqnr(actual, exact) > 30
    data = penstock.lower(converted, (x,)).to_bytes()
    for engine in ("auto", "native", "xnnpack"):
        (again,) = penstock.load(data, engine=engine)(x)
        assert (again == actual).all(), engine


@pytest.mark.parametrize("name", ["padded", "groups", "transposed", "transposed, overlapping"])
def test_quantized_at_run_time(name: str) -> None:
    model, x = CONVOLUTIONS[name].eval(), torch.randn(VOLUME)
    lowered = penstock.lower(model, (x,), quantize="dynamic")
    assert not lowered.delegation.undelegated
    (actual,) = penstock.load(lowered.to_bytes())(x)
    assert 35 < sqnr(actual, model(x).detach().numpy()) < 60


def test_few_copies() -> None:
    """Windows over the depth alone need none; depthwise ones stay depthwise."""
    x = torch.randn(VOLUME)
    for name in ("depth alone", "depth alone, depthwise", "depth alone, same"):
        graph = one_piece(captured_graph(CONVOLUTIONS[name].eval(), (x,))).graph
        assert not any(node.kind.traits.joins for node in graph.nodes)
    for name in ("depthwise", "depthwise, two each", "depth alone, depthwise"):
        graph = one_piece(captured_graph(CONVOLUTIONS[name].eval(), (x,))).graph
        assert any(node.kind is NodeKind.DEPTHWISE_CONV_2D for node in graph.nodes)


DIMENSIONS = {name: Dim(name, min=2, max=16) for name in ("batch", "frames", "height", "width")}


@pytest.mark.parametrize("scheme", [None, "static", "dynamic"])
@pytest.mark.parametrize(
    ("dynamic", "outside"),
    [({0: "batch"}, 0), ({2: "frames"}, 1), ({3: "height", 4: "width"}, 0),
     ({0: "batch", 2: "frames", 3: "height", 4: "width"}, 3)],
)  # fmt: skip
def test_dynamic_sizes(dynamic: dict[int, str], outside: int, scheme: Any) -> None:
    """Windows over the depth alone, or over planes alone, take any; what is outside of XNNPACK
    reads what it would be given in eager PyTorch."""
    model = nn.Sequential(
        nn.Conv3d(8, 8, (3, 1, 1), padding=(1, 0, 0)), nn.ReLU(),
        nn.Conv3d(8, 8, (1, 3, 3), padding=(0, 1, 1)), nn.ReLU(),
        nn.Conv3d(8, 4, 3, padding=1),
    ).eval()  # fmt: skip
    example, x = torch.randn(2, 8, 4, 6, 6), torch.randn(VOLUME)
    x = x[tuple(slice(None) if dim in dynamic else slice(n) for dim, n in enumerate(example.shape))]
    shapes = ({dim: DIMENSIONS[name] for dim, name in dynamic.items()},)
    options = {} if scheme is None else {"quantize": scheme}
    lowered = penstock.lower(model, (example,), dynamic_shapes=shapes, **options)
    assert len(lowered.delegation.undelegated) == outside
    (actual,) = penstock.load(lowered.to_bytes())(x)
    assert sqnr(actual, model(x).detach().numpy()) > (100 if scheme is None else 25)


class Video(nn.Module):
    """What networks of volumes are made of."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = normed(nn.Conv3d(3, 8, 3, padding=1, bias=False), 8)
        self.deep = normed(nn.Conv3d(8, 8, 3, padding=1, groups=8), 8)
        self.gate = nn.Sequential(nn.AdaptiveAvgPool3d(1), nn.Conv3d(8, 8, 1), nn.Sigmoid())
        self.up = nn.ConvTranspose3d(8, 8, 2, 2)
        self.pools = nn.MaxPool3d(2), nn.AvgPool3d(2)
        self.head = nn.Linear(16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        y = self.deep(self.pools[0](x))
        y = y * self.gate(y)
        z = torch.cat([self.pools[1](x), y + 1], 1)
        z = torch.cat([self.up(z[:, 8:]), x], 1)
        result: torch.Tensor = self.head(torch.relu(z).mean((2, 3, 4)))
        return result


def test_network_stays_on_integers() -> None:
    model, x = Video().eval(), torch.randn(1, 3, 4, 8, 8)
    lowered = penstock.lower(model, (x,), quantize="static")
    assert not lowered.delegation.undelegated
    assert lowered.quantization is not None and not lowered.quantization.floating
    (actual,) = penstock.load(lowered.to_bytes())(x)
    assert sqnr(actual, model(x).detach().numpy()) > 25
