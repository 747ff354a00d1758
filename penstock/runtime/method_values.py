"""What a file says of a method's values and operators, made ready for its instructions."""

from __future__ import annotations

import numpy as np

from penstock.errors import (
    InputError,
    InvalidProgramError,
    PenstockError,
    UnsupportedError,
    shorten,
)
from penstock.formats import program as formats
from penstock.formats.program import KernelCall, Tensor
from penstock.runtime.blocks import Array
from penstock.runtime.instructions import CORE_OPERATORS
from penstock.runtime.kernels import registry
from penstock.runtime.slots import Layout, Slot
from penstock.runtime.specs import ScalarSpec, Spec, TensorSpec, listed


def layouts_of(method: formats.Method) -> dict[int, Layout]:
    """The layouts of a method's tensors by the ids of their values.

    Raises InputError for a weight that is in a data file which was not given.
    """
    layouts = {}
    for index, value in enumerate(method.values):
        if isinstance(value, Tensor):
            if value.external and value.data is None:
                raise InputError(
                    f"the weight {shorten(value.name)!r} of method {method.name!r} is in a data"
                    " file (.ptd): give the one that belongs to the program"
                )
            layouts[index] = Layout(value, f"value {index} of method {method.name!r}")
    return layouts


def constant_bytes(tensor: Tensor, layout: Layout, index: int) -> Array:
    """The bytes of a constant, or of a mutable buffer's initial state."""
    data = np.frombuffer(tensor.data or b"", np.uint8)
    if data.nbytes < layout.nbytes:
        raise InvalidProgramError(
            f"constant {index} of shape {layout.shape} takes {layout.nbytes} bytes,"
            f" the file has {data.nbytes}"
        )
    return data[: layout.nbytes]


def constant_slot(tensor: Tensor, layout: Layout, index: int) -> Slot:
    """The memory of a constant: the file's own."""
    data = constant_bytes(tensor, layout, index)
    data.flags.writeable = False
    return Slot(layout, data)


def kernels_of(method: formats.Method) -> list[registry.Kernel | str]:
    """The kernels that the method's operators name. Raises UnsupportedError listing all that
    are called and not there."""
    called = {one.operator for one in method.instructions if isinstance(one, KernelCall)}
    found: list[registry.Kernel | str] = []
    missing = []
    for position, operator in enumerate(method.operators):
        name = str(operator)
        kernel = None
        if position in called and name not in CORE_OPERATORS:
            kernel = registry.find(name)
            if kernel is None:
                missing.append(name)
        found.append(kernel or name)
    if missing:
        raise UnsupportedError(
            f"the method {shorten(method.name)!r} needs kernels that Penstock does not have:"
            f" {listed(sorted(set(missing)))}"
        )
    return found


def spec_of(value: formats.Value, layout: Layout | None, used: bool) -> Spec:
    """What an input or output is. ``used``: whether an instruction reads it."""
    if layout is not None:
        return TensorSpec(layout.shape, layout.dtype, layout.dynamic, layout.bounded, layout.order)
    if isinstance(value, (bool, int, float, str)) or value is None:
        name = "None" if value is None else type(value).__name__
        return ScalarSpec(name, value, fixed=not used)
    raise UnsupportedError(f"an input or output of type {type(value).__name__}")


def signature_text(method: formats.Method) -> str:
    """``name(inputs) -> (outputs)``, without checking the method or compiling anything."""
    name, inputs, outputs = signature(method)
    return f"{name}({inputs}) -> ({outputs})"


def signature(method: formats.Method) -> tuple[str, str, str]:
    """Name, inputs and outputs in words, without checking the method or compiling anything."""

    def described(index: int) -> str:
        value = method.values[index] if 0 <= index < len(method.values) else None
        try:
            layout = Layout(value, f"value {index}") if isinstance(value, Tensor) else None
            return str(spec_of(value, layout, used=True))
        except (PenstockError, ValueError):
            return "damaged"

    inputs = ", ".join(map(described, method.inputs))
    outputs = ", ".join(map(described, method.outputs))
    return listed([method.name]), inputs, outputs
