"""The family ``f32_dwconv``: depthwise convolution in fp32."""

from __future__ import annotations

import math
from collections.abc import Mapping
from ctypes import POINTER, Structure, byref, c_float, c_size_t, c_uint32, c_void_p
from dataclasses import dataclass
from functools import partial

from penstock.graph.dtypes import DataType
from penstock.graph.graph import INVALID_VALUE_ID, Node, Shape
from penstock.graph.kinds import Conv2dAttributes, NodeKind
from penstock.runtime.blocks import OVERREAD
from penstock.runtime.engines.native.costs import depthwise_gain
from penstock.runtime.engines.native.family import (
    Family,
    Packer,
    Step,
    Values,
    Workshop,
    bias_of,
)
from penstock.runtime.engines.native.products import padding_of
from penstock.runtime.engines.native.rules import no_vectors


class CShape(Structure):
    """``struct pk_f32_dwconv_shape``."""

    _fields_ = [
        ("isa", c_uint32),
        ("channels", c_size_t),
        ("kernel_height", c_size_t),
        ("kernel_width", c_size_t),
    ]


class CTask(Structure):
    """``struct pk_f32_dwconv_task``."""

    _fields_ = [
        ("shape", CShape),
        ("packed", c_void_p),
        ("zero", c_void_p),
        ("input", c_void_p),
        ("output", c_void_p),
        ("batch", c_size_t),
        ("input_height", c_size_t),
        ("input_width", c_size_t),
        ("output_height", c_size_t),
        ("output_width", c_size_t),
        ("stride_height", c_size_t),
        ("stride_width", c_size_t),
        ("dilation_height", c_size_t),
        ("dilation_width", c_size_t),
        ("padding_top", c_size_t),
        ("padding_left", c_size_t),
        ("min", c_float),
        ("max", c_float),
    ]


@dataclass(frozen=True)
class Depthwise:
    """A node with its weights packed."""

    node: Node
    shape: CShape
    packed: int
    zero: int

    def step(self, shapes: Mapping[int, Shape]) -> Step:
        """See :class:`~penstock.runtime.engines.native.family.Prepared`."""
        a = self.node.attributes
        assert isinstance(a, Conv2dAttributes)
        source, result = self.node.inputs[0], self.node.outputs[0]
        read, written = shapes[source], shapes[result]
        padding = padding_of(self.node, read, written)
        clamp = self.node.clamp or (-math.inf, math.inf)
        task = CTask(
            self.shape, self.packed, self.zero, None, None,
            read[0], read[1], read[2], written[1], written[2],
            *a.stride, *a.dilation, padding[0], padding[3], *clamp,
        )  # fmt: skip
        over = (result, source) if a.kernel == (1, 1) and read == written else None
        fields = ((source, "input"), (result, "output"))
        return Step("pk_f32_dwconv_run", task, fields, over=over)


def examine(node: Node, values: Values) -> Packer | str:
    """See :class:`~penstock.runtime.engines.native.family.Family`."""
    a = node.attributes
    assert isinstance(a, Conv2dAttributes)
    if a.group_output_channels != a.group_input_channels:
        return "it makes several channels of each"
    used = [values[i] for i in (*node.inputs, *node.outputs) if i != INVALID_VALUE_ID]
    if any(value.dtype is not DataType.FP32 for value in used):
        return "it is not all float32"
    return partial(prepare, node, values)


def prepare(node: Node, values: Values, workshop: Workshop) -> Depthwise:
    """Packs the weights of ``node``."""
    bias = bias_of(node, values)
    bias_at = None if bias is None else workshop.constant_at(bias)
    return packed(node, workshop.constant_at(values[node.inputs[1]]), bias_at, workshop)


def packed(node: Node, weights: int, bias: int | None, workshop: Workshop) -> Depthwise:
    """Packs the weights [kernel height][kernel width][channels] and the bias at these addresses."""
    a = node.attributes
    assert isinstance(a, Conv2dAttributes)
    shape = CShape(int(workshop.library.isa), a.groups, *a.kernel)
    functions = workshop.library.functions
    to = workshop.packed.reserve(functions.pk_f32_dwconv_packed_size(byref(shape)))
    functions.pk_f32_dwconv_pack(byref(shape), weights, bias, to)
    return Depthwise(node, shape, to, workshop.zeros(4 * a.groups + OVERREAD))


FAMILY = Family(
    "f32_dwconv",
    frozenset({NodeKind.DEPTHWISE_CONV_2D}),
    examine,
    no_vectors,
    {
        "pk_f32_dwconv_packed_size": (c_size_t, (POINTER(CShape),)),
        "pk_f32_dwconv_pack": (None, (POINTER(CShape), c_void_p, c_void_p, c_void_p)),
        "pk_f32_dwconv_run": (None, (c_void_p, c_void_p)),
    },
    gain=depthwise_gain,
)
