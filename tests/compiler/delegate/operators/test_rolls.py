"""A roll over several dimensions reads its input once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
import torch
from operator_harness import check, kinds

from penstock.graph.graph import XnnGraph
from penstock.graph.kinds import ConcatenateAttributes, NodeKind

IMAGES = torch.randn(1, 6, 8, 5)


def axes(graph: XnnGraph) -> list[int]:
    return [
        n.attributes.axis for n in graph.nodes if isinstance(n.attributes, ConcatenateAttributes)
    ]


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x.roll((-2, 3), (1, 2)),
        lambda x: x.roll((3, -2), (2, 1)),
        lambda x: x.roll((-2, 0, 3), (1, 3, 2)),
        lambda x: x.roll((-1, 3, -1), (1, 2, 1)),
        lambda x: torch.roll(torch.roll(x, -2, 1), 3, 2),
    ],
)
def test_two_dimensions_are_four_corners(function: Callable[..., torch.Tensor]) -> None:
    graph = check(function, IMAGES, tolerance=0.0)
    assert Counter(kinds(graph)) == {NodeKind.STATIC_SLICE: 4, NodeKind.CONCATENATE_2: 3}
    assert {node.inputs for node in graph.nodes if node.kind is NodeKind.STATIC_SLICE} == {
        tuple(graph.inputs)
    }
    assert axes(graph) == [2, 2, 1]


def test_the_outermost_dimension_in_memory_is_last() -> None:
    def turned(x: torch.Tensor) -> torch.Tensor:
        return x.permute(0, 3, 2, 1).abs().roll((1, 2), (1, 3)).permute(0, 3, 2, 1)

    assert axes(check(turned, IMAGES, tolerance=0.0)) == [3, 3, 1]


def test_three_dimensions_are_eight_corners() -> None:
    graph = check(lambda x: x.roll((1, 2, 3), (1, 2, 3)), IMAGES, tolerance=0.0)
    assert Counter(kinds(graph)) == {NodeKind.STATIC_SLICE: 8, NodeKind.CONCATENATE_2: 7}
    assert axes(graph) == [3, 3, 2, 3, 3, 2, 1]


def test_whole_turns_are_nothing() -> None:
    graph = check(lambda x: x.roll((6, 3, -3, -10), (1, 2, 2, 3)) + 1, IMAGES)
    assert kinds(graph) == [NodeKind.ADD]
