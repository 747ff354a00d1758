"""Batch norm at inference as a scale and a shift."""

from __future__ import annotations

import torch


def batch_norm_affine(
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    mean: torch.Tensor | None,
    variance: torch.Tensor | None,
    eps: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    """The (scale, shift), float32 [channels], with ``batch_norm(x) == x * scale + shift``."""
    assert mean is not None and variance is not None
    scale = torch.rsqrt(variance.to(torch.float64) + eps)
    if weight is not None:
        scale = scale * weight.to(torch.float64)
    shift = -mean.to(torch.float64) * scale
    if bias is not None:
        shift = shift + bias.to(torch.float64)
    return scale.to(torch.float32), shift.to(torch.float32)
