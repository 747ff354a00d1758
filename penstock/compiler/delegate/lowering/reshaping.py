"""Reshapes with several dynamic dimensions, of which XNNPACK's reshape takes only one.

What else changes the shape of a tensor does not ask for the sizes of the dimensions it leaves
alone: slices and concatenations split and merge dimensions of fixed size; a constant of more
dimensions, added, puts dimensions of size 1 in front; pooling without ``keepdim`` drops two.
Strides split a dynamic dimension, a transposed convolution merges one with fixed ones behind it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from penstock.compiler.delegate.lowering import ends, spread
from penstock.compiler.delegate.lowering import expressions as ex
from penstock.compiler.delegate.lowering.builder import GraphBuilder
from penstock.compiler.delegate.lowering.tensor import LoweringError, Tensor
from penstock.compiler.fx import layout
from penstock.compiler.fx.layout import Dim, Shape
from penstock.graph.dtypes import DataType
from penstock.graph.kinds import NodeKind

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
    static = [
        layout.is_static([*(tensor.shape[i] for i in ins), *(shape[o] for o in outs)])
        for ins, outs in groups
    ]
    dynamic = [group for group, fixed in zip(groups, static, strict=True) if not fixed]
    axes.split_dynamic([(ins[0], outs) for ins, outs in dynamic if len(ins) == 1 < len(outs)])
    grown = [(ins, outs[0]) for ins, outs in dynamic if len(outs) == 1 < len(ins)]
    if any(len(ins) > 1 < len(outs) for ins, outs in dynamic):
        raise _refusal(shape)
    for (ins, outs), fixed in zip(groups, static, strict=True):
        if not fixed and len(ins) != len(outs):
            continue
        if len(ins) == len(outs) == 1:
            axes.names[axes.names.index(ins[0])] = outs[0] - len(shape)
        elif layout.is_static([*(tensor.shape[i] for i in ins), *(shape[o] for o in outs)]):
            axes.regroup(ins, outs)
        else:
            raise _refusal(shape)
    axes.merge_dynamic(grown)
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

    def split_dynamic(self, splits: Sequence[tuple[int, Sequence[int]]]) -> None:
        """Splits dynamic dimensions of the source, each into a dynamic one of the target and fixed
        ones behind it: every n-th index from each start on, put beside each other."""
        plan: list[tuple[int, list[int]]] = []
        for source, (first, *others) in splits:
            counts = [self._fixed(self._shape[out]) for out in others]
            if isinstance(self._shape[first], int) or math.prod(counts) > MOST_PIECES:
                raise _refusal(self._shape)
            axis = self.names.index(source)
            plan.append((axis, counts))
            self.names[axis] = first - len(self._shape)
        if not plan:
            return
        new = [out - len(self._shape) for _, (_, *others) in splits for out in others]
        x = self._phases(self._x, plan, 0, len(new))
        self._x = self._b.place(x, layout.identity(x.rank))
        self.names[:0] = new

    def _fixed(self, size: Dim) -> int:
        if not isinstance(size, int):
            raise _refusal(self._shape)
        return size

    def _phases(
        self, x: Tensor, plan: Sequence[tuple[int, Sequence[int]]], lead: int, new: int
    ) -> Tensor:
        """``x`` with ``new`` dimensions in front, those from ``lead`` on split off by ``plan``."""
        if not plan:
            return self._b.binary(NodeKind.ADD, x, self._b.full((1,) * (x.rank + new), -0.0))
        (axis, counts), rest = plan[0], plan[1:]
        step = math.prod(counts)
        pieces = []
        for start in range(step):
            late = ends.part(self._b, x, axis, start, layout.canonical(x.shape[axis] - start))
            phase = ends.every(self._b, late, axis, step)
            pieces.append(self._phases(phase, rest, lead + len(counts), new))
        for position in range(len(counts) - 1, -1, -1):
            count = counts[position]
            pieces = [
                ex.concatenate(self._b, pieces[i : i + count], lead + position)
                for i in range(0, len(pieces), count)
            ]
        return pieces[0]

    def merge_dynamic(self, merges: Sequence[tuple[Sequence[int], int]]) -> None:
        """Merges dynamic dimensions, each with fixed ones around it. Those in front are joined;
        those behind become channels, which a transposed convolution puts side by side."""
        factors: dict[int, int] = {}
        behind: list[int] = []
        for ins, out in merges:
            dims = [self._x.shape[self.names.index(dim)] for dim in ins]
            places = [place for place, size in enumerate(dims) if not isinstance(size, int)]
            if len(places) != 1:
                raise _refusal(self._shape)
            place = places[0]
            for outer in reversed(ins[:place]):
                self._merge(self.names.index(outer), self.names.index(ins[place]))
            self.names[self.names.index(ins[place])] = out - len(self._shape)
            if ins[place + 1 :]:
                factors[out - len(self._shape)] = math.prod(
                    self._fixed(size) for size in dims[place + 1 :]
                )
                behind += ins[place + 1 :]
        if not factors:
            return
        grown = sorted(factors, key=self.names.index)
        if len(grown) > 2:
            raise _refusal(self._shape)
        channels = self._channels([*grown, *behind])
        # The first of them is the outermost part of a place, as ``from_blocks`` has it.
        order = {out - len(self._shape): list(ins) for ins, out in merges}
        for axis in reversed([dim for out in grown for dim in order[out] if dim in behind]):
            self._merge(self.names.index(axis), self.names.index(channels))
        while len(self.names) > 4:
            if self.names.count(None) < 2:
                if None not in self.names or len(self.names) > 5:
                    raise _refusal(self._shape)
                self._lift(1)
            self._drop()
        if len(self.names) < 4:
            self._lift(4 - len(self.names))
        rest = [n for n in range(4) if self.names[n] not in (*grown, channels)]
        rows, columns = ([self.names.index(out) for out in grown] + rest[1:])[:2]
        dims = [rest[0], self.names.index(channels), rows, columns]
        images = self._b.permute(self._x, dims)
        images = spread.from_blocks(
            self._b, images, (factors[grown[0]], factors[grown[1]] if len(grown) > 1 else 1)
        )
        x = self._b.permute(images, layout.inverse(dims))
        self._x = self._b.place(x, layout.identity(4))

    def _channels(self, taken: Sequence[int]) -> int:
        """The name of a dimension of fixed size beside those ``taken``."""
        for axis in range(len(self.names) - 1, -1, -1):
            name = self.names[axis]
            if name is not None and name not in taken and isinstance(self._x.shape[axis], int):
                return name
        raise _refusal(self._shape)

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
