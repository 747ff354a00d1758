"""Builds an :class:`XnnGraph` of tensor expressions; memory order and broadcasts are lazy.

Lowerings call the methods of :class:`GraphBuilder` with :class:`Tensor` handles and think in
PyTorch's logical shapes. Memory layout is the builder's business: a permutation costs nothing
until something needs the data in another order, so transposes appear only where the graph needs
them, and convolutions run channels-last without anybody asking for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch.fx import GraphModule

from penstock.compiler.delegate.lowering.tensor import (
    FLOAT_TYPES,
    LoweringError,
    Tensor,
)
from penstock.compiler.delegate.lowering.values import GraphValues
from penstock.compiler.fx import layout
from penstock.compiler.fx.layout import Dim, Dynamic, Order, Shape
from penstock.graph import graph
from penstock.graph.dtypes import DataType
from penstock.graph.graph import INVALID_VALUE_ID, Value
from penstock.graph.kinds import Attributes, NodeKind, ReshapeAttributes, TransposeAttributes


class GraphBuilder(GraphValues):
    """Collects values and nodes of one delegate. ``module`` owns the constants (get_attr)."""

    def __init__(self, module: GraphModule, dynamic: Dynamic) -> None:
        super().__init__(module, dynamic)
        self._placed_constants: dict[tuple[object, ...], Value] = {}
        self._reordered: dict[tuple[int, Order, Order], Tensor] = {}
        self._keep_alive: list[torch.Tensor] = []
        #: What lowerings made and would make again in the same way, by keys of their own.
        self.remembered: dict[tuple[object, ...], object] = {}
        #: The indices of dynamic dimensions, by size, once something has asked for them.
        self.positions: dict[Dim, Tensor] = {}
        self.debug_handle = 0

    # --- nodes -------------------------------------------------------------------------------

    def add_node(
        self,
        kind: NodeKind,
        inputs: Sequence[Tensor | None],
        output: Tensor,
        attributes: Attributes | None = None,
        clamp: tuple[float, float] | None = None,
        flags: int = 0,
    ) -> Tensor:
        """Appends a node over the physical values of placed tensors (None: no value)."""
        ids = tuple(
            INVALID_VALUE_ID if tensor is None else self.value_of(tensor).id for tensor in inputs
        )
        node = graph.Node(
            kind, ids, (self.value_of(output).id,), attributes, clamp, flags, self.debug_handle
        )
        self.graph.nodes.append(node)
        return output

    def value_of(self, tensor: Tensor) -> Value:
        if tensor.value is None:
            tensor = self.place(tensor)
        assert tensor.value is not None
        return tensor.value

    # --- layout ------------------------------------------------------------------------------

    def place(
        self, tensor: Tensor, order: Order | None = None, dtype: DataType | None = None
    ) -> Tensor:
        """``tensor`` in memory, in ``order`` (default: the order it has). Reorders constants at
        compile time, everything else by a transpose, or a reshape where no data has to move."""
        order = tensor.order if order is None else order
        if tensor.constant is not None:
            return self._place_constant(tensor, order, dtype)
        if tensor.order == order:
            return tensor
        value = self.value_of(tensor)
        # The same memory may be seen in several logical orders: both orders make the key.
        cached = self._reordered.get((value.id, tensor.order, order))
        if cached is not None and cached.stored == tensor.stored:
            return replace(cached, shape=tensor.shape)
        quantization = value.quantization
        output = self.result(tensor.shape, order, value.dtype, quantization, tensor.stored)
        shape = layout.physical(tensor.stored, order)
        same_memory = layout.same_memory(tensor.stored, tensor.order, order)
        if same_memory and not layout.several_dynamic(shape):
            self._add_reshape(tensor, output, shape)
        else:
            position = layout.inverse(tensor.order)
            perm = tuple(position[dim] for dim in order)
            self.add_node(NodeKind.STATIC_TRANSPOSE, [tensor], output, TransposeAttributes(perm))
        self._reordered[(value.id, tensor.order, order)] = output
        return output

    def _place_constant(self, tensor: Tensor, order: Order, dtype: DataType | None) -> Tensor:
        source = tensor.constant
        assert source is not None
        real = tensor.real()
        if dtype is not None:
            real = real.to({v: k for k, v in FLOAT_TYPES.items()}[dtype])
        key = (
            source.data_ptr(), tuple(source.shape), source.stride(), source.dtype, real.dtype,
            order, id(tensor.constant_quantization),
        )  # fmt: skip
        value = self._placed_constants.get(key)
        if value is None:
            self._keep_alive.append(source)
            if tensor.constant_quantization is not None:
                self._keep_alive.append(tensor.constant_quantization.scale)
            value = self.raw_constant(real.permute(order), FLOAT_TYPES[real.dtype])
            self._placed_constants[key] = value
        return Tensor(tensor.shape, order, tensor.stored, value)

    def constant_of(self, values: torch.Tensor, shape: Shape) -> Tensor:
        """A constant of ``shape``, whose dynamic dimensions ``values`` are expanded along."""
        constant = self.constant(values)
        return constant if constant.shape == shape else self.expand(constant, shape)

    def dense(self, tensor: Tensor) -> Tensor:
        """``tensor`` with every lazily expanded dimension written out."""
        return self.materialize(tensor) if tensor.is_expanded else tensor

    def materialize(self, tensor: Tensor) -> Tensor:
        """An expanded ``tensor`` in memory. Carried out above: see ``expansion``."""
        raise LoweringError("it needs a broadcast tensor in memory")

    def reshape_dynamic(self, tensor: Tensor, shape: Shape) -> Tensor:
        """A reshape to several dynamic dimensions. Carried out above: see ``reshaping``."""
        raise LoweringError("XNNPACK's reshape takes one dynamic dimension")

    def _add_reshape(self, tensor: Tensor, output: Tensor, shape: Shape) -> Tensor:
        """STATIC_RESHAPE to a physical ``shape``: its one dynamic dimension is written as 0."""
        target = tuple(dim if isinstance(dim, int) else 0 for dim in shape)
        attributes = ReshapeAttributes(target)
        return self.add_node(NodeKind.STATIC_RESHAPE, [tensor], output, attributes)

    def permute(self, tensor: Tensor, dims: Sequence[int]) -> Tensor:
        """Logical permutation; moves no data."""
        dims = [dim % tensor.rank for dim in dims]
        shape = tuple(tensor.shape[dim] for dim in dims)
        if tensor.constant is not None:
            return self.constant_of(self.full_constant(tensor).permute(dims), shape)
        return replace(
            tensor,
            shape=shape,
            stored=tuple(tensor.stored[dim] for dim in dims),
            order=layout.permuted(tensor.order, dims),
        )

    def reshape(self, tensor: Tensor, shape: Shape) -> Tensor:
        """Logical reshape; moves data only where the memory order requires it."""
        if shape == tensor.shape:
            return tensor
        if tensor.constant is not None and layout.is_static(tensor.shape):
            return self.constant(self.full_constant(tensor).reshape(shape))
        tensor = self._reshape_expanded(tensor, shape)
        if shape == tensor.shape:
            return tensor
        if layout.several_dynamic(shape):
            return self.reshape_dynamic(tensor, shape)
        try:
            plan = layout.plan_reshape(tensor.shape, tensor.order, shape, self.dynamic)
        except ValueError as error:
            raise LoweringError(str(error)) from None
        if not layout.same_memory(tensor.shape, tensor.order, plan.input_order):
            tensor = self.place(tensor, plan.input_order)
        target = layout.physical(shape, plan.output_order)
        source = layout.physical(tensor.shape, tensor.order)
        value = self.value_of(tensor)
        if source == target:
            return Tensor(shape, plan.output_order, shape, value)
        output = self.result(shape, plan.output_order, value.dtype, value.quantization)
        return self._add_reshape(tensor, output, target)

    def _reshape_expanded(self, tensor: Tensor, shape: Shape) -> Tensor:
        """Keeps an expansion lazy where the reshape only adds or drops dimensions of size 1."""
        if not tensor.is_expanded:
            return tensor
        full = [dim for dim in range(tensor.rank) if tensor.shape[dim] != 1]
        target = [dim for dim in range(len(shape)) if shape[dim] != 1]
        if [tensor.shape[dim] for dim in full] != [shape[dim] for dim in target]:
            return self.dense(tensor)
        stored: list[Dim] = [1] * len(shape)
        for source_dim, target_dim in zip(full, target, strict=True):
            stored[target_dim] = tensor.stored[source_dim]
        narrow = self.reshape(replace(tensor, shape=tensor.stored), tuple(stored))
        return replace(narrow, shape=shape)

    def expand(self, tensor: Tensor, shape: Shape) -> Tensor:
        """Logical expansion (PyTorch's ``expand``); lazy."""
        return replace(self.unsqueeze_front(tensor, len(shape)), shape=shape)

    def unsqueeze_front(self, tensor: Tensor, rank: int) -> Tensor:
        """``tensor`` with dimensions of size 1 put in front until it has ``rank``."""
        ones = rank - tensor.rank
        if ones <= 0:
            return tensor
        front: Shape = (1,) * ones
        wide = self.reshape(replace(tensor, shape=tensor.stored), front + tensor.stored)
        return replace(wide, shape=front + tensor.shape)

    # --- element-wise nodes ------------------------------------------------------------------

    def unary(
        self,
        kind: NodeKind,
        tensor: Tensor,
        attributes: Attributes | None = None,
        clamp: tuple[float, float] | None = None,
    ) -> Tensor:
        """An element-wise node; keeps the order and stays lazily expanded."""
        dtype = self.dtype_of(tensor)
        output = self.result(tensor.shape, tensor.order, dtype, stored=tensor.stored)
        return self.add_node(kind, [tensor], output, attributes, clamp)

    def binary(
        self,
        kind: NodeKind,
        left: Tensor,
        right: Tensor,
        clamp: tuple[float, float] | None = None,
    ) -> Tensor:
        """An element-wise node of two tensors, with broadcasting. The operand with more elements
        decides the order; the other one follows."""
        try:
            shape = layout.broadcast(left.shape, right.shape)
            stored = layout.broadcast(left.stored, right.stored)
        except ValueError as error:
            raise LoweringError(str(error)) from None
        order = self._common_order(left, right, len(shape))
        left, right = (self._aligned(side, order) for side in (left, right))
        if left.constant is None or right.constant is None:
            placed = right if left.constant is not None else left
            dtype = self.dtype_of(placed)
        else:
            dtype = self.dtype_of(left)
        left, right = (self.place(side, side.order, dtype) for side in (left, right))
        output = self.result(shape, order, dtype, stored=stored)
        return self.add_node(kind, [left, right], output, None, clamp)

    def _common_order(self, left: Tensor, right: Tensor, rank: int) -> Order:
        def weight(tensor: Tensor) -> tuple[int, int]:
            elements = 1
            for dim in tensor.stored:
                elements *= self.dynamic.upper(dim)
            return (0 if tensor.is_constant else 1, elements)

        leader = left if weight(left) >= weight(right) else right
        return layout.with_leading_ones(leader.order, rank - leader.rank)

    def _aligned(self, tensor: Tensor, order: Order) -> Tensor:
        """``tensor`` in ``order``, which may have more dimensions than it. XNNPACK broadcasts
        missing leading dimensions by itself, so they are added only where the order needs it."""
        missing = len(order) - tensor.rank
        tail = tuple(dim - missing for dim in order[missing:])
        if order[:missing] == layout.identity(missing) and sorted(tail) == sorted(
            layout.identity(tensor.rank)
        ):
            target = tail
        else:
            tensor, target = self.unsqueeze_front(tensor, len(order)), order
        if tensor.constant is not None:
            return replace(self.constant(tensor.constant), order=target,
                           constant_quantization=tensor.constant_quantization)  # fmt: skip
        return self.place(tensor, target)

    # --- outputs -----------------------------------------------------------------------------

    def output(self, tensor: Tensor, order: Order, external_id: int) -> Value:
        """Makes ``tensor``, brought into ``order``, the external output ``external_id``. A value
        that is an input, a constant or another output already is copied."""
        placed = self.place(self.dense(tensor), order)
        value = self.value_of(placed)
        if value.is_input or value.is_output or value.data is not None:
            copy = self.result(placed.shape, order, value.dtype, value.quantization)
            self.add_node(NodeKind.COPY, [placed], copy)
            value = self.value_of(copy)
        value.external_id = external_id
        value.is_output = True
        self.graph.outputs.append(value.id)
        return value
