"""Windows that slide over the spatial dimensions: their arithmetic, shared by convolution and
pooling.

An output position ``o`` sees the input at ``o * stride - padding + tap * dilation``. Kernels walk
over the taps and move whole slices; the parts of the padding are never made.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import product

from penstock.runtime.kernels.common import Index
from penstock.runtime.kernels.registry import KernelError


@dataclass(frozen=True)
class Axis:
    """One spatial dimension: its input and output size, and how the window moves over it."""

    size: int
    out: int
    taps: int
    stride: int
    padding: int
    dilation: int

    def span(self, tap: int, start: int, stop: int) -> tuple[slice, slice] | None:
        """For outputs in [start, stop): which of them (counted from ``start``) see real input at
        this tap, and which input. None if they all see padding."""
        offset = tap * self.dilation - self.padding
        first = max(start, -(offset // self.stride))
        last = min(stop, (self.size - 1 - offset) // self.stride + 1)
        if first >= last:
            return None
        begin = first * self.stride + offset
        end = (last - 1) * self.stride + offset + 1
        return slice(first - start, last - start), slice(begin, end, self.stride)

    @property
    def live_taps(self) -> range:
        """The taps that may see real input; the others see nothing but padding."""
        low = -(((self.out - 1) * self.stride - self.padding) // self.dilation)
        high = (self.size - 1 + self.padding) // self.dilation + 1
        return range(max(0, low), min(self.taps, high)) if self.out and self.size else range(0)


def spatial(values: Sequence[int], rank: int, name: str) -> tuple[int, ...]:
    """An ``int[]`` of one value a spatial dimension; a single one stands for all."""
    given = [int(value) for value in values]
    if len(given) == 1:
        given *= rank
    if len(given) != rank:
        raise KernelError(f"{name} has {len(given)} values for {rank} spatial dimensions")
    return tuple(given)


def axes(
    sizes: Sequence[int],
    taps: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    outs: Sequence[int] | None = None,
) -> tuple[Axis, ...]:
    """The axes of a convolution; their output sizes follow unless given."""
    rank = len(sizes)
    strides = spatial(stride, rank, "stride")
    paddings = spatial(padding, rank, "padding")
    dilations = spatial(dilation, rank, "dilation")
    if min(strides, default=1) < 1 or min(dilations, default=1) < 1 or min(paddings, default=0) < 0:
        raise KernelError(f"stride {strides}, padding {paddings}, dilation {dilations}")
    result = []
    for i, (size, count) in enumerate(zip(sizes, taps, strict=True)):
        reach = dilations[i] * (count - 1) + 1
        if outs is None:
            out = (size + 2 * paddings[i] - reach) // strides[i] + 1
            if count < 1 or size + 2 * paddings[i] < reach:
                raise KernelError(f"a window of {reach} over {size} elements")
        else:
            out = outs[i]
        result.append(Axis(size, out, count, strides[i], paddings[i], dilations[i]))
    return tuple(result)


def taps(
    dims: Sequence[Axis], bounds: Sequence[tuple[int, int]]
) -> Iterator[tuple[Index, Index, Index]]:
    """All taps that see real input from outputs within ``bounds``: the tap's index, the slices of
    the outputs (counted from the bounds) and of the input."""
    per_axis = []
    for axis, (start, stop) in zip(dims, bounds, strict=True):
        spans = ((tap, axis.span(tap, start, stop)) for tap in axis.live_taps)
        per_axis.append([(tap, *span) for tap, span in spans if span is not None])
    for combination in product(*per_axis):
        yield (
            tuple(part[0] for part in combination),
            tuple(part[1] for part in combination),
            tuple(part[2] for part in combination),
        )
