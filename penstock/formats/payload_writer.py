"""An :class:`~penstock.graph.graph.XnnGraph` to the payload of an XNNPACK delegate.

See :mod:`penstock.formats.payload_reader` for the layout.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from penstock.errors import InvalidProgramError
from penstock.formats.blobs import Blobs, lay_out
from penstock.formats.flatbuffer import Table
from penstock.formats.flatbuffer_builder import encode
from penstock.formats.payload_nodes import FORMS
from penstock.formats.payload_reader import HEADER, MAGIC
from penstock.formats.program import Buffer
from penstock.formats.schema import load
from penstock.graph.checks import check_graph
from penstock.graph.dtypes import Blockwise, PerChannel, PerTensor, PerToken, Quantization
from penstock.graph.graph import INVALID_VALUE_ID, Node, Value, XnnGraph

ALIGNMENT = 16
#: XNNPACK's kernels may read this far beyond a tensor's end (``XNN_EXTRA_BYTES``).
EXTRA_BYTES = 16

_ELSEWHERE = (1 << 64) - 1
_EXTERNAL_INPUT = 1
_EXTERNAL_OUTPUT = 2


def write_payload(graph: XnnGraph, named_data: dict[str, Buffer] | None = None) -> bytes:
    """The payload of ``graph``.

    With ``named_data`` (the program's), the constants are put there, under a key made from their
    content, and the payload only refers to them: delegates and methods share them, and nothing is
    copied here. Without, they lie in the payload, after the graph. Then they can only be weights
    that XNNPACK packs: the stock runtime unmaps a payload as soon as the delegate is made, and
    would crash reading any other constant, while it keeps named data.

    Raises:
        InvalidProgramError: the graph does not hold together, or needs ``named_data``.
    """
    check_graph(graph)
    if named_data is None and (unpacked := _unpacked_constants(graph)):
        raise InvalidProgramError(
            f"value {unpacked[0]} of the XNNPACK graph is a constant that XNNPACK reads in place:"
            " give write_payload the program's named_data, where such constants have to be"
        )
    return _Writer(graph, named_data).payload()


def _unpacked_constants(graph: XnnGraph) -> list[int]:
    """Ids of the constants that are used otherwise than as a filter or a bias."""
    constants = {value.id for value in graph.values if value.data is not None}
    return [
        id_
        for node in graph.nodes
        for id_ in (node.inputs[:1] if node.kind.traits.weighted else node.inputs)
        if id_ in constants
    ]


class _Writer:
    def __init__(self, graph: XnnGraph, named_data: dict[str, Buffer] | None) -> None:
        self.graph = graph
        self.named_data = named_data
        self.constants = Blobs()
        self.kinds = {
            name: 1 + number
            for union in load("xnnpack").unions.values()
            for number, (name, _) in enumerate(union.members)
        }

    def payload(self) -> bytes:
        graph = self.graph
        values = [self.value(value) for value in graph.values]
        externals = [v.external_id for v in graph.values if v.external_id is not None]
        entries, chunks = self.constant_data()
        root = Table(
            version="0",
            xnodes=[self.node(node) for node in graph.nodes],
            xvalues=values,
            num_externs=1 + max(externals, default=-1),
            input_ids=graph.inputs,
            output_ids=graph.outputs,
            # Number 0 is reserved: it means "no data".
            constant_data=[Table(offset=0, size=0, named_key=None), *entries],
        )
        flatbuffer = encode(load("xnnpack"), root)
        offset = HEADER.size + -HEADER.size % ALIGNMENT
        padding = -len(flatbuffer) % ALIGNMENT
        header = HEADER.pack(
            bytes(4),
            MAGIC,
            HEADER.size,
            offset,
            len(flatbuffer),
            offset + len(flatbuffer) + padding,
            sum(len(chunk) for chunk in chunks),
        )
        return b"".join((header.ljust(offset, b"\0"), flatbuffer, bytes(padding), *chunks))

    def constant_data(self) -> tuple[list[Table], list[Buffer]]:
        """The table of constants (without number 0), and what follows the flatbuffer."""
        pieces = self.constants.pieces
        if self.named_data is not None:
            keys = [hashlib.sha256(piece).hexdigest()[:32] for piece in pieces]
            self.named_data.update(zip(keys, pieces, strict=True))
            return [
                Table(offset=_ELSEWHERE, size=len(piece), named_key=key)
                for key, piece in zip(keys, pieces, strict=True)
            ], []
        offsets, chunks = lay_out(pieces, ALIGNMENT)
        if pieces:
            chunks.append(bytes(EXTRA_BYTES))
        return [
            Table(offset=offset, size=len(piece))
            for offset, piece in zip(offsets, pieces, strict=True)
        ], chunks

    def value(self, value: Value) -> Table:
        tensor = Table(
            datatype=int(value.dtype),
            num_dims=len(value.shape),
            dims=value.shape,
            external_id=INVALID_VALUE_ID if value.external_id is None else value.external_id,
            flags=_EXTERNAL_INPUT * value.is_input | _EXTERNAL_OUTPUT * value.is_output,
            id_out=value.id,
        )
        if value.data is not None:
            tensor.constant_buffer_idx = 1 + self.constants.add(value.data)
        if value.quantization is None:
            return self.union("xvalue_union", "XNNTensorValue", tensor)
        kind, parameters = self.quantization(value.quantization)
        quantized = self.union("quant_params", kind, parameters)
        quantized.tensor_value = tensor
        return self.union("xvalue_union", "XNNQuantizedTensorValue", quantized)

    def union(self, field: str, kind: str, table: Table) -> Table:
        return Table(**{f"{field}_type": self.kinds[kind], field: table})

    def quantization(self, quantization: Quantization) -> tuple[str, Table]:
        match quantization:
            case PerTensor(scale, zero_point):
                return "PerTensorQuant", Table(scale=scale, zero_point=zero_point)
            case PerToken(nonbatch_dims):
                return "PerTokenDynamicQuant", Table(num_nonbatch_dims=nonbatch_dims)
            case PerChannel(scales, axis):
                return "PerChannelQuant", Table(scale=scales, channel_dim=axis)
            case Blockwise(scales, axis, block_size):
                # In the table they would be float32; the stock runtime looks at its length.
                index = 1 + self.constants.add(np.ascontiguousarray(scales))
                return "PerChannelGroupQuant", Table(
                    scale=(),
                    channel_dim=axis,
                    group_size=block_size,
                    scale_buffer_idx=index,
                    num_scales=scales.size,
                )

    def node(self, node: Node) -> Table:
        form = FORMS[node.kind]
        fields: dict[str, Any] = {"flags": node.flags}
        fields.update(zip(form.inputs, node.inputs, strict=True))
        fields.update(zip(form.outputs, node.outputs, strict=True))
        if form.attributes is not None:
            for name, target in form.attributes.fields.items():
                value = getattr(node.attributes, name)
                if isinstance(target, tuple):
                    fields.update(zip(target, value, strict=True))
                else:
                    fields[target] = value
            if form.attributes.rank:
                fields[form.attributes.rank] = len(fields[form.attributes.vectors[0]])
        table = Table(
            xnode_union_type=int(node.kind),
            xnode_union=Table(**fields),
            debug_handle=node.debug_handle,
        )
        if node.clamp is not None:
            table.output_min_max = Table(output_min=node.clamp[0], output_max=node.clamp[1])
        return table
