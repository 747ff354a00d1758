"""Whose time the time of a node without an operator is in."""

from __future__ import annotations

import pytest

from penstock.graph.graph import Node
from penstock.graph.kinds import NodeKind
from penstock.tools.profiling.fusion import carriers


def chain(kinds: str) -> list[Node]:
    """Nodes that each read the one before."""
    return [Node(NodeKind[kind], (i,), (i + 1,)) for i, kind in enumerate(kinds.split())]


@pytest.mark.parametrize(
    ("kinds", "timed", "expected"),
    [
        ("CONVERT FULLY_CONNECTED", [1], {0: 1}),
        ("CONV_2D CLAMP ABS", [0, 2], {1: 0}),
        ("CLAMP ABS", [1], {0: 1}),
        ("CONVERT ABS EXP CONVERT ADD", [3, 4], {0: 3, 1: 3, 2: 3}),
        ("ABS STATIC_RESHAPE EXP", [0, 2], {1: None}),
        ("ABS EXP", [0], {1: 0}),
        ("ABS EXP", [], {0: None, 1: None}),
    ],
)
def test_chains(kinds: str, timed: list[int], expected: dict[int, int | None]) -> None:
    assert carriers(chain(kinds), timed) == expected


def test_a_conversion_that_two_products_pack() -> None:
    nodes = [
        Node(NodeKind.CONVERT, (0,), (1,)),
        Node(NodeKind.FULLY_CONNECTED, (1, 8), (2,)),
        Node(NodeKind.FULLY_CONNECTED, (1, 9), (3,)),
    ]
    assert carriers(nodes, [1, 2]) == {0: 1}
