"""Inputs and outputs of a graph: which arrays they take."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from penstock.errors import InputError
from penstock.graph.graph import Shape, Value


class Port(NamedTuple):
    """An input or output of a graph; ``overread`` where XNNPACK may read past its end."""

    dtype: np.dtype[Any]
    shape: Shape
    itemsize: int
    overread: bool


def array_type(value: Value) -> np.dtype[Any]:
    """The NumPy type of an input or output, which check_graph has seen."""
    found = value.dtype.traits.array
    assert found is not None
    return found


def check_shape(index: int, shape: Shape, value: Value) -> None:
    if len(shape) != len(value.shape) or not all(
        0 <= size <= bound for size, bound in zip(shape, value.shape, strict=True)
    ):
        raise InputError(
            f"input {index} of the graph has shape {list(shape)};"
            f" it takes {list(value.shape)} at most"
        )


def check_array(port: int, inputs: int, array: np.ndarray, expected: Port) -> None:
    """Raise InputError unless ``array`` can be port number ``port``, the first ``inputs`` of which
    are inputs."""
    dtype, shape, _, _ = expected
    if array.dtype == dtype and array.shape == shape and array.flags.c_contiguous:
        return
    name = f"input {port}" if port < inputs else f"output {port - inputs}"
    layout = "contiguous" if array.flags.c_contiguous else "not contiguous"
    raise InputError(
        f"{name} of the graph is {array.dtype}{list(array.shape)}, {layout};"
        f" it takes contiguous {dtype}{list(shape)}"
    )
