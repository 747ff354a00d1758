"""Decompose operators without a kernel into operators that have one."""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.fx import GraphModule, Node

from penstock.compiler.fx import origins, out_variants
from penstock.compiler.fx.all_sizes import SpecializationError
from penstock.compiler.fx.edit import add_attribute, copy_origin, fake, fake_mode
from penstock.compiler.fx.record import Call, Recording, record
from penstock.compiler.fx.size_nodes import SizeNodes
from penstock.compiler.rewrite.decompositions import DECOMPOSITIONS, RESTRICTED, of_prims
from penstock.compiler.rewrite.remove_no_ops import ASSERTIONS
from penstock.errors import UnsupportedError

#: A decomposition of a decomposition of … is followed this far.
MAX_DEPTH = 8


def apply(module: GraphModule) -> int:
    """Given an operator that no kernel implements → Result: the operators of its decomposition
    (views become their copying twins), until every one has a kernel.

    What decomposes and what does not follows from the list of the kernels. Raises
    :class:`UnsupportedError` where that leads nowhere.
    """
    sizes = SizeNodes(module)
    changes = 0
    with fake_mode(module):
        for node in list(module.graph.nodes):
            changes += _decompose(module, node, sizes, 0)
    return changes


def needs_nothing(target: Any) -> bool:
    """Whether there is a kernel, or (sizes, their arithmetic, delegate calls) nothing to run."""
    return not isinstance(target, torch._ops.OpOverload) or out_variants.find(target) is not None


def _decompose(module: GraphModule, node: Node, sizes: SizeNodes, depth: int) -> int:
    if node.op != "call_function":
        return 0
    function = _restricted(node)
    if function is None and needs_nothing(node.target):
        return 0
    target = node.target
    assert isinstance(target, torch._ops.OpOverload)
    twin = None if function or target in DECOMPOSITIONS else out_variants.copying_twin(target)
    if twin is not None:
        node.target = twin
        return 1
    if depth == MAX_DEPTH:
        raise _hopeless(node)
    made = inline_decomposition(module, node, sizes, function or _defined(target))
    return 1 + sum(_decompose(module, item, sizes, depth + 1) for item in made)


def _defined(target: torch._ops.OpOverload) -> Callable[..., Any]:
    """What to call for ``target``: Penstock's own definition where there is one, at the level at
    which operators can be noted; above it PyTorch takes some apart by itself."""
    own = DECOMPOSITIONS.get(target)
    if own is None:
        return target

    def call(*args: Any, **kwargs: Any) -> Any:
        with torch._C._AutoDispatchBelowAutograd():
            return own(*args, **kwargs)

    return call


def _restricted(node: Node) -> Callable[..., Any] | None:
    """What to compute instead of an operator whose kernel does not take these arguments."""
    found = RESTRICTED.get(node.target)
    return found[1] if found is not None and found[0](node) else None


def _hopeless(node: Node) -> UnsupportedError:
    where = origins.describe_origin(node)
    return UnsupportedError(f"{node.target} has neither a kernel nor a decomposition{where}")


class _Decompositions(Mapping[Any, Callable[..., Any]]):
    """How operators without a kernel decompose: as Penstock says, else as their own definition
    does, else as the core ATen set, else by whatever PyTorch has. Asked of few operators, hence
    not worked out for all."""

    def __init__(self) -> None:
        core = torch._decomp._core_aten_decompositions_post_autograd()
        known = torch._decomp.decomposition_table
        self._tables = (core, known, of_prims())
        self._found: dict[Any, Callable[..., Any] | None] = {}

    def _find(self, target: Any) -> Callable[..., Any] | None:
        if target not in self._found:
            self._found[target] = self._search(target)
        return self._found[target]

    def _search(self, target: torch._ops.OpOverload) -> Callable[..., Any] | None:
        if needs_nothing(target):
            return None
        if target in DECOMPOSITIONS:
            return DECOMPOSITIONS[target]
        if out_variants.copying_twin(target) is not None:
            return None
        if target.has_kernel_for_dispatch_key(torch._C.DispatchKey.CompositeImplicitAutograd):
            return target.decompose
        return next((table[target] for table in self._tables if target in table), None)

    def __getitem__(self, target: Any) -> Callable[..., Any]:
        function = self._find(target)
        if function is None:
            raise KeyError(target)
        return function

    def __contains__(self, target: object) -> bool:
        return self._find(target) is not None

    def __iter__(self) -> Any:
        known = dict.fromkeys(
            target for table in (DECOMPOSITIONS, *self._tables) for target in table
        )
        return (t for t in known if isinstance(t, torch._ops.OpOverload) and t in self)

    def __len__(self) -> int:
        return sum(1 for _ in self)


@cache
def _decompositions() -> _Decompositions:
    return _Decompositions()


