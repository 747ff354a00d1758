"""What a node saves on our kernels on ARM, in microseconds: :mod:`costs` for a core of Cortex-A76's
width, whose cycles ``benchmarks/arm_instructions.py`` counts for both engines; their table is in
``docs/platforms.md``. What a cut costs is taken over from x86.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from penstock.graph.graph import Node
from penstock.graph.kinds import Conv2dAttributes
from penstock.runtime.engines.native import winograd
from penstock.runtime.engines.native.family import Values
from penstock.runtime.engines.native.windows import has_window

#: Cycles of a microsecond, and multiply-adds in fp32 of a cycle.
_CLOCK, _PRODUCTS = 2600.0, 8.0
#: A step of ours finds its tiles anew, which tiny nodes notice.
_STEP = 0.5
#: Windows (width, stride) of depthwise convolutions that have code of their own, with the cycles
#: of a multiply-add; others go output by output.
_WINDOWS = {(3, 1): 0.16, (3, 2): 0.21, (5, 1): 0.134, (5, 2): 0.17, (7, 1): 0.125}
_PIXEL = 0.44
#: XNNPACK's depthwise kernels have so many taps at most; beyond, each channel is a convolution.
_MOST_TAPS, _DEPTHWISE, _MANY_TAPS = 25, 0.28, 2.05


def product_gain(node: Node, values: Values) -> float:
    """Of convolutions and fully-connected in fp32: both engines keep the units for multiply-adds
    busy, XNNPACK with fewer other instructions where there are few channels. Winograd's way saves
    half of the products of 3x3 kernels, and ours leave out the rows of a kernel that lie in the
    padding. One row waits for its weights."""
    source, filter, result = (values[i].shape for i in (*node.inputs[:2], node.outputs[0]))
    a, depth, faster = node.attributes, filter[-1], 1.0
    if isinstance(a, Conv2dAttributes):
        depth = prod(a.kernel) * a.group_input_channels
        if winograd.pays(a, source, result):
            faster = winograd.speedup(a, source, result)
        else:
            faster = 1 / (1 - _in_padding(a, source[1], result[1]))
    if prod(result[:-1]) == 1:
        return -_STEP
    theirs = prod(result) * prod(filter) / max(result[-1], 1) / _PRODUCTS
    return theirs * (1 - (1 + 2 / depth) / faster) / _CLOCK - _STEP


def _in_padding(a: Conv2dAttributes, height: int, made: int) -> float:
    """Which share of a kernel's rows lies above or below the image, over all ``made`` rows of the
    output: less than all."""
    first = np.arange(made) * a.stride[0] - a.padding[0]
    rows = first[:, None] + np.arange(a.kernel[0]) * a.dilation[0]
    return min(float(np.mean((rows < 0) | (rows >= height))), 0.9) if made else 0.0


def depthwise_gain(node: Node, values: Values) -> float:
    """Of depthwise convolutions in fp32: XNNPACK loads each input for each output that reads it,
    ours once for all of seven."""
    a = node.attributes
    assert isinstance(a, Conv2dAttributes)
    taps, made = prod(a.kernel), prod(values[node.outputs[0]].shape)
    theirs = _MANY_TAPS if taps > _MOST_TAPS else _DEPTHWISE
    return taps * made * theirs / _CLOCK - depthwise_time(a, made)


def depthwise_time(a: Conv2dAttributes, made: int) -> float:
    """What ours take for a depthwise convolution of ``made`` outputs."""
    cycles = _WINDOWS[a.kernel[1], a.stride[1]] if has_window(a) else _PIXEL
    return prod(a.kernel) * made * cycles / _CLOCK + _STEP


def combs_gain(parts: Sequence[Conv2dAttributes], whole: Conv2dAttributes, made: int) -> float:
    """As :func:`penstock.runtime.engines.native.costs.combs_gain`; a sum is a multiply-add."""
    theirs = sum(prod(part.kernel) * _DEPTHWISE + 1 for part in parts) * made / _CLOCK
    return theirs - depthwise_time(whole, made)


def is_large(a: Conv2dAttributes) -> bool:
    """Whether XNNPACK has no depthwise kernel for so many taps."""
    return prod(a.kernel) > _MOST_TAPS
