"""The quantizer for XNNPACK, as torchao's PT2E flow takes one.

In a flow of one's own::

    module = torch.export.export(model, example).module()
    prepared = prepare_pt2e(module, XNNPACKQuantizer("static"))
    for batch in calibration:
        prepared(*batch)
    quantized = convert_pt2e(prepared)

What is quantized how can be said by parts, with the methods that ExecuTorch's quantizer has::

    quantizer = XNNPACKQuantizer().set_global(None)  # nothing, but
    quantizer.set_module_type(torch.nn.Linear, "dynamic").set_module_name("head", "static")

For quantization-aware training, a quantizer for ``prepare_qat_pt2e``::

    prepared = prepare_qat_pt2e(module, XNNPACKQuantizer("static", is_qat=True))
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch.fx import GraphModule, Node

from penstock.compiler.delegate.operators import registry
from penstock.compiler.delegate.operators.registry import Weighted
from penstock.compiler.fx.arguments import arguments
from penstock.compiler.fx.attributes import attribute
from penstock.compiler.fx.edit import get_attribute
from penstock.compiler.quantize.annotation import annotate
from penstock.compiler.quantize.blocks import HIGHEST, LOWEST
from penstock.compiler.quantize.decision import Plan
from penstock.compiler.quantize.observers import ActivationObserver
from penstock.compiler.quantize.plan import make_plan
from penstock.compiler.quantize.pt2e import FakeQuantize, QuantizationConfig, Quantizer
from penstock.compiler.quantize.quantization import (
    DYNAMIC_SCHEMES,
    SCHEMES,
    Quantization,
    QuantizationLike,
    Scheme,
    parse_scheme,
    type_name,
)
from penstock.compiler.quantize.training import make_trainable
from penstock.compiler.quantize.unused_names import unused_names
from penstock.compiler.rewrite import pipelines
from penstock.errors import QuantizationError, shorten

#: The lowest integers that a specification may name, and the highest.
WHOLE = ((None, -127, -128), 127)
FOUR_BITS = ((LOWEST,), HIGHEST)


class XNNPACKQuantizer(Quantizer):  # type: ignore[misc]
    """Marks what XNNPACK can compute in int8, as the operator table tells.

    ``quantization`` is a :class:`Quantization` or the name of a scheme; the ``set_`` methods change
    it and give the quantizer back. They take a scheme by name, ``None`` for float, or a
    ``QuantizationConfig`` as ``get_symmetric_quantization_config`` makes it, of which the scheme
    is read. A module's name goes before a module's type, that before an operator, that before all.
    ``is_qat`` makes it one for training with ``prepare_qat_pt2e``; so does a configuration that
    was made with ``is_qat=True``. After ``prepare_pt2e`` or ``prepare_qat_pt2e`` :attr:`plan` holds
    the decision, with its reason, for every operator.

    Raises :class:`~penstock.errors.QuantizationError` for an unknown scheme or operator, and for a
    configuration that no scheme is.
    """

    def __init__(
        self, quantization: QuantizationLike = "static_per_channel", *, is_qat: bool = False
    ) -> None:
        super().__init__()
        self.quantization = Quantization.parse(quantization)
        self.is_qat = is_qat
        self.plan = Plan([])
        self._filter: Callable[[Node], bool] | None = None

    def set_global(self, config: object) -> XNNPACKQuantizer:
        """What nothing else names: ``None`` leaves it in float."""
        scheme = self._scheme_of(config)
        others = {name: s for name, s in self.quantization.operators.items() if name != "*"}
        if scheme is None:
            return self._with(operators={**others, "*": None})
        return self._with(scheme=scheme, operators=others)

    def set_operator_type(self, operator_type: object, config: object) -> XNNPACKQuantizer:
        """An operator: ``torch.ops.aten.conv2d.default``, ``torch.ops.aten.conv2d``, or its name
        in the operator table."""
        names = dict.fromkeys(_names_of(operator_type), self._scheme_of(config))
        return self._with(operators={**self.quantization.operators, **names})

    def set_module_type(self, module_type: type | str, config: object) -> XNNPACKQuantizer:
        """Modules of a class, and all below them."""
        types = {**self.quantization.module_types, type_name(module_type): self._scheme_of(config)}
        return self._with(module_types=types)

    def set_module_name(self, module_name: str, config: object) -> XNNPACKQuantizer:
        """A module by its path, and all below it."""
        paths = {**self.quantization.overrides, module_name: self._scheme_of(config)}
        return self._with(overrides=paths)

    def set_filter_function(self, filter_fn: Callable[[Node], bool]) -> XNNPACKQuantizer:
        """Operators for whose node ``filter_fn`` is false stay in float."""
        self._filter = filter_fn
        return self

    def _scheme_of(self, config: object) -> Scheme | None:
        self.is_qat |= isinstance(config, QuantizationConfig) and config.is_qat
        return scheme_of(config)

    def _with(self, **changes: Any) -> XNNPACKQuantizer:
        self.quantization = replace(self.quantization, **changes)
        return self

    def _filtered(self, model: GraphModule) -> Quantization:
        """The options, with what the filter leaves out of ``model`` among its ``float_nodes``."""
        if self._filter is None:
            return self.quantization
        nodes = [node for node in model.graph.nodes if node.op == "call_function"]
        left = tuple(node.name for node in nodes if not self._filter(node))
        return replace(self.quantization, float_nodes=(*self.quantization.float_nodes, *left))

    def transform_for_annotation(self, model: GraphModule) -> GraphModule:
        """Gives the graph the form that the compiler's own graphs have (in-place operators become
        functional ones, no-ops vanish, constants are folded; for training, only the first), then
        see :meth:`legalize`. Warns of names that fit nothing in it."""
        if self.is_qat:
            make_trainable(model)
        else:
            pipelines.run(model)
        for text in unused_names(model, self.quantization):
            warnings.warn(text, stacklevel=2)
        return self.legalize(model)

    def legalize(self, model: GraphModule) -> GraphModule:
        """Gives a graph in canonical form what quantization needs: layer scales are folded for
        static schemes, the numbers that quantized operators take become constants."""
        if self.quantization.scheme not in DYNAMIC_SCHEMES and not self.is_qat:
            pipelines.run(model, pipelines.FOR_STATIC_QUANTIZATION)
        for decision in self._planned(model).quantized:
            if not isinstance(decision.rule, Weighted) and decision.rule is not None:
                _numbers_to_constants(model, decision.node, decision.rule.inputs)
            _name_by_position(decision.node)
        return model

    def annotate(self, model: GraphModule) -> GraphModule:
        self.plan = self._planned(model)
        if self.is_qat and any(decision.block is not None for decision in self.plan.quantized):
            raise QuantizationError(
                "dynamic_4bit weights cannot be trained; give 'dynamic' or 'static' with is_qat"
            )
        options = self.quantization
        annotate(model, self.plan, options.observer, options.observers, is_qat=self.is_qat)
        return model

    def _planned(self, model: GraphModule) -> Plan:
        return make_plan(model, self._filtered(model), is_qat=self.is_qat)

    def validate(self, model: GraphModule) -> None:
        """Nothing to check: only what the operator table allows has been annotated."""

    def prepare_obs_or_fq_callback(
        self, model: GraphModule, edge_or_node_to_obs_or_fq: dict[object, object]
    ) -> None:
        """Tells the observers of a weighted operator of each other: their scales together must be
        within XNNPACK's limits."""
        for decision in self.plan.quantized:
            # (What has a norm, torchao has taken apart; its bias is the norm's.)
            if decision.is_dynamic or decision.weight is None or decision.norm is not None:
                continue
            (source,) = decision.inputs
            weight = _observer(edge_or_node_to_obs_or_fq[decision.weight, decision.node])
            activation = _observer(edge_or_node_to_obs_or_fq[source, decision.node])
            result = _observer(edge_or_node_to_obs_or_fq[decision.result])
            if decision.bias is not None:
                weight.guard.watch(attribute(model, str(decision.bias.target)), activation)
            if isinstance(result, ActivationObserver):
                result.watch(decision.node.name, activation, weight)


