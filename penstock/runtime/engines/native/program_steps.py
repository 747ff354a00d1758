"""Operators outside of delegates as steps in C, at shapes that stay: what the program of a language
model does around its delegate. See ``native/rows.h``."""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable, Mapping, Sequence
from ctypes import Structure, byref, c_size_t
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from penstock.runtime.blocks import Array, address
from penstock.runtime.engines.native.library import Library
from penstock.runtime.engines.native.plan import CPlan, CPool, CStep, address_of, field_address
from penstock.runtime.engines.native.program_tasks import (
    MOVE_RANK,
    CBoth,
    CChoose,
    CGather,
    CInts,
    CMove,
    COperand,
    CPut,
    CScale,
    CTarget,
)

_ADD, _LESS, _LESS_EQUAL, _EQUAL = range(4)


@dataclass(frozen=True)
class SmallStep:
    """A call ``pk_<name>_run(task)``; ``keep`` has what its addresses point into."""

    name: str
    task: Structure
    keep: tuple[object, ...]


#: What is done in place of a kernel; None where there is nothing for its arguments.
Steps: TypeAlias = "tuple[SmallStep, ...] | SmallStep | None"
#: Makes it of the arguments (arrays, scalars, lists of arrays) and the output.
_Maker: TypeAlias = "Callable[[Sequence[Any], Array], Steps]"


class Group:
    """Steps that run in one call; it says whether all of them could."""

    def __init__(self, library: Library, steps: Sequence[SmallStep]) -> None:
        functions = library.functions
        self._steps = (CStep * len(steps))(
            *(
                CStep(
                    address_of(functions, f"pk_{step.name}_run"),
                    ctypes.addressof(step.task),
                    field_address(step.task, "status") if hasattr(step.task, "status") else None,
                )
                for step in steps
            )
        )
        self._keep = (list(steps), library)
        self._plan = CPlan(self._steps, len(steps), None, 0, CPool(None, None, 1))
        self._run, self._address, self._no_ports = (
            functions.pk_plan_run, byref(self._plan), (c_size_t * 1)(),
        )  # fmt: skip

    def __call__(self) -> bool:
        status: int = self._run(self._address, self._no_ports)
        return not status


@dataclass(frozen=True)
class ProgramSteps:
    """See :class:`penstock.runtime.engines.protocol.KernelSteps`."""

    library: Library

    def kernel(self, name: str, args: Sequence[Any], out: Array) -> Sequence[SmallStep] | None:
        return steps_for(name, args, out)

    def moved(self, source: Array, out: Array) -> SmallStep | None:
        return moved(source, out)

    def scaled_rows(self, rows: Array, scales: Array, index: Array, out: Array) -> SmallStep | None:
        return scaled_rows(rows, scales, None, index, out, picks=False)

    def write_rows(
        self, writes: Sequence[tuple[Array, Array]], axis: int, index: Array
    ) -> SmallStep | None:
        return write_rows(writes, axis, index)

    def group(self, steps: Sequence[SmallStep]) -> Group:
        return Group(self.library, steps)


def steps_for(name: str, args: Sequence[Any], out: Array) -> tuple[SmallStep, ...] | None:
    """The kernel ``name`` on these arguments, without its out argument, writing to ``out``."""
    maker = _MAKERS.get(name)
    arrays = [a for a in (*args, out) if isinstance(a, np.ndarray)]
    made = maker(args, out) if maker and all(map(_plain, arrays)) else None
    return (made,) if isinstance(made, SmallStep) else made


def moved(source: Array, out: Array) -> SmallStep | None:
    """``source`` copied to ``out``, however the two lie in memory."""
    if source.dtype != out.dtype or source.shape != out.shape or source.size == 0:
        return None
    if np.may_share_memory(source, out):
        return None
    item = source.itemsize
    #: of each dimension its size, and the bytes from one place to the next in both
    dims: list[tuple[int, ...]] = []
    for size, *steps in zip(source.shape, source.strides, out.strides, strict=True):
        if size == 1:
            continue
        if dims and dims[-1][1:] == tuple(size * step for step in steps):
            size *= dims.pop()[0]
        dims.append((size, *steps))
    run = item * dims.pop()[0] if dims and dims[-1][1:] == (item, item) else item
    dims = dims or [(1, run, run)]
    if len(dims) > MOVE_RANK:
        return None
    task = CMove(run, len(dims), *zip(*dims, strict=True), address(source), address(out))
    return SmallStep("rows_move", task, (source, out))


