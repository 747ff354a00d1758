"""On ARM: when XNNPACK should have a node that a kernel of ours could run.

Each rule is backed by ``benchmarks/arm_instructions.py``, which counts instructions in an emulator
and models a core's cycles: ours have what needs at least 5 % fewer. XNNPACK's products are as good
as ours (its tiles keep the units for multiply-adds busy), so ours are for what saves products, or
loads, or several nodes; and for what XNNPACK computes otherwise than on other processors.
"""

from __future__ import annotations

from math import prod

import numpy as np

from penstock.graph.graph import Node
from penstock.graph.kinds import Conv2dAttributes, NodeKind
from penstock.runtime.engines.native.costs_arm import has_window, is_large
from penstock.runtime.engines.native.family import Values
from penstock.runtime.engines.native.isa import Isa
from penstock.runtime.engines.native.library import Library

_AS_FAST = "XNNPACK is as fast with it on ARM"


def slower_product_int8(node: Node, values: Values, library: Library) -> str | None:
    """Of convolutions and fully-connected in int8 with static quantization: of three channels, as
    images have, whole rows of taps are one run of values, which XNNPACK fills up pixel by pixel. Of
    wide kernels that saves a quarter of the cycles; of three taps nothing. Without SDOT XNNPACK
    adds two products in 16 bits, which is wrong with weights of -128: ours have these."""
    a = node.attributes
    if Isa.DOTPROD not in library.isa:
        return None if _has_lowest(node, values) else _AS_FAST
    if not isinstance(a, Conv2dAttributes):
        return _AS_FAST
    few = a.group_input_channels < 4 and a.groups == 1 and a.dilation[1] == 1
    return None if few and a.kernel[1] >= 5 else _AS_FAST


def slower_depthwise_int8(node: Node, values: Values, library: Library) -> str | None:
    """Of depthwise convolutions in int8: with SDOT 1.2 times fewer cycles with 3x3 taps, 1.3 times
    with 5x5, 37 times beyond 25 taps; with a stride of 2 and 3x3 as many. XNNPACK adds two products
    in 16 bits, which is wrong with weights of -128: ours have these."""
    a = node.attributes
    assert isinstance(a, Conv2dAttributes)
    if is_large(a) or _has_lowest(node, values):
        return None
    if Isa.DOTPROD not in library.isa or not has_window(a):
        return _AS_FAST
    return _AS_FAST if prod(a.kernel) <= 9 and a.stride[1] != 1 else None


def slower_binary_int8(node: Node) -> str | None:
    """Of sums and products in int8: XNNPACK's products round in fixed point on ARM, some exact
    halves to the other side; ours have the bits of other processors."""
    return None if node.kind is NodeKind.MULTIPLY else _AS_FAST


def _has_lowest(node: Node, values: Values) -> bool:
    weights = values[node.inputs[1]].data
    return weights is not None and bool((np.asarray(weights).view(np.int8) == -128).any())
