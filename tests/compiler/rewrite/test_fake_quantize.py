"""Models that round their values and weights with PyTorch's fake quantization operators."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import penstock
from penstock.formats.payload_reader import read_payload
from penstock.formats.program_reader import read_program
from penstock.graph.dtypes import DataType
from penstock.graph.kinds import NodeKind

torch.manual_seed(0)


def by_channel(weight: Tensor) -> Tensor:
    scales = weight.detach().abs().amax(1) / 127
    points = torch.zeros(len(weight), dtype=torch.int32)
    return torch.fake_quantize_per_channel_affine(weight, scales, points, 0, -127, 127)


class Rounded(nn.Module):
    """Layers that were trained for int8 by hand."""

    def __init__(self, tensors: bool) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(16, 32), nn.Linear(32, 8)
        self.parameters_of = [(0.03, 3), (0.02, -128), (0.01, 0)]
        if tensors:
            for index, (scale, point) in enumerate(self.parameters_of):
                self.register_buffer(f"scale_{index}", torch.tensor(scale))
                self.register_buffer(f"point_{index}", torch.tensor(point, dtype=torch.int32))
        self.tensors = tensors

    def rounded(self, x: Tensor, index: int) -> Tensor:
        parameters: Any = self.parameters_of[index]
        if self.tensors:
            parameters = (getattr(self, f"scale_{index}"), getattr(self, f"point_{index}"))
        return torch.fake_quantize_per_tensor_affine(x, *parameters, -128, 127)

    def forward(self, x: Tensor) -> Tensor:
        x = self.rounded(x, 0)
        x = torch.relu(F.linear(x, by_channel(self.up.weight), self.up.bias))
        x = self.rounded(x, 1)
        return self.rounded(F.linear(x, by_channel(self.down.weight), self.down.bias), 2)


@pytest.mark.parametrize("decomposed", [False, True])
@pytest.mark.parametrize("tensors", [False, True])
def test_products_are_of_integers(tensors: bool, decomposed: bool) -> None:
    model, x = Rounded(tensors).eval(), torch.randn(5, 16)
    exported = torch.export.export(model, (x,))
    if decomposed and not tensors:
        exported = exported.run_decompositions({})
    lowered = penstock.lower(exported)
    assert not lowered.delegation.undelegated
    data = lowered.to_bytes()
    program = read_program(data)
    (delegate,) = program.methods[0].delegates
    graph = read_payload(delegate.payload, program.named_data)
    products = [node for node in graph.nodes if node.kind is NodeKind.FULLY_CONNECTED]
    types = {graph.values[value].dtype for node in products for value in node.inputs[:2]}
    assert len(products) == 2 and types == {DataType.QINT8, DataType.QCINT8}
    (found,) = penstock.load(data)(x)
    np.testing.assert_allclose(found, model(x).detach().numpy(), atol=0.0101)


@pytest.mark.parametrize("limits", [(0, 255), (-8, 7), (0, 127)])
def test_values(limits: tuple[int, int]) -> None:
    class Model(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.fake_quantize_per_tensor_affine(x, 0.1, 5, *limits) * 2

    x = torch.randn(4, 6) * 5
    (found,) = penstock.load(penstock.lower(Model(), (x,)).to_bytes())(x)
    np.testing.assert_allclose(found, Model()(x).numpy(), rtol=1e-6)
