"""What the passes over a delegate's graph leave, and that it still computes the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from torch import nn

import penstock
from penstock.compiler import lower
from penstock.compiler.pipeline import LoweredProgram
from penstock.formats.payload_reader import read_payload
from penstock.graph.dtypes import DataType
from penstock.graph.graph import INVALID_VALUE_ID, XnnGraph
from penstock.graph.kinds import NodeKind
from penstock.graph.weights import real


def graph_of(lowered: LoweredProgram) -> XnnGraph:
    (method,) = lowered.program.methods
    (delegate,) = method.delegates
    return read_payload(delegate.payload, lowered.program.named_data)


def kinds(graph: XnnGraph) -> Counter[NodeKind]:
    return Counter(node.kind for node in graph.nodes)


def output_types(graph: XnnGraph, *without: NodeKind) -> set[DataType]:
    return {graph.values[node.outputs[0]].dtype for node in graph.nodes if node.kind not in without}


def types_read(graph: XnnGraph, kind: NodeKind) -> list[DataType]:
    """The types of what the only node of ``kind`` reads."""
    (node,) = (node for node in graph.nodes if node.kind is kind)
    return [graph.values[i].dtype for i in node.inputs if i != INVALID_VALUE_ID]


def check(
    model: nn.Module, inputs: Sequence[torch.Tensor], *, quantize: str | None = None,
    sqnr: float = 25.0,
) -> XnnGraph:  # fmt: skip
    """Compiles, checks the answer, returns the delegate's graph."""
    model.eval()
    with torch.no_grad():
        expected = model(*inputs).numpy()
    lowered = lower(model, inputs, quantize=quantize)
    assert not lowered.delegation.undelegated
    (actual,) = penstock.load(lowered.to_bytes())(*inputs)
    if quantize is None:
        np.testing.assert_allclose(actual, expected, atol=1e-4 * np.abs(expected).max())
    else:
        noise = np.linalg.norm(actual - expected)
        assert 20 * np.log10(np.linalg.norm(expected) / noise) > sqnr
    return graph_of(lowered)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def test_activations_become_output_ranges() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU6(), nn.Conv2d(8, 4, 1), nn.ReLU()
    )
    graph = check(model, (torch.randn(1, 3, 9, 9),))
    convolutions = [node for node in graph.nodes if node.kind is NodeKind.CONV_2D]
    assert [node.clamp for node in convolutions] == [(0.0, 6.0), (0.0, np.inf)]
    assert NodeKind.CLAMP not in kinds(graph)


def test_an_activation_read_twice_stays() -> None:
    class Both(nn.Module):
        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            s = x + y
            return torch.relu(s) * s

    graph = check(Both(), (torch.randn(4, 4), torch.randn(4, 4)))
    assert kinds(graph)[NodeKind.CLAMP] == 1


def test_images_are_transposed_once() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5),
    )  # fmt: skip
    graph = check(model, (torch.randn(2, 3, 12, 12),))
    assert kinds(graph)[NodeKind.STATIC_TRANSPOSE] == 1


class Packed(nn.Module):
    """Queries, keys and values in one projection."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(16, 48)
        self.out = nn.Linear(16, 16)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        batch, length, _ = x.shape
        parts = self.qkv(x).reshape(batch, length, 3, 4, 4).permute(2, 0, 3, 1, 4)
        q, k, v = parts.unbind(0)
        y = nn.functional.scaled_dot_product_attention(q, k, v)
        return self.out(y.transpose(1, 2).reshape(batch, length, 16))


@pytest.mark.parametrize("quantize", [None, "dynamic"])
def test_packed_projections_are_split(quantize: str | None) -> None:
    graph = check(Packed(), (torch.randn(2, 6, 16),), quantize=quantize)
    found = kinds(graph)
    assert found[NodeKind.FULLY_CONNECTED] == 4
    assert NodeKind.STATIC_SLICE not in found
    assert NodeKind.MULTIPLY not in found  # the scale went into the queries' weights


def test_a_shared_input_is_quantized_once() -> None:
    class Parallel(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(8, 8), nn.Linear(8, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.a(x) * self.b(x)

    graph = check(Parallel(), (torch.randn(3, 8),), quantize="dynamic")
    assert kinds(graph)[NodeKind.CONVERT] == 1


def test_a_quantized_network_computes_on_int8_throughout() -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Conv2d(3, 8, 3, padding=1)
            self.b = nn.Conv2d(8, 8, 3, padding=1, groups=8)
            self.head = nn.Linear(8, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = torch.relu(self.a(x))
            y = torch.relu(y + self.b(y))
            y = torch.cat([y, y], 1)[:, 4:12]
            y = nn.functional.avg_pool2d(nn.functional.max_pool2d(y, 2), 2)
            return self.head(y.mean((2, 3)))

    graph = check(Residual(), (torch.randn(1, 3, 16, 16),), quantize="static")
    assert output_types(graph, NodeKind.CONVERT) == {DataType.QINT8}
    assert kinds(graph)[NodeKind.CONVERT] == 2


def test_an_int8_convolution_before_a_float_operator() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.softmax(self.conv(x), 1)

    graph = check(Mixed(), (torch.randn(1, 3, 8, 8),), quantize="static", sqnr=20.0)
    assert types_read(graph, NodeKind.CONV_2D)[:2] == [DataType.QINT8, DataType.QCINT8]
    assert types_read(graph, NodeKind.SOFTMAX) == [DataType.FP32]
    assert kinds(graph)[NodeKind.CONVERT] == 2


def test_an_int8_weight_of_a_float_operator_is_written_out() -> None:
    """The activations are float, so XNNPACK needs the weight's real values."""

    class WeightOnly(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            integers = torch.randint(-127, 128, (8, 3, 3, 3), dtype=torch.int8)
            self.register_buffer("weight", integers)
            self.register_buffer("scales", torch.rand(8) / 100)
            self.register_buffer("zeros", torch.zeros(8, dtype=torch.int64))

        def real(self) -> torch.Tensor:
            return torch.ops.quantized_decomposed.dequantize_per_channel(
                self.weight, self.scales, self.zeros, 0, -127, 127, torch.int8
            )

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.softmax(nn.functional.conv2d(x, self.real()), 1)

    model = WeightOnly()
    graph = check(model, (torch.randn(1, 3, 8, 8),))
    assert types_read(graph, NodeKind.CONV_2D)[:2] == [DataType.FP32, DataType.FP32]
    (convolution,) = (node for node in graph.nodes if node.kind is NodeKind.CONV_2D)
    expected = model.real().permute(0, 2, 3, 1).numpy()
    np.testing.assert_array_equal(real(graph.values[convolution.inputs[1]]), expected)


def test_quantized_weights_of_one_scale() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3))
    graph = check(model, (torch.randn(1, 3, 9, 9),), quantize="static_per_tensor")
    weights = {graph.values[n.inputs[1]].dtype for n in graph.nodes if n.kind is NodeKind.CONV_2D}
    assert weights == {DataType.QINT8}


@pytest.mark.parametrize("first", [nn.Conv2d(8, 16, 1), nn.Conv2d(8, 16, 3, padding=9, dilation=9)])
def test_convolutions_side_by_side_on_what_is_quantized_at_run_time(first: nn.Module) -> None:
    """XNNPACK makes a product of one of them; the other one must not read the same value."""

    class Parallel(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = first, nn.Conv2d(8, 16, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.cat([self.first(x), self.second(x)], 1)

    check(Parallel(), (torch.randn(2, 8, 9, 9),), quantize="dynamic", sqnr=30.0)
