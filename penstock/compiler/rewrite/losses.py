"""Losses that PyTorch's own definitions get wrong, or lack."""

from __future__ import annotations

import torch
from torch import Tensor

MEAN, SUM = 1, 2


def multilabel_margin_loss(x: Tensor, target: Tensor, reduction: int = MEAN) -> Tensor:
    return multilabel_margin_loss_forward(x, target, reduction)[0]


def multilabel_margin_loss_forward(
    x: Tensor, target: Tensor, reduction: int
) -> tuple[Tensor, Tensor]:
    """How far each class that is no target comes within 1 of each target. Targets end at the first
    -1; PyTorch's definition counts what is behind it as class 0."""
    rows, targets = torch.atleast_2d(x), torch.atleast_2d(target)
    classes = rows.shape[1]
    places = torch.arange(classes)
    end = torch.where(targets == -1, places, classes).amin(-1, keepdim=True)
    counted = (places < end).unsqueeze(-1)
    index = torch.where(counted.squeeze(-1), targets, 0)
    hit = ((places == index.unsqueeze(-1)) & counted).any(1)
    margins = 1 - torch.gather(rows, -1, index).unsqueeze(-1) + rows.unsqueeze(1)
    zero = torch.zeros((), dtype=x.dtype)
    margins = torch.where(counted & ~hit.unsqueeze(1), margins.clamp(min=0), zero)
    loss = margins.sum((-2, -1)) / classes
    if reduction == MEAN:
        loss = loss.mean()
    elif reduction == SUM:
        loss = loss.sum()
    elif x.dim() < 2:
        loss = loss.squeeze(0)
    return loss, hit.to(x.dtype).reshape(target.shape)
