"""Tables of rows, and what programs say to them one by one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

import penstock

STOCK = Path(__file__).parents[1] / "formats" / "stock"
IMAGE = STOCK / "image_fp32.pte"


def samples(count: int, seed: int = 0) -> np.ndarray:
    """Inputs of :data:`IMAGE`, float32 of ``count`` x 3 x 16 x 16."""
    return np.random.default_rng(seed).standard_normal((count, 3, 16, 16)).astype(np.float32)


def flat(array: np.ndarray) -> Any:
    """Lists of a fixed size, one for each row."""
    return pa.FixedSizeListArray.from_arrays(pa.array(array.reshape(-1)), array[0].size)


#: The forms in which a column may hold arrays.
FORMS: dict[str, Callable[[np.ndarray], Any]] = {
    "fixed": flat,
    "lists": lambda array: pa.array(array.reshape(len(array), -1).tolist(), pa.list_(pa.float32())),
    "large": lambda array: flat(array).cast(pa.large_list(pa.float32())),
    "nested": lambda array: pa.array(
        array.tolist(), pa.list_(pa.list_(pa.list_(pa.float32())))
    ),
    "with the batch": lambda array: pa.array(
        array[:, None].tolist(), pa.list_(pa.list_(pa.list_(pa.list_(pa.float32()))))
    ),
    "float64": lambda array: flat(array.astype(np.float64)),
    "tensors": pa.FixedShapeTensorArray.from_numpy_ndarray,
}  # fmt: skip


def table(count: int, seed: int = 0) -> Any:
    return pa.table({"id": np.arange(count), "x": flat(samples(count, seed))})


def answers(count: int, seed: int = 0) -> np.ndarray:
    """What :data:`IMAGE` says to :func:`samples`."""
    program = penstock.load(IMAGE, threads=1)
    return np.concatenate([program(one[None])[0] for one in samples(count, seed)])


def array(column: Any, dtype: Any = np.float32) -> np.ndarray:
    return np.array(column.to_pylist(), dtype)
