"""Where the bytes of a tensor value live while a method runs: :class:`Slot`.

At run time a tensor is a plain ``numpy.ndarray`` in logical shape whose strides follow its
dim_order, so that a channels-last image keeps its shape (N, C, H, W) over memory in the order
N, H, W, C. The slot of a value knows how to make such arrays over the value's memory.
"""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np

from penstock.errors import InvalidProgramError
from penstock.formats.program import Dynamism, Tensor
from penstock.runtime.blocks import Array, Reused
from penstock.runtime.dtypes import numpy_dtype

#: No tensor is larger; keeps products of sizes far from overflow.
MAX_BYTES = 1 << 46


class Layout:
    """Element type, upper bound of the shape, and order of the dimensions in memory."""

    __slots__ = ("bounded", "dtype", "dynamic", "inverse", "nbytes", "order", "shape")

    def __init__(self, tensor: Tensor, what: str) -> None:
        """``what`` names the value in errors. Raises InvalidProgramError or UnsupportedError."""
        self.dtype = numpy_dtype(tensor.dtype)
        self.shape = tuple(int(size) for size in tensor.shape)
        self.nbytes = math.prod(self.shape) * self.dtype.itemsize
        if self.nbytes > MAX_BYTES:
            raise InvalidProgramError(f"{what} of shape {self.shape} is absurdly large")
        #: outermost to innermost, or None when contiguous
        self.order = None if _is_contiguous(tensor.dim_order) else tensor.dim_order
        self.inverse = None if self.order is None else tuple(np.argsort(self.order).tolist())
        self.dynamic = tensor.dynamism != Dynamism.STATIC
        self.bounded = tensor.dynamism != Dynamism.DYNAMIC_UNBOUND

    def physical_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape if self.order is None else tuple(shape[axis] for axis in self.order)

    def logical_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape if self.inverse is None else tuple(shape[axis] for axis in self.inverse)

    def physical(self, array: Array) -> Array:
        """The array as it lies in memory: C-contiguous, copied only if it is not so yet."""
        if self.order is not None:
            array = array.transpose(self.order)
        return array if array.flags.c_contiguous else array.copy(order="C")

    def logical(self, array: Array) -> Array:
        return array if self.inverse is None else array.transpose(self.inverse)

    def over(self, memory: Array, shape: tuple[int, ...]) -> Array:
        """The array of this logical shape over the first bytes of ``memory`` (uint8)."""
        physical = self.physical_shape(shape)
        size = math.prod(physical) * self.dtype.itemsize
        return self.logical(memory[:size].view(self.dtype).reshape(physical))

    def new(self, shape: tuple[int, ...]) -> Array:
        """A new array of this logical shape, its content undefined."""
        return self.logical(np.empty(self.physical_shape(shape), self.dtype))

    def check(self, shape: tuple[int, ...]) -> None:
        """Raise ValueError unless the tensor may take on this logical shape."""
        if shape == self.shape:
            return
        if not self.dynamic:
            raise ValueError(f"a result of shape {shape} for a tensor of shape {self.shape}")
        if len(shape) != len(self.shape):
            raise ValueError(f"a result of shape {shape} for a tensor of rank {len(self.shape)}")
        size = math.prod(shape) * self.dtype.itemsize
        if size > (self.nbytes if self.bounded else MAX_BYTES):
            raise ValueError(f"a result of shape {shape} is beyond the bound {self.shape}")


class Slot:
    """The memory of one tensor value.

    *Backed* by ``memory`` (planned memory, or memory of its own): every array is a view of it.
    *Fresh* (``memory`` is None): every array is a new one, which the caller of the method may
    keep; ``given`` is the last of them. ``lent``, if there is one, is an array of the caller's to
    be written to instead; it lies in memory as the tensor does.
    """

    __slots__ = ("_places", "full", "given", "layout", "lent", "memory")

    def __init__(self, layout: Layout, memory: Array | None) -> None:
        self.layout = layout
        self.memory = memory
        self.full = None if memory is None else layout.over(memory, layout.shape)
        self.given: Array | None = None
        self.lent: Array | None = None
        self._places = Reused()

    def target(self) -> Array:
        """An array of the upper-bound shape for a kernel to write to."""
        if self.full is not None:
            return self.full
        layout = self.layout
        return self._fresh(layout.shape if layout.bounded else (0,) * len(layout.shape))

    def array(self, shape: tuple[int, ...]) -> Array:
        """An array of this logical shape to write to. Raises ValueError beyond the bound."""
        if self.full is not None and shape == self.layout.shape:
            return self.full
        self.layout.check(shape)
        if self.memory is not None:
            return self.layout.over(self.memory, shape)
        return self._fresh(shape)

    def _fresh(self, shape: tuple[int, ...]) -> Array:
        lent, layout = self.lent, self.layout
        if lent is not None and lent.shape == shape:
            self.given = lent
        else:
            block = self._places.block(math.prod(shape) * layout.dtype.itemsize)
            self.given = layout.new(shape) if block is None else layout.over(block, shape)
        return self.given

    def store(self, result: Any) -> Array:
        """Copy a kernel's result in. Raises ValueError if shape or content does not fit."""
        if result is None:
            raise ValueError("the kernel returned nothing")
        if result is self.full or result is self.given:
            own = cast(Array, result)
            self.layout.check(own.shape)
            return own
        source = np.asarray(result)
        array = self.array(source.shape)
        np.copyto(array, source, casting="unsafe")
        return array


def _is_contiguous(dim_order: tuple[int, ...] | None) -> bool:
    return dim_order is None or dim_order == tuple(range(len(dim_order)))
