"""Padding with a constant, by reflection or by replication."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from penstock.runtime.kernels.common import INT64, Array, Scalar, documented
from penstock.runtime.kernels.registry import KernelError, kernel, reserve


@kernel("aten::constant_pad_nd.out")
def constant_pad(x: Array, pad: Sequence[int], value: Scalar, out: Array) -> Array:
    """A constant before and after the last dimensions; negative padding crops."""
    if len(pad) % 2 or len(pad) > 2 * x.ndim:
        raise KernelError(f"padding {list(pad)} for a tensor of rank {x.ndim}")
    shape = list(x.shape)
    source, target = [slice(None)] * x.ndim, [slice(None)] * x.ndim
    for i in range(len(pad) // 2):
        axis = x.ndim - 1 - i
        before, after = pad[2 * i], pad[2 * i + 1]
        size = shape[axis]
        first, kept = max(0, -before), size + min(0, before) + min(0, after)
        if kept < 0:
            raise KernelError(f"padding {list(pad)} crops more than the shape {x.shape} has")
        shape[axis] = size + before + after
        source[axis] = slice(first, first + kept)
        start = max(0, before)
        target[axis] = slice(start, start + kept)
    fill = np.array(value).astype(x.dtype)
    result: Array = np.full(reserve(shape, out), fill, x.dtype)
    result[tuple(target)] = x[tuple(source)]
    return result


def _reflected(size: int, before: int, after: int) -> Array:
    if not (before < size and after < size):
        raise KernelError(f"a reflection of {before} and {after} over {size} elements")
    position = np.abs(np.arange(-before, size + after, dtype=INT64))
    return np.asarray(size - 1 - np.abs(size - 1 - position))


def _replicated(size: int, before: int, after: int) -> Array:
    if size == 0:
        raise KernelError("replication of nothing")
    return np.asarray(np.clip(np.arange(-before, size + after, dtype=INT64), 0, size - 1))


def _padding(
    name: str, positions: Callable[[int, int, int], Array], rank: int, verb: str
) -> Callable[..., Array]:
    def call(x: Array, padding: Sequence[int], out: Array) -> Array:
        if len(padding) != 2 * rank or x.ndim not in (rank + 1, rank + 2):
            raise KernelError(f"padding {list(padding)} for a tensor of rank {x.ndim}")
        pads = [(padding[2 * i], padding[2 * i + 1]) for i in reversed(range(rank))]
        sizes = x.shape[-rank:]
        shape = [size + sum(pad) for size, pad in zip(sizes, pads, strict=True)]
        reserve([*x.shape[:-rank], *shape], out)
        reserve([max(shape)], out)  # the product above may be 0
        for i, (size, (before, after)) in enumerate(zip(sizes, pads, strict=True)):
            x = np.take(x, positions(size, before, after), x.ndim - rank + i)
        return x

    doc = f"{verb} the last {rank} dimension{'s' * (rank > 1)}; negative padding crops."
    return documented(call, name, doc)


for _rank in (1, 2, 3):
    for _name, _positions, _verb in (
        ("reflection", _reflected, "Reflects"),
        ("replication", _replicated, "Repeats the edges of"),
    ):
        _full = f"{_name}_pad{_rank}d"
        kernel(f"aten::{_full}.out")(_padding(_full, _positions, _rank, _verb))