def inline_decomposition(
    module: GraphModule, node: Node, sizes: SizeNodes, function: Callable[..., Any]
) -> list[Node]:
    """Replaces ``node`` by what ``function`` (its target, or another way to compute that) comes
    to in operators that have kernels; returns the new nodes."""
    sources = [item for item in node.all_input_nodes if _is_tensor(item.meta.get("val"))]
    position = {source: number for number, source in enumerate(sources)}

    def call(*tensors: Any) -> Any:
        args, kwargs = torch.fx.node.map_arg(
            (node.args, node.kwargs),
            lambda item: tensors[position[item]] if item in position else item.meta["val"],
        )
        return function(*args, **kwargs)

    try:
        recording = record(call, [source.meta["val"] for source in sources], _decompositions())
    except SpecializationError as error:
        raise UnsupportedError(
            f"{node.target} has no kernel, and is not composed of others for all sizes alike: "
            f"{error}; give it a fixed size{origins.describe_origin(node)}"
        ) from None
    except (RecursionError, NotImplementedError):  # PyTorch's table may go round in a circle
        raise _hopeless(node) from None
    except (RuntimeError, TypeError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise UnsupportedError(
            f"{node.target} has no kernel, and its definition fails: {reason}"
            f"{origins.describe_origin(node)}"
        ) from error
    unknown = recording.result is NotImplemented
    if unknown or any(item.target is function for item in recording.calls):
        raise _hopeless(node)
    return inline(module, node, sizes, recording)


def inline(module: GraphModule, node: Node, sizes: SizeNodes, recording: Recording) -> list[Node]:
    """Replaces ``node`` by the calls of ``recording``, which was made of the values of its tensor
    inputs; returns the new nodes."""
    sources = [item for item in node.all_input_nodes if _is_tensor(item.meta.get("val"))]
    return Inlining(module, node, sources, sizes).run(recording)


def _equate_sizes(known: Any, made: Any) -> None:
    """Sizes that depend on data are new symbols of what was made; what is known of those of the
    node (that ``torch._check`` bounds them, say) holds for them too."""
    if _is_tensor(known) and _is_tensor(made) and known.dim() == made.dim():
        for one, other in zip(known.shape, made.shape, strict=True):
            if isinstance(one, torch.SymInt) and not one.node.has_hint():
                torch._check(one == other)


def _is_tensor(value: Any) -> bool:
    return isinstance(value, torch.Tensor)


class Inlining:
    """Puts recorded calls into the graph, before ``node``, and its readers onto their result."""

    def __init__(
        self, module: GraphModule, node: Node, sources: list[Node], sizes: SizeNodes
    ) -> None:
        self.module = module
        self.node = node
        self.sizes = sizes
        self.made: list[Node] = []
        self.nodes = {id(source.meta["val"]): source for source in sources}

    def insert(self, calls: Sequence[Call], results: Sequence[torch.Tensor]) -> list[Node]:
        """Puts ``calls`` there; the nodes of ``results``."""
        with self.module.graph.inserting_before(self.node):
            for call in calls:
                if call.target not in ASSERTIONS:
                    self._insert(call)
            return [self._argument(result) for result in results]

    def run(self, recording: Recording) -> list[Node]:
        with self.module.graph.inserting_before(self.node):
            for call in recording.calls:
                if call.target is torch.ops.aten.clone.default:
                    self.nodes[id(call.result)] = self._argument(call.args[0])
                elif call.target not in ASSERTIONS:
                    self._insert(call)
            _equate_sizes(self.node.meta["val"], recording.result)
            self._replace(recording.result)
        return self.made

    def _insert(self, call: Call) -> None:
        args, kwargs = torch.fx.node.map_aggregate((call.args, call.kwargs), self._argument)
        fresh = self._add(call.target, args, dict(kwargs), call.result)
        if isinstance(call.result, (tuple, list)):
            for number, item in enumerate(call.result):
                if _is_tensor(item):
                    self.nodes[id(item)] = self._add(operator.getitem, (fresh, number), {}, item)
        elif _is_tensor(call.result):
            self.nodes[id(call.result)] = fresh
        else:
            self.sizes.know(call.result, fresh)

    def _add(self, target: Any, args: Any, kwargs: dict[str, Any], value: Any) -> Node:
        fresh = self.module.graph.call_function(target, tuple(args), kwargs)
        fresh.meta["val"] = value
        copy_origin(self.node, fresh)
        self.made.append(fresh)
        return fresh

    def _argument(self, value: Any) -> Any:
        if _is_tensor(value):
            return self.nodes[id(value)] if id(value) in self.nodes else self._constant(value)
        return self.sizes.replace(value)

    def _constant(self, tensor: torch.Tensor) -> Node:
        if isinstance(tensor, FakeTensor):
            if tensor.constant is None:
                raise _hopeless(self.node)
            tensor = tensor.constant
        name = add_attribute(self.module, tensor, "_constant")
        made = self.module.graph.create_node("get_attr", name)
        made.meta["val"] = fake(self.module, tensor)
        self.nodes[id(tensor)] = made
        return made

    def _replace(self, result: Any) -> None:
        node = self.node
        if not isinstance(node.meta["val"], (tuple, list)):
            node.replace_all_uses_with(self._argument(result))
        else:
            for user in list(node.users):
                assert user.target is operator.getitem
                user.replace_all_uses_with(self._argument(result[user.args[1]]))
                node.graph.erase_node(user)
        node.graph.erase_node(node)
