"""The family ``f32_igemm``: convolution and fully-connected in fp32."""

from __future__ import annotations

import math
from collections.abc import Mapping
from ctypes import POINTER, Structure, byref, c_float, c_size_t, c_uint32, c_void_p
from dataclasses import dataclass
from functools import partial

from penstock.graph.dtypes import DataType
from penstock.graph.graph import (
    FLAG_TENSORFLOW_SAME_PADDING,
    FLAG_TRANSPOSE_WEIGHTS,
    INVALID_VALUE_ID,
    Node,
    Shape,
)
from penstock.graph.kinds import Conv2dAttributes, NodeKind
from penstock.runtime.blocks import OVERREAD
from penstock.runtime.engines.native.costs import product_gain
from penstock.runtime.engines.native.family import (
    Family,
    Packer,
    Step,
    Values,
    Workshop,
    bias_of,
)
from penstock.runtime.engines.native.library import Caches
from penstock.runtime.engines.native.rules import no_vectors
from penstock.runtime.engines.native.winograd import pays as winograd_pays


class CShape(Structure):
    """``struct pk_f32_igemm_shape``."""

    _fields_ = [
        ("isa", c_uint32),
        ("groups", c_size_t),
        ("input_channels", c_size_t),
        ("output_channels", c_size_t),
        ("taps", c_size_t),
        ("in_order", c_uint32),
    ]


class CTask(Structure):
    """``struct pk_f32_igemm_task``."""

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
        ("kernel_height", c_size_t),
        ("kernel_width", c_size_t),
        ("stride_height", c_size_t),
        ("stride_width", c_size_t),
        ("dilation_height", c_size_t),
        ("dilation_width", c_size_t),
        ("padding_top", c_size_t),
        ("padding_left", c_size_t),
        ("input_pixel", c_size_t),
        ("output_pixel", c_size_t),
        ("output_line", c_size_t),
        ("output_image", c_size_t),
        ("min", c_float),
        ("max", c_float),
        ("caches", Caches),
        ("winograd", c_uint32),
        ("threads", c_size_t),
        ("scratch", c_void_p),
    ]


#: A product that is no convolution: one tap, and each row is a pixel.
POINTWISE = ((0, 0, 0, 0), (1, 1), (1, 1), (1, 1))


@dataclass(frozen=True)
class Product:
    """A node with its weights packed."""

    node: Node
    shape: CShape
    packed: int
    zero: int
    workshop: Workshop

    def step(self, shapes: Mapping[int, Shape]) -> Step:
        """See :class:`~penstock.runtime.engines.native.family.Prepared`."""
        source, result = self.node.inputs[0], self.node.outputs[0]
        read, written = shapes[source], shapes[result]
        a, winograd = self.node.attributes, False
        if isinstance(a, Conv2dAttributes):
            winograd = winograd_pays(a, read, written)
            padding, kernel, stride, dilation = padding_of(self.node, read, written), *windows(a)
        else:
            padding, kernel, stride, dilation = POINTWISE
            read = (1, 1, math.prod(read[:-1]), read[-1])
            written = (1, 1, read[2], written[-1])
        groups, library = self.shape.groups, self.workshop.library
        clamp = self.node.clamp or (-math.inf, math.inf)
        task = CTask(
            self.shape, self.packed, self.zero, None, None,
            read[0], read[1], read[2], written[1], written[2],
            *kernel, *stride, *dilation, padding[0], padding[3],
            groups * self.shape.input_channels, groups * self.shape.output_channels, 0, 0,
            *clamp, library.caches(), winograd, self.workshop.threads, None,
        )  # fmt: skip
        scratch = library.functions.pk_f32_igemm_scratch_size(byref(task))
        return Step("pk_f32_igemm_run", task, ((source, "input"), (result, "output")), scratch)


def windows(a: Conv2dAttributes) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int]]:
    """Kernel, stride and dilation, each (height, width)."""
    return a.kernel, a.stride, a.dilation


def padding_of(node: Node, read: Shape, written: Shape) -> tuple[int, int, int, int]:
    """The padding of a convolution (top, right, bottom, left) at these shapes."""
    a = node.attributes
    assert isinstance(a, Conv2dAttributes)
    if not node.flags & FLAG_TENSORFLOW_SAME_PADDING:
        return a.padding
    height, width = (
        max((out - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
        for size, out, kernel, stride, dilation in zip(
            read[1:3], written[1:3], a.kernel, a.stride, a.dilation, strict=True
        )
    )
    return height // 2, width - width // 2, height - height // 2, width // 2


def examine(node: Node, values: Values) -> Packer | str:
    """See :class:`~penstock.runtime.engines.native.family.Family`."""
    used = [values[i] for i in (*node.inputs, *node.outputs) if i != INVALID_VALUE_ID]
    if any(value.dtype is not DataType.FP32 for value in used):
        return "it is not all float32"
    if any(values[i].data is None for i in node.inputs[1:] if i != INVALID_VALUE_ID):
        return "its weights are computed"
    return partial(prepare, node, values)


def prepare(node: Node, values: Values, workshop: Workshop) -> Product:
    """Packs the weights of ``node``."""
    filter = values[node.inputs[1]]
    weights, bias = workshop.constant_at(filter), bias_of(node, values)
    bias_at = None if bias is None else workshop.constant_at(bias)
    a = node.attributes
    isa = int(workshop.library.isa)
    if isinstance(a, Conv2dAttributes):
        taps, width = math.prod(a.kernel), a.kernel[1]
        shape = CShape(isa, a.groups, a.group_input_channels, a.group_output_channels, taps)
        strides = (taps * a.group_input_channels, 1)
    else:
        rows, columns = filter.shape
        transposed = node.flags & FLAG_TRANSPOSE_WEIGHTS
        outputs, inputs = (columns, rows) if transposed else (rows, columns)
        # Means in norms are products; between int8 values their bits count.
        shape, width = CShape(isa, 1, inputs, outputs, 1, in_order=1), 1
        strides = (1, columns) if transposed else (columns, 1)
    functions = workshop.library.functions
    packed = workshop.packed.reserve(functions.pk_f32_igemm_packed_size(byref(shape)))
    functions.pk_f32_igemm_pack(byref(shape), weights, *strides, bias_at, packed)
    zeros = 4 * width * shape.groups * shape.input_channels + OVERREAD
    return Product(node, shape, packed, workshop.zeros(zeros), workshop)


FAMILY = Family(
    "f32_igemm",
    frozenset({NodeKind.CONV_2D, NodeKind.FULLY_CONNECTED}),
    examine,
    no_vectors,
    {
        "pk_f32_igemm_packed_size": (c_size_t, (POINTER(CShape),)),
        "pk_f32_igemm_pack": (
            None,
            (POINTER(CShape), c_void_p, c_size_t, c_size_t, c_void_p, c_void_p),
        ),
        "pk_f32_igemm_scratch_size": (c_size_t, (POINTER(CTask),)),
        "pk_f32_igemm_run": (None, (c_void_p, c_void_p)),
    },
    gain=product_gain,
)
