"""The whole lowered graph -> a method of an ExecuTorch program."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch.fx import GraphModule, Node
from torch.utils import _pytree as pytree

from penstock.compiler.capture.export import Captured
from penstock.compiler.delegate.calls import DelegateModule, executorch_call_delegate
from penstock.compiler.fx import out_variants
from penstock.compiler.fx.control_flow import is_control_flow
from penstock.compiler.fx.layout import Dynamic
from penstock.compiler.fx.marks import BUFFER, STORES
from penstock.compiler.fx.origins import describe_origin, origin
from penstock.compiler.fx.size_arithmetic import PRIMITIVES
from penstock.compiler.program.containers import structure_of
from penstock.compiler.program.emit_control import copy, emit_control_flow
from penstock.compiler.program.made import Made
from penstock.compiler.program.method_values import MethodValues
from penstock.errors import UnsupportedError
from penstock.formats import program as pte
from penstock.formats.payload_writer import write_payload
from penstock.formats.sources import UNKNOWN, MethodSources
from penstock.formats.structure import encode


def emit(
    module: GraphModule,
    captured: Captured,
    dynamic: Dynamic,
    name: str,
    named_data: dict[str, pte.Buffer],
) -> tuple[pte.Method, tuple[Made, ...]]:
    """The method ``name`` out of a lowered graph whose operators all have kernels, and what each of
    its instructions was made of. The delegates' constants go into ``named_data``.

    Raises :class:`UnsupportedError` where an operator has no out variant, or a dynamic dimension
    no bound.
    """
    emitter = _Emitter(module, dynamic, named_data)
    method = emitter.run(captured, name)
    return method, tuple(emitter.made)


def sources_of(made: Sequence[Made]) -> MethodSources:
    """The source map of a method whose instructions were made of that."""
    return MethodSources(
        tuple(UNKNOWN if one.graph is not None else origin(*one.nodes) for one in made),
        tuple(tuple(map(origin, one.nodes)) for one in made if one.graph is not None),
    )


class _Emitter(MethodValues):
    def __init__(
        self, module: GraphModule, dynamic: Dynamic, named_data: dict[str, pte.Buffer]
    ) -> None:
        super().__init__(module, dynamic)
        self.named_data = named_data
        self.operators: dict[pte.Operator, int] = {}
        self.delegates: list[pte.Delegate] = []
        #: what each instruction was made of
        self.made: list[Made] = []
        #: (node, position of its result) -> the value to make it in
        self.claims: dict[Any, int] = {}

    def run(self, captured: Captured, name: str) -> pte.Method:
        nodes = list(self.module.graph.nodes)
        self.mutated = {
            str(node.args[0].target)
            for node in nodes
            if node.target in STORES and node.args[0].op == "get_attr"
        }
        inputs: list[int] = []
        outputs: list[int] = []
        written = {node.args[0] for node in nodes if node.target in STORES}
        for node in nodes:
            if node.op == "placeholder" and BUFFER in node.meta:
                self.index[node] = self.constant(node.meta[BUFFER])
            elif node.op == "placeholder":
                self.index[node] = self.input(node)
                inputs.append(self.index[node])
            elif node.op == "output":
                outputs = [self.argument(leaf) for leaf in pytree.tree_leaves(node.args[0])]
            else:
                self._node(node)
        # Inputs that the program writes to come out first, as those of the stock flow's files do.
        back = [node for node in nodes if node.op == "placeholder" and BUFFER not in node.meta]
        outputs = [*(self.index[node] for node in back if node in written), *outputs]
        for value in outputs:
            self.touch(value, len(self.instructions))
        sizes = self.plan()
        return pte.Method(
            name=name,
            values=self.values,
            inputs=inputs,
            outputs=outputs,
            instructions=self.instructions,
            operators=list(self.operators),
            delegates=self.delegates,
            memory_sizes=sizes,
            input_structure=encode(structure_of(captured.input_structure)),
            output_structure=encode(structure_of(captured.output_structure)),
        )

    def _node(self, node: Node) -> None:
        if node.op == "get_attr":
            target = getattr(self.module, str(node.target).split(".")[0], None)
            if not isinstance(target, (DelegateModule, GraphModule)):
                self.index[node] = self.constant(str(node.target))
        elif node.op == "call_function":
            self._call(node)
            new = len(self.instructions) - len(self.made)
            self.made += [Made((node,))] * new

    def graph(
        self, module: GraphModule, inputs: Sequence[int], results: Sequence[int] | None
    ) -> list[int]:
        """Emits the graph of a control flow operator, here, on the values ``inputs``. Its results
        go into the values ``results``, or wherever they come to lie: the values are returned."""
        outer, self.module = self.module, module
        given = iter(inputs)
        found: list[int] = []
        if results is not None:
            self._claim(module, results)
        for node in module.graph.nodes:
            if node.op == "placeholder":
                self.index[node] = next(given)
            elif node.op == "output":
                found = [self.argument(leaf) for leaf in pytree.tree_leaves(node.args[0])]
            else:
                self._node(node)
        self.module = outer
        for value, result in zip(found, results or (), strict=False):
            if value != result:
                copy(self, value, result)
        return found if results is None else list(results)

    def _claim(self, module: GraphModule, results: Sequence[int]) -> None:
        """What makes a result of ``module`` is to make it in the value that is given for it."""
        (output,) = (node for node in module.graph.nodes if node.op == "output")
        for leaf, result in zip(pytree.tree_leaves(output.args[0]), results, strict=True):
            if not isinstance(leaf, Node) or not isinstance(self.values[result], pte.Tensor):
                continue
            key = leaf.args[:2] if leaf.target is operator.getitem else (leaf, 0)
            self.claims.setdefault(key, result)

    def result(self, node: Node, value: Any, position: int = 0) -> int:
        """The value for a result of ``node``: a new one, unless it was given one."""
        claimed = self.claims.pop((node, position), None)
        if claimed is not None:
            return claimed
        if isinstance(value, torch.Tensor):
            return self.tensor(value, node)
        return self.add(self.scalar_hint(value))

    # --- calls -------------------------------------------------------------------------------

    def _call(self, node: Node) -> None:
        if node.target is executorch_call_delegate:
            self._delegate_call(node)
        elif is_control_flow(node):
            self.index[node] = emit_control_flow(self, node)
        elif node.target is operator.getitem:
            source, position = node.args
            made = self.index[source]  # type: ignore[index]
            if isinstance(made, list):
                self.index[node] = made[position]  # type: ignore[index]
            else:
                listed = self.values[made]
                assert isinstance(listed, pte.TensorList)
                self.index[node] = listed.items[position]  # type: ignore[index]
        elif node.target in PRIMITIVES:
            self._primitive(node, f"executorch_prim::{PRIMITIVES[node.target]}", "Scalar")
        elif isinstance(node.target, torch._ops.OpOverload):
            self._kernel(node)
        else:
            raise UnsupportedError(_no_kernel(node))

    def _delegate_call(self, node: Node) -> None:
        holder = node.args[0]
        assert isinstance(holder, Node)
        delegate = getattr(self.module, str(holder.target))
        assert isinstance(delegate, DelegateModule)
        arguments = [self.index[item] for item in node.args[1:]]  # type: ignore[index]
        results = [self.result(node, *pair[::-1]) for pair in enumerate(node.meta["val"])]
        now = len(self.instructions)
        for value in (*arguments, *results):
            self.touch(value, now)
        self.instructions.append(pte.DelegateCall(len(self.delegates), (*arguments, *results)))
        self.delegates.append(
            pte.Delegate(pte.XNNPACK_BACKEND, write_payload(delegate.graph, self.named_data))
        )
        self.made.append(Made(delegate.group, delegate.graph))
        self.index[node] = results

    def _primitive(self, node: Node, name: str, overload: str) -> None:
        arguments = [self.argument(item) for item in node.args]
        value = node.meta.get("val")
        result = self.add(self.scalar_hint(value))
        self.call(pte.Operator(name, overload), [*arguments, result])
        self.index[node] = result

    def _kernel(self, node: Node) -> None:
        kernel = out_variants.find(node.target)
        if kernel is None:
            raise UnsupportedError(_no_kernel(node))
        assert isinstance(node.target, torch._ops.OpOverload)
        names = [argument.name for argument in node.target._schema.arguments]
        given = dict(zip(names, node.args, strict=False)) | dict(node.kwargs)
        arguments = []
        for parameter in kernel.parameters:
            value = given.get(parameter.name, parameter.default_value)
            try:
                arguments.append(self.argument(value, parameter))
            except UnsupportedError as error:
                raise UnsupportedError(f"{node.target}: {error}{describe_origin(node)}") from None
        name = pte.Operator(kernel.name, kernel.overload)
        if kernel.outs == 0:
            self.index[node] = self._without_out(node, name, arguments)
            return
        results = self._results(node, kernel.outs)
        returned = results[0] if len(results) == 1 else self.add(pte.TensorList(tuple(results)))
        self.call(name, [*arguments, *results, returned])
        self.index[node] = results[0] if len(results) == 1 else results

    def _without_out(self, node: Node, name: pte.Operator, arguments: list[int]) -> int:
        """A kernel that gives a number, or its first argument, changed."""
        assert isinstance(node.target, torch._ops.OpOverload)
        result = (
            arguments[0]
            if node.target._schema.is_mutable
            else self.add(self.scalar_hint(node.meta.get("val")))
        )
        self.call(name, [*arguments, result])
        return result

    def _results(self, node: Node, count: int) -> list[int]:
        value = node.meta["val"]
        if isinstance(value, torch.Tensor):
            return [self.result(node, value)]
        items = [self.result(node, item, position) for position, item in enumerate(value)]
        if count == 1:
            # One output argument that is a list of tensors (split and the like).
            return [self.add(pte.TensorList(tuple(items)))]
        return items

    def call(self, kernel: pte.Operator, arguments: Sequence[int]) -> None:
        number = self.operators.setdefault(kernel, len(self.operators))
        now = len(self.instructions)
        for value in arguments:
            self.touch(value, now)
        self.instructions.append(pte.KernelCall(number, tuple(arguments)))


def _no_kernel(node: Node) -> str:
    return (
        f"{node.target} has neither a kernel nor a decomposition; compute it from other operators, "
        f"or register a kernel (see CONTRIBUTING.md){describe_origin(node)}"
    )
