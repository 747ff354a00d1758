"""Complex tensors become pairs of real ones, whose arithmetic XNNPACK has."""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch.fx import GraphModule, Node
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import _disable_current_modes

from penstock.compiler.fx import origins
from penstock.compiler.fx.attributes import attribute
from penstock.compiler.fx.edit import call, fake_mode, get_attribute
from penstock.compiler.fx.marks import FLOAT_ONLY, STATE
from penstock.compiler.fx.record import Recording, record, with_constant
from penstock.compiler.fx.size_nodes import SizeNodes
from penstock.compiler.rewrite import fourier, remove_no_ops
from penstock.compiler.rewrite.complex_operators import (
    MAKERS,
    OPERATORS,
    PARTWISE,
    concerns,
    partwise,
)
from penstock.compiler.rewrite.complex_tensor import REAL, Complex, NoRealForm
from penstock.compiler.rewrite.inline import Inlining
from penstock.compiler.rewrite.remove_no_ops import ASSERTIONS
from penstock.errors import UnsupportedError

aten = torch.ops.aten

#: Why the nodes made here are not quantized.
REASON = "it computes with complex numbers or a spectrum, whose range int8 does not hold"


def apply(module: GraphModule) -> int:
    """Given operators on complex tensors → Result: the same on pairs of real tensors (Fourier
    transforms by products with matrices, or by the kernel for real input). Complex tensors are
    left where the program takes or gives them.

    Raises :class:`UnsupportedError` for an operator that has no such form.
    """
    if not any(map(_concerned, module.graph.nodes)):
        return 0
    with fake_mode(module):
        changes = _Pairs(module).run()
    module.graph.eliminate_dead_code()
    remove_no_ops.apply(module)
    return changes


def _concerned(node: Node) -> bool:
    if node.target in MAKERS:
        return True
    values = [node.meta.get("val"), *(s.meta.get("val") for s in node.all_input_nodes)]
    return any(map(_is_complex, pytree.tree_leaves(values)))


