"""Element types: the format's :class:`ScalarType` to and from NumPy's dtypes.

bfloat16 and the float8 types come from ``ml_dtypes``, which is imported only when a program has
such a tensor.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from penstock.errors import UnsupportedError
from penstock.formats.program import ScalarType

_PLAIN: dict[int, str] = {
    ScalarType.BYTE: "uint8",
    ScalarType.CHAR: "int8",
    ScalarType.SHORT: "int16",
    ScalarType.INT: "int32",
    ScalarType.LONG: "int64",
    ScalarType.HALF: "float16",
    ScalarType.FLOAT: "float32",
    ScalarType.DOUBLE: "float64",
    ScalarType.COMPLEXFLOAT: "complex64",
    ScalarType.COMPLEXDOUBLE: "complex128",
    ScalarType.BOOL: "bool",
    ScalarType.QINT8: "int8",
    ScalarType.QUINT8: "uint8",
    ScalarType.QINT32: "int32",
    ScalarType.BITS16: "uint16",
    ScalarType.UINT16: "uint16",
    ScalarType.UINT32: "uint32",
    ScalarType.UINT64: "uint64",
}

_ML_DTYPES: dict[int, str] = {
    ScalarType.BFLOAT16: "bfloat16",
    ScalarType.FLOAT8E5M2: "float8_e5m2",
    ScalarType.FLOAT8E4M3FN: "float8_e4m3fn",
    ScalarType.FLOAT8E5M2FNUZ: "float8_e5m2fnuz",
    ScalarType.FLOAT8E4M3FNUZ: "float8_e4m3fnuz",
}


@cache
def numpy_dtype(scalar_type: int) -> np.dtype[Any]:
    """The NumPy dtype of a :class:`ScalarType` (or of its number).

    Raises :class:`UnsupportedError` for a type that NumPy cannot hold, or for a bfloat16 or
    float8 type when ``ml_dtypes`` is not installed.
    """
    plain = _PLAIN.get(scalar_type)
    if plain is not None:
        return np.dtype(plain)
    name = _ML_DTYPES.get(scalar_type)
    if name is None:
        try:
            label = ScalarType(scalar_type).name
        except ValueError:
            label = f"number {scalar_type}"
        raise UnsupportedError(f"the runtime has no tensors of element type {label}")
    try:
        import ml_dtypes
    except ImportError:
        raise UnsupportedError(
            f"tensors of {name} need the package ml_dtypes: pip install ml_dtypes"
        ) from None
    dtype: np.dtype[Any] = np.dtype(getattr(ml_dtypes, name))
    return dtype
