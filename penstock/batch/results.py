"""From a program's outputs to columns of Arrow, a row each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from penstock.errors import InputError, UnsupportedError
from penstock.labels import guesses
from penstock.runtime.specs import Spec, TensorSpec

#: The column of the likeliest classes.
LABELS = "labels"
LABELS_TYPE = pa.list_(
    pa.struct([("index", pa.int32()), ("name", pa.string()), ("probability", pa.float64())])
)
_SCALARS = {"int": pa.int64(), "float": pa.float64(), "bool": pa.bool_(), "str": pa.string()}


@dataclass(frozen=True)
class Result:
    """One output: the column that it becomes. ``batched`` outputs have a first dimension with one
    entry for each row of a call, which the column has not."""

    column: str
    spec: Spec
    batched: bool

    @property
    def type(self) -> Any:
        """The column's Arrow type: lists in lists. Short floats become float32, which holds them.

        Raises UnsupportedError for a dtype that Arrow has not.
        """
        spec = self.spec
        if not isinstance(spec, TensorSpec):
            return _SCALARS.get(spec.type, pa.null())
        try:
            type = pa.from_numpy_dtype(_stored(spec.dtype))
        except (pa.ArrowNotImplementedError, pa.ArrowTypeError):
            raise UnsupportedError(
                f"the output {self.column!r} is {spec.dtype}, which Parquet has no column for"
            ) from None
        for _ in spec.shape[self.batched :]:
            type = pa.list_(type)
        return type

    def rows(self, value: Any, asked: int, given: int) -> Any:
        """The first ``asked`` of ``given`` rows of an output of a call.

        Raises InputError unless it has that many.
        """
        if not isinstance(value, np.ndarray):
            return [value] * asked
        if not self.batched:
            return value[None]
        if value.shape[:1] != (given,):
            raise InputError(
                f"the output {self.column!r} of {given} rows has shape {value.shape}, not one entry"
                " for each row; give --batch-size 1"
            )
        return value[:asked]

    def array(self, pieces: Sequence[Any]) -> Any:
        """The column of what :meth:`rows` gave, call by call."""
        if not isinstance(self.spec, TensorSpec):
            return pa.array([value for piece in pieces for value in piece], self.type)
        if len({piece.shape[1:] for piece in pieces}) == 1:
            pieces = [np.concatenate(pieces)]
        return pa.concat_arrays([_lists(piece) for piece in pieces])


def labels_of(results: Sequence[Result], pieces: Sequence[Sequence[Any]], names: list[str]) -> Any:
    """The likeliest classes of each row as a column. Raises InputError when no output has that
    many classes."""
    outputs = []
    for result, parts in zip(results, pieces, strict=True):
        one = isinstance(result.spec, TensorSpec) and len({p.shape[1:] for p in parts}) == 1
        outputs.append(np.concatenate(parts) if one else None)
    found = guesses(outputs, names)[1]
    if len(found) != sum(map(len, pieces[0])):
        raise InputError("the program gives several answers for each row; leave --labels out")
    return pa.array([[asdict(guess) for guess in row] for row in found], LABELS_TYPE)


def _stored(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype(np.float32) if dtype.name in ("float16", "bfloat16") else dtype


def _lists(array: np.ndarray) -> Any:
    column = pa.array(array.reshape(-1).astype(_stored(array.dtype), copy=False))
    for axis in reversed(range(1, array.ndim)):
        size, count = array.shape[axis], int(np.prod(array.shape[:axis]))
        offsets = np.arange(count + 1, dtype=np.int32) * np.int32(size)
        column = pa.ListArray.from_arrays(pa.array(offsets), column)
    return column
