"""Constant folding: compute what depends on constants alone."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import GraphModule, Node

from penstock.compiler.fx import layout
from penstock.compiler.fx.attributes import attribute
from penstock.compiler.fx.edit import get_attribute, operator_name
from penstock.compiler.fx.marks import MADE, Made
from penstock.compiler.fx.origins import describe_origin
from penstock.compiler.fx.writes import is_write, written_by

aten = torch.ops.aten

#: A folded tensor may not be this much larger than what it was computed from.
MAX_GROWTH_BYTES = 64 * 2**20

#: Quantization of weights stays visible: the delegate wants the integers, not the reals.
KEPT_NAMESPACES = {"quantized_decomposed", "torchao"}
#: What makes the integers of a weight that was left as it is (``fold_quantize=False``).
ROUNDING = "quantized_decomposed::quantize_per_"
RANDOM = torch.Tag.nondeterministic_seeded

#: Operators that read only the shape and type of their first argument.
SHAPE_ONLY = {
    aten.new_zeros.default,
    aten.new_ones.default,
    aten.new_full.default,
    aten.new_empty.default,
    aten.zeros_like.default,
    aten.ones_like.default,
    aten.full_like.default,
    aten.empty_like.default,
    aten.fill.Scalar,
    aten.fill.Tensor,
}


def apply(module: GraphModule) -> int:
    """Given an operator whose every tensor input is a constant (position tables, masks, folded
    scales, ``arange``, ``zeros_like`` of a static shape …) → Result: a ``get_attr`` of its value.

    So is every result that has no elements. Writes in place to such values are carried out too, in
    their order and through views, so a mask that the model paints region by region is one constant
    afterwards. What is also written to at run time is left alone, and all views of it.
    """
    variable: set[Node] = set()
    while True:
        folding = _Folding(module, frozenset(variable))
        for node in list(module.graph.nodes):
            folding.visit(node)
        if folding.written <= variable:
            return folding.finish()
        variable |= folding.written


class _Folding:
    """The values known so far, and which constants the rest of the graph needs. ``variable`` are
    nodes that must not be known, ``written`` those that turn out to be such."""

    def __init__(self, module: GraphModule, variable: frozenset[Node]) -> None:
        self.module = module
        self.variable = variable
        self.written: set[Node] = set()
        self.known: dict[Node, Any] = {}
        #: storages made here; only those are written to
        self.owned: set[int] = set()
        self.writes = 0
        self.any_writes = any(is_write(node) for node in module.graph.nodes)
        self.state = _written_attributes(module)
        #: (known node, writes so far) -> its value then, and who reads that
        self.needed: dict[tuple[Node, int], tuple[Any, list[Node]]] = {}

    def visit(self, node: Node) -> None:
        if node.op == "get_attr":
            if "val" in node.meta and str(node.target) not in self.state:
                self.known[node] = attribute(self.module, str(node.target))
        elif _is_empty(node):
            self.known[node] = torch.empty(
                layout.shape_of(node.meta["val"]), dtype=node.meta["val"].dtype
            )
        elif node not in self.variable and self._foldable(node):
            self._fold(node)
        if node not in self.known:
            if is_write(node):
                self._note_write(node)
            for source in node.all_input_nodes:
                if source in self.known and source.op != "get_attr":
                    self._need(source, node)

    def _note_write(self, node: Node) -> None:
        """A write at run time: whatever shares memory with its target is no constant."""
        targets = {_storage(self.known.get(source)) for source in written_by(node)} & self.owned
        if targets:
            self.written.update(
                known
                for known, value in self.known.items()
                if any(_storage(item) in targets for item in _items(value))
            )

    def _need(self, source: Node, reader: Node) -> None:
        key = (source, self.writes)
        if key not in self.needed:
            value = self.known[source]
            if self.any_writes and isinstance(value, torch.Tensor):
                value = value.clone()
            self.needed[key] = (value, [])
        self.needed[key][1].append(reader)

    def _foldable(self, node: Node) -> bool:
        if node.op != "call_function":
            return False
        target = node.target
        if isinstance(target, torch._ops.OpOverload):
            kept = target.namespace in KEPT_NAMESPACES
            if (kept and not target._schema.name.startswith(ROUNDING)) or RANDOM in target.tags:
                return False
            if is_write(node) and not self._writes_to_owned(node):
                return False
        elif getattr(target, "__module__", "") not in ("_operator", "operator", "math"):
            return False
        return all(source in self.known for source in self._inputs(node))

    def _inputs(self, node: Node) -> list[Node]:
        """The nodes whose values matter."""
        if node.target in SHAPE_ONLY and _static(node):
            return [source for source in node.all_input_nodes if source is not node.args[0]]
        return node.all_input_nodes

    def _writes_to_owned(self, node: Node) -> bool:
        written = self.known.get(node.args[0]) if isinstance(node.args[0], Node) else None
        return (
            isinstance(written, torch.Tensor) and written.untyped_storage().data_ptr() in self.owned
        )

    def _fold(self, node: Node) -> None:
        def value_of(source: Node) -> Any:
            if source in self.known:
                return self.known[source]
            # Only the type is read, and the shape where it is the result's.
            shape = layout.shape_of(node.meta["val"])
            return torch.empty((), dtype=source.meta["val"].dtype).expand(shape)

        args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), value_of)
        target = node.target
        if target in (aten.view.default, aten._unsafe_view.default):
            # What made the input contiguous may have been dropped.
            target = aten.reshape.default
        with torch.no_grad():
            value = target(*args, **kwargs)  # type: ignore[operator]
        if is_write(node):
            self.writes += 1
        elif (
            _bytes(value) - sum(_bytes(self.known.get(source)) for source in node.all_input_nodes)
            > MAX_GROWTH_BYTES
        ):
            return
        self.known[node] = value
        inputs = {_storage(self.known.get(source)) for source in node.all_input_nodes}
        for item in _items(value):
            storage = _storage(item)
            if storage is not None and storage not in inputs:
                self.owned.add(storage)

    def finish(self) -> int:
        changes = 0
        for (source, _), (value, readers) in self.needed.items():
            if not isinstance(value, torch.Tensor):
                self._keep_number(source, value, readers)
                continue
            fresh = get_attribute(self.module, source, value, "_folded")
            fresh.meta[MADE] = self._made(source)
            for reader in dict.fromkeys(readers):
                reader.replace_input_with(source, fresh)
            changes += 1
        for node in reversed(list(self.module.graph.nodes)):
            if node in self.known and not node.users and node.op == "call_function":
                self.module.graph.erase_node(node)
        return changes

    def _made(self, node: Node) -> Made:
        """Which operator made the value of ``node``, from how much of the model's constants."""
        seen: set[Node] = set()
        waiting, sources = [node], 0
        while waiting:
            one = waiting.pop()
            if one in seen or one not in self.known:
                continue
            seen.add(one)
            if one.op == "get_attr":
                made: Made | None = one.meta.get(MADE)
                sources += _bytes(self.known[one]) if made is None else made.source_bytes
            waiting += one.all_input_nodes
        return Made(operator_name(node), describe_origin(node), sources)

    @staticmethod
    def _keep_number(source: Node, value: Any, readers: list[Node]) -> None:
        """Numbers go straight into their readers' arguments."""
        if not isinstance(value, (int, float, bool)):
            return
        for reader in readers:
            reader.args, reader.kwargs = torch.fx.node.map_arg(
                (reader.args, reader.kwargs), lambda item: value if item is source else item
            )


def _is_empty(node: Node) -> bool:
    """Whether the node's result has no elements, hence nothing to compute, or to write."""
    return (
        node.op == "call_function"
        and isinstance(node.target, torch._ops.OpOverload)
        and _static(node)
        and 0 in layout.shape_of(node.meta["val"])
    )


def _written_attributes(module: GraphModule) -> set[str]:
    """Names of parameters and buffers that the model writes to: state, not constants."""
    written: set[str] = set()
    for node in module.graph.nodes:
        if is_write(node) and node.args and isinstance(node.args[0], Node):
            root = node.args[0]
            while root.op == "call_function" and root.args and isinstance(root.args[0], Node):
                root = root.args[0]
            if root.op == "get_attr":
                written.add(str(root.target))
    return written


def _static(node: Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, torch.Tensor) and layout.is_static(layout.shape_of(value))


def _storage(value: Any) -> int | None:
    return value.untyped_storage().data_ptr() if isinstance(value, torch.Tensor) else None


def _items(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, (tuple, list)) else (value,)


def _bytes(value: Any) -> int:
    if isinstance(value, (tuple, list)):
        return sum(map(_bytes, value))
    return value.untyped_storage().nbytes() if isinstance(value, torch.Tensor) else 0
