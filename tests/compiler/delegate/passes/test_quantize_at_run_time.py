"""Products of activations that are quantized at run time, as XNNPACK takes them."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

import penstock
from penstock.formats.payload_reader import read_payload
from penstock.graph.dtypes import DataType, PerToken
from penstock.graph.kinds import NodeKind


class Pixels(nn.Module):
    """Convolutions of single pixels beside others that read the same image."""

    def __init__(self) -> None:
        super().__init__()
        self.pixel, self.other = nn.Conv2d(6, 8, 1), nn.Conv2d(6, 8, 1, bias=False)
        self.window, self.stride = nn.Conv2d(6, 8, 3, padding=1), nn.Conv2d(6, 8, 1, stride=2)
        self.grouped, self.padded = nn.Conv2d(6, 8, 1, groups=2), nn.Conv2d(6, 8, 1, padding=1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        inside = self.pixel(x).relu() + self.other(x) + self.window(x) + self.grouped(x)
        return inside, self.stride(x), self.padded(x)


def test_convolutions_of_pixels_are_fully_connected() -> None:
    """XNNPACK quantizes each pixel for them, whatever the file says of a convolution."""
    model, x = Pixels().eval(), torch.randn(2, 6, 9, 8)
    lowered = penstock.lower(model, (x,), quantize="dynamic")
    (delegate,) = lowered.program.methods[0].delegates
    graph = read_payload(delegate.payload, lowered.program.named_data)
    values = {value.id: value for value in graph.values}
    products = [n for n in graph.nodes if n.kind in (NodeKind.FULLY_CONNECTED, NodeKind.CONV_2D)]
    assert [n.kind for n in products].count(NodeKind.FULLY_CONNECTED) == 2
    for node in products:
        source = values[node.inputs[0]]
        assert source.dtype is DataType.QDINT8
        one = node.kind is NodeKind.FULLY_CONNECTED
        assert source.quantization == PerToken(1 if one else 3)
    conversions = [n for n in graph.nodes if n.kind is NodeKind.CONVERT]
    assert len(conversions) == 2, "one for all of a kind"
    expected = [y.detach().numpy() for y in model(x)]
    answers = [
        penstock.load(lowered.to_bytes(), threads=1, engine=engine)(x.numpy())
        for engine in ("auto", "native", "xnnpack")
    ]
    for wanted, *found in zip(expected, *answers, strict=True):
        assert np.abs(found[0] - wanted).max() < 0.05 * np.abs(wanted).max()
        for other in found[1:]:
            np.testing.assert_array_equal(found[0], other)
