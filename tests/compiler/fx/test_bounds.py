"""What is known of the least value of a graph's results, without knowing its inputs."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import nn

import penstock
from penstock.compiler.capture.export import capture
from penstock.compiler.fx import bounds
from penstock.compiler.fx.bounds import lower_bound

X = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))


class Function(nn.Module):
    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


CASES: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], float]] = {
    "unknown": (lambda x: x, -math.inf),
    "square and epsilon": (lambda x: x * x + 1e-3, 1e-3),
    "norm": (lambda x: x.pow(2).sum(1, keepdim=True).sqrt() + 0.5, 0.5),
    "clamp": (lambda x: x.clamp(min=2.0), 2.0),
    "clamp to less": (lambda x: x.clamp(min=2.0, max=1.0), 1.0),
    "clamp above only": (lambda x: x.clamp(max=1.0), -math.inf),
    "greater": (lambda x: torch.maximum(x, x.abs() + 1.0), 1.0),
    "lesser": (lambda x: torch.minimum(x.exp(), x.abs() + 1.0), 0.0),
    "a part taken off": (lambda x: x.abs() - 3.0, -3.0),
    "difference": (lambda x: x.abs() - x.exp(), -math.inf),
    "negative factor": (lambda x: x.abs() * -2.0, -math.inf),
    "power of a half": (lambda x: (x.abs() + 0.25) ** 0.5, 0.5),
    "odd power": (lambda x: x**3, -math.inf),
    "counted": (lambda x: (x > 0).float().sum(1), 0.0),
    "choice": (lambda x: torch.where(x > 0, x.abs() + 2.0, 1.0), 1.0),
    "joined": (lambda x: torch.cat([x.abs(), x.exp() + 1.0]), 0.0),
    "joined with unknown": (lambda x: torch.cat([x.abs(), x]), -math.inf),
    "quotient": (lambda x: x.abs() / (x * x + 1.0), 0.0),
}


@pytest.mark.parametrize("name", CASES)
def test_lower_bound(name: str) -> None:
    function, expected = CASES[name]
    module = capture(Function(function), (X,)).module
    (result,) = next(node for node in module.graph.nodes if node.op == "output").all_input_nodes
    assert lower_bound(result) == pytest.approx(expected)
    assert float(function(X).min()) >= expected


def test_many_ways_lead_to_one_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is looked at once: all the ways would take for ever."""
    monkeypatch.setattr(bounds, "DEEPEST", 100)

    def doubled(x: torch.Tensor) -> torch.Tensor:
        y = x.abs() + 1.0
        for _ in range(60):
            y = y + y
        return y

    module = capture(Function(doubled), (X,)).module
    (result,) = next(node for node in module.graph.nodes if node.op == "output").all_input_nodes
    assert lower_bound(result) == 2.0**60


def test_a_choice_by_a_count_is_delegated() -> None:
    """A mean of what is observed: its divisor is never zero, so it may stand in a choice."""

    class Mean(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            observed = (x > 0).float()
            count = observed.sum(1, keepdim=True)
            mean = (x * observed).sum(1, keepdim=True) / count.clamp(min=1.0)
            return torch.where(count > 0, mean, torch.ones_like(mean))

    x = X.clone()
    x[0] = -1.0
    lowered = penstock.lower(Mean(), (x,))
    assert len(lowered.delegation.subgraphs) == 1
    assert not lowered.delegation.undelegated
    (found,) = penstock.load(lowered.to_bytes())(x)
    torch.testing.assert_close(torch.from_numpy(found.copy()), Mean()(x))
