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
from penstock.runtime.engines.native.costs_arm import is_large
from penstock.runtime.engines.native.family import Values
from penstock.runtime.engines.native.isa import Isa
from penstock.runtime.engines.native.library import Library
from penstock.runtime.engines.native.windows import has_window

_AS_FAST = "XNNPACK is as fast with it on ARM"


def slower_product_int8(node: Node, values: Values, library: Library) -> str | None:
    """Of convolutions and fully-connected in int8 with static quantization.

    With SMMLA ours take 1.1 to 1.25 times fewer cycles, of a single row as many. With SDOT as many,
    but: of a single row 1.1 times fewer; where outputs do not fill XNNPACK's tiles of 16 channels
    1.3 times fewer (24 channels). Of three input channels, as images have, whole rows of taps are
    one run of values, which XNNPACK fills up pixel by pixel: with SDOT 1.3 times fewer with seven
    taps, as many with three; without it 2.2 and 1.6 times fewer. Of other products as many without
    SDOT, but XNNPACK adds two products in 16 bits, which is wrong with weights of -128: ours have
    these.
    """
    a, dotprod = node.attributes, library.has(Isa.DOTPROD)
    if library.has(Isa.I8MM):
        return _AS_FAST if _is_row(node, values) else None
    outputs = values[node.outputs[0]].shape[-1]
    if isinstance(a, Conv2dAttributes):
        outputs = a.group_output_channels
        few = a.group_input_channels < 4 and a.groups == 1 and a.dilation[1] == 1
        if few and a.kernel[1] >= (5 if dotprod else 3):
            return None
    elif dotprod and _is_row(node, values):
        return None
    if not dotprod:
        return None if _has_lowest(node, values) else _AS_FAST
    return None if _up(outputs, 16) >= 1.1 * _up(outputs, 8) else _AS_FAST


def slower_transposed_int8(node: Node, values: Values, library: Library) -> str | None:
    """Of transposed convolutions in int8: XNNPACK's kernels are those of its convolutions there, so
    without SDOT it is as wrong with weights of -128."""
    return None if not library.has(Isa.DOTPROD) and _has_lowest(node, values) else _AS_FAST


def slower_dynamic_product(node: Node, values: Values, library: Library) -> str | None:
    """Of fully-connected with int8 weights and rows that are quantized at run time: with SDOT ours
    take 1.1 to 1.2 times fewer cycles for a single row, for many hardly fewer, and with SMMLA
    more."""
    single = library.has(Isa.DOTPROD) and not library.has(Isa.I8MM) and _is_row(node, values)
    return None if single else _AS_FAST


def _is_row(node: Node, values: Values) -> bool:
    return prod(values[node.outputs[0]].shape[:-1]) == 1


def _up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


def slower_depthwise_int8(node: Node, values: Values, library: Library) -> str | None:
    """Of depthwise convolutions in int8: with SDOT 1.2 times fewer cycles with 3x3 taps, 1.3 times
    with 5x5, 37 times beyond 25 taps; with a stride of 2 and 3x3 as many, which go with what is
    around them where that is ours (SMMLA). XNNPACK adds two products in 16 bits, which is wrong
    with weights of -128: ours have these."""
    a = node.attributes
    assert isinstance(a, Conv2dAttributes)
    if is_large(a) or _has_lowest(node, values):
        return None
    if not library.has(Isa.DOTPROD) or not has_window(a):
        return _AS_FAST
    as_fast = prod(a.kernel) <= 9 and a.stride[1] != 1 and not library.has(Isa.I8MM)
    return _AS_FAST if as_fast else None


def slower_binary_int8(node: Node, library: Library) -> str | None:
    """Of sums and products in int8: XNNPACK's products round in fixed point on ARM, some exact
    halves to the other side; ours have the bits of other processors. Sums go with the products
    around them, which are ours with SMMLA."""
    ours = node.kind is NodeKind.MULTIPLY or library.has(Isa.I8MM)
    return None if ours else _AS_FAST


def _has_lowest(node: Node, values: Values) -> bool:
    weights = values[node.inputs[1]].data
    return weights is not None and bool((np.asarray(weights).view(np.int8) == -128).any())
