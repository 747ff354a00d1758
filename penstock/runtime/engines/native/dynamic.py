"""The families ``qd8_quantize`` and ``qd8_product``: rows of floats quantized to int8 at run time,
and their fully-connected products with int8 weights, with the bits of XNNPACK's."""

from __future__ import annotations

import math
from collections.abc import Mapping
from ctypes import POINTER, Structure, byref, c_float, c_size_t, c_uint32, c_void_p
from dataclasses import dataclass
from functools import partial

import numpy as np

from penstock.graph.dtypes import DataType, PerChannel, PerToken
from penstock.graph.graph import Node, Shape, Value
from penstock.graph.kinds import NodeKind
from penstock.runtime.engines.native import int4
from penstock.runtime.engines.native.family import (
    Family,
    Packer,
    Prepared,
    Step,
    Values,
    Workshop,
)
from penstock.runtime.engines.native.integers import SMALLEST_SCALE
from penstock.runtime.engines.native.narrow import narrow_channels
from penstock.runtime.engines.native.row_products import (
    RowProduct,
    pack,
    prototypes,
    reason_against_product,
)
from penstock.runtime.engines.native.rules import slower_dynamic_product, slower_quantize


class CProduct(Structure):
    """``struct pk_qd8_product``."""

    _fields_ = [
        ("isa", c_uint32),
        ("min", c_float),
        ("max", c_float),
        ("rows", c_size_t),
        ("inputs", c_size_t),
        ("outputs", c_size_t),
        ("threads", c_size_t),
        ("cache", c_size_t),
    ]


class CProductTask(Structure):
    """``struct pk_qd8_product_task``."""

    _fields_ = [
        ("product", CProduct),
        ("packed", c_void_p),
        ("input", c_void_p),
        ("output", c_void_p),
        ("scratch", c_void_p),
    ]


class CSplitTask(Structure):
    """``struct pk_qd8_split_task``."""

    _fields_ = [
        ("before", CProductTask),
        ("middle", int4.CProductTask),
        ("behind", CProductTask),
        ("input", c_void_p),
        ("output", c_void_p),
        ("scratch", c_void_p),
    ]


@dataclass(frozen=True)
class SplitProduct:
    """A product of one row of whose channels those in the middle have weights of 6 bits."""

    node: Node
    before: RowProduct
    middle: RowProduct
    behind: RowProduct

    def step(self, shapes: Mapping[int, Shape]) -> Step:
        """See :class:`~penstock.runtime.engines.native.family.Prepared`."""
        source, result = self.node.inputs[0], self.node.outputs[0]
        assert math.prod(shapes[source][:-1]) == 1
        parts = [part.step(shapes) for part in (self.before, self.middle, self.behind)]
        task = CSplitTask(*(part.task for part in parts), None, None, None)
        scratch = max(part.scratch for part in parts)
        return Step("pk_qd8_split_run", task, ((source, "input"), (result, "output")), scratch)


class CQuantize(Structure):
    """``struct pk_qd8_quantize``."""

    _fields_ = [
        ("isa", c_uint32),
        ("rows", c_size_t),
        ("channels", c_size_t),
        ("threads", c_size_t),
    ]


class CQuantizeTask(Structure):
    """``struct pk_qd8_quantize_task``."""

    _fields_ = [("quantize", CQuantize), ("input", c_void_p), ("output", c_void_p)]


@dataclass(frozen=True)
class Quantize:
    """A conversion to rows of ``dims`` dimensions that are quantized at run time."""

    node: Node
    dims: int
    workshop: Workshop

    def step(self, shapes: Mapping[int, Shape]) -> Step:
        """See :class:`~penstock.runtime.engines.native.family.Prepared`."""
        source, result = self.node.inputs[0], self.node.outputs[0]
        batch, row = shapes[source][: -self.dims], shapes[source][-self.dims :]
        library, threads = self.workshop.library, self.workshop.threads
        quantize = CQuantize(int(library.isa), math.prod(batch), math.prod(row), threads)
        size: int = library.functions.pk_qd8_quantize_size(byref(quantize))
        return Step(
            "pk_qd8_quantize_run",
            CQuantizeTask(quantize, None, None),
            ((source, "input"), (result, "output")),
            sizes={result: size},
        )


def examine_quantize(node: Node, values: Values) -> Packer | str:
    """See :class:`~penstock.runtime.engines.native.family.Family`. There is nothing to pack."""
    source, result = values[node.inputs[0]], values[node.outputs[0]]
    if source.dtype is not DataType.FP32 or result.dtype is not DataType.QDINT8:
        return "it is no conversion of float32 to what is quantized at run time"
    assert isinstance(result.quantization, PerToken)
    return partial(Quantize, node, result.quantization.nonbatch_dims)


def examine_product(node: Node, values: Values) -> Packer | str:
    """See :class:`~penstock.runtime.engines.native.family.Family`."""
    reason = reason_against_weights(values[node.inputs[1]]) or reason_against_product(node, values)
    return reason or partial(prepare_product, node, values)


def reason_against_weights(filter: Value) -> str | None:
    """Why ``filter`` is not int8 as products of rows quantized at run time take it."""
    if filter.dtype is not DataType.QCINT8 or filter.data is None:
        return "its weights are not constant int8 with scales for each channel"
    quantization = filter.quantization
    assert isinstance(quantization, PerChannel)
    if quantization.axis != 0 or quantization.scales.min() < SMALLEST_SCALE:
        return "its scales are out of XNNPACK's range"
    return None


def prepare_product(node: Node, values: Values, workshop: Workshop) -> Prepared:
    """Packs the weights of ``node``: those that fit in 6 bits so, where that pays."""
    channels = range(values[node.inputs[1]].shape[0])
    six = narrow_channels(node, values, workshop)
    middle = int4.pack_six(node, values, workshop, six) if six else None
    if middle is None:
        return _pack(node, values, workshop, channels)
    if six == channels:
        return middle
    before = _pack(node, values, workshop, channels[: six.start])
    behind = _pack(node, values, workshop, channels[six.stop :])
    return SplitProduct(node, before, middle, behind)


def _pack(node: Node, values: Values, workshop: Workshop, channels: range) -> RowProduct:
    filter, library = values[node.inputs[1]], workshop.library
    quantization = filter.quantization
    assert isinstance(quantization, PerChannel)
    clamp = node.clamp or (-math.inf, math.inf)
    product = CProduct(
        int(library.isa), *clamp, 0, filter.shape[1], len(channels), workshop.threads,
        library.caches().l2,
    )  # fmt: skip
    scales = np.ascontiguousarray(quantization.scales, np.float32)
    return pack(
        "qd8_product", product, CProductTask, node, values, scales, workshop, channels.start
    )


QUANTIZE = Family(
    "qd8_quantize",
    frozenset({NodeKind.CONVERT}),
    examine_quantize,
    slower_quantize,
    {
        "pk_qd8_quantize_size": (c_size_t, (POINTER(CQuantize),)),
        "pk_qd8_quantize_run": (None, (c_void_p, c_void_p)),
    },
)
PRODUCT = Family(
    "qd8_product",
    frozenset({NodeKind.FULLY_CONNECTED}),
    examine_product,
    slower_dynamic_product,
    {
        **prototypes("qd8_product", CProduct),
        "pk_qd8_split_run": (None, (c_void_p, c_void_p)),
    },
)
