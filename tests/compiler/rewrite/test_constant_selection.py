"""Selections by constant masks, of which some are nowhere true."""

from __future__ import annotations

import torch
from rewrites_harness import rewritten
from torch import nn

import penstock
from penstock.compiler.fx import layout
from penstock.compiler.rewrite import pipelines


def delegated(model: nn.Module, *inputs: torch.Tensor) -> None:
    """Asserts that the model becomes one delegate, and that its answers are eager's."""
    lowered = answers_as_eager(model, *inputs)
    assert not lowered.delegation.undelegated
    assert len(lowered.delegation.subgraphs) == 1


def answers_as_eager(model: nn.Module, *inputs: torch.Tensor) -> penstock.Lowered:
    lowered = penstock.lower(model.eval(), inputs)
    with torch.no_grad():
        wanted = model(*inputs)
    (found,) = penstock.load(lowered.to_bytes())(*(tensor.numpy() for tensor in inputs))
    torch.testing.assert_close(torch.from_numpy(found), wanted)
    return lowered


class Adapters(nn.Module):
    """Each row goes through the layer of its kind; here all rows are of one."""

    def __init__(self) -> None:
        super().__init__()
        self.adapters = nn.ModuleList([nn.Linear(4, 4) for _ in range(3)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        adapted = torch.zeros_like(x)
        kinds = torch.ones(x.shape[0], dtype=torch.long)
        for kind, adapter in enumerate(self.adapters):
            mask = kinds == kind
            adapted[mask] = torch.relu(adapter(x[mask]))
        return x + adapted


def test_layers_that_get_no_rows() -> None:
    delegated(Adapters(), torch.randn(3, 4))


def test_what_follows_from_an_empty_selection_is_empty() -> None:
    class Joined(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            nothing = x[torch.zeros(3, dtype=torch.bool)]
            some = x[torch.tensor([True, False, True])]
            return torch.cat([(nothing * 2).relu(), some, x]) + 1

    answers_as_eager(Joined(), torch.randn(3, 4))
    steps = [step.apply for step in pipelines.CANONICALIZE]
    module, _ = rewritten(Joined(), (torch.randn(3, 4),), *steps)
    for node in module.graph.nodes:
        if isinstance(value := node.meta.get("val"), torch.Tensor):
            assert layout.is_static(layout.shape_of(value)), node


def test_places_of_a_constant_are_written_to() -> None:
    class Placed(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            placed = torch.zeros(4, 6)
            placed[torch.tensor([0, 2])] = x
            return placed * 2

    delegated(Placed(), torch.randn(2, 6))


def test_truth_of_floats_by_any_conversion() -> None:
    class Masked(nn.Module):
        def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            pooled = nn.functional.max_pool1d(mask, 2)
            by_device = pooled.to(device="cpu", dtype=torch.bool)
            return torch.where(by_device & ~(pooled - 1).bool(), x, -1.0)

    mask = torch.tensor([[[0.0, 0.0, 1.0, 0.0, 2.0, 2.0]]])
    delegated(Masked(), torch.randn(1, 1, 3), mask)
