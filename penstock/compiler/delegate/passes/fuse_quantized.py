"""Fuse dequantize, operator and quantize into the operator on integers.

Lowering leaves quantization as CONVERT nodes around floating-point nodes, and int8 weights at
nodes that still read floats. Here each node is settled: on integers where XNNPACK has that, else
in floating point with its weights written out. Afterwards no node mixes the two.
"""

from __future__ import annotations

import numpy as np

from penstock.compiler.delegate.fixed_point import (
    conversion_fits,
    pool_fits,
    product_fits,
    slope_fits,
    sum_fits,
)
from penstock.graph import weights
from penstock.graph.dtypes import DataType, PerChannel, PerTensor
from penstock.graph.graph import INVALID_VALUE_ID, Node, Value, XnnGraph
from penstock.graph.index import Index
from penstock.graph.kinds import (
    Conv2dAttributes,
    LeakyReluAttributes,
    NodeKind,
    PadAttributes,
    Pool2dAttributes,
)

INT8 = (DataType.QINT8, DataType.QUINT8)


def apply(graph: XnnGraph) -> None:
    """Settles every node; see the module's docstring."""
    index = Index(graph)
    for node in reversed(list(graph.nodes)):
        if node.kind.traits.keeps_values:
            _hoist_quantize(index, node)
    for node in index.walk():
        traits = node.kind.traits
        if node.kind is NodeKind.CONVERT:
            _merge_converts(index, node)
        elif traits.weighted:
            _settle_weighted(index, node)
        elif traits.keeps_values:
            _sink_dequantize(index, node)
        elif traits.joins:  # movement of several inputs, all alike
            if not _sink_dequantize(index, node):
                _settle_shared(index, node)
        elif traits.shared_int8:
            if not _settle_shared(index, node) and _pads_by_zero(node):
                _sink_dequantize(index, node)
        elif traits.own_int8 and not _outgrows_memory(graph, node):
            _settle_arithmetic(index, node)
        elif node.kind is NodeKind.AVG_POOLING_2D:
            _settle_average_pool(index, node)
    index.finish()
    for node in graph.nodes:
        if node.kind is NodeKind.CONVERT:
            _fold_constant_convert(index, node)
    index.finish()


# --- reading the graph -------------------------------------------------------------------------


def _quantized_source(index: Index, value: int) -> Value | None:
    """The int8 value that ``value`` is the dequantization of."""
    convert = index.made_by(value, NodeKind.CONVERT)
    if convert is None:
        return None
    source = index.values[convert.inputs[0]]
    return source if source.dtype in INT8 and index.values[value].dtype is DataType.FP32 else None


def _quantized_result(index: Index, node: Node) -> tuple[Value, list[Node]] | None:
    """The int8 value that everyone who reads the node's output makes of it first, and the CONVERT
    nodes that do."""
    output = node.outputs[0]
    if index.values[output].is_output:
        return None
    readers = index.readers[output]
    if not readers or any(reader.kind is not NodeKind.CONVERT for reader in readers):
        return None
    results = [index.values[reader.outputs[0]] for reader in readers]
    first = results[0]
    if first.dtype not in INT8:
        return None
    if any(r.dtype is not first.dtype or r.quantization != first.quantization for r in results):
        return None
    return first, readers


def _take_over(index: Index, node: Node, result: Value, converts: list[Node]) -> None:
    """``node`` writes the int8 ``result``; the CONVERT nodes behind it go."""
    index.set_output(node, result.id)
    for convert in list(converts):
        if convert.outputs[0] != result.id:
            index.replace_uses(convert.outputs[0], result.id)
        index.remove(convert)


# --- converts ----------------------------------------------------------------------------------


def _merge_converts(index: Index, node: Node) -> None:
    """quantize(dequantize(q)): nothing if the parameters are equal, else one requantize."""
    source, result = index.values[node.inputs[0]], index.values[node.outputs[0]]
    if result.dtype in INT8:
        origin = _quantized_source(index, source.id)
        if origin is None:
            return
        same = origin.dtype is result.dtype and origin.quantization == result.quantization
        if same and not result.is_output:
            index.replace(node, origin.id)
        elif conversion_fits(_scale(origin), _scale(result)):
            index.set_inputs(node, (origin.id,))


