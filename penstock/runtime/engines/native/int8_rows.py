"""The families of what lies between float32 and int8 in a decoder: rows rounded to int8 with a
scale each, and back (caches of 8 bits); sums over the blocks of a row, and products of them with
int8 weights (the offsets of 4-bit weights in blocks).
:mod:`penstock.runtime.engines.native.int8_chains` finds the chains.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from ctypes import POINTER, Structure, byref, c_float, c_size_t, c_uint32, c_void_p
from dataclasses import dataclass
from functools import partial

import numpy as np

from penstock.errors import InputError
from penstock.graph.dtypes import DataType, PerChannel
from penstock.graph.graph import Node, Shape
from penstock.graph.kinds import NodeKind
from penstock.runtime.blocks import address
from penstock.runtime.engines.native.decoder import family_of_chains
from penstock.runtime.engines.native.family import (
    Family,
    Packer,
    Step,
    Values,
    Workshop,
    bias_of,
)
from penstock.runtime.engines.native.library import Library


class CScale(Structure):
    """``struct pk_f32_scale_task``."""

    _fields_ = [
        ("isa", c_uint32),
        ("min", c_float),
        ("max", c_float),
        ("factor", c_float),
        ("rows", c_size_t),
        ("size", c_size_t),
        ("input", c_void_p),
        ("output", c_void_p),
    ]


class CScaled(Structure):
    """``struct pk_f32_narrow_task``, ``struct pk_f32_widen_task``."""

    _fields_ = [
        ("isa", c_uint32),
        ("rows", c_size_t),
        ("size", c_size_t),
        ("input", c_void_p),
        ("scales", c_void_p),
        ("output", c_void_p),
    ]


class CSums(Structure):
    """``struct pk_f32_block_sums_task``."""

    _fields_ = [
        ("isa", c_uint32),
        ("factor", c_float),
        ("blocks", c_size_t),
        ("size", c_size_t),
        ("input", c_void_p),
        ("output", c_void_p),
    ]


class CProduct(Structure):
    """``struct pk_f32_qc8_product``."""

    _fields_ = [
        ("isa", c_uint32),
        ("min", c_float),
        ("max", c_float),
        ("rows", c_size_t),
        ("inputs", c_size_t),
        ("outputs", c_size_t),
    ]


class CProductTask(Structure):
    """``struct pk_f32_qc8_task``."""

    _fields_ = [
        ("product", CProduct),
        ("packed", c_void_p),
        ("input", c_void_p),
        ("output", c_void_p),
    ]


@dataclass(frozen=True)
class Scale:
    """``clamp(max |input|) * factor`` of each row, along the last dimension, of ``size``."""

    input: int
    output: int
    size: int
    clamp: tuple[float, float]
    factor: float
    workshop: Workshop

    def step(self, shapes: Mapping[int, Shape]) -> Step:
        """See :class:`~penstock.runtime.engines.native.family.Prepared`."""
        *rows, size = shapes[self.input]
        _check(size == self.size and shapes[self.output] == (*rows, 1))
        isa = int(self.workshop.library.isa)
        task = CScale(isa, *self.clamp, self.factor, math.prod(rows), size)
        return Step("pk_f32_scale_run", task, ((self.input, "input"), (self.output, "output")))


@dataclass(frozen=True)
class Scaled:
    """Rows times their ``scales``, from int8, or divided by them, to int8."""

    function: str
    input: int
    scales: int
    output: int
    workshop: Workshop

    def step(self, shapes: Mapping[int, Shape]) -> Step:
        """See :class:`~penstock.runtime.engines.native.family.Prepared`."""
        *rows, size = shapes[self.input]
        _check(shapes[self.scales] == (*rows, 1))
        task = CScaled(int(self.workshop.library.isa), math.prod(rows), size)
        fields = ((self.input, "input"), (self.scales, "scales"), (self.output, "output"))
        return Step(self.function, task, fields)


@dataclass(frozen=True)
class Sums:
    """The sums, times ``factor``, over blocks of ``size`` of what lies in a row."""

    input: int
    output: int
    size: int
    factor: float
    workshop: Workshop

    def step(self, shapes: Mapping[int, Shape]) -> Step:
        """See :class:`~penstock.runtime.engines.native.family.Prepared`."""
        count = math.prod(shapes[self.input])
        _check(math.prod(shapes[self.output]) * self.size == count)
        isa = int(self.workshop.library.isa)
        task = CSums(isa, self.factor, count // self.size, self.size)
        return Step("pk_f32_block_sums_run", task, ((self.input, "input"), (self.output, "output")))


@dataclass(frozen=True)
class Product:
    """A fully-connected node with its weights packed."""

    node: Node
    product: CProduct
    packed: int

    def step(self, shapes: Mapping[int, Shape]) -> Step:
        """See :class:`~penstock.runtime.engines.native.family.Prepared`."""
        source, result = self.node.inputs[0], self.node.outputs[0]
        *rows, inputs = shapes[source]
        _check(inputs == self.product.inputs)
        product = CProduct.from_buffer_copy(self.product)
        product.rows = math.prod(rows)
        task = CProductTask(product, self.packed, None, None)
        return Step("pk_f32_qc8_run", task, ((source, "input"), (result, "output")))


def _check(fits: bool) -> None:
    """Bounds that fit do not make the sizes of a call so."""
    if not fits:
        raise InputError("the shapes of a call do not fit each other in rows of int8")


def examine(node: Node, values: Values) -> Packer | str:
    """See :class:`~penstock.runtime.engines.native.family.Family`."""
    source, filter, result = (values[i] for i in (*node.inputs[:2], *node.outputs))
    if filter.dtype is not DataType.QCINT8 or filter.data is None or node.flags:
        return "its weights are not constant int8 with scales for each channel"
    if source.dtype is not DataType.FP32 or result.dtype is not DataType.FP32:
        return "it is not float32 but for its weights"
    if bias_of(node, values) is not None:
        return "it has a bias, which XNNPACK multiplies by the weights' scales"
    assert isinstance(filter.quantization, PerChannel)
    if filter.quantization.axis != 0:
        return "its scales are not those of its outputs"
    return partial(prepare, node, values)


def prepare(node: Node, values: Values, workshop: Workshop) -> Product:
    """Packs the weights of ``node``."""
    filter = values[node.inputs[1]]
    assert isinstance(filter.quantization, PerChannel)
    outputs, inputs = filter.shape
    clamp = node.clamp or (-math.inf, math.inf)
    product = CProduct(int(workshop.library.isa), *clamp, 0, inputs, outputs)
    scales = np.ascontiguousarray(filter.quantization.scales, np.float32)
    functions = workshop.library.functions
    packed = workshop.packed.reserve(functions.pk_f32_qc8_packed_size(byref(product)))
    functions.pk_f32_qc8_pack(byref(product), workshop.constant_at(filter), address(scales), packed)
    return Product(node, product, packed)


def _slower(node: Node, values: Values, library: Library) -> str:
    return "XNNPACK has kernels for large products of float32 with int8 weights"


SCALE = family_of_chains("f32_scale")
NARROW = family_of_chains("f32_narrow")
WIDEN = family_of_chains("f32_widen")
SUMS = family_of_chains("f32_block_sums")
PRODUCT = Family(
    "f32_qc8",
    frozenset({NodeKind.FULLY_CONNECTED}),
    examine,
    _slower,
    {
        "pk_f32_qc8_packed_size": (c_size_t, (POINTER(CProduct),)),
        "pk_f32_qc8_pack": (None, (POINTER(CProduct), c_void_p, c_void_p, c_void_p)),
        "pk_f32_qc8_run": (None, (c_void_p, c_void_p)),
    },
)  # fmt: skip
FAMILIES = (SCALE, NARROW, WIDEN, SUMS, PRODUCT)