def scheme_of(config: object) -> Scheme | None:
    """The scheme that a ``set_`` method is given: by name, or the nearest to torchao's
    ``QuantizationConfig`` (dynamic ones have a scale for each channel at least, those of 4 bits one
    for each block); ``None`` is float."""
    if config is None:
        return None
    if not isinstance(config, QuantizationConfig):
        return parse_scheme(config)
    inputs, weight = config.input_activation, config.weight
    dynamic = inputs is not None and inputs.is_dynamic
    if _has_range(inputs, WHOLE) and _has_range(weight, WHOLE):
        if dynamic:
            return "dynamic_per_channel"
        per_channel = weight.qscheme == torch.per_channel_symmetric
        return "static_per_channel" if per_channel else "static_per_tensor"
    if dynamic and _has_range(inputs, WHOLE) and _has_range(weight, FOUR_BITS):
        return "dynamic_4bit"
    raise QuantizationError(
        f"a configuration of activations {_described(inputs)} and weights {_described(weight)}; "
        f"give int8 from -128 to 127 for both, or one of {', '.join(SCHEMES)}"
    )


def _observer(found: Any) -> Any:
    """What looks at the values: for training it is inside of what rounds them."""
    return found.activation_post_process if isinstance(found, FakeQuantize) else found


def _has_range(spec: Any, limits: tuple[tuple[int | None, ...], int]) -> bool:
    """Whether a specification is of int8 between such limits."""
    lows, high = limits
    if spec is None or spec.dtype != torch.int8:
        return False
    return spec.quant_min in lows and spec.quant_max in (None, high)


