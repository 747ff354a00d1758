"""What was measured of a quantized graph, and its sizes -> what each layer costs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Protocol

import torch
from torch.fx import Node
from torch.fx.node import map_arg
from torch.utils.flop_counter import FlopCounterMode

from penstock.compiler.delegate.operators.registry import QuantizationRule, Recurrent, Weighted
from penstock.compiler.quantize.convert import DEQUANTIZE
from penstock.compiler.quantize.cost import (
    BYTES_RATE,
    FLOAT_RATE,
    INT8_RATE,
    Errors,
    LayerCost,
    QuantizationCost,
    badness,
)
from penstock.compiler.quantize.interpreter import Snapshot
from penstock.compiler.quantize.measure import Measured, Sums, histogram_of, ranges_of
from penstock.compiler.quantize.values import argument, nodes_in

quantized = torch.ops.quantized_decomposed

#: Of such a part of a range, a value has 4 bits.
COARSE = 16


class Graphs(Protocol):
    """The two forms of a model."""

    floating: Snapshot
    quantized: Snapshot


class Described(Protocol):
    """A layer as the report has it."""

    node: str
    operator: str
    module: str
    source: str
    quantized: bool
    reason: str | None
    form: str
    head: str
    rule: QuantizationRule | None
    hands_on: bool

    @property
    def is_dynamic(self) -> bool: ...


def dynamic_input(node: Node, rule: QuantizationRule | None) -> str | None:
    """The name of the value that a dynamic layer quantizes as it runs."""
    if not isinstance(rule, (Weighted, Recurrent)):
        return None
    source = argument(node, rule.input if isinstance(rule, Weighted) else rule.inputs[0])
    return source.name if isinstance(source, Node) else None


@dataclass
class Costs:
    """Puts together what is known of a quantized model's layers."""

    scheme: str
    layers: Sequence[Any]
    graphs: Graphs
    calibration: Measured
    held_out: Measured | None

    def all(self) -> QuantizationCost:
        return QuantizationCost(
            scheme=self.scheme,
            layers=tuple(sorted(map(self._layer, self.layers), key=badness)),
            calibration_db=self.calibration.worst_db,
            held_out_db=self.held_out.worst_db if self.held_out else None,
            batches=self.calibration.batches,
            held_out_batches=self.held_out.batches if self.held_out else 0,
            notes=tuple(self._coarse()),
        )

    def _coarse(self) -> Iterator[str]:
        """What is joined with so much larger values that it has less than 4 of the 8 bits: the
        error shows in the layer before, which does not say whose scale it has."""
        for layer in self.layers:
            ranges = ranges_of(self._quantized[layer.node]) if layer.hands_on else []
            if not ranges:
                continue
            low, high = ranges[0]
            for source in dict.fromkeys(nodes_in(list(self._floating[layer.head].args))):
                sums = self.calibration.values.get(source.name)
                seen = sums.spread.histogram() if sums is not None and sums.spread else None
                if seen is not None and COARSE * (seen.high - seen.low) < high - low:
                    share = (seen.high - seen.low) / (high - low)
                    yield (
                        f"coarse   {source.name} takes {share:.1%} of the range that {layer.node} "
                        f"gives it: leave {layer.node} in float (float_nodes)"
                    )

    @cached_property
    def _floating(self) -> dict[str, Node]:
        return {node.name: node for node in self.graphs.floating.graph.nodes}

    @cached_property
    def _quantized(self) -> dict[str, Node]:
        return {node.name: node for node in self.graphs.quantized.graph.nodes}

    def _layer(self, layer: Described) -> LayerCost:
        weight = self._weight(layer)
        stored, scales = self._stored(layer)
        float_bytes = self._float_bytes(layer)
        bytes_ = float_bytes if stored is None else stored
        macs, moved = self._work(layer, weight)
        seconds = _seconds(macs, 4 * moved + float_bytes, FLOAT_RATE)
        faster = seconds
        if layer.quantized:
            part = 4 if layer.is_dynamic else 1
            faster = min(seconds, _seconds(macs, part * moved + bytes_, INT8_RATE))
        ranges = ranges_of(self._quantized[layer.node]) if layer.quantized else []
        return LayerCost(
            node=layer.node, operator=layer.operator, module=layer.module, source=layer.source,
            quantized=layer.quantized, reason=layer.reason, form=layer.form,
            calibration=self._errors(layer, self.calibration),
            held_out=None if self.held_out is None else self._errors(layer, self.held_out),
            float_bytes=float_bytes, bytes=bytes_, macs=macs,
            float_seconds=seconds, seconds=faster,
            range=ranges[0] if ranges else None,
            weights=None if weight is None else histogram_of(weight),
            weight_scales=scales,
        )  # fmt: skip

    def _errors(self, layer: Described, measured: Measured) -> Errors:
        sums = measured.values.get(layer.node, Sums())
        if sums.numel == 0:
            return Errors(None, None)
        if layer.hands_on:  # what it would show is others' error
            return replace(sums.errors(False), saturated=None)
        found = sums.errors(layer.quantized)
        if layer.quantized and layer.is_dynamic:
            name = dynamic_input(self._floating[layer.head], layer.rule)
            inputs = measured.values.get(name or "")
            shown = inputs.spread.histogram() if inputs is not None and inputs.spread else None
            found = Errors(found.own_db, found.accumulated_db, None, shown)
        return found

    def _weight(self, layer: Described) -> torch.Tensor | None:
        """In float32, of layers that have one."""
        if not isinstance(layer.rule, Weighted):
            return None
        return self._constant(argument(self._floating[layer.head], layer.rule.weight))

    def _float_bytes(self, layer: Described) -> int:
        """Of the weight and the bias of a quantized layer; of all constants of others."""
        if not layer.quantized or isinstance(layer.rule, Recurrent):
            return self._constants(layer)
        weight = self._weight(layer)
        return (0 if weight is None else 4 * weight.numel()) + self._bias_bytes(layer)

    def _bias_bytes(self, layer: Described) -> int:
        if not isinstance(layer.rule, Weighted) or layer.rule.bias is None:
            return 0
        bias = self._constant(argument(self._floating[layer.head], layer.rule.bias))
        return 0 if bias is None else 4 * bias.numel()

    def _constant(self, node: Any) -> torch.Tensor | None:
        if not isinstance(node, Node) or node.op != "get_attr":
            return None
        value = self.graphs.floating.attributes[str(node.target)]
        return value.detach() if isinstance(value, torch.Tensor) else None

    def _constants(self, layer: Described) -> int:
        """Bytes of the floating-point constants that an operator reads: an LSTM's weights too."""
        read = map(self._constant, self._floating[layer.head].all_input_nodes)
        return sum(t.nbytes for t in read if t is not None and t.is_floating_point())

    def _stored(self, layer: Described) -> tuple[int | None, tuple[float, float] | None]:
        """(bytes with the biases, (least, largest) scale) of weights as integers."""
        if not layer.quantized:
            return None, None
        node = self._quantized[layer.head]
        if isinstance(layer.rule, Recurrent):
            each = [self._integers(n) for n in layer.rule.weights(node)]
            matrices = layer.rule.weights(self._floating[layer.head])
            floats = [t for t in map(self._constant, dict.fromkeys(matrices)) if t is not None]
            biases = self._constants(layer) - sum(t.nbytes for t in floats)
            ends = [scale for _, pair in each for scale in pair]
            return sum(size for size, _ in each) + biases, (min(ends), max(ends))
        if not isinstance(layer.rule, Weighted):
            return None, None
        weight = argument(node, layer.rule.weight)
        if not isinstance(weight, Node) or weight.op != "call_function":
            return None, None
        size, scales = self._integers(weight)
        return size + self._bias_bytes(layer), scales

    def _integers(self, node: Node) -> tuple[int, tuple[float, float]]:
        """(bytes, (least, largest) scale) of what ``node`` dequantizes."""
        known = self.graphs.quantized.attributes
        integers = known[str(node.args[0].target)]  # type: ignore[union-attr]
        scale = node.args[1]
        scales = known[str(scale.target)] if isinstance(scale, Node) else torch.tensor([scale])
        blocks = node.target not in DEQUANTIZE
        count = integers.numel() // 2 + 2 * scales.numel() if blocks else integers.numel()
        return (
            count + (0 if blocks else 4 * scales.numel()),
            (float(scales.min()), float(scales.max())),
        )

    def _work(self, layer: Described, weight: torch.Tensor | None) -> tuple[int, int]:
        """(multiplications in products, values read and written) of one call."""
        known = self.calibration.values
        node = self._floating[layer.head]
        out = known[layer.node].numel if layer.node in known else 0
        inputs = [n.name for n in nodes_in(list(node.args)) if n.name in known]
        read = sum(known[name].numel for name in inputs)
        if weight is None or not isinstance(layer.rule, Weighted):
            return _multiplications(node), out + read
        axis = layer.rule.channel_axis
        if (axis(node) if callable(axis) else axis) == 0:
            return out * (weight.numel() // max(weight.shape[0], 1)), out + read
        return read * (weight.numel() // max(weight.shape[0], 1)), out + read


def _multiplications(node: Node) -> int:
    """Those of the products that an operator consists of (attention, an LSTM), by torch's count;
    none where its sizes are not fixed."""

    def stand_in(node: Node) -> Any:
        known = node.meta.get("val")
        if not isinstance(known, torch.Tensor):
            return known
        return torch.empty(known.shape, dtype=known.dtype, device="meta")

    sizes = [s for n in node.all_input_nodes for s in getattr(n.meta.get("val"), "shape", ())]
    if not isinstance(node.target, torch._ops.OpOverload) or not all(type(s) is int for s in sizes):
        return 0
    args, kwargs = map_arg((node.args, node.kwargs), stand_in)
    try:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            node.target(*args, **kwargs)
    except RuntimeError:
        return 0  # it cannot take stand-ins without data
    return int(counter.get_total_flops()) // 2


def _seconds(macs: int, bytes_: int, rate: float) -> float:
    return max(2 * macs / rate, bytes_ / BYTES_RATE)
