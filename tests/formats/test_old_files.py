"""Forms that the stock flow used to write, and that its runtime still reads."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import pytest

from penstock.errors import InvalidProgramError, UnsupportedError
from penstock.formats import program as pte
from penstock.formats.flatbuffer import Table
from penstock.formats.flatbuffer_builder import encode
from penstock.formats.payload_reader import read_payload
from penstock.formats.program_reader import read_program
from penstock.formats.schema import load
from penstock.graph.dtypes import Blockwise, DataType, PerChannel, PerToken
from penstock.graph.graph import INVALID_VALUE_ID, Node
from penstock.graph.kinds import NodeKind

INTERNAL = 0xFFFFFFFF


def program_bytes(**fields: Any) -> bytes:
    tensor = Table(scalar_type=6, sizes=[3], dim_order=b"\0", data_buffer_idx=1)
    plan = Table(name="forward", values=[Table(val_type=5, val=tensor)], chains=[])
    return encode(load("program"), Table(execution_plan=[plan], **fields))


def test_constants_in_the_flatbuffer() -> None:
    weights = np.array([1, 2, 3], np.float32).tobytes()
    data = program_bytes(constant_buffer=[Table(storage=b""), Table(storage=weights + bytes(4))])
    (tensor,) = read_program(data).methods[0].values
    assert isinstance(tensor, pte.Tensor) and tensor.data == weights

    data = program_bytes(constant_buffer=[Table(storage=b""), Table(storage=weights[:-1])])
    with pytest.raises(InvalidProgramError, match="needs 12 bytes of data at 0, .* has 11"):
        read_program(data)
    with pytest.raises(InvalidProgramError, match="has the index 1, there are 0"):
        read_program(program_bytes())


def test_24_byte_header() -> None:
    """Without the size of the segments, which then end where the file ends."""
    weights = np.array([1, 2, 3], np.float32).tobytes()
    flatbuffer = program_bytes(
        segments=[Table(offset=0, size=12)],
        constant_segment=Table(segment_index=0, offsets=[0, 0]),
    )
    (root,) = struct.unpack_from("<I", flatbuffer)
    size = len(flatbuffer) + 32
    header = struct.pack("<4sIQQQ", b"eh00", 24, size, size, 99)
    data = struct.pack("<I", root + 32) + flatbuffer[4:8] + header + flatbuffer[8:] + weights
    (tensor,) = read_program(data).methods[0].values
    assert isinstance(tensor, pte.Tensor) and tensor.data == weights
    with pytest.raises(InvalidProgramError, match="segment 0 .* ends beyond"):
        read_program(data[:-1])


def test_several_chains_are_one_after_the_other() -> None:
    def call(kind: int, **fields: Any) -> Table:
        return Table(instr_args_type=kind, instr_args=Table(**fields))

    jump = call(4, cond_value_index=0, destination_instruction=2)
    free = call(5, value_index=0)
    chains = [Table(instructions=[jump, free]), Table(instructions=[free, jump])]
    flag = Table(val_type=3, val=Table(bool_val=True))
    plan = Table(name="forward", values=[flag], chains=chains)
    data = encode(load("program"), Table(execution_plan=[plan]))
    assert read_program(data).methods[0].instructions == [
        pte.JumpFalseCall(0, 2),
        pte.FreeCall(0),
        pte.FreeCall(0),
        pte.JumpFalseCall(0, 4),
    ]


def value(**fields: Any) -> Table:
    defaults = {"datatype": 1, "num_dims": 2, "dims": [2, 3], "external_id": INTERNAL}
    return Table(xvalue_union_type=1, xvalue_union=Table(**{**defaults, **fields}))


def test_payload_without_header() -> None:
    weights = np.arange(6, dtype=np.float32).tobytes()
    root = Table(
        xvalues=[
            value(id_out=7, external_id=0, flags=1),
            value(id_out=3, constant_buffer_idx=1),
            value(id_out=4, external_id=1, flags=2),
        ],
        xnodes=[
            Table(xnode_union_type=1, xnode_union=Table(input1_id=7, input2_id=3, output_id=4))
        ],
        num_externs=2,
        constant_buffer=[Table(storage=b""), Table(storage=weights)],
    )
    data = encode(load("xnnpack"), root)
    for identifier in (b"XN00", b"XN01"):
        graph = read_payload(data[:4] + identifier + data[8:])
        assert graph.nodes == [Node(NodeKind.ADD, (7, 3), (4,))]
        assert (graph.inputs, graph.outputs) == ([7], [4])
        assert bytes(graph.values[1].data or b"") == weights


def dynamic_linear(flags: int = 1) -> bytes:
    """A linear layer whose float input is marked for dynamic quantization."""
    scales = Table(scale=[0.5, 0.25], channel_dim=0)
    weights = value(id_out=1, datatype=6, constant_buffer_idx=1).xvalue_union
    quantized = Table(tensor_value=weights, quant_params_type=1, quant_params=scales)
    root = Table(
        xvalues=[
            value(id_out=0, external_id=0, flags=flags, dq_datatype=3),
            Table(xvalue_union_type=2, xvalue_union=quantized),
            value(id_out=2, dims=[2, 2], external_id=1, flags=2),
        ],
        xnodes=[
            Table(
                xnode_union_type=2,
                xnode_union=Table(input1_id=0, filter_id=1, bias_id=INTERNAL, output_id=2),
            )
        ],
        num_externs=2,
        constant_buffer=[Table(storage=b""), Table(storage=bytes(6))],
    )
    return encode(load("xnnpack"), root)


def test_dynamic_quantization_by_a_mark() -> None:
    graph = read_payload(dynamic_linear())
    source, quantized, weights, _ = graph.values
    assert source.dtype is DataType.FP32 and source.is_input and source.external_id == 0
    assert quantized.dtype is DataType.QDINT8 and quantized.quantization == PerToken(1)
    assert not quantized.is_input and quantized.external_id is None
    assert graph.inputs == [source.id]
    assert graph.nodes[0] == Node(NodeKind.CONVERT, (source.id,), (quantized.id,))
    assert graph.nodes[1].inputs == (quantized.id, 1, INVALID_VALUE_ID)
    assert isinstance(weights.quantization, PerChannel)
    assert weights.quantization.scales.tolist() == [0.5, 0.25]


def test_other_marks_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="outdated"):
        read_payload(dynamic_linear(flags=2))


def test_float32_scales_of_blocks() -> None:
    """They become bfloat16 as in the stock runtime: those that are bfloat16 already stay."""
    scales = np.array([1.0, 1.9921875, 0.0078125, 3e-3], np.float32)
    tensor = value(id_out=1, datatype=10, dims=[2, 4], constant_buffer_idx=1).xvalue_union
    blocks = Table(scale=scales, channel_dim=0, group_size=2)
    quantized = Table(tensor_value=tensor, quant_params_type=4, quant_params=blocks)
    root = Table(
        xvalues=[Table(xvalue_union_type=2, xvalue_union=quantized)],
        constant_buffer=[Table(storage=b""), Table(storage=bytes(4))],
    )
    (read,) = read_payload(encode(load("xnnpack"), root)).values
    assert isinstance(read.quantization, Blockwise)
    exact = (scales.view(np.uint32) >> 16).astype(np.uint16)
    assert read.quantization.scales[:3].tolist() == exact[:3].tolist()
    assert abs(int(read.quantization.scales[3]) - int(exact[3])) <= 1