def _described(spec: Any) -> str:
    if spec is None:
        return "in float"
    kind = str(spec.dtype).removeprefix("torch.")
    return f"{kind} from {spec.quant_min} to {spec.quant_max}"


def _names_of(operator_type: object) -> list[str]:
    """What the operator table calls an operator."""
    if isinstance(operator_type, str):
        return [operator_type]
    overloads: list[object] = [operator_type]
    if isinstance(operator_type, torch._ops.OpOverloadPacket):
        overloads = [getattr(operator_type, name) for name in operator_type.overloads()]
    if not all(isinstance(overload, torch._ops.OpOverload) for overload in overloads):
        raise QuantizationError(
            f"{shorten(repr(operator_type))} is no operator; give one of torch.ops.aten "
            "(torch.ops.aten.linear.default), or its name in docs/operators.md"
        )
    entries = [entry for entry in map(registry.find, overloads) if entry is not None]
    if not entries:
        raise QuantizationError(
            f"XNNPACK has no operator for {operator_type}; docs/operators.md lists those it has"
        )
    return [entry.name for entry in entries]


def _numbers_to_constants(module: GraphModule, node: Node, positions: tuple[int, ...]) -> None:
    """Numbers among the quantized inputs of ``node`` become zero-dimensional constants, and an
    overload for numbers (``add.Scalar``) the one for tensors."""
    for position in positions:
        if position >= len(node.args):
            continue
        number = node.args[position]
        if not isinstance(number, (int, float)) or isinstance(number, bool):
            continue
        target = _tensor_overload(node, position)
        if target is None:
            continue
        value = torch.tensor(float(number), dtype=torch.float32)
        node.target = target
        node.update_arg(position, get_attribute(module, node, value, "_number"))


def _tensor_overload(node: Node, position: int) -> torch._ops.OpOverload | None:
    """The overload of the node's operator that takes a tensor at ``position``."""
    target = node.target
    assert isinstance(target, torch._ops.OpOverload)
    if isinstance(target._schema.arguments[position].type, torch.TensorType):
        return target
    overload = getattr(target.overloadpacket, "Tensor", None)
    if not isinstance(overload, torch._ops.OpOverload) or registry.find(overload) is None:
        return None
    return overload


def _name_by_position(node: Node) -> None:
    """Tensors that were passed by name move to their position, where torchao looks for them."""
    if not any(isinstance(value, Node) for value in node.kwargs.values()):
        return
    assert isinstance(node.target, torch._ops.OpOverload)
    values = arguments(node)
    positional = [a.name for a in node.target._schema.arguments if not a.kwarg_only]
    last = max(
        (index for index, name in enumerate(positional) if name in node.kwargs),
        default=len(node.args) - 1,
    )
    node.args = tuple(values[name] for name in positional[: last + 1])
    node.kwargs = {name: value for name, value in node.kwargs.items() if name not in positional}
