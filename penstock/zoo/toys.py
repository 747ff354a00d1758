"""The smallest models: they show that the way through the compiler is open."""

from __future__ import annotations

import torch

from penstock.zoo.model import Draft, variations


class _Add(torch.nn.Module):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return x + y


class _AddMul(torch.nn.Module):
    def forward(self, a: torch.Tensor, x: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return torch.add(torch.mm(a, x), b)


class _Linear(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.linear(x)
        return out


def linear(weights: str | None) -> Draft:
    return Draft(_Linear(), variations(torch.randn(3, 3)))


def add(weights: str | None) -> Draft:
    return Draft(_Add(), variations(torch.ones(1), torch.ones(1)))


def add_mul(weights: str | None) -> Draft:
    ones = torch.ones(2, 2)
    return Draft(_AddMul(), variations(ones, 2 * ones, 3 * ones))
