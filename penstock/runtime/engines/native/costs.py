"""What a node saves on our kernels, and what a cut costs, in microseconds of one thread.

The rates are those of ``docs/kernels.md`` (``benchmarks/kernels.py``), in 1000 operations a
microsecond, which are GFLOP/s; what is said of whole graphs was measured node by node within them.
Only what is faster than what decides, so that other machines of the same instruction set may be
faster or slower throughout.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from penstock.graph.graph import Node, Shape
from penstock.graph.kinds import Conv2dAttributes
from penstock.runtime.engines.native import costs_arm, winograd
from penstock.runtime.engines.native.family import Values
from penstock.runtime.engines.native.isa import VECTORS, Isa
from penstock.runtime.engines.native.library import Library
from penstock.runtime.engines.native.windows import has_window

#: A value that crosses: XNNPACK computes in place and in memory of its own, so that what crosses
#: lies further away. MobileNet v2 loses 300 of 7000 microseconds where its 17 depthwise
#: convolutions (19 MB in and out) are cut out, MobileNet v3 with its small images nearly nothing;
#: of ResNet-50's large ones it is more.
_CUT, _CUT_BYTE = 3.0, 30e-6
#: For each byte of a large output: ours lie in huge pages, XNNPACK's in small ones. MobileNet v2's
#: first six convolutions write 10 MB and are 340 microseconds faster with ours, though each alone
#: is not.
_HUGE_PAGES, _LARGE = 30e-6, 1 << 20
#: XNNPACK moves each byte that gets another shape.
_MOVED_BYTE = 35e-6
#: A step of ours finds its tiles anew, which tiny nodes notice.
_STEP = 0.5
#: A core with AVX-VNNI beside AVX-512 begins two products of 512 bits in a cycle (Zen 5). XNNPACK's
#: tiles of 16 columns, which it takes where the last of 32 would be half empty, wait for loads
#: there.
_NARROW = 1.2
#: XNNPACK's fully-connected reads all weights anew for each 7 rows; so many bytes no level 2 cache
#: holds. Where ours take these, a call of ViT is 5 % shorter, and loading it 8 % longer (AVX-512).
_SWEPT = 4 << 20


def crossing(size: int) -> float:
    """What it costs that a value of ``size`` bytes crosses."""
    return _CUT + _CUT_BYTE * size


def _pages(shape: Shape) -> float:
    size = 4 * prod(shape)
    return _HUGE_PAGES * size if size >= _LARGE else 0.0


#: Convolutions of few output channels: XNNPACK's rate for each, ours by whether there are more than
#: one, and the nanoseconds in which ours add up a vector (``native/f32_narrow_vectors.h``: for at
#: most so many, of at least so many input channels and weights).
_FEW, _FEW_INPUTS, _FEW_WEIGHTS = {True: 4, False: 3}, {True: 16, False: 8}, {True: 64, False: 32}
_FEW_THEIRS, _FEW_OURS = {True: 12.5, False: 6.2}, {True: (65.0, 190.0), False: (46.0, 120.0)}
_SUMMED = 2.8


def _few_gain(a: Conv2dAttributes, result: Shape, avx512: bool) -> float | None:
    """Of a convolution of few output channels, None for others. With AVX-512 ours are 1.8 to 4.5
    times as fast, with AVX2 2.5 to 6.5 times; of few weights no faster."""
    depth, outputs = prod(a.kernel) * a.group_input_channels, result[-1]
    few = a.groups == 1 and outputs <= _FEW[avx512]
    if not few or a.group_input_channels < _FEW_INPUTS[avx512] or depth < _FEW_WEIGHTS[avx512]:
        return None
    theirs = 2 * depth / (_FEW_THEIRS[avx512] * outputs)
    ours = 2 * depth / _FEW_OURS[avx512][outputs > 1] + _SUMMED
    return prod(result) * (theirs - ours) / 1000 - _STEP + _pages(result)


def product_gain(node: Node, values: Values, library: Library) -> float | None:
    """Of convolutions and fully-connected in fp32.

    With AVX-512 XNNPACK reaches the peak as ours do where its tiles of 7 rows are full, but
    computes with padding as with pixels, and makes all products of a 3x3 kernel; of few channels it
    is a little faster. With AVX2 its indirect kernels (all but 1x1 with stride 1) reach a third of
    the peak, and the others half of it where channels do not fill vectors of 16; of few rows ours
    wait less for their weights. One row waits for them, whoever multiplies.
    """
    if library.has(Isa.NEON):
        return costs_arm.product_gain(node, values)
    if not library.has(Isa.AVX2):
        return None
    source, filter, result = (values[i].shape for i in (*node.inputs[:2], node.outputs[0]))
    a, rows, columns = node.attributes, prod(result[:-1]), result[-1]
    operations = 2 * prod(result) * prod(filter) // max(result[-1], 1)
    indirect, faster, channels = False, 1.0, source[-1]
    if isinstance(a, Conv2dAttributes):
        channels, columns = a.group_input_channels, a.group_output_channels
        few = _few_gain(a, result, library.has(Isa.AVX512))
        if few is not None:
            return few
        indirect = prod(a.kernel) > 1 or max(a.stride) > 1
        if winograd.pays(a, source, result):
            faster = winograd.speedup(a, source, result)
        elif any(a.padding) and max(a.stride) == 1:
            faster = 1 / _inside(a, result)
    avx512 = library.has(Isa.AVX512)
    wide = avx512 and library.has(Isa.AVXVNNI)
    if channels < 16:
        depth = prod(filter) // max(result[-1], 1)
        slower = 1 + 9 / depth if indirect else 1.2
    elif avx512:
        slower = 0.985 + (3.0 if wide else 1.5) / channels + 2.0 / result[-1]
    else:
        slower = 0.98 + 1.2 / channels + 2.0 / result[-1] - (0.08 if rows < 64 else 0.0)
    best = 112.0
    theirs = operations / best
    if not avx512:
        theirs = operations / (41.0 if indirect else 53.0 if result[-1] % 16 else best)
    narrow = wide and columns > 16 and (columns < 32 or 0 < columns % 32 <= 16)
    if narrow:
        theirs *= 1.05 if indirect else _NARROW
    height = 7 if avx512 else 5
    # To pack such weights for ours takes more than it brings in many calls.
    dense = avx512 and not isinstance(a, Conv2dAttributes)
    stays = dense and not narrow and 4 * prod(filter) < _SWEPT
    if stays:
        slower = max(slower, 1.0)
    elif rows > height:
        theirs *= -(-rows // height) * height / rows
    waiting = 2 * prod(filter) / 29.0 if rows < 6 else 0.0
    ours = max(operations / best * slower / faster, waiting)
    pages = 0.0 if stays else _pages(result)
    return (max(theirs, waiting) - ours) / 1000 - _STEP + pages


#: Rates of transposed convolutions with strides, of vectors of channels that are filled up: XNNPACK
#: has kernels for AVX2 at most. Without strides they are what convolutions are.
_THEIRS_TRANSPOSED, _OURS_TRANSPOSED, _FILLED = 41.0, {True: 100.0, False: 60.0}, 16


def transposed_gain(node: Node, values: Values, library: Library) -> float | None:
    """Of transposed convolutions in fp32: with strides ours are 2.5 to 4 times as fast with AVX-512
    (on Zen 5), 1.3 to 2.4 times with AVX2; small ones 1.2 to 1.7 times. XNNPACK computes with
    padding as with pixels."""
    if not library.has(Isa.AVX2):
        return None
    a, ours = node.attributes, _OURS_TRANSPOSED[library.has(Isa.AVX512)]
    assert isinstance(a, Conv2dAttributes)
    source, filter, result = (values[i].shape for i in (*node.inputs[:2], node.outputs[0]))
    products = 2 * prod(filter[1:]) * -(-filter[0] // _FILLED) * _FILLED / 1000
    phases = prod(a.stride)
    theirs = prod(result[:-1]) * products / phases / (_THEIRS_TRANSPOSED if phases > 1 else ours)
    return theirs - prod(source[:-1]) * products / ours - _STEP * phases + _pages(result)


#: Pixels of a row that are computed together: ours leave out what is padding for all of them.
_TILE = 12


def _inside(a: Conv2dAttributes, result: Shape) -> float:
    """The part of a convolution's products that ours make: those with a tap outside of the image
    for a whole tile are left out. About as if outputs and inputs were of one size."""
    height, width = result[1:3]
    share = 1.0
    for size, taps, dilation, step in (
        (height, a.kernel[0], a.dilation[0], 1 if width >= _TILE else max(height, 1)),
        (width, a.kernel[1], a.dilation[1], _TILE),
    ):
        offsets = [abs(2 * tap - taps + 1) * dilation // 2 for tap in range(taps)]
        inside = [max(size - offset // step * step, 1) for offset in offsets]
        share *= sum(inside) / (taps * max(size, 1))
    return min(share, 1.0)


#: Rates of depthwise convolutions, in whole vectors of channels: XNNPACK's where the first cache
#: holds the weights and the inputs of one pixel, where not, and where it has no kernels for so many
#: taps; ours by the most taps of filters with code of their own, which with a stride of 2 wait for
#: the image, and of others.
_HELD, _NOT_HELD, _MANY_TAPS = 42.0, 27.0, {True: 5.0, False: 2.4}
#: XNNPACK's kernels are of so many taps, and fewer are filled up.
_TAPS = (3, 4, 9, 25)
_DEPTHWISE = {
    True: ((9, 80.0), (25, 110.0), (1 << 30, 115.0)),
    False: ((9, 64.0), (25, 85.0), (1 << 30, 90.0)),
}
_OTHERS = {True: ((121, 88.0), (1 << 30, 60.0)), False: ((121, 58.0), (1 << 30, 32.0))}
_STRIDED = 0.63
_L1 = 1 << 15


def depthwise_gain(node: Node, values: Values, library: Library) -> float | None:
    """Of depthwise convolutions in fp32."""
    a = node.attributes
    assert isinstance(a, Conv2dAttributes)
    if library.has(Isa.NEON):
        return costs_arm.depthwise_gain(node, values)
    if not library.has(Isa.AVX2):
        return None
    result = values[node.outputs[0]].shape
    if prod(a.kernel) == 1:  # waits for memory, whoever multiplies
        return _pages(result) - _STEP
    theirs = _theirs_depthwise(a, result, library)
    return theirs - _ours_depthwise(a, result, library) - _STEP + _pages(result)


def combs_gain(
    parts: Sequence[Conv2dAttributes], whole: Conv2dAttributes, result: Shape, library: Library
) -> float:
    """Of depthwise convolutions in fp32 whose sum is one with a larger filter, ``whole``."""
    if library.has(Isa.NEON):
        return costs_arm.combs_gain(parts, whole, prod(result))
    theirs = sum(_theirs_depthwise(part, result, library) for part in parts)
    theirs += (len(parts) - 1) * _PASS * prod(result)
    return theirs - _ours_depthwise(whole, result, library) - _STEP + _pages(result)


def _theirs_depthwise(a: Conv2dAttributes, result: Shape, library: Library) -> float:
    taps = prod(a.kernel)
    held = 4 * (2 * taps + 1) * result[-1] <= (library.caches().l1 or _L1)
    many = _MANY_TAPS[library.has(Isa.AVX512)]
    rate = many if taps > 25 else _HELD if held else _NOT_HELD
    filled = next((most for most in _TAPS if taps <= most), taps)
    return 2 * filled * _lanes(result, library) / rate / 1000


def _ours_depthwise(a: Conv2dAttributes, result: Shape, library: Library) -> float:
    taps, window = prod(a.kernel), has_window(a)
    rates = (_DEPTHWISE if window else _OTHERS)[library.has(Isa.AVX512)]
    rate = next(rate for most, rate in rates if taps <= most)
    if window and max(a.stride) > 1:
        rate *= _STRIDED
    return 2 * taps * _lanes(result, library) / rate / 1000


def _lanes(result: Shape, library: Library) -> int:
    """Elements, where each pixel's channels fill whole vectors."""
    width = 16 if library.has(Isa.AVX512) else 8
    return prod(result[:-1]) * -(-result[-1] // width) * width


#: What XNNPACK takes for an element beyond ours, for each pass over a tensor that is one of ours.
_PASS = 0.05e-3


def elementwise_gain(passes: int, shape: Shape) -> float:
    """Of a chain of so many elementwise nodes over tensors of this shape, which ours run as one."""
    return passes * _PASS * prod(shape) - _STEP + _pages(shape)


#: What the nodes of a layer norm take beyond ours for an element, and for being eleven.
_NORM, _NORM_NODES = 0.4e-3, 2.0


def norm_gain(shape: Shape) -> float:
    """Of a layer norm over the last dimension of this shape."""
    return _NORM * prod(shape) + _NORM_NODES - _STEP + _pages(shape)


#: What attention takes beyond ours for a score and for a row of scores, with AVX-512 and without,
#: and for an element that is transposed: ours read what lies apart all the same.
_SCORE, _SCORED_ROW = {True: 0.15e-3, False: 0.03e-3}, {True: 12e-3, False: 6e-3}
_TRANSPOSED = 0.1e-3
#: Of keys of fewer values, scores take longer to be written than to be made: LeViT's of 16 are no
#: faster.
_DEEP = 32


def attention_gain(
    scores: Shape, size: int, transposed: int, addends: int, library: Library
) -> float:
    """Of attention with scores of this shape, keys of so many values, so many elements that are
    transposed before or behind it, and so many tensors that are added to scores."""
    if size < _DEEP:
        return -_STEP
    avx512, count = library.has(Isa.AVX512), prod(scores)
    theirs = (_SCORE[avx512] + addends * _PASS) * count
    theirs += _SCORED_ROW[avx512] * prod(scores[:-1])
    return theirs + _TRANSPOSED * transposed - _STEP


#: What the nodes of a group norm take beyond ours for an element, with whole vectors of channels.
_GROUP_NORM = 0.25e-3


def group_norm_gain(shape: Shape) -> float:
    """Of an instance or group norm of an image of this shape."""
    return _GROUP_NORM * prod(shape) + _NORM_NODES - _STEP + _pages(shape)


#: What the nodes of a recurrent layer's step take for being a dozen or more, and the rates of its
#: product, XNNPACK's of few rows and of many.
_CELL_NODES, _CELL_FEW, _CELL_MANY = 5.0, 35.0, {True: 200.0, False: 85.0}
#: Ours of one row and of more, with AVX-512 and without.
_CELL_ROW, _CELL_ROWS = 55.0, {True: 170.0, False: 95.0}


def cell_gain(shape: Shape, gates: int, library: Library) -> float:
    """Of a step of a recurrent layer whose state has this shape."""
    rows, hidden = prod(shape[:-1]), shape[-1]
    operations = 2 * rows * gates * hidden * hidden / 1000
    few = rows < 6
    wide = library.has(Isa.AVX512)
    theirs = operations / (_CELL_FEW if few else _CELL_MANY[wide])
    ours = operations / (_CELL_ROW if rows == 1 else _CELL_ROWS[wide])
    return _CELL_NODES + theirs - ours - _STEP


def sum_gain(node: Node, values: Values, library: Library) -> float | None:
    """Of sums and products of two tensors in fp32: both wait for memory. Ours is there for where
    what is around it is ours."""
    if not library.has(VECTORS):
        return None
    return _pages(values[node.outputs[0]].shape) - _STEP


def mean_gain(node: Node, values: Values, library: Library) -> float | None:
    """Of means over pixels in fp32: they are ours where what makes the image is."""
    return -_STEP if library.has(VECTORS) else None


def conversion_gain(node: Node, values: Values, library: Library) -> float | None:
    """Of what is between fp32 and int8: it is ours where what is around it is ours. A part of
    XNNPACK's takes 100 microseconds to load."""
    return -_STEP if library.has(Isa.AVX2) else None


def shape_gain(node: Node, values: Values, library: Library) -> float | None:
    """Of other shapes of the same bytes: in a plan of ours these stay where they are, except for
    what the graph is given or gives. XNNPACK moves what crosses."""
    if not library.has(VECTORS):
        return None
    source, result = values[node.inputs[0]], values[node.outputs[0]]
    if source.is_input or result.is_output:
        return -_STEP
    return _MOVED_BYTE * bytes_of(result.shape, result.dtype.traits.bits) - _STEP


def bytes_of(shape: Shape, bits: int | None) -> int:
    """Of a value of this shape, of so many bits an element."""
    return prod(shape) * (bits or 8) // 8
