"""The family ``qd8_conv``: convolutions with int8 weights of images that are quantized at run time,
with the bits of XNNPACK's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from ctypes import POINTER, Structure, byref, c_float, c_void_p
from dataclasses import dataclass
from functools import partial

import numpy as np

from penstock.graph.dtypes import PerChannel
from penstock.graph.graph import Node, Shape
from penstock.graph.kinds import Conv2dAttributes, NodeKind
from penstock.runtime.blocks import address
from penstock.runtime.engines.native.dynamic import reason_against_weights
from penstock.runtime.engines.native.family import (
    Family,
    Packer,
    Step,
    Values,
    Workshop,
    bias_of,
)
from penstock.runtime.engines.native.integers import (
    CConv,
    is_depthwise,
    reason_against_windows,
    set_sizes,
)
from penstock.runtime.engines.native.products import windows
from penstock.runtime.engines.native.row_products import reason_against_product
from penstock.runtime.engines.native.rules import slower_dynamic_convolution

#: The dimensions of an image, whose values are quantized together.
_DIMS = 3


class CTask(Structure):
    """``struct pk_qd8_conv_task``."""

    _fields_ = [
        ("conv", CConv),
        ("packed", c_void_p),
        ("input", c_void_p),
        ("output", c_void_p),
        ("scratch", c_void_p),
        ("min", c_float),
        ("max", c_float),
    ]


@dataclass(frozen=True)
class Convolution:
    """A node with its weights packed. ``conv`` lacks the sizes of its input and output."""

    node: Node
    conv: CConv
    packed: int
    workshop: Workshop

    def step(self, shapes: Mapping[int, Shape]) -> Step:
        """See :class:`~penstock.runtime.engines.native.family.Prepared`."""
        conv = CConv.from_buffer_copy(self.conv)
        set_sizes(conv, self.node, shapes)
        scratch: int = self.workshop.library.functions.pk_qs8_conv_scratch_size(byref(conv))
        clamp = self.node.clamp or (-math.inf, math.inf)
        task = CTask(conv, self.packed, None, None, None, *clamp)
        fields = ((self.node.inputs[0], "input"), (self.node.outputs[0], "output"))
        return Step("pk_qd8_conv_run", task, fields, scratch)


def examine(node: Node, values: Values) -> Packer | str:
    """See :class:`~penstock.runtime.engines.native.family.Family`."""
    a = node.attributes
    assert isinstance(a, Conv2dAttributes)
    reason = (
        reason_against_windows(node, a)
        or reason_against_product(node, values, _DIMS)
        or reason_against_weights(values[node.inputs[1]])
        or ("it is depthwise" if is_depthwise(node) else None)
        or ("each pixel is quantized by itself" if _is_pointwise(a) else None)
    )
    return reason or partial(prepare, node, values)


def _is_pointwise(a: Conv2dAttributes) -> bool:
    """Whether XNNPACK makes it a fully-connected product, with rows of one pixel each."""
    return a.kernel == a.stride == (1, 1) and a.groups == 1 and not any(a.padding)


def prepare(node: Node, values: Values, workshop: Workshop) -> Convolution:
    """Packs the weights of ``node``."""
    filter, bias, a = values[node.inputs[1]], bias_of(node, values), node.attributes
    assert isinstance(a, Conv2dAttributes) and isinstance(filter.quantization, PerChannel)
    library = workshop.library
    kernel, stride, dilation = windows(a)
    conv = CConv(
        int(library.isa), 0, 0, 0, 0,
        a.groups, a.group_input_channels, a.group_output_channels, *kernel, *stride, *dilation,
        threads=workshop.threads, cache=library.caches().l2, dynamic=1,
    )  # fmt: skip
    functions = library.functions
    packed = workshop.packed.reserve(functions.pk_qs8_conv_packed_size(byref(conv)))
    scales = np.ascontiguousarray(filter.quantization.scales, np.float32)
    bias_at = None if bias is None else workshop.constant_at(bias)
    weights = workshop.constant_at(filter)
    functions.pk_qd8_conv_pack(byref(conv), weights, bias_at, address(scales), packed)
    return Convolution(node, conv, packed, workshop)


FAMILY = Family(
    "qd8_conv",
    frozenset({NodeKind.CONV_2D}),
    examine,
    slower_dynamic_convolution,
    {
        "pk_qd8_conv_pack": (None, (POINTER(CConv), c_void_p, c_void_p, c_void_p, c_void_p)),
        "pk_qd8_conv_run": (None, (c_void_p, c_void_p)),
    },
)
