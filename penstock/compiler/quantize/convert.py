"""A calibrated graph -> the same graph with quantize and dequantize nodes.

Given ``x -> observer -> operator`` → Result ``x -> quantize -> dequantize -> operator``, with the
parameters that the observer found. A constant is quantized here and now; only its dequantize
remains. An activation whose parameters are chosen at run time gets a ``choose_qparams`` before.

Does what torchao's ``convert_pt2e`` does, with two differences: every new node carries its fake
value and the origin of the operator that it serves (the compiler never re-traces a graph), and
batch norms that could not be folded are left alone.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import torch
from torch.ao.quantization.fx import _decomposed  # noqa: F401  registers the operators
from torch.fx import GraphModule, Node

from penstock.compiler.fx.attributes import attribute
from penstock.compiler.fx.edit import add_attribute, copy_origin, fake, fake_mode
from penstock.compiler.quantize.pt2e import Q_ANNOTATION_KEY
from penstock.compiler.quantize.values import is_constant

quantized = torch.ops.quantized_decomposed

QUANTIZE: set[object] = {
    quantized.quantize_per_tensor.default,
    quantized.quantize_per_tensor.tensor,
    quantized.quantize_per_channel.default,
}
DEQUANTIZE: set[object] = {
    quantized.dequantize_per_tensor.default,
    quantized.dequantize_per_tensor.tensor,
    quantized.dequantize_per_channel.default,
}


@dataclass(frozen=True)
class _Parameters:
    """The overloads for one kind of parameters, and what both take after their input."""

    quantize: Any
    dequantize: Any
    arguments: tuple[Any, ...]


def convert(prepared: GraphModule) -> GraphModule:
    """The quantized graph, on the tensors of ``prepared``, which is used up."""
    for node in list(prepared.graph.nodes):
        if node.op == "call_module" and is_observer(prepared, node):
            _Conversion(prepared, node).run()
    prepared.graph.eliminate_dead_code()
    for node in prepared.graph.nodes:
        node.meta.pop(Q_ANNOTATION_KEY, None)
    prepared.graph.lint()
    result = GraphModule(prepared, prepared.graph)  # leaves out what nothing refers to any more
    result.meta.update(prepared.meta)
    result.meta.pop("_observed_graph_module_attrs", None)
    return result


def is_observer(module: GraphModule, node: Node) -> bool:
    """Whether a ``call_module`` node is an observer."""
    return hasattr(module.get_submodule(str(node.target)), "calculate_qparams")


class _Conversion:
    """One observer node becomes quantize and dequantize nodes."""

    def __init__(self, module: GraphModule, node: Node) -> None:
        self.module = module
        self.graph = module.graph
        self.node = node
        self.observer: Any = module.get_submodule(str(node.target))
        source = node.args[0]
        assert isinstance(source, Node)
        self.source = source

    def run(self) -> None:
        if hasattr(self.observer, "convert"):
            self.observer.convert(self.module, self.node)
            return
        with self.graph.inserting_before(self.node):
            if self.observer.is_dynamic:
                self._dynamic()
            elif is_constant(self.source):
                self._constant()
            else:
                self._static()
        self.graph.erase_node(self.node)

    def _static(self) -> None:
        parameters = self._parameters()
        value = self.source.meta["val"]
        small = self._call(
            parameters.quantize,
            (self.source, *parameters.arguments),
            _like(value, self.observer.dtype),
            self._origin(),
        )
        self._dequantize(parameters, small, value)

    def _constant(self) -> None:
        parameters = self._parameters()
        value = attribute(self.module, str(self.source.target)).detach()
        known = (
            attribute(self.module, str(argument.target)) if isinstance(argument, Node) else argument
            for argument in parameters.arguments
        )
        small = parameters.quantize(value, *known)
        node = self._attribute(small, f"{self.source.name}_int8")
        self._dequantize(parameters, node, self.source.meta["val"])

    def _dynamic(self) -> None:
        """The parameters are chosen from the value itself. All readers share one dequantize."""
        observer, source = self.observer, self.source
        limits = (observer.quant_min, observer.quant_max)
        reader = next(iter(self.node.users))
        with fake_mode(self.module):
            scale = torch.empty(1, dtype=torch.float64)
            zero_point = torch.empty(1, dtype=torch.int64)
        chosen = self._call(
            quantized.choose_qparams.tensor,
            (source, *limits, observer.eps, observer.dtype),
            (scale, zero_point),
            reader,
        )
        arguments = (
            self._call(operator.getitem, (chosen, 0), scale, reader),
            self._call(operator.getitem, (chosen, 1), zero_point, reader),
            *limits,
            observer.dtype,
        )
        value = source.meta["val"]
        small = self._call(
            quantized.quantize_per_tensor.tensor,
            (source, *arguments),
            _like(value, observer.dtype),
            reader,
        )
        large = self._call(
            quantized.dequantize_per_tensor.tensor,
            (small, *arguments),
            _like(value, torch.float32),
            reader,
        )
        self.node.replace_all_uses_with(large)

    def _dequantize(self, parameters: _Parameters, small: Node, value: torch.Tensor) -> None:
        """Each quantized reader gets a dequantize of its own, to be taken together with it;
        readers in float share one."""
        shared: Node | None = None
        for reader in list(self.node.users):
            origin = self._origin() if reader.op == "output" else reader
            large = None if Q_ANNOTATION_KEY in reader.meta else shared
            if large is None:
                large = self._call(
                    parameters.dequantize,
                    (small, *parameters.arguments),
                    _like(value, torch.float32),
                    origin,
                )
            if Q_ANNOTATION_KEY not in reader.meta:
                shared = large
            reader.replace_input_with(self.node, large)

    def _parameters(self) -> _Parameters:
        observer = self.observer
        scale, zero_point = observer.calculate_qparams()
        limits = (observer.quant_min, observer.quant_max, observer.dtype)
        if observer.qscheme in (torch.per_channel_symmetric, torch.per_channel_affine):
            prefix = self.source.name
            return _Parameters(
                quantized.quantize_per_channel.default,
                quantized.dequantize_per_channel.default,
                (
                    self._attribute(scale, f"{prefix}_scale"),
                    self._attribute(zero_point, f"{prefix}_zero_point"),
                    observer.ch_axis,
                    *limits,
                ),
            )
        return _Parameters(
            quantized.quantize_per_tensor.default,
            quantized.dequantize_per_tensor.default,
            (float(scale), int(zero_point), *limits),
        )

    def _origin(self) -> Node:
        """What made the value; of an input of the model, its first reader."""
        return self.source if self.source.op == "call_function" else next(iter(self.node.users))

    def _call(self, target: Any, arguments: tuple[Any, ...], value: Any, origin: Node) -> Node:
        node = self.graph.call_function(target, arguments)
        node.meta["val"] = value
        copy_origin(origin, node)
        return node

    def _attribute(self, value: torch.Tensor, prefix: str) -> Node:
        node = self.graph.create_node("get_attr", add_attribute(self.module, value, prefix))
        node.meta["val"] = fake(self.module, value)
        for reader in self.node.users:
            copy_origin(reader, node)
        return node


def _like(value: Any, dtype: torch.dtype) -> torch.Tensor:
    """A fake tensor like ``value``, which may be that one itself."""
    if value.dtype == dtype:
        return value  # type: ignore[no-any-return]
    with value.fake_mode:
        return torch.empty_like(value, dtype=dtype, requires_grad=False)
