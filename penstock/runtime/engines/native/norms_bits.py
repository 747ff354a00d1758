"""Do our exact layer norms give the bits of XNNPACK's nodes here? They do where both use the same
instruction set, and graphs with int8 activations, whose answers are the same bits on every engine,
take them only then."""

from __future__ import annotations

import ctypes
import functools
from ctypes import byref

import numpy as np

from penstock.graph.graph import INVALID_VALUE_ID, Node
from penstock.graph.kinds import NodeKind, Pool2dAttributes, ReshapeAttributes
from penstock.runtime.blocks import address
from penstock.runtime.engines.native.library import Library
from penstock.runtime.engines.native.norms import CMean, CTask
from penstock.runtime.engines.xnnpack.examples import computed

#: More rows than run side by side, and a part of as many.
_ROWS = 11
#: Parts and widths: pooling once, in two passes, none.
_MEANS = ((6, 16), (12, 32), (1, 45))
_EPSILON = 1e-5


def has_the_same_bits(library: Library) -> bool:
    """Whether the kernel of ``library`` and XNNPACK agree on examples."""
    return _agree(library.functions, int(library.isa))


@functools.cache
def _agree(functions: ctypes.CDLL, isa: int) -> bool:
    rng = np.random.default_rng(0)
    for parts, width in _MEANS:
        channels = parts * width
        x = rng.standard_normal((_ROWS, channels), np.float32) + np.float32(0.5)
        weight, bias = (rng.standard_normal(channels, np.float32) for _ in "ab")
        ours = _ours(functions, isa, parts, x, weight, bias)
        if not np.array_equal(ours, _theirs(parts, x, weight, bias)):
            return False
    return True


def _ours(
    functions: ctypes.CDLL, isa: int, parts: int, x: np.ndarray, weight: np.ndarray,
    bias: np.ndarray,
) -> np.ndarray:  # fmt: skip
    rows, channels = x.shape
    width = channels // parts
    mean, found = CMean(parts, width, 1 / width), np.empty_like(x)
    task = CTask(
        isa, _EPSILON, rows, channels, mean, mean, address(weight), address(bias), address(x),
        address(found),
    )  # fmt: skip
    functions.pk_f32_layer_norm_run(byref(task), None)
    return found


def _theirs(parts: int, x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    rows, channels = x.shape
    width = channels // parts
    nodes = [
        *_mean(0, 5, (rows, parts, width)),
        Node(NodeKind.SUBTRACT, (0, 8), (9,)),
        Node(NodeKind.SQUARE, (9,), (10,)),
        *_mean(10, 11, (rows, parts, width)),
        Node(NodeKind.ADD, (14, 4), (15,)),
        Node(NodeKind.RECIPROCAL_SQUARE_ROOT, (15,), (16,)),
        Node(NodeKind.MULTIPLY, (9, 16), (17,)),
        Node(NodeKind.MULTIPLY, (17, 2), (18,)),
        Node(NodeKind.ADD, (18, 3), (19,)),
    ]
    column = np.full((1, width), 1 / width, np.float32)
    constants = (column, weight, bias, np.array(_EPSILON, np.float32))
    of_mean = [(1, rows, parts, width), (1, rows, 1, width), (1, rows, 1, 1), (rows, 1)]
    shapes = [
        x.shape, *(constant.shape for constant in constants), *of_mean, x.shape, x.shape, *of_mean,
        (rows, 1), (rows, 1), x.shape, x.shape, x.shape,
    ]  # fmt: skip
    return computed(shapes, nodes, (x,), constants)


def _mean(source: int, first: int, sizes: tuple[int, int, int]) -> list[Node]:
    """The nodes of a mean, whose values are ``first`` and the three behind it; of one part, nothing
    is pooled."""
    rows, parts, width = sizes
    pool = Pool2dAttributes((0, 0, 0, 0), (1, parts), (1, parts))
    pooled = first + 1 if parts > 1 else first
    nodes = [
        Node(NodeKind.STATIC_RESHAPE, (source,), (first,), ReshapeAttributes((1, *sizes))),
        Node(NodeKind.AVG_POOLING_2D, (first,), (first + 1,), pool),
        Node(NodeKind.FULLY_CONNECTED, (pooled, 1, INVALID_VALUE_ID), (first + 2,)),
        Node(NodeKind.STATIC_RESHAPE, (first + 2,), (first + 3,), ReshapeAttributes((rows, 1))),
    ]
    return nodes if parts > 1 else [nodes[0], *nodes[2:]]
