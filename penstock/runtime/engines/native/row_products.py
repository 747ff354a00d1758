"""What fully-connected products of rows that are quantized at run time have in common, whatever
their weights are. A family ``name`` has the C functions ``pk_name_packed_size``, ``pk_name_pack``,
``pk_name_scratch_size`` and ``pk_name_run``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from ctypes import POINTER, Structure, byref, c_size_t, c_void_p
from dataclasses import dataclass
from typing import Any

import numpy as np

from penstock.graph.dtypes import DataType, PerToken
from penstock.graph.graph import FLAG_TENSORFLOW_SAME_PADDING, Node, Shape
from penstock.runtime.blocks import address
from penstock.runtime.engines.native.family import Step, Values, Workshop, bias_of
from penstock.runtime.engines.native.library import Prototype

#: Channels that are packed at a time, a multiple of a panel's: meanwhile they are in memory twice,
#: in pages of the file too. Of a head of 28 MB that would be the most a language model ever takes.
_CHANNELS = 4096


@dataclass(frozen=True)
class RowProduct:
    """A node with its weights packed. ``product`` is the C structure that says what it is, with
    fields ``rows`` and ``inputs`` that depend on the call; ``task`` the one around it."""

    node: Node
    name: str
    product: Any
    task: type[Structure]
    packed: int
    workshop: Workshop

    def step(self, shapes: Mapping[int, Shape]) -> Step:
        """See :class:`~penstock.runtime.engines.native.family.Prepared`."""
        source, result = self.node.inputs[0], self.node.outputs[0]
        *batch, inputs = shapes[source]
        product = type(self.product).from_buffer_copy(self.product)
        product.rows, product.inputs = math.prod(batch), inputs
        functions = self.workshop.library.functions
        scratch: int = getattr(functions, f"pk_{self.name}_scratch_size")(byref(product))
        task = self.task(product, self.packed, None, None, None)
        fields = ((source, "input"), (result, "output"))
        return Step(f"pk_{self.name}_run", task, fields, scratch)


def pack(
    name: str,
    product: Structure,
    task: type[Structure],
    node: Node,
    values: Values,
    scales: np.ndarray,
    workshop: Workshop,
    begin: int = 0,
) -> RowProduct:
    """Packs the weights of ``node`` for ``product.outputs`` channels from ``begin`` on. ``scales``,
    of all channels, are as C takes them."""
    filter = values[node.inputs[1]]
    weights, bias = workshop.constant(filter), bias_of(node, values)
    bias_at = None if bias is None else workshop.constant_at(bias)
    functions = workshop.library.functions
    size_of = getattr(functions, f"pk_{name}_packed_size")
    packed = workshop.packed.reserve(size_of(byref(product)))
    channels, end = filter.shape[0], begin + product.outputs
    row, scale = weights.nbytes // channels, scales.nbytes // channels
    part = type(product).from_buffer_copy(product)
    to = packed
    for first in range(begin, end, _CHANNELS):
        part.outputs = min(_CHANNELS, end - first)
        mine = weights[row * first : row * (first + part.outputs)]
        getattr(functions, f"pk_{name}_pack")(
            byref(part),
            address(mine),
            None if bias_at is None else bias_at + 4 * first,
            address(scales) + scale * first,
            to,
        )
        to += size_of(byref(part))
        workshop.packed.drop(mine)
    return RowProduct(node, name, product, task, packed, workshop)


def prototypes(name: str, product: type[Structure]) -> Mapping[str, Prototype]:
    """The C functions of a family."""
    return {
        f"pk_{name}_packed_size": (c_size_t, (POINTER(product),)),
        f"pk_{name}_pack": (None, (POINTER(product), c_void_p, c_void_p, c_void_p, c_void_p)),
        f"pk_{name}_scratch_size": (c_size_t, (POINTER(product),)),
        f"pk_{name}_run": (None, (c_void_p, c_void_p)),
    }


def reason_against_product(node: Node, values: Values, dims: int = 1) -> str | None:
    """Why ``node`` is no product of rows that are quantized at run time, whatever its weights.
    ``dims`` is the number of dimensions that a row has: 3 of an image."""
    if node.flags & ~FLAG_TENSORFLOW_SAME_PADDING:
        return "its weights are transposed"
    source, result = values[node.inputs[0]], values[node.outputs[0]]
    if source.dtype is not DataType.QDINT8 or result.dtype is not DataType.FP32:
        return "its input is not quantized at run time"
    bias = bias_of(node, values)
    if bias is not None and (bias.dtype is not DataType.FP32 or bias.data is None):
        return "its bias is not constant float32"
    if node.clamp is not None and not node.clamp[0] < node.clamp[1]:
        return "its output range is empty"
    quantization = source.quantization
    if not isinstance(quantization, PerToken) or quantization.nonbatch_dims != dims:
        return f"what is quantized together is not what {dims} dimensions have"
    return None
