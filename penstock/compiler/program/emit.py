"""The whole lowered graph -> a method of an ExecuTorch program."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

import sympy
import torch
from torch.fx import GraphModule, Node
from torch.utils import _pytree as pytree

from penstock.compiler.capture.export import Captured
from penstock.compiler.delegate.calls import DelegateModule, executorch_call_delegate
from penstock.compiler.fx import layout, origins, out_variants
from penstock.compiler.fx.attributes import attribute
from penstock.compiler.fx.control_flow import is_control_flow
from penstock.compiler.fx.layout import Dynamic
from penstock.compiler.fx.marks import BUFFER, STORE
from penstock.compiler.fx.origins import origin
from penstock.compiler.fx.size_arithmetic import PRIMITIVES
from penstock.compiler.program import memory_plan
from penstock.compiler.program.containers import structure_of
from penstock.compiler.program.emit_control import copy, emit_control_flow
from penstock.errors import UnsupportedError
from penstock.formats import program as pte
from penstock.formats.payload_writer import write_payload
from penstock.formats.sources import MethodSources, Origin
from penstock.formats.structure import encode

SCALAR_TYPES: dict[torch.dtype, pte.ScalarType] = {
    torch.uint8: pte.ScalarType.BYTE,
    torch.int8: pte.ScalarType.CHAR,
    torch.int16: pte.ScalarType.SHORT,
    torch.int32: pte.ScalarType.INT,
    torch.int64: pte.ScalarType.LONG,
    torch.float16: pte.ScalarType.HALF,
    torch.float32: pte.ScalarType.FLOAT,
    torch.float64: pte.ScalarType.DOUBLE,
    torch.complex64: pte.ScalarType.COMPLEXFLOAT,
    torch.complex128: pte.ScalarType.COMPLEXDOUBLE,
    torch.bool: pte.ScalarType.BOOL,
    torch.bfloat16: pte.ScalarType.BFLOAT16,
    torch.uint16: pte.ScalarType.UINT16,
    torch.uint32: pte.ScalarType.UINT32,
    torch.uint64: pte.ScalarType.UINT64,
}

#: Enumerations of ATen that kernels take as integers.
MEMORY_FORMATS = {torch.contiguous_format: 0, torch.preserve_format: 1, torch.channels_last: 2}
LAYOUTS = {torch.strided: 0}

XNNPACK_BACKEND = "XnnpackBackend"


def emit(
    module: GraphModule,
    captured: Captured,
    dynamic: Dynamic,
    name: str,
    named_data: dict[str, pte.Buffer],
) -> tuple[pte.Method, MethodSources]:
    """The method ``name`` out of a lowered graph whose operators all have kernels, and where its
    parts come from. The delegates' constants go into ``named_data``.

    Raises :class:`UnsupportedError` where an operator has no out variant, or a dynamic dimension
    no bound.
    """
    emitter = _Emitter(module, dynamic, named_data)
    method = emitter.run(captured, name)
    return method, MethodSources(tuple(emitter.origins), tuple(emitter.delegate_origins))


class _Emitter:
    def __init__(
        self, module: GraphModule, dynamic: Dynamic, named_data: dict[str, pte.Buffer]
    ) -> None:
        #: the model's own graph, and the one within it that is being emitted
        self.model = self.module = module
        self.named_data = named_data
        self.dynamic = dynamic
        self.values: list[pte.Value] = []
        self.instructions: list[pte.Instruction] = []
        self.operators: dict[pte.Operator, int] = {}
        self.delegates: list[pte.Delegate] = []
        #: where the instructions, and the delegates' nodes, come from
        self.origins: list[Origin] = []
        self.delegate_origins: list[tuple[Origin, ...]] = []
        self.index: dict[Node, Any] = {}
        self.lives: dict[int, list[int]] = {}
        self.constants: dict[tuple[object, ...], int] = {}
        self.mutated: set[str] = set()
        #: (node, position of its result) -> the value to make it in
        self.claims: dict[Any, int] = {}

    def run(self, captured: Captured, name: str) -> pte.Method:
        nodes = list(self.module.graph.nodes)
        self.mutated = {
            str(node.args[0].target)
            for node in nodes
            if node.target is STORE and node.args[0].op == "get_attr"
        }
        inputs: list[int] = []
        outputs: list[int] = []
        written = {node.args[0] for node in nodes if node.target is STORE}
        for node in nodes:
            if node.op == "placeholder" and BUFFER in node.meta:
                self.index[node] = self._constant(node.meta[BUFFER])
            elif node.op == "placeholder":
                self.index[node] = self._input(node)
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
        sizes = self._plan()
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
                self.index[node] = self._constant(str(node.target))
        elif node.op == "call_function":
            self._call(node)
            new = len(self.instructions) - len(self.origins)
            self.origins += [origin(node)] * new

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
            return self._tensor(value, node)
        return self.add(self._scalar_hint(value))

    # --- values ------------------------------------------------------------------------------

    def add(self, value: pte.Value) -> int:
        self.values.append(value)
        return len(self.values) - 1

    def touch(self, value: int, instruction: int) -> None:
        life = self.lives.get(value)
        if life is not None:
            life[0] = min(life[0], instruction)
            life[1] = max(life[1], instruction)
        item = self.values[value]
        if isinstance(item, (pte.TensorList, pte.OptionalTensorList)):
            for member in item.items:
                if member >= 0:
                    self.touch(member, instruction)

    def _tensor(self, value: torch.Tensor, node: Node) -> int:
        """A planned tensor with the shape, type and memory order of a fake one."""
        try:
            shape = tuple(map(self._upper, value.shape))
        except ValueError as error:
            advice = "give one with torch.export.Dim(..., max=...)"
            if any(isinstance(s, torch.SymInt) and not s.node.has_hint() for s in value.shape):
                advice = (
                    "it depends on data: torch._check(x.shape[dim] <= ...) in the model bounds it"
                )
            raise UnsupportedError(f"{_called(node)}: {error}; {advice}{_origin(node)}") from None
        static = layout.is_static(layout.shape_of(value))
        if value.dtype not in SCALAR_TYPES:
            raise UnsupportedError(
                f"{_called(node)} has type {value.dtype}, which .pte files cannot hold; "
                f"compute with real numbers instead{_origin(node)}"
            )
        dynamism = pte.Dynamism.STATIC if static else pte.Dynamism.DYNAMIC_BOUND
        index = self.add(pte.Tensor(SCALAR_TYPES[value.dtype], shape, dynamism=dynamism))
        now = len(self.instructions)
        self.lives[index] = [now, now]
        return index

    def _upper(self, size: int | torch.SymInt) -> int:
        """The largest a size can be. Of one that depends on the data, PyTorch knows what it may
        be at most (the elements that are not zero are no more than there are elements)."""
        try:
            return self.dynamic.upper(layout.dim_of(size))
        except ValueError:
            assert isinstance(size, torch.SymInt)
            upper = size.node.shape_env.bound_sympy(size.node.expr).upper
            if not isinstance(upper, sympy.Integer) or upper >= 2**31:
                raise
            return int(upper)

    def _input(self, node: Node) -> int:
        value = node.meta.get("val")
        if isinstance(value, torch.Tensor):
            index = self._tensor(value, node)
            self.lives[index][0] = 0
            return index
        if isinstance(value, torch.SymInt):
            return self.add(self.dynamic.upper(layout.dim_of(value)))
        if isinstance(value, (int, float, bool, str)) or value is None:
            return self.add(value)
        raise UnsupportedError(f"input {node.name} is a {type(value).__name__}")

    def _constant(self, target: str) -> int:
        """A parameter, buffer or other constant; the same memory is one value."""
        tensor = attribute(self.module, target).detach()
        mutable = self.module is self.model and target in self.mutated
        key: tuple[object, ...] = (
            tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype,
        )  # fmt: skip
        if mutable or tensor.numel() == 0:
            key = (id(self.module), target)
        if key not in self.constants:
            self.constants[key] = self._new_constant(tensor, target, mutable)
        return self.constants[key]

    def _new_constant(self, tensor: torch.Tensor, target: str, mutable: bool) -> int:
        if tensor.dtype not in SCALAR_TYPES:
            raise UnsupportedError(
                f"{target} has type {tensor.dtype}, which .pte files cannot hold"
            )
        shape, dtype = tuple(tensor.shape), SCALAR_TYPES[tensor.dtype]
        if tensor.numel() == 0:  # nothing to keep: planned like an intermediate one
            index = self.add(pte.Tensor(dtype, shape))
            self.lives[index] = [0, 0]
            return index
        if mutable:
            tensor = tensor.clone()  # what the model does to it later is none of the program's
        data = tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data
        index = self.add(pte.Tensor(dtype, shape, data=data, name=target if mutable else None))
        if mutable:
            self.lives[index] = [0, 1 << 62]
        return index

    def _plan(self) -> list[int]:
        end = len(self.instructions)
        blocks: list[memory_plan.Block] = []
        owners: list[pte.Tensor] = []
        for index, (first, last) in self.lives.items():
            tensor = self.values[index]
            assert isinstance(tensor, pte.Tensor)
            blocks.append(memory_plan.Block(tensor.nbytes, first, min(last, end)))
            owners.append(tensor)
        offsets, total = memory_plan.plan(blocks)
        for tensor, offset in zip(owners, offsets, strict=True):
            tensor.allocation = pte.Allocation(1, offset)
        return [0, total]

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
            raise UnsupportedError(f"no kernel for {node.target} (node {node.name})")

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
            pte.Delegate(XNNPACK_BACKEND, write_payload(delegate.graph, self.named_data))
        )
        self.delegate_origins.append(delegate.origins)
        self.index[node] = results

    def _primitive(self, node: Node, name: str, overload: str) -> None:
        arguments = [self.argument(item) for item in node.args]
        value = node.meta.get("val")
        result = self.add(self._scalar_hint(value))
        self.call(pte.Operator(name, overload), [*arguments, result])
        self.index[node] = result

    def _scalar_hint(self, value: Any) -> pte.Value:
        if isinstance(value, (torch.SymBool, bool)):
            return False
        if isinstance(value, (torch.SymFloat, float)):
            return 0.0
        return 0

    def _kernel(self, node: Node) -> None:
        kernel = out_variants.find(node.target)
        if kernel is None:
            raise UnsupportedError(f"no kernel for {node.target} (node {node.name})")
        assert isinstance(node.target, torch._ops.OpOverload)
        names = [argument.name for argument in node.target._schema.arguments]
        given = dict(zip(names, node.args, strict=False)) | dict(node.kwargs)
        arguments = []
        for parameter in kernel.parameters:
            value = given.get(parameter.name, parameter.default_value)
            arguments.append(self.argument(value, parameter))
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
            else self.add(self._scalar_hint(node.meta.get("val")))
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

    def argument(self, value: Any, argument: torch._C.Argument | None = None) -> int:
        """The index of an argument's value, made if it is not there."""
        kind = str(argument.type) if argument is not None else ""
        if isinstance(value, Node):
            made = self.index[value]
            return self.add(pte.TensorList(tuple(made))) if isinstance(made, list) else int(made)
        if isinstance(value, (list, tuple)):
            return self.add(self._list(value, kind))
        if isinstance(value, torch.dtype):
            return self.add(int(SCALAR_TYPES[value]))
        if isinstance(value, torch.memory_format):
            return self.add(MEMORY_FORMATS[value])
        if isinstance(value, torch.layout):
            return self.add(LAYOUTS[value])
        if isinstance(value, torch.device):
            return self.add(None)
        if isinstance(value, bool) or value is None or isinstance(value, str):
            return self.add(value)
        if isinstance(value, int) and kind == "float":
            return self.add(float(value))
        if isinstance(value, (int, float)):
            return self.add(value)
        raise UnsupportedError(f"an argument of type {type(value).__name__} cannot be written")

    def _list(self, items: Sequence[Any], kind: str) -> pte.Value:
        if "Optional[Tensor]" in kind:
            return pte.OptionalTensorList(
                tuple(-1 if item is None else self.argument(item) for item in items)
            )
        if "Tensor" in kind or any(
            isinstance(item, Node) and isinstance(item.meta.get("val"), torch.Tensor)
            for item in items
        ):
            return pte.TensorList(tuple(self.argument(item) for item in items))
        if "bool" in kind:
            return pte.BoolList(tuple(bool(item) for item in items))
        if "float" in kind:
            return pte.DoubleList(tuple(float(item) for item in items))
        return pte.IntList(tuple(self.argument(item) for item in items))


def _called(node: Node) -> str:
    return f"input {node.name}" if node.op == "placeholder" else str(node.target)


def _origin(node: Node) -> str:
    return "" if node.op == "placeholder" else origins.describe_origin(node)
