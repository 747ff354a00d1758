"""Do our steps of recurrent layers give the bits of XNNPACK's here? They do where both use the same
instruction set, and graphs with int8 activations, whose answers are the same bits on every engine,
take them only then."""

from __future__ import annotations

import ctypes
import functools
from ctypes import byref

import numpy as np

from penstock.graph.graph import INVALID_VALUE_ID, Node
from penstock.graph.kinds import NodeKind, SliceAttributes
from penstock.runtime.blocks import address, empty
from penstock.runtime.engines.native.cells import GRU, LSTM, CTask, in_panels
from penstock.runtime.engines.native.library import Library
from penstock.runtime.engines.xnnpack.examples import computed

#: More than a vector of every instruction set, and a part of one.
_HIDDEN = 35
#: XNNPACK has kernels of their own for one row.
_ROWS = (1, 5)


def has_the_same_bits(library: Library) -> bool:
    """Whether the kernel of ``library`` and XNNPACK agree on examples."""
    return _agree(library.functions, int(library.isa))


@functools.cache
def _agree(functions: ctypes.CDLL, isa: int) -> bool:
    rng = np.random.default_rng(0)
    for form, gates in ((LSTM, 4), (GRU, 3)):
        weights = rng.standard_normal((gates * _HIDDEN, _HIDDEN), np.float32)
        bias = rng.standard_normal(_HIDDEN, np.float32)
        theirs = _lstm if form == LSTM else _gru
        for rows in _ROWS:
            sizes = (gates * _HIDDEN, _HIDDEN, _HIDDEN)
            given, h, c = (rng.standard_normal((rows, size), np.float32) for size in sizes)
            ours = _ours(functions, isa, form, given, h, c, weights, bias)
            if not np.array_equal(ours, theirs(given, h, c, weights, bias)):
                return False
    return True


def _ours(
    functions: ctypes.CDLL, isa: int, form: int, given: np.ndarray, h: np.ndarray, c: np.ndarray,
    weights: np.ndarray, bias: np.ndarray,
) -> np.ndarray:  # fmt: skip
    packed = in_panels(weights)
    found, cell = np.empty_like(h), np.empty_like(c)
    task = CTask(
        isa, form, len(h), _HIDDEN, 0, given.shape[1], address(packed),
        address(bias) if form == GRU else None,
        *map(address, (given, h, c, cell, found)),
    )  # fmt: skip
    scratch = empty(functions.pk_f32_cell_scratch_size(byref(task)))
    task.scratch = address(scratch)
    functions.pk_f32_cell_run(byref(task), None)
    return found


def _slice(source: int, result: int, rows: int, gate: int, gates: int) -> Node:
    part = SliceAttributes((0, gate * _HIDDEN), (rows, gates * _HIDDEN))
    return Node(NodeKind.STATIC_SLICE, (source,), (result,), part)


def _lstm(
    given: np.ndarray, h: np.ndarray, c: np.ndarray, weights: np.ndarray, bias: np.ndarray
) -> np.ndarray:
    rows, n = h.shape
    one, three, all_gates = (rows, n), (rows, 3 * n), (rows, 4 * n)
    shapes = [
        all_gates, one, one, weights.shape, all_gates, all_gates, three, three, *[one] * 10,
    ]  # fmt: skip
    nodes = [
        Node(NodeKind.FULLY_CONNECTED, (1, 3, INVALID_VALUE_ID), (4,)),
        Node(NodeKind.ADD, (0, 4), (5,)),
        _slice(5, 6, rows, 0, 3),
        Node(NodeKind.SIGMOID, (6,), (7,)),
        _slice(5, 8, rows, 3, 1),
        Node(NodeKind.TANH, (8,), (9,)),
        *(_slice(7, 10 + gate, rows, gate, 1) for gate in range(3)),
        Node(NodeKind.MULTIPLY, (10, 9), (13,)),
        Node(NodeKind.MULTIPLY, (11, 2), (14,)),
        Node(NodeKind.ADD, (14, 13), (15,)),
        Node(NodeKind.TANH, (15,), (16,)),
        Node(NodeKind.MULTIPLY, (12, 16), (17,)),
    ]
    return computed(shapes, nodes, (given, h, c), (weights,))


def _gru(
    given: np.ndarray, h: np.ndarray, c: np.ndarray, weights: np.ndarray, bias: np.ndarray
) -> np.ndarray:
    rows, n = h.shape
    one, two = (rows, n), (rows, 2 * n)
    both, last = weights[: 2 * n], weights[2 * n :]
    shapes = [
        given.shape, one, both.shape, last.shape, bias.shape, two, two, two, two, *[one] * 10,
    ]  # fmt: skip
    nodes = [
        Node(NodeKind.FULLY_CONNECTED, (1, 2, INVALID_VALUE_ID), (5,)),
        _slice(0, 6, rows, 0, 2),
        Node(NodeKind.ADD, (6, 5), (7,)),
        Node(NodeKind.SIGMOID, (7,), (8,)),
        _slice(8, 9, rows, 0, 1),
        _slice(8, 10, rows, 1, 1),
        Node(NodeKind.FULLY_CONNECTED, (1, 3, 4), (11,)),
        Node(NodeKind.MULTIPLY, (9, 11), (12,)),
        _slice(0, 13, rows, 2, 1),
        Node(NodeKind.ADD, (13, 12), (14,)),
        Node(NodeKind.TANH, (14,), (15,)),
        Node(NodeKind.SUBTRACT, (1, 15), (16,)),
        Node(NodeKind.MULTIPLY, (10, 16), (17,)),
        Node(NodeKind.ADD, (15, 17), (18,)),
    ]
    return computed(shapes, nodes, (given, h), (both, last, bias))
