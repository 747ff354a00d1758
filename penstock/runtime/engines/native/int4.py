"""The family ``qd8_int4``: fully-connected products of rows that are quantized at run time with
int4 weights, or with int8 weights that fit in 6 bits. With a scale for each channel they have
XNNPACK's bits; with scales of blocks the bits of its kernels for AVX-512 VNNI, on every
processor."""

from __future__ import annotations

import math
from ctypes import Structure, c_float, c_size_t, c_uint32, c_void_p
from functools import partial

import numpy as np

from penstock.graph.dtypes import Blockwise, DataType, PerChannel
from penstock.graph.graph import Node
from penstock.graph.kinds import NodeKind
from penstock.graph.weights import bfloat16_to_float
from penstock.runtime.engines.native.family import (
    Family,
    Packer,
    Values,
    Workshop,
)
from penstock.runtime.engines.native.integers import SMALLEST_SCALE
from penstock.runtime.engines.native.isa import Isa
from penstock.runtime.engines.native.row_products import (
    RowProduct,
    pack,
    prototypes,
    reason_against_product,
)
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
        ("bits", c_size_t),
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


def prepare(node: Node, values: Values, workshop: Workshop) -> RowProduct:
    """Packs the weights of ``node``."""
    filter, library = values[node.inputs[1]], workshop.library
    quantization = filter.quantization
    assert isinstance(quantization, (Blockwise, PerChannel))
    block = quantization.block_size if isinstance(quantization, Blockwise) else 0
    scales = np.ascontiguousarray(quantization.scales, np.uint16 if block else np.float32)
    outputs, inputs = filter.shape
    clamp = node.clamp or (-math.inf, math.inf)
    product = CProduct(
        int(library.isa), *clamp, 0, inputs, outputs, 4, block, workshop.threads,
        library.caches().l2,
    )  # fmt: skip
    return pack("qd8_int4", product, CProductTask, node, values, scales, workshop)


def pack_six(node: Node, values: Values, workshop: Workshop, channels: range) -> RowProduct | None:
    """Packs int8 weights of ``node`` that all fit in 6 bits, for some of its channels, with a scale
    for each. None where there are no kernels for them."""
    filter, library = values[node.inputs[1]], workshop.library
    quantization = filter.quantization
    assert isinstance(quantization, PerChannel)
    inputs = filter.shape[1]
    if library.has(Isa.NEON) or inputs > _MOST or quantization.scales.min() < _SMALLEST:
        return None
    scales = np.ascontiguousarray(quantization.scales, np.float32)
    clamp = node.clamp or (-math.inf, math.inf)
    product = CProduct(
        int(library.isa), *clamp, 0, inputs, len(channels), 6, 0, workshop.threads,
        library.caches().l2,
    )  # fmt: skip
    return pack("qd8_int4", product, CProductTask, node, values, scales, workshop, channels.start)


FAMILY = Family(
    "qd8_int4",
    frozenset({NodeKind.FULLY_CONNECTED}),
    examine,
    slower_int4_product,
    prototypes("qd8_int4", CProduct),
)
