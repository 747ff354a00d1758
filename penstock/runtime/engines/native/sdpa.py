"""The family ``f32_sdpa``: scaled dot-product attention, from the product of queries and keys to
the one with values, and the transposes that bring these by head."""

from __future__ import annotations

import math
from collections.abc import Mapping
from ctypes import POINTER, Structure, byref, c_float, c_size_t, c_uint32, c_void_p
from dataclasses import dataclass

from penstock.errors import InputError
from penstock.graph.graph import Node, Shape
from penstock.runtime.engines.native import strides
from penstock.runtime.engines.native.decoder import family_of_chains
from penstock.runtime.engines.native.family import Step, Workshop
from penstock.runtime.engines.native.strides import View


class COperand(Structure):
    """``struct pk_f32_sdpa_operand``."""

    _fields_ = [
        ("batch", c_size_t),
        ("head", c_size_t),
        ("row", c_size_t),
        ("column", c_size_t),
        ("period", c_size_t),
    ]


class CTask(Structure):
    """``struct pk_f32_sdpa_task``."""

    _fields_ = [
        ("isa", c_uint32),
        ("factor", c_float),
        ("batches", c_size_t),
        ("heads", c_size_t),
        ("rows", c_size_t),
        ("columns", c_size_t),
        ("size", c_size_t),
        ("depth", c_size_t),
        ("threads", c_size_t),
        ("query_steps", COperand),
        ("key_steps", COperand),
        ("value_steps", COperand),
        ("output_steps", COperand),
        ("addend_steps", COperand * 2),
        ("query", c_void_p),
        ("keys", c_void_p),
        ("values", c_void_p),
        ("addend_0", c_void_p),
        ("addend_1", c_void_p),
        ("output", c_void_p),
        ("scratch", c_void_p),
    ]


FAMILY = family_of_chains("f32_sdpa", {"pk_f32_sdpa_scratch_size": (c_size_t, (POINTER(CTask),))})


@dataclass(frozen=True)
class Operand:
    """A matrix for each head, ``value``, as ``nodes`` (reshapes and transposes, in the graph's
    order) make it of ``base``; of the output, as they make ``base`` of it."""

    value: int
    base: int
    nodes: tuple[Node, ...] = ()


@dataclass(frozen=True)
class Addend:
    """What is added to scores of the shape that ``scores`` has; ``constant``: the address of a copy
    of its elements."""

    value: int
    scores: int
    constant: int | None = None


@dataclass(frozen=True)
class Attention:
    """``softmax(query @ keys * factor + addends) @ values``. Keys are [.., size, columns], or
    [.., columns, size] where the product transposes them (``keys_turned``), values [.., columns,
    depth] or [.., depth, columns]; the scores are those of ``scores`` [.., rows, columns]."""

    query: Operand
    keys: Operand
    values: Operand
    output: Operand
    scores: int
    keys_turned: bool
    values_turned: bool
    factor: float
    addends: tuple[Addend, ...]

    def task(self, shapes: Mapping[int, Shape]) -> CTask | None:
        """The task at ``shapes``, without its pointers and threads; None where what it computes
        with does not lie as the kernel wants it."""
        *batch, rows, columns = shapes[self.scores]
        heads = batch[-1] if batch else 1
        whole = (math.prod(batch[:-1]), heads, rows, columns)
        size, depth = shapes[self.query.value][-1], shapes[self.output.value][-1]
        key_shape = (columns, size) if self.keys_turned else (size, columns)
        value_shape = (depth, columns) if self.values_turned else (columns, depth)
        matrices = (
            _operand(self.query, shapes, (*batch, rows, size), whole[:2]),
            _operand(self.keys, shapes, (*batch, *key_shape), whole[:2]),
            _operand(self.values, shapes, (*batch, *value_shape), whole[:2]),
            _output(self.output, shapes, (*batch, rows, depth), whole[:2]),
        )
        added = [_addend(addend, shapes, whole) for addend in self.addends]
        found = [steps for steps in (*matrices, *added) if steps is not None]
        if len(found) < len(matrices) + len(added):
            return None
        query, keys, values, output, *addends = found
        for steps, turned in ((keys, not self.keys_turned), (values, self.values_turned)):
            if turned:
                steps.row, steps.column = steps.column, steps.row
        if any(steps.column > 1 for steps in (query, output, *addends)):
            return None
        task = CTask(0, self.factor, *whole, size, depth, 1, query, keys, values, output)
        for number, steps in enumerate(addends):
            task.addend_steps[number] = steps
        return task


@dataclass(frozen=True)
class Prepared:
    """See :class:`Attention`."""

    attention: Attention
    workshop: Workshop

    def step(self, shapes: Mapping[int, Shape]) -> Step:
        """See :class:`~penstock.runtime.engines.native.family.Prepared`."""
        a, library = self.attention, self.workshop.library
        task = a.task(shapes)
        if task is None:
            raise InputError("the shapes of a call do not fit each other in attention")
        task.isa, task.threads = int(library.isa), self.workshop.threads
        fields = [(a.query.base, "query"), (a.keys.base, "keys"), (a.values.base, "values")]
        for number, addend in enumerate(a.addends):
            name = f"addend_{number}"
            if addend.constant is None:
                fields.append((addend.value, name))
            else:
                setattr(task, name, addend.constant)
        fields.append((a.output.base, "output"))
        scratch: int = library.functions.pk_f32_sdpa_scratch_size(byref(task))
        return Step("pk_f32_sdpa_run", task, tuple(fields), scratch)


def _steps(view: View | None, whole: tuple[int, ...]) -> COperand | None:
    """The strides of batches, heads, rows and columns of a view with these, of which the first
    dimensions may be others."""
    outer = view and strides.reshaped(view[:-2], whole)
    if view is None or outer is None:
        return None
    batches, *inner = (*outer, *view[-2:])
    period = 0
    if len(batches) > 1 and batches[0][1] == 0:
        batches = batches[1:]
        period = batches[0][0]
    found = [strides.stride(factors) for factors in (batches, *inner)]
    return None if None in found else COperand(*found, period)


def _operand(
    operand: Operand, shapes: Mapping[int, Shape], shape: Shape, whole: tuple[int, ...]
) -> COperand | None:
    view: View | None = strides.contiguous(shapes[operand.base])
    for node in operand.nodes:
        view = view and strides.through(view, node, shapes[node.outputs[0]])
    return _steps(view and strides.broadcast(view, shape), whole)


def _output(
    operand: Operand, shapes: Mapping[int, Shape], shape: Shape, whole: tuple[int, ...]
) -> COperand | None:
    view: View | None = strides.contiguous(shapes[operand.base])
    for node in reversed(operand.nodes):
        view = view and strides.back_through(view, node, shapes[node.inputs[0]])
    return None if shapes[operand.value] != shape else _steps(view, whole)


def _addend(addend: Addend, shapes: Mapping[int, Shape], whole: tuple[int, ...]) -> COperand | None:
    given = strides.contiguous(shapes[addend.value])
    view = strides.broadcast(given, shapes[addend.scores])
    view = view and strides.reshaped(view, whole)
    return _steps(view, whole[:2])
