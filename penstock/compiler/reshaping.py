"""Reshapes with several dynamic dimensions, of which XNNPACK's reshape takes only one.

What else changes the shape of a tensor does not ask for the sizes of the dimensions it leaves
alone: slices and concatenations split and merge dimensions of fixed size; a constant of more
dimensions, added, puts dimensions of size 1 in front; pooling without ``keepdim`` drops two.
"""

from __future__ import annotations

from collections.abc import Sequence

from penstock.compiler import expressions as ex
from penstock.compiler import layout
from penstock.compiler.builder import GraphBuilder, LoweringError, Tensor
from penstock.compiler.layout import Dim, Shape
from penstock.formats.payload import DataType, NodeKind

#: A dimension is split into, or merged from, at most so many slices.
MOST_PIECES = 128


def reshaped(b: GraphBuilder, tensor: Tensor, shape: Shape) -> Tensor:
    """``tensor.reshape(shape)``. Raises :class:`LoweringError` where a dimension that is not
    constant would have to be split or merged."""
    try:
        groups = layout.reshape_groups(tensor.shape, shape, b.dynamic)
    except ValueError as error:
        raise LoweringError(str(error)) from None
    if b.dtype_of(tensor) is not DataType.FP32:
        raise _refusal(shape)
    axes = _Axes(b, tensor, shape)
    for ins, outs in groups:
        if len(ins) == len(outs) == 1:
            axes.names[axes.names.index(ins[0])] = outs[0] - len(shape)
        elif layout.is_static([*(tensor.shape[i] for i in ins), *(shape[o] for o in outs)]):
            axes.regroup(ins, outs)
        else:
            raise _refusal(shape)
    return axes.result()


def _refusal(shape: Shape) -> LoweringError:
    return LoweringError(
        f"it reshapes to {tuple(str(dim) for dim in shape)}: "
        "XNNPACK's reshape takes one dynamic dimension"
    )


class _Axes:
    """The tensor on its way. ``names`` says what each physical dimension is: a dimension of the
    source (0, 1, ...), one of the target (-1, -2, ...), or a spare one of size 1 (``None``)."""

    def __init__(self, b: GraphBuilder, tensor: Tensor, shape: Shape) -> None:
        self._b = b
        self._shape = shape
        physical = layout.physical(tensor.shape, tensor.order)
        self._x = Tensor(physical, layout.identity(tensor.rank), physical, b.value_of(tensor))
        self.names = [None if tensor.shape[dim] == 1 else dim for dim in tensor.order]

    def regroup(self, ins: Sequence[int], outs: Sequence[int]) -> None:
        """Merges the source's dimensions ``ins``, and splits the result into ``outs``."""
        last = ins[-1]
        for outer in reversed(ins[:-1]):
            self._merge(self.names.index(outer), self.names.index(last))
        for out in outs[:-1]:
            self._split(self.names.index(last), out)
        self.names[self.names.index(last)] = outs[-1] - len(self._shape)

    def _merge(self, outer: int, inner: int) -> None:
        pieces = self._slices(outer, self._x.shape[outer])
        self._x = ex.concatenate(self._b, pieces, inner)
        self.names[outer] = None

    def _split(self, axis: int, out: int) -> None:
        if None not in self.names:
            self._lift(1)
            axis += 1
        spare = self.names.index(None)
        self._x = ex.concatenate(self._b, self._slices(axis, self._shape[out]), spare)
        self.names[spare] = out - len(self._shape)

    def _slices(self, axis: int, count: Dim) -> list[Tensor]:
        size = self._x.shape[axis]
        assert isinstance(size, int) and isinstance(count, int)
        if count > MOST_PIECES:
            raise _refusal(self._shape)
        step = size // count
        return [ex.cut(self._b, self._x, axis, start, step) for start in range(0, size, step)]

    def _lift(self, count: int) -> None:
        """Puts ``count`` dimensions in front. Adding -0.0 changes no number."""
        zero = self._b.full((1,) * (self._x.rank + count), -0.0)
        self._x = self._b.binary(NodeKind.ADD, self._x, zero)
        self.names[:0] = [None] * count

    def _drop(self) -> None:
        """Takes two spare dimensions away: pooling averages over the two before the last."""
        spare = [axis for axis, name in enumerate(self.names) if name is None][:2]
        kept = [axis for axis in range(self._x.rank) if axis not in spare]
        order = (*kept[:-1], *spare, kept[-1])
        placed = self._b.place(self._x, order)
        shape = tuple(self._x.shape[axis] for axis in kept)
        self._x = self._b.result(shape, layout.identity(len(shape)))
        self._b.add_node(NodeKind.GLOBAL_AVG_POOLING_2D, [placed], self._x)
        self.names = [self.names[axis] for axis in kept]

    def result(self) -> Tensor:
        """The tensor, once every axis but the spare ones is one of the target's."""
        rank = len(self._shape)
        missing = rank - len(self.names)
        if missing < 0 and missing % 2:
            missing += 1
            self._lift(1)
        elif missing > 0:
            self._lift(missing)
        while len(self.names) > rank:
            self._drop()
        ones = iter(dim for dim in range(rank) if dim - rank not in self.names)
        order = tuple(next(ones) if name is None else name + rank for name in self.names)
        return Tensor(self._shape, order, self._shape, self._b.value_of(self._x))
