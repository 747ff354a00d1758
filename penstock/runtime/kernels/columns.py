"""The windows of an image gathered into columns, some rows of outputs at a time ("im2col").

One buffer that fits the cache serves all pieces: what is gathered is multiplied at once, and memory
that is used again costs no page faults.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from penstock.runtime.kernels.common import SCRATCH_BYTES, Array, Index
from penstock.runtime.kernels.windows import Axis, taps

#: The subscript of a whole dimension.
EVERY: Index = (slice(None),)


def rows_at_a_time(dims: Sequence[Axis], row_bytes: int) -> Iterator[tuple[int, int]]:
    """Ranges of outputs of the first spatial dimension whose scratch memory is bounded."""
    step = max(1, SCRATCH_BYTES // max(1, row_bytes))
    for start in range(0, dims[0].out, step):
        yield start, min(start + step, dims[0].out)


def columns(
    image: Array, dims: Sequence[Axis], channels_last: bool = False
) -> Iterator[tuple[slice, Array]]:
    """The windows of (C, ...) as arrays (C, taps..., outputs...), or those of (..., C) as arrays
    (outputs..., taps..., C), each for a range of the first output dimension.

    The arrays share memory: each is valid until the next.
    """
    counts = [axis.taps for axis in dims]
    rest = [axis.out for axis in dims[1:]]
    channels = image.shape[-1 if channels_last else 0]
    row = channels * math.prod(counts) * math.prod(rest)
    buffer: Array = np.zeros(0, image.dtype)
    for start, stop in rows_at_a_time(dims, row * image.itemsize):
        extents = [stop - start, *rest]
        shape = [*extents, *counts, channels] if channels_last else [channels, *counts, *extents]
        size = row * (stop - start)
        # What lies in the padding stays zero from the piece before, which had the same layout,
        # unless the windows reach the far end of the padding now.
        if buffer.size == 0:
            buffer = np.zeros(size, image.dtype)
        elif buffer.size != size or _reaches_end(dims[0], stop):
            buffer[:size] = 0
        piece = buffer[:size].reshape(shape)
        bounds = [(start, stop), *((0, count) for count in rest)]
        for tap, outputs, inputs in taps(dims, bounds):
            if channels_last:
                piece[outputs + tap] = image[inputs]
            else:
                piece[EVERY + tap + outputs] = image[EVERY + inputs]
        yield slice(start, stop), piece


def _reaches_end(axis: Axis, stop: int) -> bool:
    """Whether the last of the outputs before ``stop`` sees the padding at the end."""
    last = (stop - 1) * axis.stride - axis.padding + (axis.taps - 1) * axis.dilation
    return last >= axis.size
