"""Small graphs with known answers: is this the XNNPACK that we know, and is it right here?"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from penstock.errors import BackendUnavailableError, PenstockError
from penstock.graph.dtypes import DataType, PerTensor
from penstock.graph.graph import Node, Value, XnnGraph
from penstock.graph.kinds import NodeKind
from penstock.runtime.engines.processor import features, processor
from penstock.runtime.engines.protocol import Executable
from penstock.runtime.engines.xnnpack.kernel_families import (
    empty_outputs,
    families,
    wrong_families,
)
from penstock.runtime.engines.xnnpack.library import REQUIREMENT, VARIABLE, Library

_INPUT = np.array([[1.0, -2.0, 3.0, -4.0]], np.float32)
_WEIGHT = np.array([[1, 0, 2, 0], [0, 1, 0, 1], [1, 1, 1, 1], [2, 0, 0, -1]], np.float32)
_BIAS = np.array([1.0, 2.0, 3.0, 4.0], np.float32)
_LOWER = np.array([5.0, -1.0, 2.0, 0.0], np.float32)
_ADDEND = np.array([4, 5, 6, 100], np.int8)


def self_test(library: Library, compile: Callable[[XnnGraph], Executable]) -> None:
    """Run a graph through ``library`` that touches what differs between versions, and one with a
    product of each family of kernels; ``compile`` makes them executable there.

    Raises:
        BackendUnavailableError: an answer is not the known one.
    """
    output = np.empty((1, 4), np.int8)
    try:
        compile(_graph()).run([_INPUT], [output])
        got = output[0].tolist()
    except PenstockError as error:
        got = [str(error)]
    expected = _expected()
    if got != expected:
        raise BackendUnavailableError(
            f"XNNPACK's library at {library.path} fails its self-test"
            f" (got {got}, expected {expected}); use that of {REQUIREMENT}"
        )
    _test_families(library, compile)


def _test_families(library: Library, compile: Callable[[XnnGraph], Executable]) -> None:
    found = families()
    outputs = empty_outputs(found)
    try:
        compile(found.graph).run(found.inputs, outputs)
        wrong = wrong_families(found, outputs)
    except PenstockError as error:
        wrong = [str(error)]
    if wrong:
        raise BackendUnavailableError(
            f"XNNPACK's library at {library.path} computes wrongly on this processor,"
            f" {processor()}: {', '.join(wrong)}; {_advice()}, or point {VARIABLE} to another"
            " build"
        )


def _advice() -> str:
    if "sme" in features():
        return (
            "with SME it takes KleidiAI's SME kernels; switch that feature off (QEMU 7.2 is at"
            " fault in SME's int8 sums, 10.0 is not: QEMU_CPU=max,sme=off)"
        )
    return "switch off the feature that its kernels use"


def _expected() -> list[int]:
    product = _INPUT @ _WEIGHT.T + _BIAS  # 8, -4, 1, 10
    difference = np.minimum(product, _LOWER) - np.float32(1.0)
    real = np.clip(-(difference * difference), -20, -2)
    quantized = np.clip(np.rint(real / 0.5) + 3, -128, 127)
    total = (quantized - 3) * 0.5 + _ADDEND.astype(np.float32) * 0.25
    answer: list[int] = np.clip(np.rint(total / 0.25) + 100, -128, 127)[0].astype(int).tolist()
    return answer


def _graph() -> XnnGraph:
    fp32, row = DataType.FP32, (1, 4)
    values = [
        Value(0, fp32, row, external_id=0, is_input=True),
        Value(1, fp32, (4, 4), data=_WEIGHT),
        Value(2, fp32, (4,), data=_BIAS),
        Value(3, fp32, row),
        Value(4, fp32, (4,), data=_LOWER),
        Value(5, fp32, row),
        Value(6, fp32, (1,), data=np.ones(1, np.float32)),
        Value(7, fp32, row),
        Value(8, fp32, row),
        Value(9, fp32, row),
        Value(10, fp32, row),
        Value(11, DataType.QINT8, row, PerTensor(0.5, 3)),
        Value(12, DataType.QINT8, (4,), PerTensor(0.25, 0), data=_ADDEND),
        Value(13, DataType.QINT8, row, PerTensor(0.25, 100), external_id=1, is_output=True),
    ]
    nodes = [
        Node(NodeKind.FULLY_CONNECTED, (0, 1, 2), (3,)),
        Node(NodeKind.MINIMUM, (3, 4), (5,)),
        Node(NodeKind.SUBTRACT, (5, 6), (7,)),
        Node(NodeKind.SQUARE, (7,), (8,)),
        Node(NodeKind.NEGATE, (8,), (9,)),
        Node(NodeKind.CLAMP, (9,), (10,), clamp=(-20.0, -2.0)),
        Node(NodeKind.CONVERT, (10,), (11,)),
        Node(NodeKind.ADD, (11, 12), (13,)),
    ]
    return XnnGraph(values, nodes, [0], [13])