def _is_complex(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.dtype in REAL


class _Pairs:
    """The pair of each complex node of ``module``, as fake tensors whose nodes are known."""

    def __init__(self, module: GraphModule) -> None:
        self.module = module
        self.sizes = SizeNodes(module)
        #: what a complex node is now: pairs, or lists of them
        self.values: dict[Node, Any] = {}
        #: real tensors, by identity, to the nodes that make them
        self.nodes: dict[int, Node] = {}
        #: kept so that identities stay taken
        self.kept: list[Any] = []
        #: moduli, and the sums of squares that they are the roots of
        self.squares: dict[Node, Node] = {}

    def run(self) -> int:
        changes = 0
        for node in list(self.module.graph.nodes):
            if not _concerned(node):
                self._use_square(node)
            elif node.op in ("placeholder", "get_attr"):
                self._enter(node)
            elif node.op == "output":
                self._leave(node)
            elif node.target is operator.getitem:
                self._pick(node)
            elif node.target in ASSERTIONS:
                self.module.graph.erase_node(node)
            else:
                self._rewrite(node)
                changes += 1
        for node in reversed(list(self.module.graph.nodes)):
            if not node.users and node.op == "call_function" and node in self.values:
                self.module.graph.erase_node(node)
        return changes

    def _pick(self, node: Node) -> None:
        source, place = node.args
        assert isinstance(source, Node)
        item = self.values[source][place]
        self.values[node] = item
        if not isinstance(item, Complex):
            node.replace_all_uses_with(self.nodes[id(item)])

    def _known(self, value: torch.Tensor, node: Node) -> torch.Tensor:
        self.nodes[id(value)] = node
        self.kept.append(value)
        return value

    def _enter(self, node: Node) -> None:
        """A complex input, or constant."""
        module, value = self.module, node.meta["val"]
        if value.dtype not in REAL:
            raise UnsupportedError(f"{node.name} has type {value.dtype}; use complex64 instead")
        if node.op == "get_attr":
            with _disable_current_modes():
                whole = attribute(module, str(node.target)).resolve_conj()
                real, imaginary = whole.real.contiguous(), whole.imag.contiguous()
            parts = [
                get_attribute(module, node, part, f"_{name}")
                for name, part in (("real", real), ("imaginary", imaginary))
            ]
            for part in parts:
                part.meta["val"] = with_constant(attribute(module, str(part.target)))
            self.values[node] = Complex(*(self._known(p.meta["val"], p) for p in parts))
            return
        anchor = node.next
        while anchor.op in ("placeholder", "get_attr"):
            anchor = anchor.next
        stacked = call(module, anchor, aten.view_as_real.default, node)
        parts = [call(module, anchor, aten.select.int, stacked, -1, place) for place in (0, 1)]
        re, im, pair = (self._known(part.meta["val"], part) for part in (*parts, stacked))
        self.values[node] = Complex(re, im, self._known(value, node), pair)

    def _leave(self, output: Node) -> None:
        """Complex tensors again, where the program gives them."""
        for source in output.all_input_nodes:
            if source not in self.values or source.op == "placeholder":
                continue
            whole = functools.partial(fourier.to_complex, self.values[source])
            recording = self._record(output, whole)
            (made,) = self._insert(output, recording)
            output.replace_input_with(source, made)

    def _rewrite(self, node: Node) -> None:
        if not isinstance(node.target, torch._ops.OpOverload):
            raise UnsupportedError(
                f"{node.target} of complex tensors cannot be compiled; pass real and imaginary"
                f" parts instead{origins.describe_origin(node)}"
            )
        target = node.target
        if target is STATE:
            raise UnsupportedError(
                f"the model writes to the complex buffer {node.args[0]}; keep real and imaginary"
                " parts in two buffers"
            )
        if isinstance(node.meta["val"], (torch.SymInt, int)):  # a size
            for source in node.all_input_nodes:
                if source in self.values:
                    node.replace_input_with(source, self.nodes[id(self.values[source].re)])
            return

        def compute() -> Any:
            args, kwargs = torch.fx.node.map_arg((node.args, node.kwargs), self._value)
            found = on_pairs(target, args, kwargs)
            return target(*args, **kwargs) if found is NotImplemented else found

        recording = self._record(node, compute)
        result, _ = recording.result
        whole = isinstance(result, torch.Tensor) and not isinstance(result, Complex)
        if whole and result.is_complex():
            raise UnsupportedError(
                f"{node.target} gives complex numbers and has no form in real ones"
                f"{origins.describe_origin(node)}"
            )
        made = self._insert(node, recording)
        if _is_complex(node.meta["val"]) or isinstance(result, (list, tuple)):
            self.values[node] = result
            return
        node.replace_all_uses_with(made[0])
        if target is aten.abs.default:
            self._note_square(made[0])
        self.module.graph.erase_node(node)

    def _value(self, source: Node) -> Any:
        if source in self.values:
            return self.values[source]
        value = source.meta["val"]
        if isinstance(value, torch.Tensor):
            if source.op == "get_attr" and id(value) not in self.nodes:
                value = source.meta["val"] = with_constant(
                    attribute(self.module, str(source.target))
                )
            self._known(value, source)
        return value

    def _record(self, node: Node, compute: Callable[[], Any]) -> Recording:
        def flat() -> Any:
            result = compute()
            return result, _real_tensors(result)

        try:
            return record(flat, [], _OnPairs())
        except NoRealForm as missing:
            why = f" ({missing})" if missing.args else ""
            raise UnsupportedError(
                f"{node.target} of complex numbers cannot be compiled{why}; compute it from real"
                f" and imaginary parts{origins.describe_origin(node)}"
            ) from None
        except (RuntimeError, TypeError, ValueError, IndexError) as error:
            if node.op != "call_function":
                raise
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise UnsupportedError(
                f"{node.target} of complex numbers cannot be compiled ({reason}); compute it from"
                f" real and imaginary parts{origins.describe_origin(node)}"
            ) from error

    def _insert(self, node: Node, recording: Recording) -> list[Node]:
        """Puts the recorded calls before ``node``; the nodes of the result's tensors."""
        inlining = Inlining(self.module, node, [], self.sizes)
        inlining.nodes = self.nodes
        made = inlining.insert(recording.calls, recording.result[1])
        self.kept.append(recording)
        for item in inlining.made:
            item.meta[FLOAT_ONLY] = REASON
        return made

    # --- |z|² without the root -------------------------------------------------------------------

    def _note_square(self, modulus: Node) -> None:
        if modulus.target is aten.sqrt.default and isinstance(modulus.args[0], Node):
            self.squares[modulus] = modulus.args[0]

    def _use_square(self, node: Node) -> None:
        """The square of a modulus is the sum that it is the root of."""
        squaring = (
            node.target is aten.square.default
            or (node.target is aten.pow.Tensor_Scalar and node.args[1] == 2)
            or (node.target is aten.mul.Tensor and node.args[0] is node.args[1])
        )
        square = self.squares.get(node.args[0]) if squaring else None  # type: ignore[arg-type]
        if square is not None:
            node.replace_all_uses_with(square)
            self.module.graph.erase_node(node)


def _real_tensors(result: Any) -> list[torch.Tensor]:
    """The tensors that stand for ``result``."""
    found: list[torch.Tensor] = []
    for leaf in pytree.tree_leaves(result):
        if isinstance(leaf, Complex):
            found += [t for t in (leaf.re, leaf.im, leaf.whole, leaf.stacked) if t is not None]
        elif isinstance(leaf, torch.Tensor):
            found.append(leaf)
    return found


def on_pairs(function: Any, args: Any, kwargs: Any) -> Any:
    """The result of a call that has to do with complex numbers, else ``NotImplemented``."""
    if not concerns(function, pytree.tree_leaves((args, kwargs))):
        return NotImplemented
    if function in OPERATORS:
        return OPERATORS[function](*args, **kwargs)
    if function in PARTWISE:
        return partwise(function, args, kwargs)
    if function.has_kernel_for_dispatch_key(torch._C.DispatchKey.CompositeImplicitAutograd):
        with torch._C._AutoDispatchBelowAutograd():
            return function.decompose(*args, **kwargs)
    table = torch._decomp.decomposition_table
    if function in table and function not in MAKERS:
        return table[function](*args, **kwargs)
    raise NoRealForm


class _OnPairs(Mapping[Any, Callable[..., Any]]):
    """Every operator, as the recorder asks for it."""

    def __getitem__(self, function: Any) -> Callable[..., Any]:
        return lambda *args, **kwargs: on_pairs(function, args, kwargs)

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def __len__(self) -> int:
        return 0
