"""How the numbers of a program file are held: :func:`precision_of`."""

from __future__ import annotations

from typing import Literal, TypeAlias

from penstock.errors import InputError, InvalidProgramError
from penstock.formats.payload_reader import read_payload
from penstock.formats.program import XNNPACK_BACKEND, Method, Program
from penstock.graph.dtypes import DataType, PerToken

#: Of the most frugal products in the file. ``static`` activations have parameters of their own in
#: the file, ``dynamic`` ones are quantized at run time.
Precision: TypeAlias = Literal["float", "static int8", "dynamic int8", "4-bit"]

_FOUR_BITS = {DataType.QCINT4, DataType.QBINT4}
_PLAIN = {DataType.FP32, DataType.FP16, DataType.BF16, DataType.INT32}


def precision_of(program: Program, method: Method) -> Precision:
    """What the delegates and the quantized operators of a method work in."""
    types = set()
    dynamic = False
    for delegate in method.delegates:
        if delegate.id != XNNPACK_BACKEND:
            continue
        try:
            graph = read_payload(delegate.payload, program.named_data)
        except (InputError, InvalidProgramError):
            continue  # who runs the file says so
        types |= {value.dtype for value in graph.values}
        dynamic |= any(isinstance(value.quantization, PerToken) for value in graph.values)
    if types & _FOUR_BITS:
        return "4-bit"
    if dynamic:
        return "dynamic int8"
    outside = any(str(name).startswith("quantized_decomposed::") for name in method.operators)
    return "static int8" if types - _PLAIN or outside else "float"
