"""The layers of several nodes that ``benchmarks.kernels`` measures: attention, norms and
convolutions of images that are quantized at run time, as the compiler lowers them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import nn

import penstock
from penstock.formats.payload_reader import read_payload
from penstock.graph.graph import XnnGraph


@dataclass(frozen=True)
class Layer:
    """A layer of PyTorch that one kernel of ours runs. ``inputs`` are the shapes of what it takes,
    ``operations`` those of a call."""

    name: str
    module: nn.Module
    inputs: tuple[tuple[int, ...], ...]
    operations: int
    type: str = "fp32"
    quantize: str | None = None

    def graph(self) -> XnnGraph:
        """The delegate's graph."""
        return self._graph

    @cached_property
    def _graph(self) -> XnnGraph:
        example = tuple(torch.randn(shape) for shape in self.inputs)
        program = penstock.lower(self.module.eval(), example, quantize=self.quantize).program
        (delegate,) = program.methods[0].delegates
        return read_payload(delegate.payload, program.named_data)


class Attention(nn.Module):
    """Of queries, keys and values ``[windows, heads, rows, size]``, with a bias or without."""

    def forward(self, q, k, v, bias=0.0):  # type: ignore[no-untyped-def]
        scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
        return torch.softmax(scores + bias, -1) @ v


class ChannelsLast(nn.Module):
    """A layer of images ``[batch, height, width, channels]``."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.layer(x.permute(0, 3, 1, 2))
        return found.permute(0, 2, 3, 1)


def _attention(windows: int, heads: int, rows: int, size: int, biased: bool = False) -> Layer:
    bias = ((1, heads, rows, rows),) if biased else ()
    number = f"{windows} windows, {heads}" if windows > 1 else str(heads)
    name = f"attention of {number} heads, {rows} rows by {size}" + (", a bias" if biased else "")
    operations = 4 * windows * heads * rows**2 * size
    return Layer(name, Attention(), ((windows, heads, rows, size),) * 3 + bias, operations)


def _norm(module: nn.Module, name: str, *shape: int) -> Layer:
    """A value is added to the mean, centred, squared, added to the variance, scaled and shifted."""
    count = 6 * torch.Size(shape).numel()
    return Layer(name, module, (shape,), count)


def _convolution(layer: nn.Conv2d, size: int) -> Layer:
    """Of a square image of ``size`` pixels a side."""
    inputs, outputs, kernel = layer.in_channels, layer.out_channels, layer.kernel_size
    side = (size + 2 * int(layer.padding[0]) - kernel[0]) // layer.stride[0] + 1
    name = f"{kernel[0]}x{kernel[1]} s{layer.stride[0]}, {inputs} to {outputs}, {side}x{side}"
    operations = 2 * side * side * outputs * inputs * kernel[0] * kernel[1]
    shape = (1, size, size, inputs)
    return Layer(
        name,
        ChannelsLast(layer),
        (shape,),
        operations,
        "int8, images quantized at run time",
        "dynamic",
    )


def layers() -> Sequence[Layer]:
    """Those of the page."""
    groups, channels = ChannelsLast(nn.GroupNorm(32, 256)), ChannelsLast(nn.InstanceNorm2d(64))
    return [
        _attention(1, 12, 197, 64),
        _attention(1, 12, 128, 32),
        _attention(1, 8, 1024, 64),
        _attention(64, 3, 49, 32, biased=True),
        _attention(1, 4, 196, 16, biased=True),
        _norm(groups, "norm of 32 groups of 8 on 32x32", 1, 32, 32, 256),
        _norm(channels, "norm of 64 channels on 128x128", 1, 128, 128, 64),
        _norm(nn.LayerNorm(384), "layer norm of 384, 128 rows", 1, 128, 384),
        _norm(nn.LayerNorm(768), "layer norm of 768, 197 rows", 1, 197, 768),
        _convolution(nn.Conv2d(3, 64, 3, padding=1), 112),
        _convolution(nn.Conv2d(96, 192, 2, 2), 56),
        _convolution(nn.Conv2d(64, 64, 3, padding=1), 56),
    ]