def write_rows(writes: Sequence[tuple[Array, Array]], axis: int, index: Array) -> SmallStep | None:
    """For each (target, source): the rows of ``source`` written to ``target`` at ``index`` [count]
    of ``axis``."""
    if not _is_index(index) or index.ndim != 1 or not _plain(index):
        return None
    each = (CTarget * len(writes))()
    for one, (target, source) in zip(each, writes, strict=True):
        fits = target.shape[:axis] + index.shape + target.shape[axis + 1 :] == source.shape
        if not fits or target.dtype != source.dtype or not (_plain(target) and _plain(source)):
            return None
        one.outer, one.size, one.inner = _cut(target, axis)
        one.step = one.inner
        one.target, one.source = address(target), address(source)
    return _put(each, index, (list(writes),))


def _put(each: Any, index: Array, keep: tuple[object, ...]) -> SmallStep:
    task = CPut(len(each), index.size, ctypes.addressof(each), address(index))
    return SmallStep("rows_put", task, (each, index, *keep))


def _plain(array: Array) -> bool:
    """Whether it lies in memory as C takes it."""
    return array.flags.c_contiguous and address(array) % array.itemsize == 0 and array.size > 0


def _is_index(value: object) -> bool:
    return isinstance(value, np.ndarray) and value.dtype == np.int64


def _cut(array: Array, axis: int) -> tuple[int, int, int]:
    """How many elements there are before ``axis``, along it, and how many bytes behind it."""
    before = int(np.prod(array.shape[:axis], dtype=np.int64))
    size = array.shape[axis]
    return before, size, array.nbytes // max(before * size, 1)


def _gather(table: Array, axis: int, index: Array, out: Array) -> SmallStep | None:
    if not _is_index(index) or table.dtype != out.dtype:
        return None
    if table.shape[:axis] + index.shape + table.shape[axis + 1 :] != out.shape:
        return None
    task = CGather(*_cut(table, axis), index.size, address(table), address(index), address(out))
    return SmallStep("rows_gather", task, (table, index, out))


def _index_select(args: Sequence[Any], out: Array) -> SmallStep | None:
    table, axis, index = args
    axis = axis + table.ndim if axis < 0 else axis
    if index.ndim != 1 or not 0 <= axis < table.ndim:
        return None
    return _gather(table, axis, index, out)


def _embedding(args: Sequence[Any], out: Array) -> SmallStep | None:
    return _gather(args[0], 0, args[1], out) if args[0].ndim == 2 else None


def _embedding_byte(args: Sequence[Any], out: Array) -> SmallStep | None:
    table, scales, zero_points, _, _, index = args
    return scaled_rows(table, scales, zero_points, index, out, picks=True)


def scaled_rows(
    table: Array, scales: Array, zero_points: object, index: Array, out: Array, *, picks: bool
) -> SmallStep | None:
    """The rows ``table[index]``, int8, or ``table`` itself unless it ``picks``, times their
    ``scales[index]``."""
    count, columns = index.size, table.shape[-1]
    rows = scales.size if picks else count
    if zero_points is not None or not _is_index(index) or out.shape != (*index.shape, columns):
        return None
    if table.dtype != np.int8 or scales.dtype != np.float32 or out.dtype != np.float32:
        return None
    if table.shape != (rows, columns) or scales.shape not in ((scales.size,), (scales.size, 1)):
        return None
    task = CScale(
        scales.size, columns, count, int(picks),
        address(table), address(scales), address(index), address(out),
    )  # fmt: skip
    return SmallStep("rows_scale", task, (table, scales, index, out))


def _index_put(args: Sequence[Any], out: Array) -> Steps:
    x, indices, value, accumulate = args
    if accumulate or len(indices) != 1 or x.ndim != 1 or value.dtype != x.dtype:
        return None
    (index,) = indices
    if not _is_index(index) or index.ndim != 1 or value.shape not in ((), (1,), index.shape):
        return None
    if not (_plain(index) and out.shape == x.shape and out.dtype == x.dtype):
        return None
    copied = moved(x, out)
    if copied is None:
        return None
    each = (CTarget * 1)()
    step = 0 if value.size == 1 else x.itemsize
    each[0] = CTarget(1, x.size, x.itemsize, step, address(out), address(value))
    return copied, _put(each, index, (out, value))


