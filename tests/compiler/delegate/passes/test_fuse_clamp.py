"""Clamps fused into the output range of what makes their input, also past what moves it."""

from __future__ import annotations

import pytest
from graph_builder import GraphBuilder, kinds
from graph_passes_harness import after

from penstock.compiler.delegate.passes import fuse_clamp
from penstock.graph.graph import XnnGraph
from penstock.graph.kinds import NodeKind


def moved_and_clamped(
    *, seen: bool = False, squared: bool = False, clamp: tuple[float, float] | None = None
) -> XnnGraph:
    """A sum, moved twice, and clamped; ``seen``: what lies between is an output too; ``squared``:
    what lies between computes."""
    b = GraphBuilder()
    total = b.apply(NodeKind.ADD, (b.input((2, 3)), b.input((2, 3))), (2, 3), clamp=clamp)
    turned = b.move(total, "10")
    between = b.apply(NodeKind.SQUARE, (turned,), (3, 2)) if squared else turned
    result = b.apply(NodeKind.CLAMP, (b.move(between, (6,)),), (6,), clamp=(0.0, 1.0))
    return b.finish(*([turned] if seen else []), result)


@pytest.mark.parametrize("high", [None, 0.9])
def test_past_what_moves(high: float | None) -> None:
    graph = moved_and_clamped(clamp=None if high is None else (-0.5, high))
    changed = after(graph, fuse_clamp.apply)
    assert NodeKind.CLAMP not in kinds(changed) and len(changed.nodes) == 3
    assert changed.nodes[0].clamp == (0.0, high or 1.0)


@pytest.mark.parametrize(("seen", "squared"), [(True, False), (False, True)])
def test_what_stays(seen: bool, squared: bool) -> None:
    changed = after(moved_and_clamped(seen=seen, squared=squared), fuse_clamp.apply)
    assert NodeKind.CLAMP in kinds(changed)
