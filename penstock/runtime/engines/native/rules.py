"""When another engine should have a node that a kernel of ours could run.

Each rule is backed by ``benchmarks/kernels.py``, which measures our kernels beside XNNPACK's. ARM
has rules of its own.
"""

from __future__ import annotations

from math import prod

from penstock.graph.dtypes import DataType
from penstock.graph.graph import Node
from penstock.graph.kinds import Conv2dAttributes
from penstock.runtime.engines.native import rules_arm
from penstock.runtime.engines.native.family import Values
from penstock.runtime.engines.native.isa import VECTORS, Isa
from penstock.runtime.engines.native.library import Library

_NO_VECTORS = "there are no vector kernels for this machine"
_AS_FAST = "XNNPACK is as fast with it on processors with AVX-512 VNNI"


#: Half the width of our widest tiles.
_NARROW = 16
#: Means of fewer channels of more images are XNNPACK's: fewer images cost less than a cut.
_MEAN_CHANNELS, _MEAN_IMAGES = 12, 64
#: Channels at a tap, and pixels, with which a dynamic convolution is ours with AVX-512 VNNI.
_FEW_CHANNELS, _PIXELS = 6, 256


def no_vectors(node: Node, values: Values, library: Library) -> str | None:
    """Of what is in fp32: where there are vectors,
    :mod:`~penstock.runtime.engines.native.costs` weighs it."""
    return _NO_VECTORS


def goes_whole(library: Library) -> bool:
    """Whether a decoder of whose layers some parts are ours goes to our kernels as a whole: a cut
    at each product costs more than another engine's products bring. On ARM these take most of the
    time, and with int4 weights we have none for vectors there."""
    return not library.has(Isa.NEON)


def slower_product_int8(node: Node, values: Values, library: Library) -> str | None:
    """Of convolutions and fully-connected in int8 with static quantization.

    With VNNI ours are as fast as XNNPACK's where these reach the peak (within a few per cent, less
    than a cut of the graph costs), 1.1 to 1.2 times as fast with few input channels, 2 to 2.8 times
    with three. With AVX2 alone XNNPACK widens both operands in its inner loop: ours are 1.4 times
    as fast, 2 to 3 times with 3x3 taps; of a single row 0.9 times, which is not worth a part of its
    own. Nor are groups of 16 channels on Zen 5, where XNNPACK is 1.2 to 1.4 times as fast: two cuts
    cost what it saves, and RegNet and ResNeXt are 5 and 8 % faster with ours. With AVX-512 VNNI
    windows without strides to at most 16 channels are XNNPACK's, which is 1.1 to 1.8 times as fast.
    """
    if library.has(Isa.NEON):
        return rules_arm.slower_product_int8(node, values, library)
    if library.has(Isa.AVX512VNNI) and _is_narrow_window(node):
        return _AS_FAST
    return None if library.has(VECTORS) else _NO_VECTORS


def _is_narrow_window(node: Node) -> bool:
    a = node.attributes
    return (
        isinstance(a, Conv2dAttributes)
        and a.stride == (1, 1)
        and a.groups == 1
        and prod(a.kernel) > 1
        and a.group_output_channels <= _NARROW
    )


def slower_transposed_int8(node: Node, values: Values, library: Library) -> str | None:
    """Of transposed convolutions in int8. With strides ours are 1.8 to 5 times as fast with AVX-512
    VNNI on Zen 5, 3 to 4.3 times with AVX-VNNI, 1.3 to 2.6 times with AVX2; without, and of a few
    pixels, as fast or slower by a few microseconds, less than a cut of the graph costs."""
    if library.has(Isa.NEON):
        return rules_arm.slower_transposed_int8(node, values, library)
    return None if library.has(VECTORS) else _NO_VECTORS


def slower_depthwise_int8(node: Node, values: Values, library: Library) -> str | None:
    """Of depthwise convolutions in int8: ours are 1.2 to 3 times as fast with 3x3 taps, 3 to 5
    times with 5x5, 20 times and more beyond."""
    if library.has(Isa.NEON):
        return rules_arm.slower_depthwise_int8(node, values, library)
    return None if library.has(VECTORS) else _NO_VECTORS


