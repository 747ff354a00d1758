"""Which channels of int8 weights fit in 6 bits. A single row then reads a quarter less, and what
bounds it is memory. Whoever makes a file rounds weights to fewer steps for that; the file has them
as int8, so that any runtime takes it."""

from __future__ import annotations

import math

import numpy as np

from penstock.graph.graph import Node
from penstock.runtime.engines.native.family import Values, Workshop

#: What 6 bits hold.
_LEAST, _MOST = -32, 31
#: Channels are looked at in blocks of so many, a multiple of all panels.
_BLOCK = 1024


def narrow_channels(node: Node, values: Values, workshop: Workshop) -> range:
    """The channels of ``node``, a product with int8 weights, that are to be packed in 6 bits: all,
    if they fit; of a product of one row the longest run of blocks of channels, if that is most of
    them; else none."""
    filter = values[node.inputs[1]]
    channels, inputs = filter.shape
    weights = workshop.constant(filter).view(np.int8).reshape(channels, inputs)
    if not _fit(weights[channels // 2]):  # nearly always; it is in any run of most channels
        return range(0)
    blocks = (weights[begin : begin + _BLOCK] for begin in range(0, channels, _BLOCK))
    narrow = [_fits(block, workshop) for block in blocks]
    run = _longest(narrow)
    found = range(channels)[run.start * _BLOCK : run.stop * _BLOCK]
    if len(found) == channels:
        return found
    one_row = math.prod(values[node.inputs[0]].shape[:-1]) == 1
    return found if one_row and 2 * len(found) > channels else range(0)


def _fits(block: np.ndarray, workshop: Workshop) -> bool:
    fits = _fit(block[0]) and _fit(block)
    workshop.packed.drop(block)
    return fits


def _fit(weights: np.ndarray) -> bool:
    return weights.size > 0 and weights.min() >= _LEAST and weights.max() <= _MOST


def _longest(flags: list[bool]) -> range:
    """The longest run of what is true."""
    best = run = range(0)
    for at, flag in enumerate(flags):
        run = range(run.start, at + 1) if flag else range(at + 1, at + 1)
        best = max(best, run, key=len)
    return best
