"""Traits of node kinds agree with each other and with what graphs are made of."""

from __future__ import annotations

import pytest

from penstock.formats.payload_nodes import FORMS
from penstock.graph.kinds import CONCATENATE, KINDS, NodeKind
from penstock.graph.shapes import SHAPE_RULES


def test_every_kind_has_a_row() -> None:
    assert set(KINDS) == set(NodeKind) == set(FORMS)
    assert set(NodeKind) - set(SHAPE_RULES) == {NodeKind.SCALED_DOT_PRODUCT_ATTENTION}
    assert {count: kind.traits.inputs for count, kind in CONCATENATE.items()} == {
        count: count for count in (2, 3, 4, 5)
    }


@pytest.mark.parametrize("kind", NodeKind)
def test_traits_follow_from_each_other(kind: NodeKind) -> None:
    traits = kind.traits
    assert traits.selects or not traits.rearranges
    assert traits.keeps_values or not traits.selects
    assert traits.weighted or (traits.output_axis, traits.input_axis) == (None, None)
    assert traits.weighted == traits.optional_bias
    assert not traits.selects or (traits.inputs, traits.outputs) == (1, 1)
    assert not traits.elementwise or traits.inputs in (1, 2)
