"""The values of a graph that is being built, and the tensors that FX nodes have among them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.fx import GraphModule, Node

from penstock.compiler.delegate.lowering.tensor import (
    EXTERNAL_TYPES,
    FLOAT_TYPES,
    ConstantQuantization,
    LoweringError,
    Tensor,
)
from penstock.compiler.fx import layout
from penstock.compiler.fx.attributes import attribute
from penstock.compiler.fx.layout import Dynamic, Order, Shape
from penstock.graph.dtypes import DataType, Quantization
from penstock.graph.graph import MAX_TENSOR_DIMS, Value, XnnGraph


class GraphValues:
    """What :class:`~penstock.compiler.delegate.lowering.builder.GraphBuilder` builds on. ``module``
    owns the constants (get_attr)."""

    def __init__(self, module: GraphModule, dynamic: Dynamic) -> None:
        self.graph = XnnGraph()
        self.dynamic = dynamic
        self._module = module
        self._tensors: dict[Node, Tensor | tuple[Tensor, ...]] = {}

    # --- graph nodes and their tensors -------------------------------------------------------

    def bind(self, node: Node, result: Tensor | tuple[Tensor, ...]) -> None:
        """Makes ``result`` what :meth:`tensor` gives for ``node``."""
        self._tensors[node] = result

    def bound(self, node: Node) -> Tensor | tuple[Tensor, ...] | None:
        return self._tensors.get(node)

    def tensor(self, argument: Any) -> Tensor:
        """The tensor of an FX argument: a node, a parameter or buffer, or a Python scalar."""
        if isinstance(argument, Node):
            if argument in self._tensors:
                result = self._tensors[argument]
                if isinstance(result, tuple):
                    raise LoweringError(f"{argument.name} has several results")
                return result
            if argument.op == "get_attr":
                return self.constant(attribute(self._module, str(argument.target)))
            raise LoweringError(f"{argument.name} is not part of the delegate")
        if isinstance(argument, (int, float, bool)):
            return self.constant(torch.tensor(float(argument)))
        raise LoweringError(f"{argument!r} is not a tensor")

    def placed_tensors(self) -> Iterator[Tensor]:
        """The tensors of graph nodes that have a value, the last one first."""
        for found in reversed(self._tensors.values()):
            if isinstance(found, Tensor) and found.value is not None:
                yield found

    # --- constants ---------------------------------------------------------------------------

    def constant(
        self, data: torch.Tensor, quantization: ConstantQuantization | None = None
    ) -> Tensor:
        """A constant tensor. Floats of other widths than 16 and 32 bits, integers and bools
        become float32, unless ``quantization`` says what the integers stand for."""
        data = data.detach()
        if quantization is None and data.dtype not in FLOAT_TYPES:
            data = data.to(torch.float32)
        shape = tuple(data.shape)
        return Tensor(shape, layout.identity(len(shape)), shape, None, data, quantization)

    def integer_constant(self, node: Node) -> Tensor:
        """The constant of a get_attr node, its integers kept as they are."""
        data = attribute(self._module, str(node.target)).detach()
        shape = tuple(data.shape)
        return Tensor(shape, layout.identity(len(shape)), shape, None, data)

    def full(self, shape: Sequence[int], fill: float) -> Tensor:
        return self.constant(torch.full(tuple(shape), fill, dtype=torch.float32))

    @staticmethod
    def full_constant(tensor: Tensor) -> torch.Tensor:
        """A constant's real values in its full shape (a view where it is expanded), but for dynamic
        dimensions, along which all are alike: their size is 1."""
        real = tensor.real()
        if not tensor.is_expanded:
            return real
        return real.expand([size if isinstance(size, int) else 1 for size in tensor.shape])

    def raw_constant(
        self,
        physical: torch.Tensor,
        dtype: DataType,
        quantization: Quantization | None = None,
        shape: tuple[int, ...] | None = None,
    ) -> Value:
        """A payload value with the elements of ``physical``, already in memory order. ``shape``
        where elements are packed, so that it is not that of ``physical``."""
        data = physical.detach().contiguous()
        if data.dtype == torch.bfloat16:
            data = data.view(torch.uint16)
        return self.define(shape or tuple(data.shape), dtype, quantization, data.numpy())

    # --- values ------------------------------------------------------------------------------

    def define(
        self,
        shape: Shape,
        dtype: DataType,
        quantization: Quantization | None = None,
        data: Any = None,
    ) -> Value:
        """A new payload value of a physical ``shape``."""
        if len(shape) > MAX_TENSOR_DIMS:
            raise LoweringError(
                f"it needs a tensor of {len(shape)} dimensions, "
                f"XNNPACK has at most {MAX_TENSOR_DIMS}"
            )
        try:
            sizes = tuple(self.dynamic.upper(dim) for dim in shape)
        except ValueError as error:
            raise LoweringError(str(error)) from None
        if 0 in sizes:
            raise LoweringError("XNNPACK has no tensors without elements")
        if not layout.is_static(shape[1:]):
            self.graph.fixed_sizes = False
        value = Value(len(self.graph.values), dtype, sizes, quantization, data)
        self.graph.values.append(value)
        if not layout.is_static(shape):
            self.graph.varying.add(value.id)
        return value

    def result(
        self,
        shape: Shape,
        order: Order,
        dtype: DataType = DataType.FP32,
        quantization: Quantization | None = None,
        stored: Shape | None = None,
    ) -> Tensor:
        """A new tensor for a node's output."""
        stored = shape if stored is None else stored
        value = self.define(layout.physical(stored, order), dtype, quantization)
        return Tensor(shape, order, stored, value)

    def input(self, shape: Shape, order: Order, dtype: torch.dtype, external_id: int) -> Tensor:
        """An external input in ``order``."""
        if dtype not in EXTERNAL_TYPES:
            raise LoweringError(f"{dtype} is not a type of XNNPACK inputs")
        tensor = self.result(shape, order, EXTERNAL_TYPES[dtype])
        assert tensor.value is not None
        tensor.value.external_id = external_id
        tensor.value.is_input = True
        self.graph.inputs.append(tensor.value.id)
        return tensor

    def dtype_of(self, tensor: Tensor) -> DataType:
        if tensor.value is not None:
            return tensor.value.dtype
        return FLOAT_TYPES[tensor.real().dtype]
