"""What quantization did to each operator, and what it costs in accuracy."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch.fx import Node

from penstock.compiler.fx.culprits import locate
from penstock.compiler.quantize.convert import DEQUANTIZE, QUANTIZE
from penstock.compiler.quantize.interpreter import Snapshot, Stepper
from penstock.compiler.quantize.plan import Decision, Plan
from penstock.compiler.quantize.quantization import Quantization
from penstock.faults import faults

#: The ratios are measured on no more than this many batches.
MOST_BATCHES = 8


@dataclass
class Comparison:
    """A float graph and its quantized form, run side by side on ``batches``."""

    floating: Snapshot
    quantized: Snapshot
    batches: Iterable[Sequence[Any]]

    @cached_property
    def sqnr_db(self) -> dict[str, float]:
        """By the name of a node that both graphs have: the ratio of the signal's power to that of
        the difference, in decibels (infinite when there is none). Elements that are infinite in
        float (masks) do not count."""
        with faults("compare", locate):
            return self._measured()

    def _measured(self) -> dict[str, float]:
        signal: dict[str, float] = {}
        noise: dict[str, float] = {}
        for values in itertools.islice(self.batches, MOST_BATCHES):
            for name, expected, found in self._values(values):
                finite = expected.isfinite()
                reference, result = expected[finite].double(), found[finite].double()
                signal[name] = signal.get(name, 0.0) + float(reference.square().sum())
                noise[name] = noise.get(name, 0.0) + float((reference - result).square().sum())
        return {name: decibels(signal[name], noise[name]) for name in signal}

    def _values(self, values: Sequence[Any]) -> Iterator[tuple[str, torch.Tensor, torch.Tensor]]:
        """(name, float value, quantized value) of each operator: both graphs are stepped side by
        side, so that neither has to keep all its values."""
        reference, result = Stepper(self.floating, [values]), Stepper(self.quantized, [values])
        known = {node.name for node in self.floating.graph.nodes}
        ahead: dict[str, Any] = {}
        while (node := result.step()) is not None:
            name = _seen_result(node)
            if name is None or name not in known:
                continue
            (found,) = result.values(node)
            while name not in ahead and (original := reference.step()) is not None:
                (ahead[original.name],) = reference.values(original)
            pair = (ahead.pop(name, None), found)
            if all(isinstance(v, torch.Tensor) and v.is_floating_point() for v in pair):
                yield name, *pair


def _form(decision: Decision) -> str:
    if decision.reason is not None:
        return "float32"
    if decision.block is not None:
        return f"int4 in blocks of {decision.block}"
    return "int8" if decision.why_8_bits is None else f"int8: {decision.why_8_bits}"


def decibels(signal: float, noise: float) -> float:
    if noise == 0.0:
        return math.inf
    return 10.0 * math.log10(signal / noise) if signal > 0.0 else -math.inf


def _seen_result(node: Node) -> str | None:
    """The name of the operator whose result ``node`` hands to the readers, if it is the node that
    does so."""
    if node.op != "call_function":
        return None
    if node.target in DEQUANTIZE:
        (quantize,) = node.args[:1]
        if isinstance(quantize, Node) and quantize.target in QUANTIZE:
            source = quantize.args[0]
            first = next(iter(quantize.users)) is node
            if first and isinstance(source, Node) and _only_reader(source, quantize):
                return source.name
        return None
    if any(_only_reader(node, user) for user in node.users if user.target in QUANTIZE):
        return None
    return node.name


def _only_reader(node: Node, reader: Node) -> bool:
    return node.op == "call_function" and list(node.users) == [reader]


@dataclass
class Layer:
    """One operator. ``node`` is its name in the graph, ``reason`` why it stayed in float
    (``None`` when it is quantized)."""

    node: str
    operator: str
    module: str
    quantized: bool
    reason: str | None
    #: The form of its weights or values: ``int8``, ``int4 in blocks of 32`` ...; with the reason
    #: where the scheme asked for another.
    form: str
    comparison: Comparison = field(repr=False, compare=False)

    @property
    def sqnr_db(self) -> float | None:
        """Signal-to-quantization-noise ratio of the result in decibels, against the float model,
        with everything before it quantized too. ``None`` for results that are not floats."""
        return self.comparison.sqnr_db.get(self.node)


@dataclass
class QuantizationReport:
    """Every operator of the model: in int8, or in float and why. ``str()`` is a table.

    Signal-to-noise ratios are measured when one is first asked for: the float and the quantized
    graph then run on the calibration data (on the example inputs, if the data was a generator).
    """

    scheme: str
    layers: list[Layer]
    #: How many batches the ranges come from; ``None`` when nothing was calibrated.
    batches: int | None = None
    #: Whether no calibration data was given, so that the example inputs were the one batch.
    example_inputs_alone: bool = False

    @classmethod
    def of(
        cls,
        plan: Plan,
        quantization: Quantization,
        comparison: Comparison,
        batches: int | None,
        *,
        example_inputs_alone: bool,
    ) -> QuantizationReport:
        layers = [
            Layer(
                node=decision.result.name,
                operator=decision.operator,
                module=decision.module,
                quantized=decision.quantized,
                reason=decision.reason,
                form=_form(decision),
                comparison=comparison,
            )
            for decision in plan.decisions
        ]
        return cls(quantization.scheme, layers, batches, example_inputs_alone)

    @property
    def calibration(self) -> str:
        """What the ranges come from, in words; empty when nothing was calibrated."""
        if self.batches is None:
            return ""
        if self.example_inputs_alone:
            return "calibrated on the example inputs alone: give calibration data for real use"
        return f"calibrated on {self.batches} batch{'es' if self.batches != 1 else ''}"

    @property
    def quantized(self) -> list[Layer]:
        return [layer for layer in self.layers if layer.quantized]

    @property
    def floating(self) -> list[Layer]:
        return [layer for layer in self.layers if not layer.quantized]

    def __str__(self) -> str:
        kind = "quantized" if self.scheme == "dynamic_4bit" else "in int8"
        head = f"{len(self.quantized)} of {len(self.layers)} operators {kind} ({self.scheme})"
        if self.calibration:
            head += f", {self.calibration}"
        rows = [
            (layer.node, layer.operator, layer.module, layer.reason or layer.form)
            for layer in self.layers
        ]
        return "\n".join([head, *_columns(rows)])

    def table(self) -> str:
        """``str()`` and the signal-to-noise ratio of each operator."""
        rows = [
            (layer.node, layer.module, layer.reason or layer.form, _shown(layer.sqnr_db))
            for layer in self.layers
        ]
        return "\n".join([str(self).splitlines()[0], *_columns(rows)])


def _shown(sqnr_db: float | None) -> str:
    return "" if sqnr_db is None else f"{sqnr_db:.1f} dB"


def _columns(rows: Sequence[tuple[str, ...]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
