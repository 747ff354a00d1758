"""Mixtures of int8 and float of one model, made without calibrating it for each.

What calibration shows is kept for every value by itself. The observers of a mixture, which several
values may share, are then told of it, in the way in which calibration would have told them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import torch
from torch.fx import Graph, GraphModule, Node

from penstock.compiler.delegate.operators import registry
from penstock.compiler.fx.attributes import attribute
from penstock.compiler.quantize.annotation import ACTIVATION_EPSILON
from penstock.compiler.quantize.blocks import BlockObserver
from penstock.compiler.quantize.calibrate import Looks
from penstock.compiler.quantize.convert import convert, is_observer
from penstock.compiler.quantize.correct import correct_biases
from penstock.compiler.quantize.decision import Plan
from penstock.compiler.quantize.interpreter import GraphInterpreter, Snapshot
from penstock.compiler.quantize.misfits import note_misfits
from penstock.compiler.quantize.observers import ActivationObserver, HistogramActivationObserver
from penstock.compiler.quantize.prepared import observed
from penstock.compiler.quantize.pt2e import UniformQuantizationObserverBase, prepare
from penstock.compiler.quantize.quantization import Observer, Quantization
from penstock.compiler.quantize.quantizer import XNNPACKQuantizer
from penstock.compiler.quantize.values import is_constant, is_float32

Kind = TypeVar("Kind", bound=ActivationObserver)


@dataclass
class Statistics:
    """What calibration shows of each value, by its name; the sizes of all values."""

    values: dict[str, HistogramActivationObserver] = field(default_factory=dict)
    numels: dict[str, int] = field(default_factory=dict)


class _Gather(GraphInterpreter):
    def __init__(self, module: GraphModule, names: Iterable[str]) -> None:
        super().__init__(module)
        kind = HistogramActivationObserver
        self.found = Statistics({name: activation_observer(kind) for name in names})

    def run_node(self, n: Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, torch.Tensor):
            self.found.numels[n.name] = value.numel()
            if n.name in self.found.values:
                self.found.values[n.name](value)
        return value


def activation_observer(kind: type[Kind]) -> Kind:
    return kind(
        dtype=torch.int8, qscheme=torch.per_tensor_affine, quant_min=-128, quant_max=127,
        eps=ACTIVATION_EPSILON,
    )  # fmt: skip


def gather(module: GraphModule, batches: Iterable[Sequence[Any]], stage: Any) -> Statistics:
    """Runs the float graph on ``batches``, one call after the other."""
    runner = _Gather(module, _may_be_quantized(module))
    for values in batches:
        runner.run_flat(values)
        stage.advance()
    return runner.found


def _may_be_quantized(module: GraphModule) -> set[str]:
    """The values that some operator with a quantization rule reads or makes."""
    names = set()
    for node in module.graph.nodes:
        entry = registry.find(node.target) if node.op == "call_function" else None
        if entry is None or entry.rule_for(node) is None:
            continue
        around = (*node.all_input_nodes, node)
        names |= {value.name for value in around if is_float32(value) and not is_constant(value)}
    return names


@dataclass(frozen=True)
class Mixture:
    """A quantized graph: which operators are int8, and what they came of."""

    floats: frozenset[str]
    converted: GraphModule
    plan: Plan
    floating: Snapshot
    quantization: Quantization


class Mixtures:
    """Makes them of a graph that the quantizer has legalized; ``masked`` are operators that
    calibration put back in float. The graph itself stays as it is."""

    def __init__(
        self,
        module: GraphModule,
        quantization: Quantization,
        statistics: Statistics,
        correction: Sequence[Sequence[Any]],
        masked: Mapping[str, str],
    ) -> None:
        self.module, self.quantization, self.statistics = module, quantization, statistics
        self.correction, self.masked = correction, masked
        self._blocks: dict[tuple[str, int], torch.Tensor] = {}

    def make(self, floats: frozenset[str], observers: Mapping[str, Observer]) -> Mixture | None:
        """``None`` where nothing would be int8."""
        quantization = replace(
            self.quantization,
            float_nodes=(*self.quantization.float_nodes, *sorted(floats)),
            observers={**observers, **self.quantization.observers},
        )
        beside = replace(quantization, float_nodes=(*quantization.float_nodes, *self.masked))
        quantizer = XNNPACKQuantizer(beside)
        module = quantizer.annotate(duplicate(self.module))
        plan = quantizer.plan
        for decision in plan.decisions:
            decision.reason = self.masked.get(decision.node.name, decision.reason)
        if not plan.quantized:
            return None
        prepared: GraphModule = prepare(
            module, {}, is_qat=False, obs_or_fq_callback=quantizer.prepare_obs_or_fq_callback
        )
        self._tell(prepared, plan)
        floating = Snapshot.of(prepared)
        converted = convert(prepared)
        if any(not decision.is_dynamic for decision in plan.quantized):
            correct_biases(floating, converted, plan, self.correction)
        note_misfits(converted, plan)
        return Mixture(floats, converted, plan, floating, quantization)

    def _tell(self, prepared: GraphModule, plan: Plan) -> None:
        """Shows each observer what calibration would show it."""
        looks = Looks(plan)
        for node in prepared.graph.nodes:
            if node.op != "call_module" or not node.args or not is_observer(prepared, node):
                continue
            observer: Any = prepared.get_submodule(str(node.target))
            source = observed(prepared, node)
            if is_constant(source):
                if isinstance(observer, UniformQuantizationObserverBase):
                    self._tell_constant(prepared, observer, source)
            elif isinstance(observer, ActivationObserver):
                seen = self.statistics.values[source.name]
                if not looks.skips(node):
                    observer.absorb(seen)
                elif looks.pass_by(node):
                    observer.absorb_passed(seen)

    def _tell_constant(self, prepared: GraphModule, observer: Any, source: Node) -> None:
        value = attribute(prepared, str(source.target))
        if not isinstance(observer, BlockObserver):
            observer(value)
            return
        key = (str(source.target), observer.block)
        if key not in self._blocks:
            observer(value)
            self._blocks[key] = observer.scales
        observer.scales = self._blocks[key]


def duplicate(module: GraphModule) -> GraphModule:
    """The same graph on the same tensors, to be changed."""
    graph = Graph()
    graph.output(graph.graph_copy(module.graph, {}))
    graph.set_codegen(module.graph._codegen)
    result = GraphModule(module, graph)
    result.meta.update(module.meta)
    return result
