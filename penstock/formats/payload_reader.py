"""The payload of an XNNPACK delegate to a checked :class:`~penstock.graph.graph.XnnGraph`.

Layout (little endian; facts of ExecuTorch's ``backends/xnnpack/runtime/XNNHeader.h``)::

    0   uint32  0
    4   char[4] "XH00"
    8   uint16  length of this header, 30
    10  uint32  offset of the flatbuffer
    14  uint32  bytes of the flatbuffer
    18  uint32  offset of the constants
    22  uint64  bytes of the constants

Old payloads have no header: they are the flatbuffer, with the constants in it.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from penstock.errors import InputError, InvalidProgramError, UnsupportedError, shorten
from penstock.formats.blobs import as_bytes
from penstock.formats.flatbuffer import Table, decode, other_version
from penstock.formats.payload_nodes import FORMS, NodeForm
from penstock.formats.program import Buffer
from penstock.formats.schema import load
from penstock.graph.checks import check_graph, data_size
from penstock.graph.dtypes import Blockwise, DataType, PerChannel, PerTensor, PerToken, Quantization
from penstock.graph.graph import INVALID_VALUE_ID, Node, Value, XnnGraph
from penstock.graph.kinds import NodeKind

MAGIC = b"XH00"
HEADER = struct.Struct("<4s4sHIIIQ")
IDENTIFIERS = (b"XN00", b"XN01")

_EXTERNAL_INPUT = 1
_EXTERNAL_OUTPUT = 2


def read_payload(data: Buffer, named_data: Mapping[str, Buffer] | None = None) -> XnnGraph:
    """Read and check a payload. ``named_data`` is the program's, where constants may live.

    The constants are views into ``data`` and ``named_data``, which must live as long as the graph.

    Raises:
        InvalidProgramError: the bytes are no payload, cut short or damaged, or the graph in them
            does not hold together.
        InputError: ``named_data`` lacks a constant, which therefore is in a data file.
        UnsupportedError: another version of the format.
    """
    root, constants = _opened(data)
    graph = _Reader(root, constants, named_data or {}).graph()
    check_graph(graph)
    graph.sound = True
    return graph


def payload_root(data: Buffer) -> Table:
    """The root table of a payload's graph; what it says is not checked yet.

    Raises InvalidProgramError and UnsupportedError as :func:`read_payload` does.
    """
    return _opened(data)[0]


def _opened(data: Buffer) -> tuple[Table, memoryview | None]:
    """The root table, and the constants behind the graph if they are there."""
    view = as_bytes(data)
    magic = bytes(view[4:8])
    constants: memoryview | None = None
    flatbuffer = view
    if magic == MAGIC:
        if len(view) < HEADER.size:
            raise InvalidProgramError(f"the XNNPACK payload is cut short to {len(view)} bytes")
        _, _, _, offset, size, constants_offset, constants_size = HEADER.unpack_from(view)
        for what, start, length in (
            ("graph", offset, size),
            ("constants", constants_offset, constants_size),
        ):
            if start + length > len(view):
                raise InvalidProgramError(
                    f"the XNNPACK payload is damaged or cut short: its {what} ({length} bytes at"
                    f" {start}) would end beyond its {len(view)} bytes"
                )
        flatbuffer = view[offset : offset + size]
        constants = view[constants_offset : constants_offset + constants_size]
    identifier = bytes(flatbuffer[4:8])
    if identifier not in IDENTIFIERS:
        version = other_version(identifier, IDENTIFIERS[0])
        if version is not None:
            raise UnsupportedError(
                f"the XNNPACK payload has format version {version}, only XN00 and XN01 can be read:"
                " update Penstock, or compile the model again"
            )
        raise InvalidProgramError(
            f"not an XNNPACK payload: it has {identifier!r} instead of {IDENTIFIERS[1]!r}"
        )
    return decode(load("xnnpack"), flatbuffer, "the XNNPACK payload"), constants


class _Reader:
    def __init__(
        self, root: Table, constants: memoryview | None, named_data: Mapping[str, Buffer]
    ) -> None:
        self.root = root
        self.constants = constants
        self.named_data = named_data
        # One view for one piece of data, so that values that share data share the object.
        self.views: dict[tuple[int, int], memoryview] = {}
        # And one quantization for one table of parameters.
        self.quantizations: dict[int, Quantization] = {}
        self.values: list[Value] = []
        self.nodes: list[Node] = []
        self.members = load("xnnpack").unions

    def graph(self) -> XnnGraph:
        tables = self.root.xvalues or ()
        ids = [_tensor(table).id_out for table in tables]
        if len(set(ids)) < len(ids):
            raise InvalidProgramError("two values of the XNNPACK graph have one id")
        unused_id = 1 + max(ids, default=0)
        for offset, table in enumerate(tables):
            self.value(table.xvalue_union, _tensor(table), unused_id + offset)
        self.nodes += [self.node(table) for table in self.root.xnodes or ()]
        external = sorted(
            (value for value in self.values if value.external_id is not None),
            key=lambda value: value.external_id or 0,
        )
        return XnnGraph(
            self.values,
            self.nodes,
            [value.id for value in external if value.is_input],
            [value.id for value in external if value.is_output],
        )

    def value(self, outer: Table, table: Table, unused_id: int) -> None:
        dtype = _data_type(table.datatype, table.id_out)
        shape = table.dims or ()
        if table.num_dims != len(shape):
            raise _error(table.id_out, f"has {table.num_dims} dimensions, {len(shape)} sizes")
        if table.flags & ~(_EXTERNAL_INPUT | _EXTERNAL_OUTPUT):
            raise _error(table.id_out, f"has the flags {table.flags:#x}")
        external = None if table.external_id == INVALID_VALUE_ID else table.external_id
        if (external is None) == bool(table.flags):
            raise _error(table.id_out, f"has the external id {external}, flags {table.flags:#x}")
        if external is not None and external >= self.root.num_externs:
            raise _error(table.id_out, f"has the external id {external} of {self.root.num_externs}")
        value = Value(
            table.id_out,
            dtype,
            shape,
            external_id=external,
            is_input=bool(table.flags & _EXTERNAL_INPUT),
            is_output=bool(table.flags & _EXTERNAL_OUTPUT),
        )
        if outer is not table:
            value.quantization = self.quantization(outer, value.id)
        if table.constant_buffer_idx:
            size = data_size(dtype, shape)
            value.data = self.constant(table.constant_buffer_idx, size, value.id)
        if table.dq_datatype:
            self.quantize_dynamically(value, table.dq_datatype, unused_id)
        self.values.append(value)

    def quantize_dynamically(self, value: Value, dtype: int, unused_id: int) -> None:
        """Old files quantize an input by a mark on it; now a CONVERT node does."""
        if dtype != DataType.QINT8 or not value.is_input or value.quantization is not None:
            raise UnsupportedError(
                f"value {value.id} of the XNNPACK graph is to be quantized dynamically in an"
                " outdated way: compile the model again"
            )
        source = Value(unused_id, value.dtype, value.shape)
        source.external_id, value.external_id = value.external_id, None
        source.is_input, value.is_input = True, False
        source.is_output, value.is_output = value.is_output, False
        value.dtype, value.quantization = DataType.QDINT8, PerToken(1)
        self.values.append(source)
        self.nodes.append(Node(NodeKind.CONVERT, (source.id,), (value.id,)))

    def quantization(self, table: Table, id_: int) -> Quantization:
        parameters = table.quant_params
        if parameters is None:
            raise _error(id_, "has no quantization parameters")
        if id(parameters) not in self.quantizations:
            self.quantizations[id(parameters)] = self.new_quantization(table, id_)
        return self.quantizations[id(parameters)]

    def new_quantization(self, table: Table, id_: int) -> Quantization:
        parameters = table.quant_params
        kind = self.members["XNNQuantParams"].members[table.quant_params_type - 1][0]
        if kind == "PerTensorQuant":
            return PerTensor(parameters.scale, parameters.zero_point)
        if kind == "PerTokenDynamicQuant":
            return PerToken(parameters.num_nonbatch_dims)
        if kind == "PerChannelQuant":
            scales = self.scales(parameters, np.dtype(np.float32), id_)
            return PerChannel(scales, parameters.channel_dim)
        if parameters.scale_buffer_idx:
            scales = self.scales(parameters, np.dtype(np.uint16), id_)
        else:
            scales = _to_bfloat16(np.array(parameters.scale or (), np.float32))
        return Blockwise(scales, parameters.channel_dim, parameters.group_size)

    def scales(self, parameters: Table, dtype: np.dtype[Any], id_: int) -> np.ndarray[Any, Any]:
        if not parameters.scale_buffer_idx:
            return np.array(parameters.scale or (), dtype)
        size = parameters.num_scales * dtype.itemsize
        return np.frombuffer(self.constant(parameters.scale_buffer_idx, size, id_), dtype)

    def constant(self, index: int, size: int, id_: int) -> memoryview:
        view = self.views.get((index, size))
        if view is None:
            data = self.whole_constant(index, id_)
            if len(data) < size:
                raise _error(id_, f"needs {size} bytes of data and has {len(data)}")
            view = self.views[index, size] = data[:size]
        return view

    def whole_constant(self, index: int, id_: int) -> memoryview:
        entries = self.root.constant_buffer if self.constants is None else self.root.constant_data
        if index >= len(entries or ()):
            raise _error(id_, f"refers to constant {index} of {len(entries or ())}")
        entry = entries[index]
        if self.constants is None:
            return entry.storage if entry.storage is not None else memoryview(b"")
        if entry.named_key:
            if entry.named_key not in self.named_data:
                raise InputError(
                    f"the XNNPACK payload needs the data {shorten(entry.named_key)!r}, which the"
                    " program does not have: give the data file (.ptd) that belongs to it"
                )
            return as_bytes(self.named_data[entry.named_key])
        if entry.offset + entry.size > len(self.constants):
            raise _error(id_, f"has data outside the constants ({entry.size} at {entry.offset})")
        return self.constants[entry.offset : entry.offset + entry.size]

    def node(self, table: Table) -> Node:
        if table.xnode_union is None:
            raise InvalidProgramError("the XNNPACK graph has a node without a kind")
        kind = NodeKind(table.xnode_union_type)
        form, fields = FORMS[kind], table.xnode_union
        bounds = table.output_min_max
        clamp = None if bounds is None else (bounds.output_min, bounds.output_max)
        return Node(
            kind,
            tuple(getattr(fields, name) for name in form.inputs),
            tuple(getattr(fields, name) for name in form.outputs),
            _attributes(form, fields),
            None if clamp == (-np.inf, np.inf) else clamp,
            fields.flags,
            table.debug_handle,
        )


def _attributes(form: NodeForm, fields: Table) -> Any:
    if form.attributes is None:
        return None
    values = {
        name: tuple(getattr(fields, part) for part in source)
        if isinstance(source, tuple)
        else getattr(fields, source)
        for name, source in form.attributes.fields.items()
    }
    for name in form.attributes.vectors:
        if values[name] is None:
            raise InvalidProgramError(f"a node of the XNNPACK graph has no {name}")
        if form.attributes.rank and getattr(fields, form.attributes.rank) != len(values[name]):
            raise InvalidProgramError(f"a node of the XNNPACK graph has {name} of another rank")
    return form.attributes.type(**values)


def _tensor(table: Table) -> Table:
    """The XNNTensorValue in an XValue."""
    outer = table.xvalue_union
    inner = getattr(outer, "tensor_value", outer)
    if inner is None:
        raise InvalidProgramError("the XNNPACK graph has a value that is no tensor")
    assert isinstance(inner, Table)
    return inner


def _data_type(number: int, id_: int) -> DataType:
    if number == 0:
        raise _error(id_, "has no type")
    return DataType(number)


def _to_bfloat16(scales: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Raw bfloat16, rounded as the stock runtime rounds float32 scales of blocks."""
    with np.errstate(over="ignore", invalid="ignore"):
        bits = (scales * np.float32(1.00389105)).view(np.uint32)
    return (bits >> 16).astype(np.uint16)


def _error(id_: int, problem: str) -> InvalidProgramError:
    return InvalidProgramError(f"value {id_} of the XNNPACK graph {problem}")
