"""In which order of dimensions two values hold the same: :func:`in_layout_of`."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np

from penstock.tools.agreement import sqnr

#: Arrays of more dimensions are not turned.
MOST_DIMS = 5


def in_layout_of(reference: np.ndarray, array: np.ndarray) -> np.ndarray | None:
    """``array`` with the dimensions of ``reference``, in the order in which they agree best (NHWC
    and NCHW hold the same numbers); ``None`` where they have not the same sizes."""
    if array.size != reference.size:
        return None
    shape = tuple(size for size in reference.shape if size != 1)
    squeezed = array.squeeze()
    if squeezed.shape == shape and len(set(shape)) == len(shape):
        return array.reshape(reference.shape)
    turned = [squeezed.transpose(order) for order in _orders(squeezed.shape, shape)]
    if not turned:
        return array.reshape(reference.shape)
    best = turned[0]
    if len(turned) > 1:
        flat = reference.reshape(shape)
        best = max(turned, key=lambda one: sqnr(flat, one))
    return best.reshape(reference.shape)


def _orders(shape: tuple[int, ...], wanted: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    if len(shape) == len(wanted) <= MOST_DIMS and sorted(shape) == sorted(wanted):
        for order in itertools.permutations(range(len(shape))):
            if tuple(shape[axis] for axis in order) == wanted:
                yield order