# --- products with weights ---------------------------------------------------------------------


def _settle_weighted(index: Index, node: Node) -> None:
    weight = index.values[node.inputs[1]]
    integer_weight = weight.dtype in (DataType.QINT8, DataType.QCINT8, DataType.QBINT4)
    convert = index.made_by(node.inputs[0], NodeKind.CONVERT)
    source = index.values[convert.inputs[0]] if convert is not None else None
    if index.values[node.inputs[0]].dtype is DataType.QDINT8:
        return
    exact = None if integer_weight else _exact_integers(index, node, weight)
    if (integer_weight or exact) and source is not None and source.dtype is DataType.QINT8:
        result = _quantized_result(index, node)
        if result is not None:
            weight = weight if exact is None else exact
            bias = _integer_bias(index, node, source, weight)
            filters = weight.id if exact is None else index.new_value(weight)
            index.set_inputs(node, (source.id, filters, bias))
            _take_over(index, node, *result)
            return
        if exact is not None and _only_moves(node, exact):
            _sink_dequantize(index, node, (index.new_value(exact), INVALID_VALUE_ID))
            return
    if node.kind is NodeKind.FULLY_CONNECTED and weight.dtype is DataType.QCINT8:
        _keep_weights(index, node, weight)
    elif integer_weight:
        real = Value(0, DataType.FP32, weight.shape, None, weights.real(weight))
        index.set_inputs(node, (node.inputs[0], index.new_value(real), *node.inputs[2:]))


def _keep_weights(index: Index, node: Node, weight: Value) -> None:
    """The result is not quantized: XNNPACK multiplies floats by the weights as they are. It would
    scale a bias with the product, so that is added behind, and the output range moves there."""
    narrow = weights.narrowed(weight)
    filters = weight.id if narrow is weight else index.new_value(narrow)
    bias = node.inputs[2]
    index.set_inputs(node, (node.inputs[0], filters, INVALID_VALUE_ID))
    if bias == INVALID_VALUE_ID:
        return
    output = index.values[node.outputs[0]]
    product = index.new_value(Value(0, output.dtype, output.shape, output.quantization))
    index.set_output(node, product)
    add = Node(
        NodeKind.ADD, (product, bias), (output.id,), clamp=node.clamp,
        debug_handle=node.debug_handle,
    )  # fmt: skip
    node.clamp = None
    index.insert_after(node, add)


def _exact_integers(index: Index, node: Node, weight: Value) -> Value | None:
    """Floating-point weights of convolutions that only move or blend values (all ones, say), as
    int8 that stands for exactly the same numbers, if there is such a scale."""
    if node.kind not in (NodeKind.DEPTHWISE_CONV_2D, NodeKind.CONV_TRANSPOSE_2D):
        return None
    if node.inputs[2] != INVALID_VALUE_ID or weight.data is None:
        return None
    real = np.asarray(weight.data, np.float32)
    sizes = np.abs(real[real != 0])
    if not sizes.size or not np.isfinite(sizes).all():
        return None
    scale = np.float32(sizes.min())
    integers = np.rint(real / scale)
    if np.abs(integers).max() > 127 or not np.array_equal(integers * scale, real):
        return None
    quantization = PerTensor(float(scale), 0)
    return Value(0, DataType.QINT8, weight.shape, quantization, integers.astype(np.int8))


def _only_moves(node: Node, weight: Value) -> bool:
    """Whether each output of a transposed convolution is one input, or zero."""
    conv = node.attributes
    if node.kind is not NodeKind.CONV_TRANSPOSE_2D or not isinstance(conv, Conv2dAttributes):
        return False
    apart = all(size <= step for size, step in zip(conv.kernel, conv.stride, strict=True))
    taken = weights.real(weight)
    return apart and bool(np.isin(taken, (0.0, 1.0)).all() and (taken.sum(-1) <= 1).all())


