"""Decompose three-dimensional convolutions, which have no kernel, into two-dimensional ones."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

aten = torch.ops.aten


def convolution(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: list[int], padding: list[int],
    dilation: list[int], transposed: bool, output_padding: list[int], groups: int,
) -> Tensor:  # fmt: skip
    """The sum of one two-dimensional convolution for each tap in depth; the output's depth goes
    along with the batch."""
    stride, padding, dilation, output_padding = (
        list(one) * (3 // len(one)) for one in (stride, padding, dilation, output_padding)
    )
    if transposed:
        return _transposed(x, weight, bias, stride, padding, dilation, output_padding, groups)
    x = aten.constant_pad_nd.default(x, [0, 0, 0, 0, padding[0], padding[0]])
    taps, (batch, _, depth) = weight.shape[2], x.shape[:3]
    rows = (depth - dilation[0] * (taps - 1) - 1) // stride[0] + 1
    total: Any = None
    for tap in range(taps):
        start = tap * dilation[0]
        layers = x[:, :, start : start + (rows - 1) * stride[0] + 1 : stride[0]]
        flat = layers.transpose(1, 2).flatten(0, 1)
        part = aten.convolution.default(
            flat, weight[:, :, tap], bias if tap == 0 else None, stride[1:], padding[1:],
            dilation[1:], False, [0, 0], groups,
        )  # fmt: skip
        total = part if total is None else total + part
    result: Tensor = total.unflatten(0, (batch, rows)).transpose(1, 2)
    return result


def _transposed(
    x: Tensor, weight: Tensor, bias: Tensor | None, stride: list[int], padding: list[int],
    dilation: list[int], output_padding: list[int], groups: int,
) -> Tensor:  # fmt: skip
    """Each tap's layers stand ``stride`` apart, between zeros, from its place in depth on."""
    taps, (batch, _, depth) = weight.shape[2], x.shape[:3]
    span, step = dilation[0] * (taps - 1) + 1, stride[0]
    size = (depth - 1) * step + span - 2 * padding[0] + output_padding[0]
    flat = x.transpose(1, 2).flatten(0, 1)
    total: Any = None
    for tap in range(taps):
        part = aten.convolution.default(
            flat, weight[:, :, tap], None, stride[1:], padding[1:], dilation[1:], True,
            output_padding[1:], groups,
        ).unflatten(0, (batch, depth))  # fmt: skip
        spaced = torch.nn.functional.pad(part.unsqueeze(2), [0] * 6 + [0, step - 1]).flatten(1, 2)
        before = tap * dilation[0] - padding[0]
        ends = [before, size - before - depth * step]
        placed = torch.nn.functional.pad(spaced, [0] * 6 + ends)
        total = placed if total is None else total + placed
    result: Tensor = total.transpose(1, 2)
    return result if bias is None else result + bias.reshape(-1, 1, 1, 1)
