"""Rounding weights by what it does to the results.

Each weight of an output channel may be rounded up or down. The nearest integer is best for a weight
by itself, not for its sum with others: errors of weights whose inputs rise and fall together may
cancel. With H the covariance of the inputs and e the errors, the result's error is e H e. Starting
at the nearest integers, one weight after the other takes the integer that is best beside the
others', until none changes; and that for several scales. Where a channel has few weights, as in a
depthwise convolution, this takes most of the error away; the errors of many average out anyway.
(The mean of the inputs does not count where a bias takes its part back.)
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.fx import Node

from penstock.compiler.fx.arguments import arguments

aten = torch.ops.aten

#: Channels of more weights are rounded to the nearest: their errors average out.
MOST_WEIGHTS = 64
#: So many inputs are looked at, but no fewer than so many for each weight of a channel.
SAMPLES = 1024
SAMPLES_A_WEIGHT = 12
#: And together no more numbers than this.
NUMBERS = 1 << 21
#: Scales are tried from the least that holds a channel to this much more.
SCALES = 12
LARGEST_SCALE = 1.15
SWEEPS = 4
#: Part of the mean variance that is added to each: the data is not all that there will be.
DAMPING = 0.01

_CONVOLUTIONS = (aten.conv1d.default, aten.conv2d.default, aten.conv3d.default)


def moments(
    node: Node, weight: torch.Tensor, inputs: Sequence[torch.Tensor], *, centred: bool
) -> torch.Tensor | None:
    """What an output channel's weights are multiplied with: its mean products in pairs, float64
    [groups, K, K] for K weights a channel; ``centred``, its covariances. ``None`` for other
    operators than convolutions and linear layers, for channels of many weights, and for too few
    inputs."""
    inputs = [x for x in inputs if x.numel()]
    if weight[0].numel() > MOST_WEIGHTS or weight.numel() == 0 or not inputs:
        return None
    if node.target is aten.linear.default:
        rows = torch.cat([x.reshape(-1, x.shape[-1]) for x in inputs])[None]
        rows = rows[:, torch.randperm(rows.shape[1], generator=_generator())[:SAMPLES]]
    elif node.target in _CONVOLUTIONS:
        rows = _patches(node, weight, inputs)
    else:
        return None
    if rows.shape[1] < SAMPLES_A_WEIGHT * rows.shape[2]:
        return None
    rows = rows / rows.abs().max().clamp(min=1e-30)  # whose squares would be beyond float32
    if centred:
        rows = rows - rows.mean(1, keepdim=True)
    return (rows.mT @ rows).double() / rows.shape[1]


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _patches(node: Node, weight: torch.Tensor, inputs: Sequence[torch.Tensor]) -> torch.Tensor:
    """The inputs of randomly chosen outputs of a convolution, [groups, samples, K]."""
    dims = weight.dim() - 2
    stride, padding, dilation, groups = list(arguments(node).values())[3:7]
    stride, padding, dilation = (
        list(each) * dims if len(each) == 1 else list(each) for each in (stride, padding, dilation)
    )
    kernel = weight.shape[2:]
    a_channel = weight[0].numel()
    count = min(SAMPLES, NUMBERS // (groups * a_channel))
    count = max(count, SAMPLES_A_WEIGHT * a_channel) // len(inputs) + 1
    generator = _generator()
    found = []
    for x in inputs:
        borders = [border for each in reversed(padding) for border in (each, each)]
        batch = x if x.dim() == weight.dim() else x[None]
        padded = torch.nn.functional.pad(batch, borders)
        index: list[torch.Tensor] = [torch.randint(len(batch), (count,), generator=generator)]
        for d in range(dims):
            size, step, spread = padded.shape[2 + d], stride[d], dilation[d]
            outputs = (size - spread * (kernel[d] - 1) - 1) // step + 1
            starts = torch.randint(outputs, (count,), generator=generator) * step
            index.append(starts[:, None] + spread * torch.arange(kernel[d]))
        places = [
            each.view(count, *(kernel[i] if i == d else 1 for i in range(dims)))
            for d, each in enumerate(index[1:])
        ]
        first = index[0].view(count, *[1] * dims)
        taken = padded.movedim(1, -1)[(first, *places)]  # [count, *kernel, channels]
        taken = taken.movedim(-1, 1).reshape(count, groups, a_channel)
        found.append(taken.transpose(0, 1))
    return torch.cat(found, 1)


def rounded(
    weight: torch.Tensor, scale: torch.Tensor, moments: torch.Tensor, low: int, high: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """``weight`` [channels, ...] as integers in [low, high], int8, and their scales, float32
    [channels]. ``scale`` [channels] holds the weights; none that is returned is smaller. The
    channels are the groups' (:func:`moments`), one group after the other."""
    groups, size = moments.shape[0], moments.shape[1]
    # Weights come first: each step takes one of all channels.
    exact = weight.reshape(groups, -1, size).movedim(2, 0).contiguous().float()
    diagonal = moments.diagonal(dim1=1, dim2=2)
    mean = diagonal.mean(1, keepdim=True).clamp(min=1e-300)
    moments = (moments / mean[..., None]).float()
    moments = moments + DAMPING * torch.eye(size)
    factors = LARGEST_SCALE ** (torch.arange(SCALES) / SCALES)
    scales = factors[:, None, None] * scale.reshape(groups, -1)
    integers, error = _descended(exact, scales, moments, low, high)
    best = error.argmin(0, keepdim=True)
    chosen = integers.gather(1, best.expand(size, *best.shape)).movedim(0, -1)
    return (
        chosen.to(torch.int8).reshape(weight.shape),
        scales.gather(0, best).reshape(scale.shape),
    )


def _descended(
    exact: torch.Tensor, scales: torch.Tensor, moments: torch.Tensor, low: int, high: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """For weights [K, groups, channels] and scales [candidates, groups, channels]: (integers
    [K, candidates, groups, channels], power of the error [candidates, groups, channels])"""
    exact = exact[:, None]
    integers = (exact / scales).round_().clamp_(low, high)
    rows = moments.movedim(1, 0)[:, :, :, None]  # [K, groups, K, 1]
    gradient = torch.einsum("ksgo,gkl->lsgo", exact - integers * scales, moments).contiguous()
    for _ in range(SWEEPS):
        changed = False
        for k, row in enumerate(rows):
            now = integers[k]
            curvature = scales * row[:, k]
            change = (now + (gradient[k] / curvature).round_()).clamp_(low, high) - now
            if bool(change.any()):
                changed = True
                now += change
                change *= scales
                gradient -= row.movedim(1, 0)[:, None] * change
        if not changed:
            break
    error = exact - integers * scales
    return integers, torch.einsum("ksgo,gkl,lsgo->sgo", error, moments, error)
