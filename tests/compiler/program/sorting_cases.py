"""Sorting, with ties everywhere; and selections by constants, whose sizes are known."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from emit_cases import Call, of
from emit_harness import Case
from torch import nn
from torch.nn import functional as F

TYPES = {
    "float32": torch.float32, "float64": torch.float64, "float16": torch.float16,
    "int64": torch.int64, "int32": torch.int32, "uint8": torch.uint8, "bool": torch.bool,
}  # fmt: skip


def _ties(*shape: int) -> torch.Tensor:
    return torch.randint(0, 4, shape).float()


def _specials() -> torch.Tensor:
    values = torch.tensor([0.0, -0.0, 1.0, math.nan, math.inf, -math.inf])
    return values[torch.randint(0, 6, (3, 60))]


def _sorted(make: Callable[[], torch.Tensor], dim: int, descending: bool) -> Callable[[], Any]:
    def sort(x: torch.Tensor) -> Any:
        values, places = torch.sort(x, dim=dim, descending=descending, stable=True)
        order = torch.argsort(x, dim=dim, descending=descending, stable=True)
        return values, places, order

    return lambda: (Call(sort), [(make(),)])


class Signs(nn.Module):
    """-0 and 0 are a tie, and stay as they were."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 1 / torch.sort(x, stable=True).values


def _bounded(x: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """A size that depends on data, and is bounded in the model."""
    result = torch.repeat_interleave(x, counts, dim=1)
    torch._check(result.shape[1] <= 12)
    return result * 2


CASES = [
    *(Case(f"stable_sort_{name}_{way}",
           _sorted(lambda dtype=dtype: _ties(3, 50).to(dtype), -1, way == "descending"))
      for name, dtype in TYPES.items() for way in ("ascending", "descending")),
    *(Case(f"stable_sort_of_specials_{way}", _sorted(_specials, 1, way == "descending"))
      for way in ("ascending", "descending")),
    Case("stable_sort_of_columns", _sorted(lambda: _ties(40, 2, 3), 0, True)),
    Case("stable_sort_of_long_rows", _sorted(lambda: _ties(2, 5000), -1, False)),
    Case("stable_sort_of_one", _sorted(lambda: _ties(3, 1, 4), 1, False)),
    Case("stable_sort_of_a_scalar", _sorted(lambda: torch.tensor(3.0), -1, False)),
    Case("stable_sort_of_signed_zeros",
         lambda: (Signs(), [(torch.tensor([[0.0, -0.0, 1, -0.0, 0.0, -1] * 3]),)])),
    Case("stable_sort_dynamic", lambda: (
        Call(lambda x: tuple(torch.sort(x, stable=True))),
        [(_ties(3, 9),), (_ties(2, 30),), (_ties(5, 2),)]),
        {"dynamic_shapes": ((({0: torch.export.Dim("a", max=8), 1: torch.export.Dim("b", max=40)}),
                             ),)}),
    Case("repeat_by_constant_counts", of(
        lambda x: torch.repeat_interleave(x, torch.tensor([1, 0, 3, 2]), 1).exp(), (3, 4)),
        pieces=1),
    Case("repeat_by_one_constant", of(
        lambda x: torch.repeat_interleave(x, torch.tensor([3]), 1).exp(), (3, 4)), pieces=1),
    Case("repeat_all_by_constant_counts", of(
        lambda x: torch.repeat_interleave(x, torch.arange(6)).reshape(3, 5).exp(), (2, 3)),
        pieces=1),
    Case("repeat_by_given_counts", of(
        lambda x, n: torch.repeat_interleave(x, n, 0, output_size=6), (4, 3),
        torch.tensor([1, 0, 3, 2]))),
    Case("repeat_by_counts_of_unknown_sum", lambda: (Call(_bounded), [
        (torch.randn(3, 4), torch.tensor(counts)) for counts in ([1, 0, 3, 2], [4, 4, 0, 4])])),
    Case("select_by_constant_mask", of(
        lambda x: F.relu(x[:, torch.tensor([True, False, True, True])]), (3, 4)), pieces=1),
    Case("select_by_constant_mask_of_all", of(
        lambda x: x[torch.eye(4, dtype=torch.bool)].exp(), (4, 4)), pieces=1),
    Case("masked_select_by_constant_mask", of(
        lambda x: torch.masked_select(x, torch.tensor([True, False, True, True])).exp(), (3, 4)),
        pieces=1),
    Case("nonzero_of_a_constant", of(
        lambda x: x[:, torch.nonzero(torch.tensor([1, 0, 2, 0])).squeeze(1)].exp(), (3, 4)),
        pieces=1),
    Case("conv_transpose3d_of_given_weights", of(
        lambda x, w, b: F.conv_transpose3d(x, w, b, (1, 2, 3), (2, 1, 0), (0, 1, 2)),
        (2, 4, 5, 4, 3), (4, 3, 3, 2, 3), (3,))),
    Case("conv_transpose3d_kernels", lambda: (
        nn.ConvTranspose3d(4, 6, 3, 2, groups=2, dilation=2, output_padding=1),
        [(torch.randn(2, 4, 3, 4, 5),)]), {"delegate": False}),
]  # fmt: skip
