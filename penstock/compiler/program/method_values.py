"""The values of a method under construction: tensors, constants, arguments, and their lives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import sympy
import torch
from torch.fx import GraphModule, Node

from penstock.compiler.fx import layout
from penstock.compiler.fx.attributes import attribute
from penstock.compiler.fx.layout import Dynamic
from penstock.compiler.fx.origins import describe_origin
from penstock.compiler.program import memory_plan
from penstock.compiler.program.tensor_bytes import tensor_bytes
from penstock.errors import UnsupportedError
from penstock.formats import program as pte

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

#: Enumerations of ATen that kernels take as integers. A program's tensors lie in contiguous dim
#: order whatever order the model asks for, which changes no answer.
MEMORY_FORMATS = {
    torch.contiguous_format: 0,
    torch.preserve_format: 1,
    torch.channels_last: 0,
    torch.channels_last_3d: 0,
}
LAYOUTS = {torch.strided: 0}


class MethodValues:
    """Makes values; knows the first and the last instruction at which a planned tensor lives."""

    def __init__(self, module: GraphModule, dynamic: Dynamic) -> None:
        #: the model's own graph, and the one within it that is being emitted
        self.model = self.module = module
        self.dynamic = dynamic
        self.values: list[pte.Value] = []
        self.instructions: list[pte.Instruction] = []
        self.index: dict[Node, Any] = {}
        self.lives: dict[int, list[int]] = {}
        self.constants: dict[tuple[object, ...], int] = {}
        #: the names of the buffers that the program changes
        self.mutated: set[str] = set()

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

    def tensor(self, value: torch.Tensor, node: Node) -> int:
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
        if len(shape) > pte.MAX_RANK:
            raise UnsupportedError(
                f"{_called(node)} has {len(shape)} dimensions, and tensors in .pte files at most "
                f"{pte.MAX_RANK}; merge some by a reshape{_origin(node)}"
            )
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

    def input(self, node: Node) -> int:
        value = node.meta.get("val")
        if isinstance(value, torch.Tensor):
            index = self.tensor(value, node)
            self.lives[index][0] = 0
            return index
        if isinstance(value, torch.SymInt):
            return self.add(self.dynamic.upper(layout.dim_of(value)))
        if isinstance(value, (int, float, bool, str)) or value is None:
            return self.add(value)
        raise UnsupportedError(
            f"input {node.name} is a {type(value).__name__}, which programs do not take; give a "
            "tensor, a number, a string or None"
        )

    def constant(self, target: str) -> int:
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
                f"the model's {target} has type {tensor.dtype}, which .pte files cannot hold; "
                "convert it, e.g. to float32"
            )
        if tensor.dim() > pte.MAX_RANK:
            raise UnsupportedError(
                f"the model's {target} has {tensor.dim()} dimensions, and tensors in .pte files at "
                f"most {pte.MAX_RANK}; give it another shape"
            )
        shape, dtype = tuple(tensor.shape), SCALAR_TYPES[tensor.dtype]
        if tensor.numel() == 0:  # nothing to keep: planned like an intermediate one
            index = self.add(pte.Tensor(dtype, shape))
            self.lives[index] = [0, 0]
            return index
        if mutable:
            tensor = tensor.clone()  # what the model does to it later is none of the program's
        data = tensor_bytes(tensor)
        index = self.add(pte.Tensor(dtype, shape, data=data, name=target if mutable else None))
        if mutable:
            self.lives[index] = [0, 1 << 62]
        return index

    def plan(self) -> list[int]:
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

    def scalar_hint(self, value: Any) -> pte.Value:
        if isinstance(value, (torch.SymBool, bool)):
            return False
        if isinstance(value, (torch.SymFloat, float)):
            return 0.0
        return 0

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
        of = f" {argument.name}" if argument is not None else ""
        raise UnsupportedError(
            f"the argument{of} is {value!r}, a {type(value).__name__}, which .pte files cannot hold"
        )

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
    return "" if node.op == "placeholder" else describe_origin(node)
