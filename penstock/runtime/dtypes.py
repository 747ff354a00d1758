"""The NumPy type of a program's tensors.

bfloat16 and the float8 types come from ``ml_dtypes``, which is imported only when a program has
such a tensor.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from penstock.errors import UnsupportedError
from penstock.formats.program import ScalarType


@cache
def numpy_dtype(scalar_type: int) -> np.dtype[Any]:
    """The NumPy dtype of a :class:`ScalarType` (or of its number).

    Raises :class:`UnsupportedError` for a type that NumPy cannot hold, or for a bfloat16 or
    float8 type when ``ml_dtypes`` is not installed.
    """
    try:
        name, label = ScalarType(scalar_type).array, ScalarType(scalar_type).name
    except ValueError:
        name, label = None, f"number {scalar_type}"
    if name is None:
        raise UnsupportedError(f"the runtime has no tensors of element type {label}")
    if not name.startswith(("bfloat", "float8")):
        return np.dtype(name)
    try:
        import ml_dtypes
    except ImportError:
        raise UnsupportedError(
            f"tensors of {name} need the package ml_dtypes: pip install ml_dtypes"
        ) from None
    dtype: np.dtype[Any] = np.dtype(getattr(ml_dtypes, name))
    return dtype
