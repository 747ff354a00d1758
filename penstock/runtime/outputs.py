"""Outputs in arrays that the caller gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from penstock.errors import InputError
from penstock.runtime.blocks import Array
from penstock.runtime.slots import Slot
from penstock.runtime.specs import Spec, TensorSpec


def lend(
    out: Any, indices: Sequence[int], specs: Sequence[Spec], slots: Sequence[Slot | None],
    inputs: Sequence[Any],
) -> list[Array | None]:  # fmt: skip
    """Checks ``out``, one array or None for each output, and has those computed in place that can
    be: the slots of values with the ids ``indices`` are given them.

    An array is written to directly if it lies in memory as the output does and shares none with an
    input or another output; into any other the output is copied (:func:`fill`).

    Raises InputError for an array that an output does not fit into.
    """
    arrays = out if isinstance(out, (list, tuple)) else [out]
    if len(arrays) != len(indices):
        raise InputError(
            f"out has {len(arrays)} arrays for {len(indices)} outputs; give one for each, or None"
            " for one that is to be new"
        )
    for position, (array, spec) in enumerate(zip(arrays, specs, strict=True)):
        if array is not None:
            _check(array, spec, f"out[{position}]")
            for earlier, other in enumerate(arrays[:position]):
                if indices[earlier] != indices[position] and _overlap(array, other):
                    raise InputError(
                        f"out[{position}] and out[{earlier}] share memory; give it memory for each"
                    )
    for position, (array, index) in enumerate(zip(arrays, indices, strict=True)):
        slot = slots[index]
        if array is None or slot is None or slot.memory is not None:
            continue
        others = (*inputs, *arrays[:position], *arrays[position + 1 :])
        if list(indices).count(index) == 1 and _lies_as(array, slot) and not _shares(array, others):
            slot.lent = array
    return list(arrays)


def fill(array: Array | None, value: Any, position: int) -> Any:
    """The output ``value`` in ``array``, if there is one. Raises InputError if it does not fit."""
    if array is None or value is array:
        return value
    if array.shape != np.shape(value):
        raise InputError(f"out[{position}] has shape {array.shape}, the output {np.shape(value)}")
    array[...] = value
    return array


def _check(array: Any, spec: Spec, label: str) -> None:
    if not isinstance(spec, TensorSpec):
        raise InputError(f"{label} is for a number; numbers are returned, give None")
    if not isinstance(array, np.ndarray):
        raise InputError(f"{label} is a {type(array).__name__}, not a NumPy array")
    if array.dtype != spec.dtype:
        raise InputError(f"{label} is {array.dtype}, the output is {spec.dtype}")
    if not array.flags.writeable:
        raise InputError(f"{label} is read-only; give an array that can be written to")
    if not spec.dynamic and array.shape != spec.shape:
        raise InputError(f"{label} has shape {array.shape}, the output {spec.shape}")
    if any(n > 1 and stride == 0 for n, stride in zip(array.shape, array.strides, strict=True)):
        raise InputError(f"{label} has several elements in one place; give it memory for each")


def _lies_as(array: Array, slot: Slot) -> bool:
    layout = slot.layout
    return (
        array.flags.aligned
        and len(array.shape) == len(layout.shape)
        and layout.physical(array).flags.c_contiguous
    )


def _overlap(array: Array, other: Array | None) -> bool:
    """Whether an element of one lies in an element of the other: views of one array may be
    interleaved. Where that is hard to find out they are taken for such."""
    if other is None or not np.may_share_memory(array, other):
        return False
    try:
        return np.shares_memory(array, other, max_work=10_000)  # type: ignore[arg-type]
    except RuntimeError:  # numpy.exceptions.TooHardError
        return False


def _shares(array: Array, others: Sequence[Any]) -> bool:
    arrays = (other for other in others if other is not None and not np.isscalar(other))
    return any(
        not isinstance(other, np.ndarray) or np.may_share_memory(array, other) for other in arrays
    )
