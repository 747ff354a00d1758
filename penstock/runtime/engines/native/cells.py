"""Steps of recurrent layers, ready to be run: what the kernels take, and their weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from ctypes import POINTER, Structure, byref, c_size_t, c_uint32, c_void_p
from dataclasses import dataclass

import numpy as np

from penstock.errors import InputError
from penstock.graph.dtypes import PerChannel
from penstock.graph.graph import Shape, Value
from penstock.runtime.blocks import address
from penstock.runtime.engines.native.decoder import family_of_chains
from penstock.runtime.engines.native.dynamic import CProduct
from penstock.runtime.engines.native.family import Step, Workshop
from penstock.runtime.engines.native.memory import PackedWeights

#: ``PK_F32_CELL_CHANNELS``.
CHANNELS = 32
#: ``enum pk_f32_cell_form``.
LSTM, GRU = 0, 1


class CTask(Structure):
    """``struct pk_f32_cell_task``."""

    _fields_ = [
        ("isa", c_uint32),
        ("form", c_uint32),
        ("rows", c_size_t),
        ("hidden", c_size_t),
        ("input_offset", c_size_t),
        ("input_stride", c_size_t),
        ("weights", c_void_p),
        ("bias", c_void_p),
        ("input", c_void_p),
        ("h", c_void_p),
        ("c", c_void_p),
        ("cell", c_void_p),
        ("output", c_void_p),
        ("scratch", c_void_p),
        ("product", c_void_p),
    ]


class CInt8Task(Structure):
    """``struct pk_qd8_cell_task``."""

    _fields_ = [
        ("step", CTask),
        ("product", CProduct),
        ("packed", c_void_p),
        ("input", c_void_p),
        ("h", c_void_p),
        ("c", c_void_p),
        ("cell", c_void_p),
        ("output", c_void_p),
        ("scratch", c_void_p),
    ]


FAMILY = family_of_chains("f32_cell", {"pk_f32_cell_scratch_size": (c_size_t, (POINTER(CTask),))})
INT8 = family_of_chains("qd8_cell", {"pk_qd8_cell_scratch_size": (c_size_t, (POINTER(CInt8Task),))})


def in_panels(weights: np.ndarray) -> np.ndarray:
    """Weights [outputs, hidden] as the kernel reads them: [panels, hidden, CHANNELS]."""
    outputs, hidden = weights.shape
    panels = -(-outputs // CHANNELS)
    filled = np.zeros((panels * CHANNELS, hidden), np.float32)
    filled[:outputs] = weights
    return np.ascontiguousarray(filled.reshape(panels, CHANNELS, hidden).transpose(0, 2, 1))


@dataclass(eq=False)
class Weights:
    """The constants that all steps of a layer multiply with: [outputs, hidden] of each product, and
    the bias of a GRU's last."""

    products: tuple[np.ndarray, ...]
    bias: np.ndarray | None
    #: where they lie for the executable that was made last
    _packed: tuple[PackedWeights, int, int | None] | None = None

    def packed(self, workshop: Workshop) -> tuple[int, int | None]:
        """The addresses of the weights in panels and of the bias."""
        if self._packed is None or self._packed[0] is not workshop.packed:
            weights = in_panels(np.concatenate(self.products))
            bias = None if self.bias is None else workshop.packed.keep(np.array(self.bias))
            self._packed = workshop.packed, workshop.packed.keep(weights), bias
        return self._packed[1:]


