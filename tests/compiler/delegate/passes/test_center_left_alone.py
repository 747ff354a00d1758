"""What looks like a layer norm whose input could be made without a mean, and is none."""

from __future__ import annotations

import copy
from collections.abc import Callable

import numpy as np
import pytest
from center_harness import (
    ADD,
    CHANNELS,
    CONCATENATE,
    INVALID,
    MULTIPLY,
    PRODUCT,
    SQUARE,
    SUBTRACT,
    Norms,
    differences,
)
from graph_builder import kinds
from graph_passes_harness import after

from penstock.compiler.delegate.passes import center
from penstock.graph.dtypes import DataType, PerTensor
from penstock.graph.kinds import (
    ConcatenateAttributes,
    NodeKind,
    ReshapeAttributes,
    SliceAttributes,
    TransposeAttributes,
)


def read_elsewhere(sketch: Norms) -> tuple[int, ...]:
    x = sketch.rows(3)
    return sketch.norm(x), sketch.apply(NodeKind.TANH, (x,), (3, CHANNELS))


def answered(sketch: Norms) -> tuple[int, ...]:
    x = sketch.rows(3)
    return sketch.norm(x), x


def multiplied_by_channel(sketch: Norms) -> tuple[int, ...]:
    scaled = sketch.apply(MULTIPLY, (sketch.rows(3), sketch.random(CHANNELS)), (3, CHANNELS))
    return (sketch.norm(scaled),)


def clamped(sketch: Norms) -> tuple[int, ...]:
    x = sketch.rows(3)
    sketch.graph.nodes[-1].clamp = (0.0, 1.0)
    return (sketch.norm(x),)


def clamped_sum(sketch: Norms) -> tuple[int, ...]:
    x = sketch.apply(ADD, (sketch.rows(3), sketch.rows(3)), (3, CHANNELS), clamp=(0.0, 1.0))
    return (sketch.norm(x),)


def sum_with_a_row_constant(sketch: Norms) -> tuple[int, ...]:
    return (sketch.norm(sketch.apply(ADD, (sketch.rows(3), sketch.input((3, 1))), (3, CHANNELS))),)


def joined_channels(sketch: Norms) -> tuple[int, ...]:
    x = sketch.apply(
        CONCATENATE, (sketch.rows(3), sketch.rows(3)), (3, 16), ConcatenateAttributes(1)
    )
    return (sketch.norm(x),)


def some_channels(sketch: Norms) -> tuple[int, ...]:
    x = sketch.apply(
        NodeKind.STATIC_SLICE, (sketch.rows(3),), (3, 4), SliceAttributes((0, 2), (3, 4))
    )
    return (sketch.norm(x),)


def mixed_rows(sketch: Norms) -> tuple[int, ...]:
    x = sketch.move(sketch.rows(4), (2, 16))
    return (sketch.norm(x),)


def turned(sketch: Norms) -> tuple[int, ...]:
    x = sketch.apply(
        NodeKind.STATIC_TRANSPOSE, (sketch.rows(8),), (8, CHANNELS), TransposeAttributes((1, 0))
    )
    return (sketch.norm(x),)


def tied(sketch: Norms) -> tuple[int, ...]:
    weight = sketch.random(CHANNELS, CHANNELS)
    x = sketch.input((3, CHANNELS))
    for _ in range(2):
        x = sketch.apply(PRODUCT, (x, weight, INVALID), (3, CHANNELS))
    return (sketch.norm(x),)


def square(sketch: Norms, x: int, mean: int) -> int:
    """``(x - mean)^2``"""
    return sketch.apply(SQUARE, (sketch.apply(SUBTRACT, (x, mean), (3, CHANNELS)),), (3, CHANNELS))


def not_the_mean(sketch: Norms) -> tuple[int, ...]:
    x = sketch.rows(3)
    return (square(sketch, x, sketch.mean(x, 2.0)),)


def not_every_channel(sketch: Norms) -> tuple[int, ...]:
    x = sketch.rows(3)
    row = sketch.constant(np.array([[0.25, 0] * 4]))
    return (square(sketch, x, sketch.apply(PRODUCT, (x, row, INVALID), (3, 1))),)


def mean_with_a_bias(sketch: Norms) -> tuple[int, ...]:
    x = sketch.rows(3)
    mean = sketch.mean(x)
    sketch.graph.nodes[-1].inputs = (*sketch.graph.nodes[-1].inputs[:2], sketch.random(1))
    return (square(sketch, x, mean),)


def mean_itself(sketch: Norms) -> tuple[int, ...]:
    x = sketch.rows(3)
    mean = sketch.mean(x)
    return square(sketch, x, mean), sketch.apply(SQUARE, (mean,), (3, 1))


def mean_answered(sketch: Norms) -> tuple[int, ...]:
    x = sketch.rows(3)
    mean = sketch.mean(x)
    return square(sketch, x, mean), mean


def difference_answered(sketch: Norms) -> tuple[int, ...]:
    x = sketch.rows(3)
    return (sketch.apply(SUBTRACT, (x, sketch.mean(x)), (3, CHANNELS)),)


def the_wrong_way_round(sketch: Norms) -> tuple[int, ...]:
    x = sketch.rows(3)
    return (square(sketch, sketch.mean(x), x),)


def difference_from_another(sketch: Norms) -> tuple[int, ...]:
    return (square(sketch, sketch.rows(3), sketch.mean(sketch.rows(3))),)


@pytest.mark.parametrize(
    "make",
    [
        read_elsewhere, answered, multiplied_by_channel, clamped, clamped_sum,
        sum_with_a_row_constant, joined_channels, some_channels, mixed_rows, turned, tied,
        not_the_mean, not_every_channel, mean_with_a_bias, mean_itself, mean_answered,
        difference_answered, the_wrong_way_round, difference_from_another,
    ],
)  # fmt: skip
def test_stays(make: Callable[[Norms], tuple[int, ...]]) -> None:
    sketch = Norms()
    graph = sketch.finish(*make(sketch))
    before = copy.deepcopy(graph)
    graph = after(graph, center.apply, tolerance=0.0)
    assert kinds(graph) == kinds(before)


def test_integer_weights_stay() -> None:
    sketch = Norms()
    data = np.arange(40, dtype=np.int8).reshape(CHANNELS, 5)
    weight = sketch.value(data.shape, DataType.QINT8, PerTensor(0.01, 0), data)
    x = sketch.apply(PRODUCT, (sketch.input((3, 5)), weight, INVALID), (3, CHANNELS))
    graph = sketch.finish(sketch.norm(x))
    center.apply(graph)
    assert differences(graph) == 1
    assert graph.values[weight].data is data


def test_a_reshape_that_seems_to_keep_rows() -> None:
    """[8, n] to [n, 8] with n of 8 at most: the shapes are upper bounds."""
    sketch = Norms()
    x = sketch.input((CHANNELS, 8))
    x = sketch.apply(NodeKind.STATIC_RESHAPE, (x,), (8, CHANNELS), ReshapeAttributes((0, CHANNELS)))
    for _ in range(2):
        x = sketch.block(x)
    graph = sketch.finish(sketch.norm(x))
    center.apply(graph)
    (reshape,) = (n for n in graph.nodes if n.kind is NodeKind.STATIC_RESHAPE)
    assert reshape.inputs == (graph.inputs[0],)
    assert differences(graph) == 1
