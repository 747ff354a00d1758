"""A plan -> torchao's annotations: which values share their int8 parameters.

Every value of the graph has one set of parameters, whoever makes or reads it. An operator of the
Shared kind joins the sets of its inputs and of its output into one. A value with fixed parameters
(a sigmoid's) keeps them; where it meets others in one operator, that operator reads it requantized.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch.fx import GraphModule, Node

from penstock.compiler.delegate.operators.registry import (
    FixedOutput,
    Independent,
    OutputRange,
    Recurrent,
    Shared,
    Weighted,
)
from penstock.compiler.quantize.blocks import HIGHEST, LOWEST, BlockObserver
from penstock.compiler.quantize.decision import Decision, Plan
from penstock.compiler.quantize.observers import ACTIVATION_OBSERVERS, KnownRangeObserver
from penstock.compiler.quantize.pt2e import (
    Q_ANNOTATION_KEY,
    PlaceholderObserver,
    QuantizationAnnotation,
    QuantizationSpec,
    QuantizationSpecBase,
    SharedQuantizationSpec,
)
from penstock.compiler.quantize.quantization import Observer
from penstock.compiler.quantize.training import in_training
from penstock.compiler.quantize.values import is_constant
from penstock.compiler.quantize.weight_observers import (
    PerChannelWeightObserver,
    RecurrentWeightObserver,
    TensorWeightObserver,
)

#: The least scale of an activation. Small, because models may compute in small units.
ACTIVATION_EPSILON = 2.0**-30
#: The least scale of an activation that is quantized at run time.
DYNAMIC_EPSILON = 2.0**-12
#: The least scale of a weight. Smaller than an activation's: weights of a channel that a batch
#: norm scaled down are small, and no less in need of their eight bits.
WEIGHT_EPSILON = 2.0**-24

#: A value (a node's result), a value as one reader sees it, or a weight with its channel axis.
Key: TypeAlias = Hashable


@dataclass
class _Groups:
    """Disjoint sets of keys, each with at most one pair of fixed parameters."""

    parents: dict[Key, Key] = field(default_factory=dict)
    fixed: dict[Key, tuple[float, int]] = field(default_factory=dict)

    def root(self, key: Key) -> Key:
        self.parents.setdefault(key, key)
        while self.parents[key] != key:
            self.parents[key] = self.parents[self.parents[key]]
            key = self.parents[key]
        return key

    def fixed_parameters(self, key: Key) -> tuple[float, int] | None:
        return self.fixed.get(self.root(key))

    def fix(self, key: Key, parameters: tuple[float, int]) -> None:
        self.fixed[self.root(key)] = parameters

    def join(self, one: Key, other: Key) -> None:
        """Makes one set of two; their fixed parameters, if both have some, must be equal."""
        first, second = self.root(one), self.root(other)
        if first != second:
            parameters = self.fixed.pop(second, None)
            self.parents[second] = first
            if parameters is not None:
                self.fixed[first] = parameters


def annotate(
    module: GraphModule,
    plan: Plan,
    observer: Observer,
    chosen: Mapping[str, Observer] | None = None,
    *,
    is_qat: bool = False,
) -> None:
    """Writes torchao's annotation to every quantized operator of ``plan``. ``chosen`` are the
    observers of single values, by their names; ``observer`` is that of the others. ``is_qat``: the
    observers round what they see, for training."""
    groups, reader_keys = _group(plan)
    own = _chosen(plan, groups, reader_keys, chosen or {})
    heads = {decision.node: decision for decision in plan.quantized}
    results = {decision.result: decision for decision in plan.quantized}
    constants = _constant_groups(plan, groups, reader_keys)
    first: dict[Key, Node | tuple[Node, Node]] = {}

    def spec(key: Key, place: Node | tuple[Node, Node]) -> QuantizationSpecBase:
        root = groups.root(key)
        if root in first:
            return SharedQuantizationSpec(first[root])
        first[root] = place
        fixed = groups.fixed_parameters(key)
        if fixed is not None:
            return _fixed(*fixed)
        return _constant() if root in constants else _activation(own.get(root, observer))

    for node in module.graph.nodes:
        inputs: dict[Node, QuantizationSpecBase | None] = {}
        output: QuantizationSpecBase | None = None
        if node in heads:
            decision = heads[node]
            if isinstance(decision.rule, Recurrent):
                # It quantizes what its weights are multiplied with by itself.
                for weight in decision.weights:
                    place = (weight, node)
                    inputs[weight] = _once(first, ("recurrent", weight), place, _recurrent_weight())
            for value in () if inputs else decision.inputs:
                if decision.is_dynamic:
                    inputs[value] = _once(first, ("dynamic", value), (value, node), _dynamic())
                else:
                    inputs[value] = spec(reader_keys.get((value, node), value), (value, node))
            if decision.weight is not None:
                axis, block = _channel_axis(decision), decision.block
                form = _weight(axis) if block is None else _blocks(block)
                key = ("weight", decision.weight, axis, block)
                inputs[decision.weight] = _once(first, key, (decision.weight, node), form)
        if node in results and not results[node].is_dynamic:
            output = spec(node, node)
        if is_qat:
            inputs = {value: in_training(given) for value, given in inputs.items()}
            output = in_training(output)
        if inputs or output is not None:
            node.meta[Q_ANNOTATION_KEY] = QuantizationAnnotation(
                input_qspec_map=inputs,
                output_qspec=output,
                allow_implicit_sharing=False,
                _annotated=True,
            )


def _group(plan: Plan) -> tuple[_Groups, dict[tuple[Node, Node], Key]]:
    """The sets of values, and the keys of values that a reader sees requantized."""
    groups = _Groups()
    makers = {decision.result: decision for decision in plan.quantized}
    reader_keys: dict[tuple[Node, Node], Key] = {}
    for decision in plan.quantized:
        if decision.is_dynamic:
            continue
        if isinstance(decision.rule, FixedOutput):
            groups.fix(decision.result, (decision.rule.scale, decision.rule.zero_point))
        if isinstance(decision.rule, OutputRange):
            for value in decision.inputs:
                if not _made_for_one_reader(value, makers.get(value)):
                    reader_keys[value, decision.node] = ("in its range", value, decision.node)
                groups.join(reader_keys.get((value, decision.node), value), decision.result)
        if not isinstance(decision.rule, Shared):
            continue
        inputs = decision.inputs
        kinds = {groups.fixed_parameters(value) for value in inputs}
        for value in inputs:
            key: Key = value
            if len(kinds) > 1 and groups.fixed_parameters(value) is not None:
                key = reader_keys[value, decision.node] = ("requantized", value, decision.node)
            groups.join(key, decision.result)
    return groups, reader_keys


def _made_for_one_reader(value: Node, maker: Decision | None) -> bool:
    """Whether what computes ``value`` may put it out in its only reader's parameters."""
    if maker is None or maker.is_dynamic or len(value.users) != 1:
        return False
    return isinstance(maker.rule, (Weighted, Independent, OutputRange))