def slower_quantize(node: Node, values: Values, library: Library) -> str | None:
    """Of quantization at run time: it goes with the products that read it."""
    return "it goes with the products that read it"


def slower_dynamic_product(node: Node, values: Values, library: Library) -> str | None:
    """Of fully-connected with rows that are quantized at run time: XNNPACK has kernels in assembly
    for AVX-512 VNNI, which are a few per cent faster. For AVX-VNNI alone the wheel's library has
    none: ours are 2.4 to 2.8 times as fast, 1.1 to 1.6 times of a single row."""
    if library.has(Isa.NEON):
        return rules_arm.slower_dynamic_product(node, values, library)
    if library.has(Isa.AVX512VNNI):
        return _AS_FAST
    return None if library.has(VECTORS) else _NO_VECTORS


def slower_dynamic_convolution(node: Node, values: Values, library: Library) -> str | None:
    """Of convolutions of images that are quantized at run time: ours are 1.1 to 1.3 times as fast
    with AVX2 alone, 2.5 to 2.8 times with AVX-VNNI, more with few channels. With AVX-512 VNNI
    XNNPACK is as fast, but for few channels, which it fills up to 8 at each tap: there ours are 1.3
    to 3.6 times as fast, where there are pixels enough to be worth a part. On ARM this has not been
    measured."""
    if library.has(Isa.NEON):
        return "it has not been measured on ARM"
    if library.has(Isa.AVX512VNNI):
        a, result = node.attributes, values[node.outputs[0]].shape
        assert isinstance(a, Conv2dAttributes)
        pays = a.group_input_channels <= _FEW_CHANNELS and prod(result[:-1]) >= _PIXELS
        return None if pays and prod(a.kernel) > 1 else _AS_FAST
    return None if library.has(VECTORS) else _NO_VECTORS


def slower_int4_product(node: Node, values: Values, library: Library) -> str | None:
    """Of fully-connected with int4 weights and rows that are quantized at run time.

    In blocks ours are 1.2 times as fast with AVX-512 VNNI, with AVX2 alone twice for one row (1.3
    times where weights come from memory) and three times for many. With scales of channels and
    AVX-512 VNNI XNNPACK is as fast; with AVX2 alone ours are 1.1 times as fast for one row and 1.5
    for many, with AVX-VNNI 1.5 and 1.4 times.
    """
    channels = values[node.inputs[1]].dtype is DataType.QCINT4
    if channels and library.has(Isa.AVX512VNNI):
        return _AS_FAST
    return None if library.has(Isa.AVX2) else _NO_VECTORS


def slower_interleave(node: Node, values: Values, library: Library) -> str | None:
    """Of bringing channels of int8 together: three, as images have, are a matter of shuffles, ten
    times as fast as XNNPACK's transpose."""
    if values[node.inputs[0]].shape[1] != 3 or not library.has(VECTORS):
        return "only three channels have a kernel of their own"
    return None


def slower_binary_int8(node: Node, values: Values, library: Library) -> str | None:
    """Of sums and products in int8: ours take the output's range in the same pass, and what lies
    between two of our convolutions is not worth another part."""
    if library.has(Isa.NEON):
        return rules_arm.slower_binary_int8(node, library)
    return None if library.has(VECTORS) else _NO_VECTORS


def slower_mean_int8(node: Node, values: Values, library: Library) -> str | None:
    """Of means over the pixels of int8 images: ours are 1.5 to 2.6 times as fast (large images of
    few channels wait for memory), and the graph is not cut between convolutions. Of many images of
    less than 12 channels (such are means over channels) XNNPACK is 1.2 to 2.4 times as fast. On ARM
    ours take 1.1 to 2.1 times fewer cycles."""
    *images, _, _, channels = values[node.inputs[0]].shape
    if not library.has(Isa.NEON) and channels < _MEAN_CHANNELS and prod(images) >= _MEAN_IMAGES:
        return "XNNPACK is faster with means of few channels"
    return None if library.has(VECTORS) else _NO_VECTORS
