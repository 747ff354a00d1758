"""When another engine should have a node that a kernel of ours could run.

Each rule is backed by ``benchmarks/kernels.py``, which measures our kernels beside XNNPACK's.
"""

from __future__ import annotations

from math import prod

from penstock.graph.graph import Node
from penstock.graph.kinds import Conv2dAttributes
from penstock.runtime.engines.native.family import Values
from penstock.runtime.engines.native.isa import Isa
from penstock.runtime.engines.native.library import Library


def slower_product(node: Node, values: Values, library: Library) -> str | None:
    """Of convolutions and fully-connected in fp32.

    XNNPACK's kernels for AVX-512 are as good as ours (95 % of the peak), but compute with padding
    as with pixels; its indirect ones for AVX2 reach a quarter of the peak, its direct ones three
    quarters.
    """
    a = node.attributes
    rows = prod(values[node.outputs[0]].shape[:-1])
    if Isa.AVX512 in library.isa:
        if isinstance(a, Conv2dAttributes) and max(a.dilation) > 1 and any(a.padding):
            return None
        return "XNNPACK is as fast with it on AVX-512"
    if Isa.AVX2 in library.isa:
        if rows < 6:
            return "with so few rows it waits for its weights"
        return None
    return "there are no vector kernels for this machine"


def slower_product_int8(node: Node, values: Values, library: Library) -> str | None:
    """Of convolutions and fully-connected in int8."""
    if not library.isa & (Isa.AVX2 | Isa.AVXVNNI | Isa.AVX512VNNI):
        return "there are no vector kernels for this machine"
    return None


def slower_depthwise_int8(node: Node, values: Values, library: Library) -> str | None:
    """Of depthwise convolutions in int8."""
    if not library.isa & (Isa.AVX2 | Isa.AVXVNNI | Isa.AVX512VNNI):
        return "there are no vector kernels for this machine"
    return None


def slower_depthwise(node: Node, values: Values, library: Library) -> str | None:
    """Of depthwise convolution in fp32: ours is 1.1 to 3 times as fast, but for a stride of 2 with
    AVX2, where the time goes into reading the image."""
    a = node.attributes
    if Isa.AVX2 not in library.isa:
        return "there are no vector kernels for this machine"
    assert isinstance(a, Conv2dAttributes)
    if Isa.AVX512 not in library.isa and a.kernel == (3, 3) and a.stride[1] == 2:
        return "XNNPACK reads the image as fast"
    return None
