"""The family ``f32_add``: sums and products of two tensors of one shape, as residual connections
have them, or of one that repeats in each row of the other, as attention over channels has it.

Bounds that are the same do not make the sizes of a call so: one of them may turn out to be 1. Such
tensors are broadcast.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from ctypes import Structure, c_float, c_size_t, c_uint32, c_void_p
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from penstock.graph.dtypes import DataType
from penstock.graph.graph import MAX_TENSOR_DIMS, Node, Shape
from penstock.graph.kinds import NodeKind
from penstock.runtime.blocks import address
from penstock.runtime.engines.native.costs import sum_gain
from penstock.runtime.engines.native.family import Family, Packer, Step, Values, Workshop
from penstock.runtime.engines.native.rules import no_vectors
from penstock.runtime.engines.xnnpack.buffers import constant


class CTask(Structure):
    """``struct pk_f32_add_task``."""

    _fields_ = [
        ("isa", c_uint32),
        ("multiply", c_uint32),
        ("broadcast", c_uint32),
        ("shape", c_size_t * MAX_TENSOR_DIMS),
        ("a_steps", c_size_t * MAX_TENSOR_DIMS),
        ("b_steps", c_size_t * MAX_TENSOR_DIMS),
        ("count", c_size_t),
        ("row", c_size_t),
        ("a", c_void_p),
        ("b", c_void_p),
        ("output", c_void_p),
        ("min", c_float),
        ("max", c_float),
    ]


#: A number is written out for rows of so many elements or more.
_ROW = 8


@dataclass(frozen=True)
class Sum:
    """A node; it has no weights. ``number``: the value that is a constant of one element, and that,
    which ``rows`` has written out by the length of rows."""

    node: Node
    isa: int
    number: tuple[int, float] | None = None
    rows: dict[int, np.ndarray] = field(default_factory=dict)

    def step(self, shapes: Mapping[int, Shape]) -> Step:
        """See :class:`~penstock.runtime.engines.native.family.Prepared`."""
        (a, b), (result,) = self.node.inputs, self.node.outputs
        if self.number is not None:
            value, element = self.number
            return self._with_number(a if b == value else b, element, shapes[result])
        clamp = self.node.clamp or (-math.inf, math.inf)
        shape = shapes[result]
        task = CTask(isa=self.isa, count=math.prod(shape), min=clamp[0], max=clamp[1])
        task.multiply = self.node.kind is NodeKind.MULTIPLY
        if shapes[a] != shape:
            a, b = b, a
        whole = shapes[a] == shape
        task.row = math.prod(shapes[b]) if whole and _repeats(shapes[b], shape) else 0
        task.broadcast = not (whole and (task.row or shapes[b] == shape))
        task.shape[:] = _filled(shape)
        task.a_steps[:] = _steps(_filled(shapes[a]))
        task.b_steps[:] = _steps(_filled(shapes[b]))
        fields = ((a, "a"), (b, "b"), (result, "output"))
        over = None if task.broadcast else (result, a)
        return Step("pk_f32_add_run", task, fields, over=over)

    def _with_number(self, x: int, element: float, shape: Shape) -> Step:
        (result,), clamp = self.node.outputs, self.node.clamp or (-math.inf, math.inf)
        row = self.rows.setdefault(shape[-1], np.full(shape[-1], element, np.float32))
        multiply = self.node.kind is NodeKind.MULTIPLY
        task = CTask(isa=self.isa, count=math.prod(shape), min=clamp[0], max=clamp[1])
        task.multiply, task.row, task.b = multiply, row.size, address(row)
        return Step("pk_f32_add_run", task, ((x, "a"), (result, "output")), over=(result, x))


def _repeats(shape: Shape, whole: Shape) -> bool:
    """Whether a tensor repeats over and over in a larger one: as what it has beside ones has the
    last dimensions of that one."""
    own = shape[next((d for d, size in enumerate(shape) if size != 1), len(shape)) :]
    return len(own) > 0 and own == whole[len(whole) - len(own) :] and shape != whole


def _filled(shape: Shape) -> Shape:
    """As many dimensions as the task has."""
    return (1,) * (MAX_TENSOR_DIMS - len(shape)) + tuple(shape)


def _steps(shape: Shape) -> list[int]:
    """Elements from one index to the next of each dimension; 0 where there is one alone."""
    return [0 if size == 1 else math.prod(shape[d + 1 :]) for d, size in enumerate(shape)]


def examine(node: Node, values: Values) -> Packer | str:
    """See :class:`~penstock.runtime.engines.native.family.Family`. There is nothing to pack."""
    used = [values[i] for i in (*node.inputs, *node.outputs)]
    if any(value.dtype is not DataType.FP32 for value in used):
        return "it is not all float32"
    a, b, result = (value.shape for value in used)
    for number, other in ((used[0], b), (used[1], a)):
        if number.data is not None and math.prod(number.shape) == 1 and other == result:
            if result[-1:] < (_ROW,):
                return "its rows are short"
            (element,) = constant(number.data, 4).view(np.float32).tolist()
            return partial(_prepare, node, (number.id, element))
    if any(value.data is not None for value in used):
        return "one of its tensors is a constant"
    if not (a == b or (a == result and _repeats(b, a)) or (b == result and _repeats(a, b))):
        return "its tensors are broadcast against each other"
    return partial(_prepare, node, None)


def _prepare(node: Node, number: tuple[int, float] | None, workshop: Workshop) -> Sum:
    return Sum(node, int(workshop.library.isa), number)


FAMILY = Family(
    "f32_add",
    frozenset({NodeKind.ADD, NodeKind.MULTIPLY}),
    examine,
    no_vectors,
    {"pk_f32_add_run": (None, (c_void_p, c_void_p))},
    gain=sum_gain,
)
