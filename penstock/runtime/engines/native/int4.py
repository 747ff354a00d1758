"""The family ``qd8_int4``: fully-connected products of rows that are quantized at run time with
int4 weights. With a scale for each channel they have XNNPACK's bits; with scales of blocks the bits
of its kernels for AVX-512 VNNI, on every processor."""

from __future__ import annotations

import math
from collections.abc import Mapping
from ctypes import POINTER, Structure, byref, c_float, c_size_t, c_uint32, c_void_p
from dataclasses import dataclass
from functools import partial

import numpy as np

from penstock.graph.dtypes import Blockwise, DataType, PerChannel
from penstock.graph.graph import Node, Shape
from penstock.graph.kinds import NodeKind
from penstock.graph.weights import bfloat16_to_float
from penstock.runtime.blocks import address
from penstock.runtime.engines.native.dynamic import reason_against_product
from penstock.runtime.engines.native.family import (
    Family,
    Packer,
    Step,
    Values,
    Workshop,
    bias_of,
)
from penstock.runtime.engines.native.integers import SMALLEST_SCALE
from penstock.runtime.engines.native.rules import slower_int4_product

#: Blocks are of a multiple of so many weights.
_CHUNK = 32
#: The most inputs (``PK_INT4_MOST``).
_MOST = 65536
#: Kernels multiply weights by up to 16, and scales by as much less.
_SMALLEST = 16 * SMALLEST_SCALE


class CProduct(Structure):
    """``struct pk_qd8_int4``."""

    _fields_ = [
        ("isa", c_uint32),
        ("min", c_float),
        ("max", c_float),
        ("rows", c_size_t),
        ("inputs", c_size_t),
        ("outputs", c_size_t),
        ("block", c_size_t),
        ("threads", c_size_t),
        ("cache", c_size_t),
    ]


class CProductTask(Structure):
    """``struct pk_qd8_int4_task``."""

    _fields_ = [
        ("product", CProduct),
        ("packed", c_void_p),
        ("input", c_void_p),
        ("output", c_void_p),
        ("scratch", c_void_p),
    ]


@dataclass(frozen=True)
class Product:
    """A fully-connected node with its weights packed."""

    node: Node
    outputs: int
    block: int
    packed: int
    workshop: Workshop

    def step(self, shapes: Mapping[int, Shape]) -> Step:
        """See :class:`~penstock.runtime.engines.native.family.Prepared`."""
        source, result = self.node.inputs[0], self.node.outputs[0]
        *batch, inputs = shapes[source]
        product = _structure(self.node, inputs, self.outputs, self.block, self.workshop)
        product.rows = math.prod(batch)
        scratch = self.workshop.library.functions.pk_qd8_int4_scratch_size(byref(product))
        task = CProductTask(product, self.packed, None, None, None)
        fields = ((source, "input"), (result, "output"))
        return Step("pk_qd8_int4_run", task, fields, scratch)


def _structure(node: Node, inputs: int, outputs: int, block: int, workshop: Workshop) -> CProduct:
    clamp = node.clamp or (-math.inf, math.inf)
    library = workshop.library
    return CProduct(
        int(library.isa), *clamp, 0, inputs, outputs, block, workshop.threads, library.caches().l2
    )


def examine(node: Node, values: Values) -> Packer | str:
    """See :class:`~penstock.runtime.engines.native.family.Family`."""
    filter = values[node.inputs[1]]
    if filter.dtype not in (DataType.QCINT4, DataType.QBINT4) or filter.data is None:
        return "its weights are not constant int4"
    inputs, quantization = filter.shape[1], filter.quantization
    if inputs % 2 or inputs > _MOST:
        return f"it has {inputs} inputs; an even number up to {_MOST} is needed"
    if isinstance(quantization, Blockwise):
        if quantization.block_size % _CHUNK or inputs % quantization.block_size:
            return f"its blocks are not of a multiple of {_CHUNK} weights"
        scales = bfloat16_to_float(quantization.scales)
    else:
        assert isinstance(quantization, PerChannel)
        scales = quantization.scales
    if quantization.axis != 0 or not (scales >= _SMALLEST).all():
        return "its scales are too small"
    return reason_against_product(node, values) or partial(prepare, node, values)


def prepare(node: Node, values: Values, workshop: Workshop) -> Product:
    """Packs the weights of ``node``."""
    filter = values[node.inputs[1]]
    quantization = filter.quantization
    if isinstance(quantization, Blockwise):
        block, scales = (
            quantization.block_size,
            np.ascontiguousarray(quantization.scales, np.uint16),
        )
    else:
        assert isinstance(quantization, PerChannel)
        block, scales = 0, np.ascontiguousarray(quantization.scales, np.float32)
    outputs, inputs = filter.shape
    weights = workshop.constant(filter)
    bias = bias_of(node, values)
    bias_at = None if bias is None else address(workshop.constant(bias))
    product = _structure(node, inputs, outputs, block, workshop)
    functions = workshop.library.functions
    packed = workshop.packed.reserve(functions.pk_qd8_int4_packed_size(byref(product)))
    functions.pk_qd8_int4_pack(byref(product), address(weights), bias_at, address(scales), packed)
    return Product(node, outputs, block, packed, workshop)


FAMILY = Family(
    "qd8_int4",
    frozenset({NodeKind.FULLY_CONNECTED}),
    examine,
    slower_int4_product,
    {
        "pk_qd8_int4_packed_size": (c_size_t, (POINTER(CProduct),)),
        "pk_qd8_int4_pack": (None, (POINTER(CProduct), c_void_p, c_void_p, c_void_p, c_void_p)),
        "pk_qd8_int4_scratch_size": (c_size_t, (POINTER(CProduct),)),
        "pk_qd8_int4_run": (None, (c_void_p, c_void_p)),
    },
)