def _integer_bias(index: Index, node: Node, source: Value, weight: Value) -> int:
    """The bias in int32 with scale input * weight, for each channel where the weight's is."""
    bias_id = node.inputs[2]
    if bias_id == INVALID_VALUE_ID:
        return bias_id
    bias = index.values[bias_id]
    assert isinstance(source.quantization, PerTensor)
    quantization: PerChannel | PerTensor
    scales: np.ndarray
    if isinstance(weight.quantization, PerChannel):
        scales = (
            weight.quantization.scales.astype(np.float32) * np.float32(source.quantization.scale)
        ).astype(np.float32)
        quantization, dtype = PerChannel(scales, 0), DataType.QCINT32
    else:
        assert isinstance(weight.quantization, PerTensor)
        scales = np.asarray(
            np.float32(source.quantization.scale) * np.float32(weight.quantization.scale)
        )
        quantization, dtype = PerTensor(float(scales), 0), DataType.QINT32
    real = np.asarray(bias.data, np.float32)
    limits = np.iinfo(np.int32)
    integers = np.clip(np.rint(real.astype(np.float64) / scales), limits.min, limits.max)
    return index.new_value(Value(0, dtype, bias.shape, quantization, integers.astype(np.int32)))


# --- everything else ---------------------------------------------------------------------------


def _sink_dequantize(index: Index, node: Node, weights: tuple[int, ...] = ()) -> bool:
    """Given ``move(dequantize(q), …)``, the same parameters for all → Result
    ``dequantize(move(q, …))``: a quarter of the bytes moves, and the dequantize comes next to who
    needs it (or to a quantize that cancels it). Says whether it was so. ``weights`` take the place
    of the inputs after the first."""
    moved_inputs = node.inputs[: -len(weights)] if weights else node.inputs
    found = (_quantized_source(index, value) for value in moved_inputs)
    sources = [source for source in found if source is not None]
    if len(sources) < len(moved_inputs) or index.values[node.outputs[0]].is_output:
        return False
    first = sources[0]
    if node.clamp is not None and not _holds_bounds(first, node.clamp):
        return False
    if any((s.dtype, s.quantization) != (first.dtype, first.quantization) for s in sources):
        return False
    old = index.values[node.outputs[0]]
    moved = index.new_value(Value(0, first.dtype, old.shape, first.quantization))
    index.set_inputs(node, (*(source.id for source in sources), *weights))
    index.set_output(node, moved)
    convert = Node(NodeKind.CONVERT, (moved,), (old.id,), debug_handle=node.debug_handle)
    index.insert_after(node, convert)
    for reader in list(index.readers[old.id]):
        if reader.kind is NodeKind.CONVERT:
            _merge_converts(index, reader)
    return True


def _holds_bounds(value: Value, bounds: tuple[float, float]) -> bool:
    """Whether integers of ``value``'s parameters can be clamped to ``bounds``."""
    assert isinstance(value.quantization, PerTensor)
    limits = (-128, 127) if value.dtype is DataType.QINT8 else (0, 255)
    least, most = (
        (limit - value.quantization.zero_point) * value.quantization.scale for limit in limits
    )
    return bounds[0] <= most and bounds[1] >= least


def _hoist_quantize(index: Index, node: Node) -> None:
    """Given ``quantize(move(x))`` → Result ``move(quantize(x))``, so that what computes ``x`` can
    write integers."""
    result = _quantized_result(index, node)
    if result is None:
        return
    target, converts = result
    source = index.values[node.inputs[0]]
    early = _inserted_convert(index, node, source, target)
    index.set_inputs(node, (early,))
    _take_over(index, node, target, converts)


def _settle_shared(index: Index, node: Node) -> bool:
    """Says whether ``node`` is on integers now."""
    result = _quantized_result(index, node)
    sources = [_quantized_source(index, value) for value in node.inputs]
    if result is None or any(source is None for source in sources):
        return False
    target, converts = result
    known = [source for source in sources if source is not None]
    if not all(conversion_fits(_scale(source), _scale(target)) for source in known):
        return False
    if node.kind.traits.blends and not all(_holds(target, source) for source in known):
        return False
    inputs = []
    for source in known:
        if source.dtype is target.dtype and source.quantization == target.quantization:
            inputs.append(source.id)
        else:
            inputs.append(_inserted_convert(index, node, source, target))
    index.set_inputs(node, tuple(inputs))
    _take_over(index, node, target, converts)
    return True


