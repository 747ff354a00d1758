"""A graph's values -> XNNPACK's values."""

from __future__ import annotations

from ctypes import byref, c_size_t, c_uint32
from dataclasses import dataclass, field

import numpy as np

from penstock.errors import UnsupportedError
from penstock.graph.dtypes import Blockwise, DataType, PerChannel, PerTensor, PerToken
from penstock.graph.graph import INVALID_VALUE_ID, Value, XnnGraph
from penstock.graph.weights import ZERO_POINT_4_BIT
from penstock.runtime.blocks import address
from penstock.runtime.engines.xnnpack import buffers
from penstock.runtime.engines.xnnpack.bindings import (
    DATATYPE,
    VALUE_FLAG_EXTERNAL_INPUT,
    VALUE_FLAG_EXTERNAL_OUTPUT,
)
from penstock.runtime.engines.xnnpack.library import Library


@dataclass
class Subgraph:
    """An ``xnn_subgraph_t`` under construction.

    ``ids`` maps value ids of the graph to XNNPACK's. ``constants`` are the buffers that XNNPACK
    has pointers into, by value id.
    """

    library: Library
    handle: int
    ids: dict[int, int] = field(default_factory=lambda: {INVALID_VALUE_ID: INVALID_VALUE_ID})
    constants: dict[int, list[np.ndarray]] = field(default_factory=dict)

    def check(self, status: int, what: str) -> None:
        """Raise UnsupportedError unless ``status`` is success."""
        if status:
            raise UnsupportedError(
                f"XNNPACK refuses {what} ({self.library.status(status)}); compile the model again"
            )


def define_value(subgraph: Subgraph, value: Value) -> None:
    """Add ``value`` to ``subgraph``."""
    xnn, out = subgraph.library.xnn, c_uint32()
    dtype, rank, dims = DATATYPE[value.dtype], len(value.shape), sizes(value.shape)
    external = INVALID_VALUE_ID if value.external_id is None else value.external_id
    flags = (VALUE_FLAG_EXTERNAL_INPUT if value.is_input else 0) | (
        VALUE_FLAG_EXTERNAL_OUTPUT if value.is_output else 0
    )
    data = None
    if value.data is not None:
        data = _keep(subgraph, value, value.data, value.dtype.traits.alignment)
    tail = (external, flags, byref(out))
    quantization = value.quantization
    if quantization is None:
        status = xnn.xnn_define_tensor_value(subgraph.handle, dtype, rank, dims, data, *tail)
    elif isinstance(quantization, PerTensor):
        status = xnn.xnn_define_quantized_tensor_value(
            subgraph.handle, dtype, quantization.zero_point, quantization.scale,
            rank, dims, data, *tail
        )  # fmt: skip
    elif isinstance(quantization, PerChannel):
        zero_point = ZERO_POINT_4_BIT if value.dtype == DataType.QCINT4 else 0
        scales = _keep(subgraph, value, np.asarray(quantization.scales, np.float32), 4)
        status = xnn.xnn_define_channelwise_quantized_tensor_value_v2(
            subgraph.handle, dtype, zero_point, scales,
            rank, quantization.axis, dims, data, *tail
        )  # fmt: skip
    elif isinstance(quantization, Blockwise):
        scales = _keep(subgraph, value, np.asarray(quantization.scales, np.uint16), 2)
        status = xnn.xnn_define_blockwise_quantized_tensor_value(
            subgraph.handle, dtype, ZERO_POINT_4_BIT, scales,
            rank, quantization.axis, quantization.block_size, dims, data, *tail
        )  # fmt: skip
    else:
        assert isinstance(quantization, PerToken)
        status = xnn.xnn_define_dynamically_quantized_tensor_value(
            subgraph.handle, dtype, rank, quantization.nonbatch_dims, dims, *tail
        )
    if status:
        what = f"value {value.id} ({value.dtype.name}, shape {list(value.shape)})"
        subgraph.check(status, what)
    subgraph.ids[value.id] = out.value


def unpacked_constants(graph: XnnGraph) -> set[int]:
    """Ids of the constants that XNNPACK still reads after a runtime is made.

    The others were copied into packed weights, and their originals can go.
    """
    constant = {v.id for v in graph.values if v.data is not None} | {INVALID_VALUE_ID}
    needed: set[int] = set()
    for node in graph.nodes:
        packs = node.kind.traits.weighted and constant.issuperset(node.inputs[1:])
        needed.update(node.inputs[:1] if packs else node.inputs)
    return (needed & constant) | constant.intersection(graph.outputs)


def sizes(values: tuple[int, ...]) -> object:
    """A C array of ``size_t``."""
    return (c_size_t * len(values))(*values)


def _keep(subgraph: Subgraph, value: Value, data: object, alignment: int) -> int:
    array = buffers.constant(data, alignment)
    subgraph.constants.setdefault(value.id, []).append(array)
    return address(array)
