"""Payloads that are written and read back: the same graph."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from format_strategies import graphs
from hypothesis import given, settings

from penstock.errors import InvalidProgramError
from penstock.formats import program as pte
from penstock.formats.blobs import as_bytes
from penstock.formats.payload_reader import read_payload
from penstock.formats.payload_writer import write_payload
from penstock.graph.checks import check_graph
from penstock.graph.dtypes import DataType
from penstock.graph.graph import Node, Value, XnnGraph
from penstock.graph.kinds import NodeKind


def comparable(graph: XnnGraph) -> Any:
    def plain(quantization: Any) -> Any:
        if quantization is None:
            return None
        fields = {f.name: getattr(quantization, f.name) for f in dataclasses.fields(quantization)}
        if "scales" in fields:
            fields["scales"] = (fields["scales"].dtype, fields["scales"].tolist())
        return type(quantization), fields

    values = [
        dataclasses.replace(
            value,
            data=None if value.data is None else bytes(as_bytes(value.data)),
            quantization=plain(value.quantization),
        )
        for value in graph.values
    ]
    return values, graph.nodes, graph.inputs, graph.outputs


@settings(max_examples=150)
@given(graphs())
def test_payload(graph: XnnGraph) -> None:
    check_graph(graph)
    named: dict[str, pte.Buffer] = {}
    again = read_payload(write_payload(graph, named), named)
    assert comparable(again) == comparable(graph)


def test_constants_in_the_payload() -> None:
    graph = _linear()
    data = write_payload(graph)
    again = read_payload(data)
    assert comparable(again) == comparable(graph)
    base = np.frombuffer(data, np.uint8).ctypes.data
    for value in again.values:
        if value.data is not None:
            offset = np.frombuffer(as_bytes(value.data), np.uint8).ctypes.data - base
            assert offset % 16 == 0 and offset > 0


def test_constants_read_in_place_must_be_named_data() -> None:
    graph = _linear()
    graph.values.append(Value(5, DataType.FP32, (2, 3)))
    graph.nodes.append(Node(NodeKind.ADD, (3, 2), (5,)))
    with pytest.raises(InvalidProgramError, match="named_data"):
        write_payload(graph)
    named: dict[str, pte.Buffer] = {}
    write_payload(graph, named)
    assert len(named) == 2


def _linear() -> XnnGraph:
    floats = DataType.FP32
    return XnnGraph(
        [
            Value(0, floats, (2, 3), external_id=0, is_input=True),
            Value(1, floats, (3, 3), data=np.eye(3, dtype=np.float32)),
            Value(2, floats, (3,), data=np.ones(3, np.float32)),
            Value(3, floats, (2, 3), external_id=1, is_output=True),
        ],
        [Node(NodeKind.FULLY_CONNECTED, (0, 1, 2), (3,))],
        [0],
        [3],
    )