def _pads_by_zero(node: Node) -> bool:
    """Whether what comes in beside the input's values is an integer with any parameters."""
    return isinstance(node.attributes, PadAttributes) and node.attributes.value == 0


def _holds(target: Value, source: Value) -> bool:
    """Whether ``target`` has room for all numbers that ``source`` can be, but for half a step."""
    (low, high), (lowest, highest) = map(_range, (target, source))
    half = _scale(target) / 2
    return low - half <= lowest and highest <= high + half


def _range(value: Value) -> tuple[float, float]:
    assert isinstance(value.quantization, PerTensor)
    limits = (0, 255) if value.dtype is DataType.QUINT8 else (-128, 127)
    low, high = (_scale(value) * (limit - value.quantization.zero_point) for limit in limits)
    return low, high


def _inserted_convert(index: Index, node: Node, source: Value, target: Value) -> int:
    """``source`` with the type and parameters of ``target``, by a CONVERT before ``node``."""
    return index.add(NodeKind.CONVERT, (source.id,), source.shape, like=node, of=target.id)


def _settle_arithmetic(index: Index, node: Node) -> None:
    result = _quantized_result(index, node)
    sources = [_quantized_source(index, value) for value in node.inputs]
    if result is None or any(source is None for source in sources):
        return
    if any(source is not None and source.dtype is not result[0].dtype for source in sources):
        return
    if not _within_limits(node, [source for source in sources if source], result[0]):
        return
    index.set_inputs(node, tuple(source.id for source in sources if source is not None))
    _take_over(index, node, *result)


def _outgrows_memory(graph: XnnGraph, node: Node) -> bool:
    """XNNPACK's mean of integers writes past its memory when it gets more results than at the
    call before (google/XNNPACK issue 9982), its mean of floats does not."""
    return node.kind is NodeKind.GLOBAL_AVG_POOLING_2D and node.outputs[0] in graph.varying


def _within_limits(node: Node, sources: list[Value], result: Value) -> bool:
    if isinstance(node.attributes, LeakyReluAttributes):
        slope = node.attributes.negative_slope
        return slope_fits(_scale(sources[0]), _scale(result), slope)
    fits = {NodeKind.ADD: sum_fits, NodeKind.SUBTRACT: sum_fits, NodeKind.MULTIPLY: product_fits}
    check = fits.get(node.kind)
    return check is None or check([_scale(s) for s in sources], _scale(result))


def _scale(value: Value) -> float:
    assert isinstance(value.quantization, PerTensor)
    return value.quantization.scale


def _settle_average_pool(index: Index, node: Node) -> None:
    """Average pooling on int8 as a depthwise convolution with equal weights, which XNNPACK has on
    int8: weights of 1 with a scale of 1 / (kernel height * width). Padding would be counted, so
    only pools without padding."""
    pool = node.attributes
    source, result = _quantized_source(index, node.inputs[0]), _quantized_result(index, node)
    if not isinstance(pool, Pool2dAttributes) or any(pool.padding):
        return
    if source is None or result is None or source.dtype is not DataType.QINT8:
        return
    if not pool_fits(_scale(source), _scale(result[0]), pool.kernel[0] * pool.kernel[1]):
        return
    channels = source.shape[3]
    scales = np.full(channels, 1.0 / (pool.kernel[0] * pool.kernel[1]), np.float32)
    ones = np.ones((1, *pool.kernel, channels), np.int8)
    weight = Value(0, DataType.QCINT8, ones.shape, PerChannel(scales, 3), ones)
    node.kind = NodeKind.DEPTHWISE_CONV_2D
    node.attributes = Conv2dAttributes(
        pool.padding, pool.kernel, pool.stride, (1, 1), channels, 1, 1
    )
    index.set_inputs(node, (source.id, index.new_value(weight), INVALID_VALUE_ID))
    _take_over(index, node, *result)


def _fold_constant_convert(index: Index, node: Node) -> None:
    """A constant that is still dequantized at run time becomes a float constant."""
    source, result = index.values[node.inputs[0]], index.values[node.outputs[0]]
    if source.data is None or result.dtype is not DataType.FP32 or result.is_output:
        return
    index.make_constant(result.id, weights.real(source))
