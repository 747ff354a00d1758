"""From a column of Arrow to the arrays that a program reads, a row each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from penstock.errors import InputError
from penstock.pictures import check_takes_images, from_image
from penstock.runtime.inputs import check_shape
from penstock.runtime.specs import ScalarSpec, Spec, TensorSpec
from penstock.zoo.images import Normalization

#: The values of rows: an array with a dimension more where they all have one shape.
Rows: TypeAlias = "Sequence[Any] | np.ndarray"
FLOATS = ("float16", "bfloat16", "float32", "float64")


@dataclass(frozen=True)
class Feed:
    """One input: the column that it comes from, and what a row of it must be."""

    column: str
    #: Without the dimension of the batch.
    row: Spec
    #: Whether the program has that dimension.
    batched: bool
    images: bool
    normalization: Normalization

    def read(self, column: Any, first: int) -> Rows:
        """The values of the rows of ``column``, an ``Array``; the first one is row ``first`` in
        the file. Arrays have the shape and dtype of :attr:`row`, and are not to be written to.

        Raises InputError, with the row, for one that does not fit.
        """
        column = _plain(column)
        if column.null_count:
            raise InputError(f"{self._label(first, column.is_null())} is null; leave such rows out")
        if isinstance(self.row, ScalarSpec):
            values: list[Any] = column.to_pylist()
            return values
        if self.images:
            return [
                from_image(one, self.row, self.normalization, name=f"in {self._name(first + i)}")
                for i, one in enumerate(column.to_pylist())
            ]
        whole = _numbers(column)
        if whole is not None:
            return self._fitted(whole, first) if len(whole) else whole
        rows = []
        for index in range(len(column)):
            one = _numbers(column.slice(index, 1))
            if one is None:
                raise InputError(
                    f"{self._name(first + index)} has lists of several lengths or nulls in it,"
                    f" the program takes {self.row}"
                )
            rows.append(self._fitted(one, first + index)[0])
        return rows

    def _fitted(self, rows: np.ndarray, first: int) -> np.ndarray:
        """Rows of one shape, in the program's shape and dtype."""
        spec = self.row
        assert isinstance(spec, TensorSpec)
        shape = rows.shape[1:]
        if self.batched and len(shape) == len(spec.shape) + 1 and shape[0] == 1:
            shape = shape[1:]
        if len(shape) == 1 and not spec.dynamic and shape[0] == np.prod(spec.shape, dtype=int):
            shape = spec.shape
        check_shape(shape, spec, self._name(first))
        rows = rows.reshape(len(rows), *shape)
        if rows.dtype == spec.dtype:
            return rows
        with np.errstate(over="ignore"):
            found = rows.astype(spec.dtype)
        lost = found != rows if rows.dtype.kind in "iu" else np.isinf(found) & ~np.isinf(rows)
        if lost.any():
            row, *_ = where = tuple(int(axis[0]) for axis in np.nonzero(lost))
            raise InputError(
                f"{self._name(first + row)} has the value {rows[where]}, beyond {spec.dtype}"
            )
        return found

    def _name(self, row: int) -> str:
        return f"row {row} of the column {self.column!r}"

    def _label(self, first: int, marked: Any) -> str:
        return self._name(first + int(np.flatnonzero(marked.to_numpy(zero_copy_only=False))[0]))


def check_type(type: Any, feed: Feed) -> None:
    """Raises InputError unless a column of that Arrow type can be what ``feed`` reads."""
    label = f"the column {feed.column!r}"
    if feed.images:
        assert isinstance(feed.row, TensorSpec)
        check_takes_images(feed.row, label)
        return
    inner = _leaf(type)
    if isinstance(feed.row, ScalarSpec):
        wanted = {"int": pa.types.is_integer, "float": pa.types.is_floating,
                  "bool": pa.types.is_boolean, "str": pa.types.is_string}  # fmt: skip
        if inner != type or not wanted.get(feed.row.type, lambda _: False)(type):
            raise InputError(f"{label} is {type}, the program takes a {feed.row.type}")
        return
    name = feed.row.dtype.name
    fits = (
        pa.types.is_floating(inner) if name in FLOATS
        else pa.types.is_boolean(inner) if name == "bool"
        else pa.types.is_integer(inner)
    )  # fmt: skip
    if not fits:
        raise InputError(
            f"{label} is {type}, the program takes {feed.row}; convert it, or name another with"
            " --columns"
        )


def holds_images(type: Any) -> bool:
    """Whether a column has encoded images: bytes, or a struct with them in its field ``bytes``."""
    if pa.types.is_struct(type):
        inner = type.get_field_index("bytes")
        return inner >= 0 and holds_images(type.field(inner).type)
    binary = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary)
    return any(is_kind(type) for is_kind in binary)


def holds_numbers(type: Any) -> bool:
    """Whether a column has lists of numbers."""
    inner = _leaf(type)
    number = pa.types.is_integer(inner) or pa.types.is_floating(inner)
    return bool(inner != type and (number or pa.types.is_boolean(inner)))


def depth(type: Any) -> int:
    """How many dimensions a row of a column of numbers has."""
    dimensions = 0
    while True:
        if isinstance(type, pa.BaseExtensionType):
            shape = getattr(type, "shape", None)
            if shape is not None:
                return dimensions + len(shape)
            type = type.storage_type
        elif _is_list(type):
            dimensions, type = dimensions + 1, type.value_type
        else:
            return dimensions


def _plain(column: Any) -> Any:
    """Bytes out of a struct of images, and the storage of other libraries' tensors."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if pa.types.is_struct(column.type):
        return pc.struct_field(column, "bytes")
    return column


def _leaf(type: Any) -> Any:
    while True:
        if isinstance(type, pa.BaseExtensionType):
            type = type.storage_type
        elif _is_list(type):
            type = type.value_type
        else:
            return type


def _is_list(type: Any) -> bool:
    kinds = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    return any(is_kind(type) for is_kind in kinds)


def _numbers(column: Any) -> np.ndarray | None:
    """The rows of a column of numbers, or of lists of them, as one array; None where they are
    not all of one shape, or have nulls in them."""
    sizes = [len(column)]
    while True:
        type = column.type
        if isinstance(type, pa.BaseExtensionType):
            shape = getattr(type, "shape", None)
            column = column.storage
            if shape is not None:
                return _shaped(column, (*sizes, *shape))
        elif _is_list(type):
            if column.null_count:
                return None
            if pa.types.is_fixed_size_list(type):
                sizes.append(type.list_size)
            else:
                lengths = pc.list_value_length(column).to_numpy(zero_copy_only=False)
                if len(lengths) and (lengths != lengths[0]).any():
                    return None
                sizes.append(int(lengths[0]) if len(lengths) else 0)
            column = column.flatten()
        else:
            return _shaped(column, tuple(sizes))


def _shaped(column: Any, shape: tuple[int, ...]) -> np.ndarray | None:
    while _is_list(column.type):
        column = column.flatten()
    if column.null_count:
        return None
    values: np.ndarray = column.to_numpy(zero_copy_only=False)
    return values.reshape(shape)


def runs(columns: Sequence[Rows], most: int) -> Iterator[slice]:
    """Consecutive rows, ``most`` at a time, that have one shape in each of ``columns``."""
    count = len(columns[0]) if columns else 0
    start = 0
    while start < count:
        stop = min(start + most, count)
        for rows in columns:
            if not isinstance(rows, np.ndarray):
                same = np.shape(rows[start])
                differs = (i for i in range(start, stop) if np.shape(rows[i]) != same)
                stop = next(differs, stop)
        yield slice(start, stop)
        start = stop
