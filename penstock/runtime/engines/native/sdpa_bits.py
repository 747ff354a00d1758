"""Does our attention give the bits of XNNPACK's here? It does where both use the same instruction
set, and graphs with int8 activations, whose answers are the same bits on every engine, take it only
then."""

from __future__ import annotations

import ctypes
import functools
from ctypes import byref

import numpy as np

from penstock.graph.graph import Node, Shape
from penstock.graph.kinds import NodeKind
from penstock.runtime.blocks import address, empty
from penstock.runtime.engines.native.library import Library
from penstock.runtime.engines.native.sdpa import Attention, Operand
from penstock.runtime.engines.xnnpack.examples import computed

#: Of query, keys, values, scores, weights and output: more columns than are added up at a time, and
#: a part of a vector beyond.
_HEADS, _ROWS, _COLUMNS, _SIZE, _DEPTH = 2, 5, 109, 19, 21
_SHAPES: tuple[Shape, ...] = (
    (_HEADS, _ROWS, _SIZE),
    (_HEADS, _SIZE, _COLUMNS),
    (_HEADS, _COLUMNS, _DEPTH),
    (_HEADS, _ROWS, _COLUMNS),
    (_HEADS, _ROWS, _COLUMNS),
    (_HEADS, _ROWS, _DEPTH),
)


def has_the_same_bits(library: Library) -> bool:
    """Whether the kernel of ``library`` and XNNPACK agree on an example."""
    return _agree(library.functions, int(library.isa))


@functools.cache
def _agree(functions: ctypes.CDLL, isa: int) -> bool:
    rng = np.random.default_rng(0)
    inputs = [rng.standard_normal(shape, np.float32) for shape in _SHAPES[:3]]
    nodes = [
        Node(NodeKind.BATCH_MATRIX_MULTIPLY, (0, 1), (3,)),
        Node(NodeKind.SOFTMAX, (3,), (4,)),
        Node(NodeKind.BATCH_MATRIX_MULTIPLY, (4, 2), (5,)),
    ]
    return np.array_equal(_ours(functions, isa, inputs), computed(_SHAPES, nodes, inputs))


def _ours(functions: ctypes.CDLL, isa: int, inputs: list[np.ndarray]) -> np.ndarray:
    query, keys, values, output = (Operand(i, i) for i in (0, 1, 2, 5))
    attention = Attention(query, keys, values, output, 3, False, False, 1.0, ())
    task = attention.task(dict(enumerate(_SHAPES)))
    assert task is not None
    task.isa = isa
    found = np.empty(_SHAPES[-1], np.float32)
    scratch = empty(functions.pk_f32_sdpa_scratch_size(byref(task)))
    task.query, task.keys, task.values = map(address, inputs)
    task.output, task.scratch = address(found), address(scratch)
    functions.pk_f32_sdpa_run(byref(task), None)
    return found
