"""A transposed convolution as convolutions of stride 1: the output pixels whose positions leave the
same rest when divided by the stride read the same taps (``native/f32_deconv.h``)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from penstock.graph.graph import Shape
from penstock.graph.kinds import Conv2dAttributes

#: More steps than a stride of 32 has in both dimensions; each is packed by itself.
_PHASES = 1024


@dataclass(frozen=True)
class Phase:
    """The taps ``rest``, ``rest + stride``, ... of each dimension."""

    rest: tuple[int, int]
    kernel: tuple[int, int]


@dataclass(frozen=True)
class Place:
    """Where a phase lies at certain sizes: its first pixel in the output and, of the convolution,
    how many there are and the padding before the first, which may be negative."""

    offset: int
    height: int
    width: int
    top: int
    left: int


@dataclass(frozen=True)
class Phases:
    """Of a filter with these attributes. ``wide``: a phase has all columns of the filter, whose
    results are one pixel beside the other."""

    attributes: Conv2dAttributes
    wide: bool

    @property
    def columns(self) -> int:
        """The columns of the output that are one pixel of a phase."""
        return self.attributes.stride[1] if self.wide else 1

    def parts(self, weights: np.ndarray) -> Iterator[tuple[Phase, np.ndarray]]:
        """Each phase with its weights, the taps backwards."""
        a, steps = self.attributes, self.attributes.stride[1]
        if self.wide:  # [outputs, height, width, inputs] as [width * outputs, height, 1, inputs]
            weights = weights.transpose(2, 0, 1, 3).reshape(-1, a.kernel[0], 1, weights.shape[3])
            steps = 1
        for rest in itertools.product(range(a.stride[0]), range(steps)):
            part = weights[:, rest[0] :: a.stride[0], rest[1] :: steps][:, ::-1, ::-1]
            yield Phase(rest, (part.shape[1], part.shape[2])), np.ascontiguousarray(part)

    def of_channels(self, constant: np.ndarray) -> np.ndarray:
        """What there is one of for each output channel, for those of a phase."""
        return np.tile(constant, self.columns)

    def pixel(self, written: Shape) -> int:
        """Elements from one pixel of a phase to the next."""
        return self.attributes.stride[1] * written[3]

    def apart(self, written: Shape) -> tuple[int, int]:
        """Elements from one line of a phase to the next, and from one image; zeros where they lie
        one behind the other."""
        a, line = self.attributes, written[2] * written[3]
        if a.stride[0] * (1 if self.wide else a.stride[1]) == 1:
            return 0, 0
        return a.stride[0] * line, written[1] * line

    def place(self, phase: Phase, written: Shape) -> Place | None:
        """None where no pixel of the output belongs to ``phase``."""
        a = self.attributes
        strides = (a.stride[0], 1 if self.wide else a.stride[1])
        sizes = (written[1], written[2] // self.columns)
        (first, height, top), (column, width, left) = (
            _side(*side)
            for side in zip(
                sizes, strides, a.padding[0::3], phase.rest, phase.kernel, strict=True
            )
        )  # fmt: skip
        offset = (first * written[2] + column * self.columns) * written[3]
        return Place(offset, height, width, top, left) if height and width else None


def _side(size: int, stride: int, padding: int, rest: int, taps: int) -> tuple[int, int, int]:
    """Of the output pixels ``size`` those that read taps ``rest``, ``rest + stride``, ...: the
    first, how many, and the padding of their convolution, which may be negative."""
    first = (rest - padding) % stride
    count = max(-(-(size - first) // stride), 0)
    return first, count, taps - 1 - (first + padding - rest) // stride


def phases_of(a: Conv2dAttributes) -> Phases | str:
    """The phases of a transposed convolution, or why our kernels do not have them."""
    if max(a.dilation) > 1:
        return "its filter is dilated"
    if any(k < s for k, s in zip(a.kernel, a.stride, strict=True)):
        return "its filter does not reach all of the output"
    if math.prod(a.stride) > _PHASES:
        return "its stride is large"
    top, right, bottom, left = a.padding
    alone = a.kernel[1] == a.stride[1] and not (right or left or a.adjustment[1])
    return Phases(a, alone and a.groups == 1)
