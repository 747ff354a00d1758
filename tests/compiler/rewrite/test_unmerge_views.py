"""Views that merge dynamic dimensions and take them apart again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from rewrites_harness import apply
from torch import nn
from torch.export import Dim
from torch.fx import GraphModule

from penstock.compiler.capture.export import capture
from penstock.compiler.fx import layout
from penstock.compiler.rewrite import unmerge_views

SIZES = {0: Dim("batch", min=1, max=6), 1: Dim("length", min=2, max=12)}


class Call(nn.Module):
    def __init__(self, function: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        self.function = function
        self.linear, self.norm = nn.Linear(8, 6), nn.LayerNorm(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(self, x)


def rewritten(function: Callable[..., torch.Tensor], sizes: Any = None) -> GraphModule:
    """The graph after the rewrite, which gives eager's answers at several sizes."""
    model = Call(function).eval()
    shapes = (SIZES if sizes is None else sizes,)
    module = capture(model, (torch.randn(3, 5, 8),), None, shapes).module
    apply(module, unmerge_views.apply)
    module.recompile()
    for batch, length in ((3, 5), (1, 12), (6, 2)):
        if sizes is None or (batch, length) == (3, 5):
            x = torch.randn(batch, length, 8)
            torch.testing.assert_close(module(x), model(x))
    return module


def merges(module: GraphModule) -> int:
    """How many tensors have a dimension that is a product of dynamic ones."""
    values = [node.meta.get("val") for node in module.graph.nodes if node.op == "call_function"]
    shapes = [layout.shape_of(value) for value in values if isinstance(value, torch.Tensor)]
    return sum(not isinstance(d, int) and not d.is_Symbol for shape in shapes for d in shape)


UNMERGED: dict[str, Callable[..., torch.Tensor]] = {
    "rows": lambda m, x: m.linear(m.norm(x.reshape(-1, 8))).view(*x.shape[:2], 6),
    "element-wise": lambda m, x: (x.view(-1, 8).exp() * 2 + torch.arange(8.0)).view(x.shape),
    "two ways": lambda m, x: (x.view(-1, 8).exp() + m.norm(x.view(-1, 8))).view(x.shape),
    "softmax": lambda m, x: x.flatten(0, 1).softmax(-1).unflatten(0, x.shape[:2]),
    "heads": lambda m, x: (
        x.view(x.shape[0], x.shape[1] * 2, 4).transpose(0, 1)
        .reshape(x.shape[1], 2, x.shape[0], 4).relu()
    ),
    "turned": lambda m, x: (
        m.linear(x.transpose(0, 1).reshape(-1, 8)).view(x.shape[1], x.shape[0], 6)
    ),
    "part of the last": lambda m, x: (
        m.linear(x.view(*x.shape[:2], 2, 4).permute(1, 0, 2, 3).reshape(-1, 8))
        .view(x.shape[1], x.shape[0], 6)
    ),
    "products": lambda m, x: torch.bmm(*(
        y.reshape(x.shape[1], 2 * x.shape[0], 4).permute(1, *order) for y, order in
        ((x.transpose(0, 1), (0, 2)), (x.transpose(0, 1).exp(), (2, 0)))
    )).softmax(-1).view(x.shape[0], 2, x.shape[1], x.shape[1]),
    "products with vectors": lambda m, x: (
        (x.exp().view(-1, 2, 4) @ x[..., :4].reshape(-1, 4, 1).softmax(1)).view(*x.shape[:2], 2)
    ),
    "over a dimension of size 1": lambda m, x: (
        x[:, None, None, :, 0].expand(-1, 2, -1, -1).reshape(-1, 1, x.shape[1])
        .view(x.shape[0], 2, -1, x.shape[1]) * 2
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", UNMERGED)
def test_nothing_is_merged_any_more(name: str) -> None:
    assert merges(rewritten(UNMERGED[name])) == 0


KEPT: dict[str, Callable[..., torch.Tensor]] = {
    "merged for good": lambda m, x: x.view(-1, 8) * 2,
    "across rows": lambda m, x: x.view(-1, 8).cumsum(0).view(x.shape),
    "other columns": lambda m, x: x.view(-1, 4).softmax(-1).view(x.shape),
}


@pytest.mark.parametrize("name", KEPT)
def test_what_looks_similar_stays_right(name: str) -> None:
    rewritten(KEPT[name])


def test_sizes_that_strides_leave() -> None:
    """A product of them is written in more ways than one."""

    def pooled(model: Call, x: torch.Tensor) -> torch.Tensor:
        images = torch.stack([x, x]).permute(0, 3, 1, 2)
        return nn.functional.max_pool2d(images, 3, 2, 1).flatten(2) * 2

    rewritten(pooled, {0: Dim("batch", min=3, max=6), 1: Dim("length", min=3, max=12)})


def test_one_dynamic_dimension_is_left_alone() -> None:
    module = rewritten(UNMERGED["rows"], {0: SIZES[0]})
    targets = Counter(str(node.target) for node in module.graph.nodes)
    assert targets["aten.reshape.default"] == 1
