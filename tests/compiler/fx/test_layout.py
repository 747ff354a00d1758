"""Shapes and memory orders, against what torch does with strides."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.compiler.fx import layout
from penstock.compiler.fx.layout import Dynamic

STATIC = Dynamic({})


def shapes(max_rank: int = 5) -> st.SearchStrategy[tuple[int, ...]]:
    return st.lists(st.sampled_from([1, 2, 3, 4]), min_size=1, max_size=max_rank).map(tuple)


@st.composite
def ordered_shapes(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...]]:
    shape = draw(shapes())
    return shape, tuple(draw(st.permutations(range(len(shape)))))


@st.composite
def reshapes(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """A shape, its order, and another shape with as many elements."""
    shape, order = draw(ordered_shapes())
    left = math.prod(shape)
    target = []
    while left > 1:
        divisor = draw(st.sampled_from([d for d in range(2, left + 1) if left % d == 0]))
        target.append(divisor)
        left //= divisor
    for _ in range(draw(st.integers(0, 2))):
        target.insert(draw(st.integers(0, len(target))), 1)
    return shape, order, tuple(target) or (1,)


def in_memory(tensor: torch.Tensor, order: tuple[int, ...]) -> torch.Tensor:
    """The elements of ``tensor`` as they lie in memory in ``order``."""
    return tensor.permute(order).reshape(-1)


@settings(deadline=None, max_examples=300)
@given(reshapes())
def test_a_planned_reshape_leaves_memory_as_it_is(
    case: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]],
) -> None:
    shape, order, target = case
    plan = layout.plan_reshape(shape, order, target, STATIC)
    source = torch.arange(math.prod(shape)).reshape(shape)
    assert sorted(plan.input_order) == list(range(len(shape)))
    assert sorted(plan.output_order) == list(range(len(target)))
    before = in_memory(source, plan.input_order)
    after = in_memory(source.reshape(target), plan.output_order)
    assert torch.equal(before, after)


@settings(deadline=None, max_examples=100)
@given(ordered_shapes())
def test_reshape_to_the_same_sizes_keeps_the_order(
    case: tuple[tuple[int, ...], tuple[int, ...]],
) -> None:
    shape, order = case
    plan = layout.plan_reshape(shape, order, shape, STATIC)
    assert layout.same_memory(shape, plan.input_order, order)
    assert layout.same_memory(shape, plan.output_order, order)


def test_flattening_the_space_of_a_channels_last_image_moves_nothing() -> None:
    plan = layout.plan_reshape((1, 8, 4, 6), layout.CHANNELS_LAST, (1, 8, 24), STATIC)
    assert layout.same_memory((1, 8, 4, 6), plan.input_order, layout.CHANNELS_LAST)
    assert plan.output_order == (0, 2, 1)


@settings(deadline=None, max_examples=100)
@given(ordered_shapes(), st.randoms())
def test_permuted_follows_torch(
    case: tuple[tuple[int, ...], tuple[int, ...]], random: object
) -> None:
    shape, order = case
    dims = list(range(len(shape)))
    random.shuffle(dims)  # type: ignore[attr-defined]
    source = torch.arange(math.prod(shape)).reshape(shape)
    seen = layout.permuted(order, dims)
    assert torch.equal(in_memory(source, order), in_memory(source.permute(dims), seen))


@settings(deadline=None, max_examples=100)
@given(shapes(), shapes())
def test_broadcast_follows_torch(left: tuple[int, ...], right: tuple[int, ...]) -> None:
    try:
        expected = tuple(torch.broadcast_shapes(left, right))
    except RuntimeError:
        with pytest.raises(ValueError, match="do not broadcast"):
            layout.broadcast(left, right)
    else:
        assert layout.broadcast(left, right) == expected


def test_an_impossible_reshape_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot reshape"):
        layout.plan_reshape((2, 3), (0, 1), (4, 2), STATIC)
