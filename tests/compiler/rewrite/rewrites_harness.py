"""Captures a model, applies rewrites, and checks that the answer stays eager's."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.fx import GraphModule

from penstock.compiler.capture.export import capture
from penstock.compiler.rewrite import pipelines
from penstock.compiler.steps import Step


class Model(nn.Module):
    """``function`` as a model."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *x: torch.Tensor) -> Any:
        return self.function(*x)


def apply(module: GraphModule, *rewrites: Callable[[GraphModule], int]) -> None:
    """Runs ``rewrites`` as a pipeline."""
    pipelines.run(module, [Step(rewrite, "under test") for rewrite in rewrites])


def rewritten(
    model: nn.Module, inputs: Sequence[torch.Tensor], *rewrites: Callable[[GraphModule], int]
) -> tuple[GraphModule, Counter[str]]:
    """Captures, applies the rewrites, checks the answer; returns the graph and its operators."""
    model.eval()
    module = capture(model, inputs).module
    apply(module, *rewrites)
    module.recompile()
    with torch.no_grad():
        torch.testing.assert_close(
            module(*inputs), model(*inputs), rtol=1e-4, atol=1e-5, equal_nan=True
        )
    targets = Counter(str(node.target) for node in module.graph.nodes if node.op == "call_function")
    return module, targets