@dataclass(eq=False)
class Int8Weights:
    """The constants of int8 that all steps of a layer multiply with: [outputs, hidden] of each
    product, and the bias of a GRU's last."""

    products: tuple[Value, ...]
    bias: np.ndarray | None
    #: where they lie for the executable that was made last
    _packed: tuple[PackedWeights, CProduct, int] | None = None

    def packed(self, workshop: Workshop) -> tuple[CProduct, int]:
        """The product of all gates, and the address of its weights."""
        if self._packed is None or self._packed[0] is not workshop.packed:
            self._packed = workshop.packed, *self._pack(workshop)
        return self._packed[1:]

    def _pack(self, workshop: Workshop) -> tuple[CProduct, int]:
        outputs, inputs = sum(value.shape[0] for value in self.products), self.products[0].shape[1]
        weights = np.concatenate([workshop.constant(value) for value in self.products])
        scales = np.concatenate([_scales(value) for value in self.products])
        bias = np.zeros(outputs, np.float32)
        if self.bias is not None:
            bias[outputs - len(self.bias) :] = self.bias
        library = workshop.library
        product = CProduct(
            int(library.isa), -math.inf, math.inf, 0, inputs, outputs, workshop.threads,
            library.caches().l2,
        )  # fmt: skip
        functions = library.functions
        packed = workshop.packed.reserve(functions.pk_qd8_product_packed_size(byref(product)))
        functions.pk_qd8_product_pack(
            byref(product), address(weights), address(bias), address(scales), packed
        )
        return product, packed


def _scales(value: Value) -> np.ndarray:
    assert isinstance(value.quantization, PerChannel)
    return np.ascontiguousarray(value.quantization.scales, np.float32)


@dataclass(frozen=True)
class Source:
    """Where a step's input [rows, gates] lies: in ``value``, or of a sequence there the element
    ``index`` along ``axis`` (0 or 1)."""

    value: int
    axis: int | None = None
    index: int = 0

    def place(self, shape: Shape) -> tuple[int, int, int]:
        """How many rows there are; the first one's offset and their distance, in elements."""
        gates = shape[-1]
        if self.axis is None:
            return shape[0], 0, gates
        if self.axis == 0:
            return shape[1], self.index * shape[1] * gates, gates
        return shape[0], self.index * gates, shape[1] * gates


@dataclass(frozen=True)
class Cell:
    """A step of which ``h`` is the state before it, and of an LSTM ``c``; ``cell`` is the new c."""

    form: int
    hidden: int
    source: Source
    h: int
    output: int
    c: int
    cell: int
    weights: Weights | Int8Weights

    def prepared(self, workshop: Workshop) -> PreparedCell:
        """With the weights packed."""
        return PreparedCell(self, self.weights.packed(workshop), workshop)


@dataclass(frozen=True)
class PreparedCell:
    """See :class:`Cell`."""

    cell: Cell
    packed: tuple[int, int | None] | tuple[CProduct, int]
    workshop: Workshop

    def step(self, shapes: Mapping[int, Shape]) -> Step:
        """See :class:`~penstock.runtime.engines.native.family.Prepared`."""
        cell = self.cell
        rows, offset, stride = cell.source.place(shapes[cell.source.value])
        gates = (4 if cell.form == LSTM else 3) * cell.hidden
        states = [cell.h, cell.output, *((cell.c, cell.cell) if cell.form == LSTM else ())]
        fits = shapes[cell.source.value][-1] >= gates
        if not fits or any(math.prod(shapes[i]) != rows * cell.hidden for i in states):
            raise InputError("the shapes of a call do not fit each other in a recurrent layer")
        functions, first = self.workshop.library.functions, self.packed[0]
        task = CTask(int(self.workshop.library.isa), cell.form, rows, cell.hidden, offset, stride)
        fields = [(cell.source.value, "input"), (cell.h, "h"), (cell.output, "output")]
        if cell.form == LSTM:
            fields += [(cell.c, "c"), (cell.cell, "cell")]
        if isinstance(first, CProduct):
            product = CProduct.from_buffer_copy(first)
            product.rows = rows
            whole = CInt8Task(task, product, self.packed[1])
            scratch: int = functions.pk_qd8_cell_scratch_size(byref(whole))
            return Step("pk_qd8_cell_run", whole, tuple(fields), scratch)
        task.weights, task.bias = first, self.packed[1]
        scratch = functions.pk_f32_cell_scratch_size(byref(task))
        return Step("pk_f32_cell_run", task, tuple(fields), scratch)
