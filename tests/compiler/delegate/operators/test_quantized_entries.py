"""Entries with a quantization rule, between two convolutions: on int8, and near eager."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from operator_harness import check_quantized
from torch import Tensor, nn
from torch.nn import functional as F

from penstock.graph.kinds import NodeKind


class Between(nn.Module):
    """``operation`` on what a convolution makes, then a convolution of what comes out."""

    def __init__(self, operation: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.before = nn.Conv2d(3, 8, 3, padding=1)
        self.operation = operation
        channels = operation(torch.zeros(1, 8, 8, 6)).shape[1]
        self.after = nn.Conv2d(channels, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.after(self.operation(self.before(x)))
        return result


INDEX = torch.tensor([3, 0, 5, 5])
OPERATIONS: dict[str, tuple[NodeKind, Callable[[Tensor], Tensor]]] = {
    "sigmoid": (NodeKind.SIGMOID, torch.sigmoid),
    "tanh": (NodeKind.TANH, torch.tanh),
    "hardswish": (NodeKind.HARDSWISH, F.hardswish),
    "leaky_relu": (NodeKind.LEAKY_RELU, lambda x: F.leaky_relu(x, 0.1)),
    "elu": (NodeKind.ELU, F.elu),
    "gelu": (NodeKind.GELU, F.gelu),
    "relu after a pool": (NodeKind.MAX_POOLING_2D, lambda x: F.relu(F.max_pool2d(x, 2))),
    "max_pool": (NodeKind.MAX_POOLING_2D, lambda x: F.max_pool2d(x, 3, 2, 1)),
    "avg_pool": (NodeKind.DEPTHWISE_CONV_2D, lambda x: F.avg_pool2d(x, 2)),
    "mean": (NodeKind.GLOBAL_AVG_POOLING_2D, lambda x: x.mean((2, 3), keepdim=True)),
    "add": (NodeKind.ADD, lambda x: x + x.flip(1)),
    "sub": (NodeKind.SUBTRACT, lambda x: x - x.roll(1, 2)),
    "mul": (NodeKind.MULTIPLY, lambda x: x * x.roll(1, 2)),
    "cat": (NodeKind.CONCATENATE_2, lambda x: torch.cat([x, x.relu()], 1)),
    "slice": (NodeKind.STATIC_SLICE, lambda x: x[:, 2:7]),
    "index": (NodeKind.STATIC_SLICE, lambda x: x[:, INDEX]),
    "split": (NodeKind.STATIC_SLICE, lambda x: x.chunk(2, 1)[1]),
    "pad": (NodeKind.STATIC_CONSTANT_PAD, lambda x: F.pad(x.relu(), (1, 2, 0, 1)).clamp(max=2)),
    "pad by a value": (NodeKind.STATIC_CONSTANT_PAD, lambda x: F.pad(x, (1, 2), value=0.5)),
    "pad reflect": (NodeKind.CONCATENATE_3, lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect")),
    "bilinear": (
        NodeKind.STATIC_RESIZE_BILINEAR_2D,
        lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"),
    ),
    "nearest": (NodeKind.CONCATENATE_2, lambda x: F.interpolate(x, scale_factor=2)),
    "pixel_shuffle": (NodeKind.STATIC_TRANSPOSE, lambda x: F.pixel_shuffle(x, 2)),
    "pixel_unshuffle": (NodeKind.STATIC_TRANSPOSE, lambda x: F.pixel_unshuffle(x, 2)),
    "channel_shuffle": (NodeKind.STATIC_TRANSPOSE, lambda x: F.channel_shuffle(x, 2)),
    "roll": (NodeKind.CONCATENATE_2, lambda x: x.roll(2, 3)),
    "repeat": (NodeKind.CONCATENATE_2, lambda x: x.repeat(1, 2, 1, 1)),
    "stack": (NodeKind.CONCATENATE_2, lambda x: torch.stack([x, x], 2).flatten(1, 2)),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_on_integers(name: str) -> None:
    expected, operation = OPERATIONS[name]
    torch.manual_seed(5)
    check_quantized(Between(operation), torch.randn(1, 3, 8, 6), expected=expected)


FLOATING: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "mish": F.mish,
    "hardsigmoid": F.hardsigmoid,
    "prelu": nn.PReLU(8),
    "softmax": lambda x: x.softmax(1),
    "group_norm": nn.GroupNorm(2, 8),
    "where": lambda x: torch.where(x > 0, x, 0.3 * x),
    "adaptive_avg_pool": lambda x: F.adaptive_avg_pool2d(x, 3),
    "bicubic": lambda x: F.interpolate(x, scale_factor=2, mode="bicubic"),
}


@pytest.mark.parametrize("name", FLOATING)
def test_floating_between_integers(name: str) -> None:
    """What XNNPACK has in floating point only stands between int8 convolutions."""
    torch.manual_seed(5)
    module = Between(FLOATING[name])
    graph = check_quantized(module, torch.randn(1, 3, 8, 6), expected=NodeKind.CONV_2D)
    assert [node.kind for node in graph.nodes].count(NodeKind.CONV_2D) >= 2