def _constant_groups(
    plan: Plan, groups: _Groups, reader_keys: dict[tuple[Node, Node], Key]
) -> set[Key]:
    """The sets that hold nothing but constants."""
    constant: set[Key] = set()
    varying: set[Key] = set()
    for decision in plan.quantized:
        for value in (*decision.inputs, decision.result):
            key = reader_keys.get((value, decision.node), value)
            (constant if is_constant(value) else varying).add(groups.root(key))
    return constant - varying


def _chosen(
    plan: Plan,
    groups: _Groups,
    reader_keys: dict[tuple[Node, Node], Key],
    chosen: Mapping[str, Observer],
) -> dict[Key, Observer]:
    """The observers that a caller gives single values, by the sets that these are in."""
    found: dict[Key, Observer] = {}
    for decision in plan.quantized if chosen else ():
        for value in (*decision.inputs, decision.result):
            if value.name in chosen:
                key = reader_keys.get((value, decision.node), value)
                found.setdefault(groups.root(key), chosen[value.name])
    return found


def _once(
    first: dict[Key, Node | tuple[Node, Node]],
    key: Key,
    place: tuple[Node, Node],
    spec: QuantizationSpecBase,
) -> QuantizationSpecBase:
    if key in first:
        return SharedQuantizationSpec(first[key])
    first[key] = place
    return spec


def _channel_axis(decision: Decision) -> int | None:
    """The weight's channel axis; ``None`` for one scale over all of it."""
    assert isinstance(decision.rule, Weighted)
    if decision.scheme == "static_per_tensor":
        return None
    axis = decision.rule.channel_axis
    return axis(decision.node) if callable(axis) else axis


def _activation(observer: Observer) -> QuantizationSpec:
    kind = ACTIVATION_OBSERVERS[observer]
    return _activation_spec(kind.with_args(eps=ACTIVATION_EPSILON))


def _activation_spec(observer: Any) -> QuantizationSpec:
    return QuantizationSpec(
        dtype=torch.int8,
        quant_min=-128,
        quant_max=127,
        qscheme=torch.per_tensor_affine,
        observer_or_fake_quant_ctr=observer,
    )


def _constant() -> QuantizationSpec:
    return _activation("minmax")


def _dynamic() -> QuantizationSpec:
    return QuantizationSpec(
        dtype=torch.int8,
        quant_min=-128,
        quant_max=127,
        qscheme=torch.per_tensor_affine,
        is_dynamic=True,
        observer_or_fake_quant_ctr=PlaceholderObserver.with_args(eps=DYNAMIC_EPSILON),
    )


def _weight(axis: int | None) -> QuantizationSpec:
    per_channel = axis is not None
    return _weight_spec(PerChannelWeightObserver if per_channel else TensorWeightObserver, axis)


def _recurrent_weight() -> QuantizationSpec:
    return _weight_spec(RecurrentWeightObserver, 0)


def _weight_spec(kind: Any, axis: int | None) -> QuantizationSpec:
    return QuantizationSpec(
        dtype=torch.int8,
        quant_min=-127,
        quant_max=127,
        qscheme=torch.per_tensor_symmetric if axis is None else torch.per_channel_symmetric,
        ch_axis=axis,
        observer_or_fake_quant_ctr=kind.with_args(eps=WEIGHT_EPSILON),
    )


def _blocks(block: int) -> QuantizationSpec:
    return QuantizationSpec(
        dtype=torch.int8,
        quant_min=LOWEST,
        quant_max=HIGHEST,
        qscheme=torch.per_channel_symmetric,
        ch_axis=0,
        observer_or_fake_quant_ctr=BlockObserver.with_args(block=block, eps=WEIGHT_EPSILON),
    )


def _fixed(scale: float, zero_point: int) -> QuantizationSpec:
    observer = KnownRangeObserver.with_args(known=(scale, zero_point), eps=ACTIVATION_EPSILON)
    return _activation_spec(observer)
