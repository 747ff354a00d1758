"""From what a caller passes to what a method computes with."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from penstock.errors import InputError, shorten
from penstock.runtime.blocks import Array
from penstock.runtime.slots import Slot
from penstock.runtime.specs import ScalarSpec, TensorSpec

#: Checks one input and returns the value that the instructions see.
Binder: TypeAlias = "Callable[[Any], Any]"


def to_array(value: Any, label: str) -> Array:
    """A NumPy array from an array, a tensor of another library (``__array__`` or DLPack on the
    CPU), or a NumPy scalar. Shares memory where the other library allows it.

    Raises InputError for anything else; lists are not arrays here, for their dtype is not said.
    """
    if isinstance(value, np.ndarray):
        return np.asarray(value)
    if isinstance(value, np.generic):
        return np.asarray(value)
    try:
        if hasattr(value, "detach"):  # a torch tensor that requires a gradient refuses __array__
            value = value.detach()
        if str(getattr(value, "dtype", "")) == "torch.bfloat16":
            return _torch_bfloat16(value)
        if hasattr(value, "__array__"):
            return np.asarray(value)
        if hasattr(value, "__dlpack__"):
            return np.from_dlpack(value)
    except Exception as error:  # whatever the other library raises
        raise InputError(
            f"{label} ({type(value).__name__}) gives no array: {shorten(error, 200)}"
        ) from None
    raise InputError(
        f"{label} is a {type(value).__name__}, not an array; pass numpy.asarray(value, dtype)"
    )


def _torch_bfloat16(tensor: Any) -> Array:
    """NumPy has no bfloat16 of its own, so the bits go over as uint16."""
    import ml_dtypes

    bits = tensor.view(sys.modules["torch"].uint16).numpy()
    return bits.view(ml_dtypes.bfloat16)  # type: ignore[no-any-return]


def tensor_binder(spec: TensorSpec, slot: Slot, label: str, copy: bool) -> Binder:
    """A function that checks an array against ``spec`` and returns it in the tensor's layout.

    With ``copy`` the array goes into the slot's memory; else it is used where it is, and copied
    only if its strides are not those of the tensor's dim_order.
    """
    layout = slot.layout
    dtype, shape, order = layout.dtype, layout.shape, layout.order

    def bind(value: Any) -> Array:
        array = value if type(value) is np.ndarray else _coerce(value, spec, label)
        if array.dtype != dtype:
            raise InputError(
                f"{label} is {array.dtype}, the program takes {dtype};"
                f" convert it with .astype({str(dtype)!r})"
            )
        if array.shape != shape:
            check_shape(array.shape, spec, label)
        if copy:
            target = slot.array(array.shape)
            np.copyto(target, array)
            return target
        if order is None:
            return array if array.flags.c_contiguous else array.copy(order="C")
        return layout.logical(layout.physical(array))

    return bind


def write_target(value: Any, label: str) -> Array:
    """The array to write an input's new content into: the caller's own memory.

    Raises InputError where there is none that can be written to.
    """
    advice = "the program writes to it: pass a writable NumPy array, e.g. numpy.array(value)"
    if isinstance(value, (int, float, np.generic)):
        raise InputError(f"{label} is a {type(value).__name__}, and {advice}")
    array = to_array(value, label)
    if not array.flags.writeable:
        raise InputError(f"{label} is read-only, and {advice}")
    if not isinstance(value, np.ndarray) and not np.may_share_memory(array, to_array(value, label)):
        raise InputError(f"{label} ({type(value).__name__}) gives a copy of itself, and {advice}")
    if array.size and any(
        n > 1 and stride == 0 for n, stride in zip(array.shape, array.strides, strict=True)
    ):
        raise InputError(f"{label} has several elements in one place, and {advice}")
    return array


def _coerce(value: Any, spec: TensorSpec, label: str) -> Array:
    if isinstance(value, (int, float)) and spec.shape == ():
        return _number(value, spec, label)
    return to_array(value, label)


def _number(value: float, spec: TensorSpec, label: str) -> Array:
    """A Python number as a tensor without dimensions. Raises InputError where it would become
    another one: a fraction among integers, or a number beyond what they can hold."""
    kind = spec.dtype.kind
    fits = isinstance(value, bool) == (kind == "b") and (kind not in "iu" or isinstance(value, int))
    try:
        if fits:
            with np.errstate(all="ignore"):
                return np.asarray(value, spec.dtype)
    except OverflowError:
        pass
    raise InputError(f"{label} is {shorten(repr(value))}, the program takes {spec}")


def check_shape(shape: tuple[int, ...], spec: TensorSpec, label: str) -> None:
    """Raise InputError unless an array of this shape may be passed for ``spec``."""
    if len(shape) != len(spec.shape):
        raise InputError(
            f"{label} has shape {shape} of rank {len(shape)},"
            f" the program takes rank {len(spec.shape)}: {spec}"
        )
    if not spec.dynamic:
        if shape != spec.shape:
            raise InputError(
                f"{label} has shape {shape}, the program takes {spec.shape}; for other sizes"
                " compile it with dynamic_shapes"
            )
    elif spec.bounded:
        for axis, (size, bound) in enumerate(zip(shape, spec.shape, strict=True)):
            if size > bound:
                raise InputError(
                    f"{label} has size {size} in dimension {axis}, beyond the bound {bound}"
                    " that the program was compiled for"
                )
    elif math.prod(shape) > 1 << 40:
        raise InputError(f"{label} of shape {shape} is too large")


_TYPES: dict[str, tuple[type, ...]] = {
    "int": (int, np.integer),
    "float": (float, int, np.floating, np.integer),
    "bool": (bool, np.bool_),
    "str": (str,),
    "None": (type(None),),
}
_CONVERT: dict[str, Callable[[Any], Any]] = {"int": int, "float": float, "bool": bool, "str": str}


def scalar_binder(spec: ScalarSpec, label: str) -> Binder:
    """A function that checks a Python scalar against ``spec``."""
    accepted = _TYPES[spec.type]

    def bind(value: Any) -> Any:
        is_bool = isinstance(value, (bool, np.bool_))
        if not isinstance(value, accepted) or (is_bool and spec.type != "bool"):
            raise InputError(f"{label} is {value!r}, the program takes a {spec.type}")
        if spec.type == "None":
            return None
        converted = _CONVERT[spec.type](value)
        if spec.fixed and not _same(converted, spec.value):
            raise InputError(
                f"{label} is {value!r}, but the program was compiled for {spec.value!r} alone"
            )
        return converted

    return bind


def _same(value: Any, fixed: Any) -> bool:
    """Equal; floats within the tolerance of the stock runtime, for they went through text."""
    if isinstance(fixed, float) and value != fixed:
        both_nan = math.isnan(value) and math.isnan(fixed)
        return both_nan or math.isclose(value, fixed, rel_tol=1e-5, abs_tol=1e-4)
    return bool(value == fixed)