def _joined(args: Sequence[Any], out: Array) -> Steps:
    parts, axis = args
    axis = axis + out.ndim if axis < 0 else axis
    if any(part.ndim != out.ndim for part in parts) or not 0 <= axis < out.ndim:
        return None
    ends = list(itertools.accumulate(part.shape[axis] for part in parts))
    if not ends or ends[-1] != out.shape[axis]:
        return None
    lead = (slice(None),) * axis
    steps = [
        moved(part, out[(*lead, slice(end - part.shape[axis], end))])
        for part, end in zip(parts, ends, strict=True)
    ]
    return None if None in steps else tuple(step for step in steps if step is not None)


def _operand(value: Any, shape: tuple[int, ...], kind: Any) -> COperand | None:
    """A value that is repeated to ``shape`` [rows, columns]."""
    if not isinstance(value, np.ndarray) or value.dtype != kind or value.ndim > 2:
        return None
    rows, columns = (1,) * (2 - value.ndim) + value.shape
    if rows not in (1, shape[0]) or columns not in (1, shape[1]):
        return None
    return COperand(address(value), columns if rows > 1 else 0, 1 if columns > 1 else 0)


def _two(out: Array) -> tuple[int, int] | None:
    """The shape of an output as rows and columns."""
    if out.ndim > 2:
        return None
    rows, columns = (1,) * (2 - out.ndim) + out.shape
    return rows, columns


def _integers(
    operation: int, kind: Any, *, factor: Callable[[Sequence[Any]], int] = lambda _: 1,
    swap: bool = False,
) -> _Maker:  # fmt: skip
    def make(args: Sequence[Any], out: Array) -> SmallStep | None:
        shape, by = _two(out), factor(args)
        if shape is None or out.dtype != kind or not isinstance(by, int):
            return None
        a, b = (np.array(x, np.int64) if type(x) is int else x for x in args[:2])
        a, b = (b, a) if swap else (a, b)
        operands = [_operand(x, shape, np.int64) for x in (a, b)]
        if None in operands:
            return None
        return SmallStep("ints", CInts(operation, *shape, by, *operands, address(out)), (a, b, out))

    return make


def _choose(args: Sequence[Any], out: Array) -> SmallStep | None:
    shape = _two(out)
    if shape is None or out.dtype != np.float32:
        return None
    kinds = (np.bool_, np.float32, np.float32)
    operands = [_operand(x, shape, kind) for x, kind in zip(args, kinds, strict=True)]
    if None in operands:
        return None
    return SmallStep("choose", CChoose(*shape, *operands, address(out)), (*args, out))


def _both(args: Sequence[Any], out: Array) -> SmallStep | None:
    shape = _two(out)
    if shape is None or out.dtype != np.bool_:
        return None
    operands = [_operand(x, shape, np.bool_) for x in args]
    if None in operands:
        return None
    return SmallStep("both", CBoth(*shape, *operands, address(out)), (*args, out))


def _compare(operation: int, *, swap: bool = False) -> _Maker:
    return _integers(operation, np.bool_, swap=swap)


_MAKERS: Mapping[str, _Maker] = {
    "aten::index_select.out": _index_select,
    "aten::embedding.out": _embedding,
    "quantized_decomposed::embedding_byte.out": _embedding_byte,
    "aten::index_put.out": _index_put,
    "aten::cat.out": _joined,
    "aten::where.self_out": _choose,
    "aten::logical_and.out": _both,
    "aten::bitwise_and.Tensor_out": _both,
    **{
        f"aten::{name}.{overload}_out": _compare(operation, swap=swap)
        for overload in ("Tensor", "Scalar")
        for name, operation, swap in (
            ("lt", _LESS, False), ("le", _LESS_EQUAL, False), ("eq", _EQUAL, False),
            ("gt", _LESS, True), ("ge", _LESS_EQUAL, True),
        )
    },
    **{
        f"aten::{name}.{overload}": _integers(_ADD, np.int64, factor=factor)
        for overload in ("out", "Scalar_out")
        for name, factor in (("add", lambda args: args[2]), ("sub", lambda args: -args[2]))
    },
}  # fmt: skip
