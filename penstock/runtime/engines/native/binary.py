"""The family ``qs8_binary``: sums and products of two int8 tensors, with the bits of XNNPACK's."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from ctypes import Structure, c_float, c_int32, c_size_t, c_uint32, c_void_p
from dataclasses import dataclass
from functools import partial

import numpy as np

from penstock.graph.dtypes import DataType, PerTensor
from penstock.graph.graph import MAX_TENSOR_DIMS, Node, Shape
from penstock.graph.kinds import NodeKind
from penstock.runtime.engines.native.family import Family, Packer, Step, Values, Workshop
from penstock.runtime.engines.native.integers import quantized_bound
from penstock.runtime.engines.native.rules import slower_binary_int8

_Sizes = c_size_t * MAX_TENSOR_DIMS


class CParams(Structure):
    """``struct pk_qs8_binary_params``."""

    _fields_ = [
        ("product", c_uint32),
        ("bias", c_int32),
        ("a_multiplier", c_int32),
        ("b_multiplier", c_int32),
        ("shift", c_int32),
        ("a_zero_point", c_int32),
        ("b_zero_point", c_int32),
        ("scale", c_float),
        ("zero_point", c_int32),
        ("min", c_int32),
        ("max", c_int32),
    ]


class CTask(Structure):
    """``struct pk_qs8_binary_task``."""

    _fields_ = [
        ("isa", c_uint32),
        ("params", CParams),
        ("size", _Sizes),
        ("a_step", _Sizes),
        ("b_step", _Sizes),
        ("threads", c_size_t),
        ("a", c_void_p),
        ("b", c_void_p),
        ("output", c_void_p),
    ]


@dataclass(frozen=True)
class Binary:
    """A node. ``constants``: the address of each operand that is one, else None."""

    node: Node
    params: CParams
    constants: tuple[int | None, int | None]
    workshop: Workshop

    def step(self, shapes: Mapping[int, Shape]) -> Step:
        """See :class:`~penstock.runtime.engines.native.family.Prepared`."""
        inputs, result = self.node.inputs, self.node.outputs[0]
        walk = collapsed(shapes[result], [shapes[i] for i in inputs])
        sizes, a_steps, b_steps = (_Sizes(*column) for column in zip(*walk, strict=True))
        isa, threads = int(self.workshop.library.isa), self.workshop.threads
        task = CTask(isa, self.params, sizes, a_steps, b_steps, threads, *self.constants, None)
        named = zip(inputs, ("a", "b"), self.constants, strict=True)
        fields = [(value, name) for value, name, constant in named if constant is None]
        return Step("pk_qs8_binary_run", task, (*fields, (result, "output")))


def collapsed(result: Shape, operands: Sequence[Shape]) -> list[tuple[int, ...]]:
    """How to walk over ``result``: for each of MAX_TENSOR_DIMS dimensions, outermost first, its
    size and the steps of both operands, as few as there can be with a size other than 1."""
    rank = len(result)
    columns: list[list[int]] = []
    for shape in operands:
        whole = (*(1,) * (rank - len(shape)), *shape)
        steps, step = [0] * rank, 1
        for d in reversed(range(rank)):
            steps[d], step = (step if whole[d] != 1 else 0), step * whole[d]
        columns.append(steps)
    walk: list[tuple[int, ...]] = []
    for size, *steps in zip(reversed(result), *map(reversed, columns), strict=True):
        if size == 1:
            continue
        if walk and all(s == t * walk[-1][0] for s, t in zip(steps, walk[-1][1:], strict=True)):
            walk[-1] = (walk[-1][0] * size, *walk[-1][1:])
        else:
            walk.append((size, *steps))
    walk += [(1, 0, 0)] * (MAX_TENSOR_DIMS - len(walk))
    return walk[::-1]


def params_of(node: Node, values: Values) -> CParams | str:
    """The arithmetic of ``node``, or why our kernels do not have it."""
    if node.flags:
        return "it has flags that our kernels do not know"
    used = [values[i] for i in (*node.inputs, *node.outputs)]
    if any(value.dtype is not DataType.QINT8 for value in used):
        return "it is not int8"
    if all(value.data is not None for value in used[:2]):
        return "it computes with constants alone"
    a, b, result = (value.quantization for value in used)
    assert isinstance(a, PerTensor) and isinstance(b, PerTensor) and isinstance(result, PerTensor)
    scales = [np.float32(q.scale) for q in (a, b, result)]
    bounds = node.clamp or (-math.inf, math.inf)
    low, high = (quantized_bound(bound, result) for bound in bounds)
    if low >= high:
        return "its output range is empty"
    params = CParams(
        a_zero_point=a.zero_point, b_zero_point=b.zero_point,
        zero_point=result.zero_point, min=low, max=high,
    )  # fmt: skip
    if node.kind is NodeKind.MULTIPLY:
        factor = scales[0] * scales[1] / scales[2]
        if not 2.0**-16 <= factor < 2.0**8:
            return "its scales are out of XNNPACK's range"
        params.product, params.scale = 1, factor
        return params
    factors = [scales[0] / scales[2], scales[1] / scales[2]]
    if not all(2.0**-10 <= factor < 2.0**8 for factor in factors):
        return "its scales are out of XNNPACK's range"
    # The larger multiplier has 21 bits.
    shift = 20 - (math.frexp(float(max(factors)))[1] - 1)
    multipliers = [int(np.rint(np.ldexp(factor, shift))) for factor in factors]
    params.a_multiplier, params.b_multiplier, params.shift = *multipliers, shift
    params.bias = (1 << (shift - 1)) - multipliers[0] * a.zero_point - multipliers[1] * b.zero_point
    return params


def examine(node: Node, values: Values) -> Packer | str:
    """See :class:`~penstock.runtime.engines.native.family.Family`."""
    found = params_of(node, values)
    return found if isinstance(found, str) else partial(prepare, node, values, found)


def prepare(node: Node, values: Values, params: CParams, workshop: Workshop) -> Binary:
    """Keeps constant operands."""
    constants = [
        None
        if values[i].data is None
        else workshop.packed.keep(workshop.constant(values[i]).copy())
        for i in node.inputs
    ]
    return Binary(node, params, (constants[0], constants[1]), workshop)


FAMILY = Family(
    "qs8_binary",
    frozenset({NodeKind.ADD, NodeKind.MULTIPLY}),
    examine,
    slower_binary_int8,
    {"pk_qs8_binary_run": (None, (c_void_p, c_void_p))},
)
