"""Inputs to run a program on: random ones by what a method takes, and files that hold some."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from penstock.errors import InputError
from penstock.formats.program import Method, Tensor
from penstock.runtime.slots import Layout


def random_inputs(method: Method, seed: int = 0) -> list[Any]:
    """One value for each input of ``method``: normally distributed floats, integers and booleans
    of 0 and 1 (which any table of indices has), scalars as the program was compiled for.

    A dynamic dimension gets its upper bound. Raises InputError for an input without a bound.
    """
    generator = np.random.default_rng(seed)
    return [_random(method, position, generator) for position in range(len(method.inputs))]


def _random(method: Method, position: int, generator: np.random.Generator) -> Any:
    value = method.values[method.inputs[position]]
    if not isinstance(value, Tensor):
        return value
    layout = Layout(value, f"input {position} of method {method.name!r}")
    if not layout.bounded:
        raise InputError(
            f"input {position} of method {method.name!r} may have any size; give inputs of the "
            "size to take"
        )
    if layout.dtype.kind in "biu":
        return generator.integers(0, 2, layout.shape).astype(layout.dtype)
    return generator.standard_normal(layout.shape).astype(layout.dtype)


def write_inputs(path: Path, values: Sequence[Any]) -> None:
    """Writes inputs, arrays and scalars, where :func:`read_inputs` finds them again."""
    named: dict[str, Any] = {}
    for index, value in enumerate(values):
        kind = "in" if isinstance(value, np.ndarray) else "none" if value is None else "scalar"
        named[f"{kind}{index}"] = np.zeros(0) if value is None else np.asarray(value)
    np.savez(path, **named)


def read_inputs(path: Path | str) -> list[Any]:
    """The arrays of a ``.npz`` file in their order; ``scalar…`` as scalars, ``none…`` as None."""
    with np.load(path, allow_pickle=False) as data:
        return [_read(name, data[name]) for name in data.files]


def _read(name: str, array: np.ndarray) -> Any:
    if name.startswith("scalar"):
        return array.item()
    return None if name.startswith("none") else array
