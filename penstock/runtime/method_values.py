"""What a file says of a method's values and operators, made ready for its instructions."""

from __future__ import annotations

from collections.abc import Mapping

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
from penstock.runtime import blocks
from penstock.runtime.blocks import Array
from penstock.runtime.instructions import CORE_OPERATORS
from penstock.runtime.kernels import registry
from penstock.runtime.planned_memory import arenas, check_total
from penstock.runtime.slots import Layout, Slot
from penstock.runtime.specs import ScalarSpec, Spec, TensorSpec, listed

#: Outputs up to this size are computed in memory that stays, so that a delegate needs no new
#: setup, and copied out; larger ones are computed in a new array each time.
COPIED_OUTPUT_BYTES = 1 << 16


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


def slots_of(
    method: formats.Method, layouts: Mapping[int, Layout], private: set[int]
) -> list[Slot | None]:
    """A slot for each tensor value, over its memory and with its initial content there.

    Raises InvalidProgramError if that is more than the machine has.
    """
    memory = arenas(method, layouts, set(layouts) - private)
    slots: list[Slot | None] = [None] * len(method.values)
    own = 0
    for index, layout in layouts.items():
        value = method.values[index]
        assert isinstance(value, Tensor)
        if value.data is not None and value.allocation is None:
            slots[index] = constant_slot(value, layout, index)
        elif index not in private:
            assert value.allocation is not None
            begin = value.allocation.offset
            block = memory[value.allocation.memory_id][begin : begin + layout.nbytes]
            slots[index] = Slot(layout, block)
            if value.data is not None:
                initial = constant_bytes(value, layout, index)
                if initial.any():  # else the block is what it should be, and costs nothing yet
                    block[:] = initial
        elif index in method.inputs or layout.nbytes > COPIED_OUTPUT_BYTES or not layout.bounded:
            slots[index] = Slot(layout, None)
            own += layout.nbytes if layout.bounded else 0
        else:
            own += layout.nbytes
            slots[index] = Slot(layout, blocks.zeros(layout.nbytes))
    check_total(method.name, own + sum(block.nbytes for block in memory.values()))
    return slots


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
